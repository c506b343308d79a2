//! Imports one conversation over the API, completely or not at all.

use std::{fs::File, time::Duration};

use futures_util::Stream;
use import_formats::{ImportedConversation, START_BYTES, archive_id};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::{
    archive::{encode, requests_from, requests_of},
    paths::{Path, Paths, Stored},
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
        ImportConversationRequest, ListMessagesRequest, SaveMessagesRequest,
    },
};

/// Approximate size of the messages of one save, in bytes. A save of one larger message is larger.
const SAVE_BYTES: usize = 2 << 20;

/// Number of times that a conversation whose id is in use is looked for, and the time between two of
/// them: another import may be about to complete it.
const LOOKS: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

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
        /// Whether this import has created the conversation.
        is_new: bool,
    },
    /// The sidecar has the conversation already.
    Skipped,
    /// The sidecar has the conversation. An attempt of this import whose response was lost may have
    /// created it, with all of its messages.
    Found {
        messages: u64,
    },
    Rejected(String),
    /// Rejected because a message id occurs twice; by an earlier version of the sidecar, also because
    /// another conversation has a message with the id.
    MessageIdReused(String),
}

impl Sender {
    /// Imports a conversation of another product with its branches. What an earlier import has stored
    /// of it is continued.
    ///
    /// # Errors
    /// Fails if the sidecar cannot be reached or rejects every call.
    pub(super) async fn import(
        &self,
        number: u64,
        imported: ImportedConversation,
    ) -> Result<Outcome, Failure> {
        let (source_id, conversation, mut paths) = Paths::of(imported);
        let id = conversation.id;
        let (mut is_new, mut messages, mut branches) = (false, 0, 0);
        let mut created_ids = Vec::new();
        let mut index = 0;
        while let Some(path) = paths.get(index) {
            let path_id = path.id;
            let begun = self.begin(&conversation, path).await?;
            let is_certain = !matches!(begun, Created::Found { .. });
            let created = match begun {
                Created::Skipped => self.resume(&mut paths, index).await?,
                Created::Found { messages } => match self.resume(&mut paths, index).await? {
                    Created::Skipped => Created::Imported {
                        id: path_id,
                        messages,
                        is_new: true,
                    },
                    resumed => resumed,
                },
                created => created,
            };
            match created {
                Created::Imported { is_new: true, .. } if index == 0 => is_new = true,
                Created::Imported { is_new: true, .. } => branches += 1,
                Created::Rejected(reason) | Created::MessageIdReused(reason) => {
                    self.delete(&created_ids).await?;
                    let reason = match index {
                        0 => reason,
                        _ => format!("a branch of it was rejected: {reason}"),
                    };
                    return Ok(Outcome::rejected(source_id, number, reason));
                }
                _ => {}
            }
            if let Created::Imported {
                messages: new,
                is_new,
                ..
            } = created
            {
                messages += new;
                // One that may have existed before must not be deleted.
                if is_new && is_certain {
                    created_ids.push(path_id);
                }
            }
            paths.release(index);
            index += 1;
        }
        let result = match (is_new, messages + branches) {
            (true, _) => ImportResult::Imported {
                id,
                messages,
                branches,
            },
            (false, 0) => ImportResult::Skipped { id },
            (false, _) => ImportResult::Continued {
                id,
                messages,
                branches,
            },
        };
        Ok(Outcome {
            number,
            source_id,
            result,
        })
    }

    /// Creates the conversation of a path with its messages, unless it exists.
    async fn begin(&self, conversation: &Conversation, path: &Path) -> Result<Created, Failure> {
        let Some(parent) = path.parent else {
            let conversation = Conversation {
                id: path.id,
                last_seq: i64::try_from(path.messages.len())?,
                ..conversation.clone()
            };
            return self.create(&conversation, &path.messages).await;
        };
        match self.branch(parent, path).await? {
            Created::Imported { is_new: true, .. } => {
                let saved = self.save_all(path.id, &path.messages, None).await?;
                if let Created::Rejected(_) = saved {
                    // What was imported of it must not remain.
                    self.delete(&[path.id]).await?;
                }
                Ok(saved)
            }
            created => Ok(created),
        }
    }

    /// Adds the messages of a path that are not stored yet to its conversation, which exists.
    async fn resume(&self, paths: &mut Paths, index: usize) -> Result<Created, Failure> {
        let Some(path) = paths.get(index) else {
            return Ok(Created::Skipped);
        };
        let (id, first) = (path.id, path.at_seq);
        let Some(last_seq) = self.last_seq_of(id).await? else {
            return Ok(Created::Rejected(id_in_use()));
        };
        let (page, _) = self.page(id, String::new(), Some(1)).await?;
        let newest = page.first().copied();
        if newest.map_or(0, |newest| newest.seq) != last_seq {
            // It was truncated: what was removed must not come back.
            return Ok(Created::Skipped);
        }
        let newest = newest.filter(|newest| newest.seq > first);
        let stored = match newest {
            None => 0,
            Some(newest) => {
                let position = usize::try_from(newest.seq - first - 1)?;
                let same = path.messages.get(position);
                if same.is_some_and(|message| message.id.as_uuid() == newest.id) {
                    position + 1
                } else {
                    let stored = self.messages_after(id, first).await?;
                    if !(first + 1..)
                        .zip(&stored)
                        .all(|(seq, stored)| seq == stored.seq)
                    {
                        return Ok(Created::Skipped);
                    }
                    match paths.follow(index, &stored) {
                        Some(stored) => stored,
                        None => return Ok(Created::Rejected(diverged())),
                    }
                }
            }
        };
        let Some(path) = paths.get(index) else {
            return Ok(Created::Skipped);
        };
        match path.messages.get(stored..) {
            None | Some([]) => Ok(Created::Skipped),
            Some(rest) => self.save_all(id, rest, Some(last_seq)).await,
        }
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
        // For an earlier version, a branch that contains the messages of its restored parent.
        if matches!(created, Created::MessageIdReused(_)) && id.is_some() {
            created = self.send(id, async || Ok(requests(true)?)).await?;
        }
        let id_or_nil = id.unwrap_or(ConversationId::from_uuid(uuid::Uuid::nil()));
        let result = match created {
            Created::Imported { id, messages, .. } => ImportResult::Imported {
                id,
                messages,
                branches: 0,
            },
            // An import of one file is complete or has no effect.
            Created::Found { messages } => ImportResult::Imported {
                id: id_or_nil,
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
                        is_new: true,
                    });
                }
                Err(error) => error,
            };
            let is_reused = reason(&error).as_deref() == Some("CONVERSATION_ID_REUSED");
            if let Some(id) = id.filter(|_| is_reused) {
                return Ok(match self.look_for(id).await? {
                    Some(last_seq) if retries.is_unsure => Created::Found {
                        messages: last_seq.unsigned_abs(),
                    },
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

    /// The last number of the user's conversation whose id is in use; `None` if another user owns it. An
    /// id is in use before its import is complete.
    async fn look_for(&self, id: ConversationId) -> Result<Option<i64>, Failure> {
        for _ in 1..LOOKS {
            if let Some(last_seq) = self.last_seq_of(id).await? {
                return Ok(Some(last_seq));
            }
            sleep(LOOK_INTERVAL).await;
        }
        self.last_seq_of(id).await
    }

    /// The last number of the user's conversation; `None` if another user owns it.
    async fn last_seq_of(&self, id: ConversationId) -> Result<Option<i64>, Failure> {
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
                    return Ok(Some(found.last_seq));
                }
                Err(error) if error.code() == Code::NotFound => return Ok(None),
                Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
            }
        }
    }

    /// The own messages of a conversation after a number.
    async fn messages_after(&self, id: ConversationId, seq: i64) -> Result<Vec<Stored>, Failure> {
        let (mut stored, mut token) = (Vec::new(), String::new());
        loop {
            let (page, next) = self.page(id, token, None).await?;
            stored.extend(page.into_iter().filter(|message| message.seq > seq));
            if next.is_empty() {
                return Ok(stored);
            }
            token = next;
        }
    }

    /// A page of the messages of a conversation, or the newest ones, and the token of the next page.
    async fn page(
        &self,
        id: ConversationId,
        page_token: String,
        newest: Option<i32>,
    ) -> Result<(Vec<Stored>, String), Failure> {
        let request = ListMessagesRequest {
            conversation_id: id.to_string(),
            user_id: self.user.as_str().to_owned(),
            page_size: newest.unwrap_or(1_000),
            newest_first: newest.is_some(),
            page_token,
            ..ListMessagesRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.list_messages(request.clone()).await {
                Ok(page) => {
                    let page = page.into_inner();
                    let messages = page.messages.into_iter().map(|message| {
                        Ok(Stored {
                            seq: message.seq,
                            id: message.id.parse()?,
                        })
                    });
                    let messages: Result<_, Failure> = messages.collect();
                    return Ok((messages?, page.next_page_token));
                }
                Err(error) => retries.wait(error).await.map_err(|error| failed(&error))?,
            }
        }
    }

    /// Creates the branch of a path, without its messages.
    async fn branch(&self, parent: ConversationId, path: &Path) -> Result<Created, Failure> {
        let request = BranchConversationRequest {
            conversation_id: parent.to_string(),
            user_id: self.user.as_str().to_owned(),
            at_seq: path.at_seq,
            branch_id: path.id.to_string(),
            ..BranchConversationRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.branch_conversation(request.clone()).await {
                Ok(_) => {
                    return Ok(Created::Imported {
                        id: path.id,
                        messages: 0,
                        is_new: true,
                    });
                }
                Err(error) if error.code() == Code::AlreadyExists => return Ok(Created::Skipped),
                Err(error) => {
                    if let Err(error) = retries.wait(error).await {
                        return rejection(&error).map(Created::Rejected);
                    }
                }
            }
        }
    }

    /// Saves messages to a conversation. If it must end at `last_seq`, it is continued, otherwise it is
    /// new.
    async fn save_all(
        &self,
        id: ConversationId,
        messages: &[Message],
        last_seq: Option<i64>,
    ) -> Result<Created, Failure> {
        let (mut rest, mut expected) = (messages, last_seq);
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
            if let Err(reason) = self.save(id, batch, expected).await? {
                return Ok(Created::Rejected(reason));
            }
            let saved = i64::try_from(batch.len())?;
            expected = expected.map(|seq| seq + saved);
        }
        Ok(Created::Imported {
            id,
            messages: messages.len() as u64,
            is_new: last_seq.is_none(),
        })
    }

    /// Saves messages. Returns the reason of a rejection.
    async fn save(
        &self,
        id: ConversationId,
        messages: &[Message],
        expected_last_seq: Option<i64>,
    ) -> Result<Result<(), String>, Failure> {
        let messages = messages.iter().map(|message| proto::Message {
            conversation_id: String::new(),
            seq: 0,
            ..message.clone().into()
        });
        let request = SaveMessagesRequest {
            conversation_id: id.to_string(),
            user_id: self.user.as_str().to_owned(),
            messages: messages.collect(),
            expected_last_seq,
            ..SaveMessagesRequest::default()
        };
        let mut client = self.client.clone();
        let mut retries = Retries::new();
        loop {
            match client.save_messages(request.clone()).await {
                Ok(_) => return Ok(Ok(())),
                Err(error) if reason(&error).as_deref() == Some("SEQ_MISMATCH") => {
                    return Ok(Err(diverged()));
                }
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

fn diverged() -> String {
    "it was changed here in a way that its export does not continue: delete it first to import it \
     again"
        .to_owned()
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
    let mut start = vec![0; usize::try_from(START_BYTES)?];
    let read = file.read_at(&mut start, 0)?;
    let id = archive_id(&start[..read]);
    Ok(id.and_then(|id| ConversationId::parse(&id).ok()))
}
