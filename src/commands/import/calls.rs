//! The calls of an import, which are repeated while the sidecar is unavailable.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::Stream;
use tokio::{sync::Semaphore, time::sleep};
use tonic::{Code, Status};

use super::stored::{StoredConversation, StoredMessage};
use crate::{
    commands::{
        Failure,
        connection::Client,
        retries::{Retries, is_limit, is_unavailable, reason},
    },
    domain::{ConversationId, Message, UserId},
    proto::{
        self, BranchConversationRequest, DeleteConversationRequest, GetConversationRequest,
        ImportConversationRequest, ListMessagesRequest, SaveMessagesRequest,
    },
};

/// Number of times that a conversation whose id is in use is looked for, and the time between two of
/// them: another import may be about to complete it.
const LOOKS: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Imports at once, at first. A sidecar with few connections accepts a single one.
const CONCURRENT_IMPORTS: usize = 3;

/// Upper bound on a response. One message can be larger than the size that pages have.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

/// Messages of a page.
const PAGE_SIZE: i32 = 1_000;

/// Caller of the sidecar.
pub(super) struct Calls {
    client: Client,
    user: UserId,
    /// Differs in each run of the command, so that the idempotency keys of saves do.
    run: String,
    imports: Semaphore,
    /// Permits of `imports`. There are fewer once the sidecar has rejected a call because of its limit:
    /// each rejection is a delay.
    concurrent_imports: AtomicUsize,
}

/// Result of a call that creates a conversation.
pub(super) enum Creation {
    /// It has this number of messages of its own.
    Done { id: ConversationId, messages: u64 },
    /// A conversation with the id exists.
    Exists {
        /// Whether an attempt of this call whose response was lost may have created it.
        is_unsure: bool,
    },
    /// Rejected with a reason.
    Rejected(String),
    /// Rejected because a message id occurs twice; by an earlier version of the sidecar, also because
    /// another conversation has a message with the id.
    MessageIdReused(String),
}

impl Calls {
    pub(super) fn new(client: Client, user: UserId, run: String) -> Self {
        Self {
            client: client.max_decoding_message_size(MAX_RESPONSE_BYTES),
            user,
            run,
            imports: Semaphore::new(CONCURRENT_IMPORTS),
            concurrent_imports: AtomicUsize::new(CONCURRENT_IMPORTS),
        }
    }

    pub(super) fn user(&self) -> &UserId {
        &self.user
    }

    /// The user's conversation with its messages; `None` if it does not exist, or another user owns it.
    pub(super) async fn stored(
        &self,
        id: ConversationId,
    ) -> Result<Option<StoredConversation>, Failure> {
        let Some(first) = self.get(id, false).await? else {
            return Ok(None);
        };
        let convert = |page: Vec<proto::Message>| {
            let messages = page.into_iter().map(StoredMessage::new);
            messages.collect::<Result<Vec<_>, Failure>>()
        };
        let mut messages = convert(first.messages)?;
        let mut token = first.next_page_token;
        while !token.is_empty() {
            let page = self.page(id, token).await?;
            messages.append(&mut convert(page.messages)?);
            token = page.next_page_token;
        }
        Ok(Some(StoredConversation {
            last_seq: first.conversation.unwrap_or_default().last_seq,
            messages,
        }))
    }

    /// Looks for the user's conversation whose id is in use, which it is before its import is complete.
    /// Returns its last number; `None` if another user owns it.
    pub(super) async fn look_for(&self, id: ConversationId) -> Result<Option<i64>, Failure> {
        for look in 1..=LOOKS {
            if let Some(last_seq) = self.last_seq_of(id).await? {
                return Ok(Some(last_seq));
            }
            if look < LOOKS {
                sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(None)
    }

    /// The last number of a conversation; `None` if the user owns no conversation with this id.
    pub(super) async fn last_seq_of(&self, id: ConversationId) -> Result<Option<i64>, Failure> {
        let found = self.get(id, true).await?;
        Ok(found.map(|found| found.conversation.unwrap_or_default().last_seq))
    }

    async fn get(
        &self,
        id: ConversationId,
        omit_messages: bool,
    ) -> Result<Option<proto::GetConversationResponse>, Failure> {
        let request = GetConversationRequest {
            conversation_id: id.to_string(),
            user_id: self.user.as_str().to_owned(),
            omit_messages,
            page_size: PAGE_SIZE,
            ..GetConversationRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.get_conversation(request.clone()).await {
                Ok(found) => return Ok(Some(found.into_inner())),
                Err(error) if error.code() == Code::NotFound => return Ok(None),
                Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
            }
        }
    }

    async fn page(
        &self,
        id: ConversationId,
        page_token: String,
    ) -> Result<proto::ListMessagesResponse, Failure> {
        let request = ListMessagesRequest {
            conversation_id: id.to_string(),
            user_id: self.user.as_str().to_owned(),
            page_size: PAGE_SIZE,
            page_token,
            ..ListMessagesRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.list_messages(request.clone()).await {
                Ok(page) => return Ok(page.into_inner()),
                Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
            }
        }
    }

    /// Imports a file with its ids.
    pub(super) async fn import<S>(
        &self,
        requests: impl AsyncFn() -> Result<S, Failure>,
    ) -> Result<Creation, Failure>
    where
        S: Stream<Item = ImportConversationRequest> + Send + 'static,
    {
        let mut permit = self.imports.acquire().await?;
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            let error = match client.import_conversation(requests().await?).await {
                Ok(imported) => {
                    let imported = imported.into_inner();
                    let id = imported.conversation.unwrap_or_default().id;
                    return Ok(Creation::Done {
                        id: ConversationId::parse(&id)?,
                        messages: imported.imported_messages.unsigned_abs(),
                    });
                }
                Err(error) => error,
            };
            match reason(&error).as_deref() {
                Some("CONVERSATION_ID_REUSED") => {
                    return Ok(Creation::Exists {
                        is_unsure: retries.is_unsure,
                    });
                }
                Some("MESSAGE_ID_REUSED") => {
                    return Ok(Creation::MessageIdReused(error.message().to_owned()));
                }
                _ => {}
            }
            if is_limit(&error) && self.may_reduce_imports() {
                permit.forget();
                permit = self.imports.acquire().await?;
                continue;
            }
            if let Err(error) = retries.wait(error).await {
                return rejection(&error).map(Creation::Rejected);
            }
        }
    }

    fn may_reduce_imports(&self) -> bool {
        let one_less = |count: usize| (count > 1).then(|| count - 1);
        let count = &self.concurrent_imports;
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    /// Creates a branch without messages of its own.
    pub(super) async fn branch(
        &self,
        parent: ConversationId,
        at_seq: i64,
        id: ConversationId,
    ) -> Result<Creation, Failure> {
        let request = BranchConversationRequest {
            conversation_id: parent.to_string(),
            user_id: self.user.as_str().to_owned(),
            at_seq,
            branch_id: id.to_string(),
            ..BranchConversationRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.branch_conversation(request.clone()).await {
                Ok(_) => return Ok(Creation::Done { id, messages: 0 }),
                Err(error) if error.code() == Code::AlreadyExists => {
                    return Ok(Creation::Exists {
                        is_unsure: retries.is_unsure,
                    });
                }
                Err(error) => {
                    if let Err(error) = retries.wait(error).await {
                        return rejection(&error).map(Creation::Rejected);
                    }
                }
            }
        }
    }

    /// Saves messages to a conversation, which must end at `expected_last_seq` if it is set. Returns
    /// the reason of a rejection.
    pub(super) async fn save(
        &self,
        id: ConversationId,
        messages: &[Message],
        expected_last_seq: Option<i64>,
    ) -> Result<Result<(), SaveError>, Failure> {
        let first = messages.first().map(|message| message.id);
        let request = SaveMessagesRequest {
            // A repetition after a lost response must not be rejected as a change by another caller.
            request_id: first.map_or_else(String::new, |first| format!("{}-{first}", self.run)),
            expected_last_seq,
            ..self.save_request(id, messages)
        };
        self.try_save(request).await
    }

    /// Validates messages as a save does, without saving them: `id` is a conversation that exists.
    /// Returns the reason of a rejection.
    pub(super) async fn check(
        &self,
        id: ConversationId,
        messages: &[Message],
    ) -> Result<Result<(), SaveError>, Failure> {
        let request = SaveMessagesRequest {
            // No conversation ends there, which is checked after the messages.
            expected_last_seq: Some(i64::MAX),
            ..self.save_request(id, messages)
        };
        Ok(match self.try_save(request).await? {
            Err(SaveError::Diverged) => Ok(()),
            checked => checked,
        })
    }

    fn save_request(&self, id: ConversationId, messages: &[Message]) -> SaveMessagesRequest {
        let messages = messages.iter().map(|message| proto::Message {
            conversation_id: String::new(),
            seq: 0,
            ..message.clone().into()
        });
        SaveMessagesRequest {
            conversation_id: id.to_string(),
            user_id: self.user.as_str().to_owned(),
            messages: messages.collect(),
            ..SaveMessagesRequest::default()
        }
    }

    async fn try_save(
        &self,
        request: SaveMessagesRequest,
    ) -> Result<Result<(), SaveError>, Failure> {
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.save_messages(request.clone()).await {
                Ok(_) => return Ok(Ok(())),
                Err(error) if reason(&error).as_deref() == Some("SEQ_MISMATCH") => {
                    return Ok(Err(SaveError::Diverged));
                }
                Err(error) => {
                    if let Err(error) = retries.wait(error).await {
                        return rejection(&error).map(|reason| Err(SaveError::Rejected(reason)));
                    }
                }
            }
        }
    }

    /// Deletes what was imported of a conversation that cannot be imported completely.
    pub(super) async fn delete(&self, ids: &[ConversationId]) -> Result<(), Failure> {
        let mut client = self.client.clone();
        for id in ids.iter().rev() {
            let request = DeleteConversationRequest {
                conversation_id: id.to_string(),
                user_id: self.user.as_str().to_owned(),
            };
            let mut retries = Retries::new();
            loop {
                match client.delete_conversation(request.clone()).await {
                    Ok(_) => break,
                    Err(error) if error.code() == Code::NotFound => break,
                    Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
                }
            }
        }
        Ok(())
    }
}

/// Why messages were not saved.
pub(super) enum SaveError {
    /// The conversation does not end where it was expected to.
    Diverged,
    /// Rejected with a reason.
    Rejected(String),
}

/// Reason of a rejection that concerns one conversation.
///
/// # Errors
/// Fails if the next conversation would be rejected, too.
fn rejection(error: &Status) -> Result<String, Failure> {
    let is_general = matches!(
        error.code(),
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    ) || is_unavailable(error)
        || reason(error).as_deref() == Some("STORE_FULL");
    if is_general {
        Err(failed(error))
    } else {
        Ok(error.message().to_owned())
    }
}

fn failed(error: &Status) -> Failure {
    format!("the import failed: {}", error.message()).into()
}
