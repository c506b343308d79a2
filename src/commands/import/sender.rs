//! Imports one conversation over the API, completely or not at all.

use std::fs::File;

use futures_util::Stream;
use import_formats::{Branch, ImportedConversation};
use tonic::{Code, Status};

use super::{
    archive::{encode, requests_from, requests_of},
    report::{Outcome, Result as ImportResult},
};
use crate::{
    commands::{
        Failure,
        connection::Client,
        retries::{Retries, is_unavailable, reason},
    },
    domain::{Conversation, ConversationId, Message, NewMessage, UserId},
    os_error,
    proto::{
        self, BranchConversationRequest, DeleteConversationRequest, GetConversationRequest,
        ImportConversationRequest, SaveMessagesRequest,
    },
};

/// Approximate size of the messages of one save, in bytes. A save of one larger message is larger.
const SAVE_BYTES: usize = 2 << 20;

/// Client that imports conversations.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) user: UserId,
}

/// Result of the import of one conversation, without its branches.
enum Created {
    Imported {
        id: ConversationId,
        messages: u64,
    },
    Skipped,
    Rejected(String),
    /// Rejected because another conversation has one of its messages.
    MessageIdReused(String),
}

impl Sender {
    /// Imports a conversation of another product with its branches.
    ///
    /// # Errors
    /// Fails if the sidecar cannot be reached or rejects every call.
    pub(super) async fn import(
        &self,
        number: u64,
        imported: ImportedConversation,
    ) -> Result<Outcome, Failure> {
        let ImportedConversation {
            source_id,
            conversation,
            messages,
            branches,
        } = imported;
        let id = conversation.id;
        let created = self.create(&conversation, &messages).await?;
        let mut result = match created {
            Created::Imported { messages, .. } => ImportResult::Imported {
                id,
                messages,
                branches: 0,
            },
            Created::Skipped => ImportResult::Skipped { id },
            Created::Rejected(reason) | Created::MessageIdReused(reason) => {
                return Ok(Outcome::rejected(source_id, number, reason));
            }
        };
        drop(messages);
        // Branches are also created for a conversation that is there already: an earlier import may
        // have been interrupted.
        let mut new_branches = Vec::new();
        for branch in branches {
            match self.branch(&conversation, &branch).await? {
                Created::Imported { id, messages: new } => {
                    new_branches.push(id);
                    if let ImportResult::Imported {
                        messages, branches, ..
                    } = &mut result
                    {
                        *messages += new;
                        *branches += 1;
                    }
                }
                Created::Skipped => {}
                Created::Rejected(reason) | Created::MessageIdReused(reason) => {
                    if matches!(result, ImportResult::Imported { .. }) {
                        new_branches.push(id);
                    }
                    self.delete(&new_branches).await?;
                    let reason = format!("a branch of it was rejected: {reason}");
                    return Ok(Outcome::rejected(source_id, number, reason));
                }
            }
        }
        Ok(Outcome {
            number,
            source_id,
            result,
        })
    }

    /// Imports a conversation that this service exported, with its ids.
    ///
    /// # Errors
    /// Fails as [`Self::import`] does, or if the file cannot be read.
    pub(super) async fn restore(
        &self,
        number: u64,
        name: String,
        file: File,
    ) -> Result<Outcome, Failure> {
        let id = id_of(&file)?;
        let requests = |new_message_ids| {
            requests_from(&self.user, &file, new_message_ids)
                .map_err(|error| format!("cannot read {name}: {}", os_error::describe(&error)))
        };
        let mut created = self.send(id, async || Ok(requests(false)?)).await?;
        // A branch contains the messages of its parent, which has been restored already.
        if matches!(created, Created::MessageIdReused(_)) && id.is_some() {
            created = self.send(id, async || Ok(requests(true)?)).await?;
        }
        let id_or_nil = id.unwrap_or(ConversationId::from_uuid(uuid::Uuid::nil()));
        let result = match created {
            Created::Imported { id, messages } => ImportResult::Imported {
                id,
                messages,
                branches: 0,
            },
            Created::Skipped => ImportResult::Skipped { id: id_or_nil },
            Created::Rejected(reason) | Created::MessageIdReused(reason) => {
                ImportResult::Rejected { reason }
            }
        };
        Ok(Outcome {
            number,
            source_id: Some(name),
            result,
        })
    }

    async fn create(
        &self,
        conversation: &Conversation,
        messages: &[Message],
    ) -> Result<Created, Failure> {
        let file = encode(conversation, messages);
        let requests = async || Ok(requests_of(&self.user, file.clone()));
        self.send(Some(conversation.id), requests).await
    }

    /// Imports a file with its ids.
    async fn send<S>(
        &self,
        id: Option<ConversationId>,
        requests: impl AsyncFn() -> Result<S, Failure>,
    ) -> Result<Created, Failure>
    where
        S: Stream<Item = ImportConversationRequest> + Send + 'static,
    {
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            let error = match client.import_conversation(requests().await?).await {
                Ok(imported) => {
                    let imported = imported.into_inner();
                    let id = imported.conversation.unwrap_or_default().id;
                    return Ok(Created::Imported {
                        id: ConversationId::parse(&id)?,
                        messages: imported.imported_messages.unsigned_abs(),
                    });
                }
                Err(error) => error,
            };
            let is_reused = reason(&error).as_deref() == Some("CONVERSATION_ID_REUSED");
            if let Some(id) = id.filter(|_| is_reused) {
                return Ok(match self.count_of(id).await? {
                    // The response of an earlier attempt was lost.
                    Some(messages) if retries.is_unsure => Created::Imported { id, messages },
                    Some(_) => Created::Skipped,
                    None => Created::Rejected(id_in_use()),
                });
            }
            if reason(&error).as_deref() == Some("MESSAGE_ID_REUSED") {
                return Ok(Created::MessageIdReused(error.message().to_owned()));
            }
            if let Err(error) = retries.wait(error).await {
                return rejection(&error).map(Created::Rejected);
            }
        }
    }

    /// The number of messages of the user's conversation; `None` if another user owns it.
    async fn count_of(&self, id: ConversationId) -> Result<Option<u64>, Failure> {
        let request = GetConversationRequest {
            conversation_id: id.to_string(),
            user_id: self.user.as_str().to_owned(),
            omit_messages: true,
            ..GetConversationRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.get_conversation(request.clone()).await {
                Ok(found) => {
                    let found = found.into_inner().conversation.unwrap_or_default();
                    return Ok(Some(found.last_seq.unsigned_abs()));
                }
                Err(error) if error.code() == Code::NotFound => return Ok(None),
                Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
            }
        }
    }

    async fn branch(&self, parent: &Conversation, branch: &Branch) -> Result<Created, Failure> {
        if branch.at_seq == 0 {
            let conversation = Conversation {
                id: branch.id,
                last_seq: i64::try_from(branch.messages.len())?,
                ..parent.clone()
            };
            return self.create(&conversation, &branch.messages).await;
        }
        let request = BranchConversationRequest {
            conversation_id: branch.parent_id.to_string(),
            user_id: self.user.as_str().to_owned(),
            at_seq: branch.at_seq,
            branch_id: branch.id.to_string(),
            ..BranchConversationRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.branch_conversation(request.clone()).await {
                Ok(_) => break,
                Err(error) if error.code() == Code::AlreadyExists => break,
                Err(error) => {
                    if let Err(error) = retries.wait(error).await {
                        return rejection(&error).map(Created::Rejected);
                    }
                }
            }
        }
        self.save_all(branch).await
    }

    /// Saves the messages of a branch. Those that are there already are not saved again, because
    /// their ids identify them.
    async fn save_all(&self, branch: &Branch) -> Result<Created, Failure> {
        let (mut rest, mut new) = (&branch.messages[..], 0);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |message: &&Message| {
                bytes += message.size() + blob_bytes(message);
                bytes <= SAVE_BYTES
            };
            let count = rest
                .iter()
                .take(NewMessage::MAX_PER_SAVE)
                .take_while(fits)
                .count();
            let (batch, others) = rest.split_at(count.max(1));
            rest = others;
            match self.save(branch, batch).await? {
                Ok(true) => new += batch.len() as u64,
                Ok(false) => {}
                Err(reason) => {
                    // What was imported of it must not remain.
                    self.delete(&[branch.id]).await?;
                    return Ok(Created::Rejected(reason));
                }
            }
        }
        Ok(match new {
            0 => Created::Skipped,
            messages => Created::Imported {
                id: branch.id,
                messages,
            },
        })
    }

    /// Saves messages. Returns whether they are new, or the reason of a rejection.
    async fn save(
        &self,
        branch: &Branch,
        messages: &[Message],
    ) -> Result<Result<bool, String>, Failure> {
        let messages = messages.iter().map(|message| proto::Message {
            conversation_id: String::new(),
            seq: 0,
            ..message.clone().into()
        });
        let request = SaveMessagesRequest {
            conversation_id: branch.id.to_string(),
            user_id: self.user.as_str().to_owned(),
            messages: messages.collect(),
            ..SaveMessagesRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.save_messages(request.clone()).await {
                Ok(saved) => return Ok(Ok(!saved.into_inner().replayed || retries.is_unsure)),
                Err(error) => {
                    if let Err(error) = retries.wait(error).await {
                        return rejection(&error).map(Err);
                    }
                }
            }
        }
    }

    /// Deletes what was imported of a conversation that cannot be imported completely.
    async fn delete(&self, ids: &[ConversationId]) -> Result<(), Failure> {
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

fn blob_bytes(message: &Message) -> usize {
    let blobs = message
        .parts
        .iter()
        .filter_map(crate::domain::Part::as_blob);
    blobs.map(|blob| blob.bytes).sum()
}

fn id_in_use() -> String {
    "its id is in use by another user, or by branches of a deleted conversation".to_owned()
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

/// The id of the conversation in an archive, which begins with it; `None` if it has none.
fn id_of(file: &File) -> Result<Option<ConversationId>, Failure> {
    use std::os::unix::fs::FileExt as _;
    let mut start = [0; 4096];
    let read = file.read_at(&mut start, 0)?;
    let start = String::from_utf8_lossy(&start[..read]);
    let after = |text: &str, key: &str| Some(text.split_once(key)?.1.to_owned());
    let id = after(&start, "\"conversation\"").and_then(|rest| after(&rest, "\"id\""));
    let id = id.and_then(|rest| rest.split('"').nth(1).map(str::to_owned));
    Ok(id.and_then(|id| ConversationId::parse(&id).ok()))
}
