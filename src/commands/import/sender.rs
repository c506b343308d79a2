//! Imports one conversation over the API, completely or not at all.

use std::{collections::HashSet, fs::File, ops::Range};

use import_formats::{ImportedConversation, START_BYTES, archive_id};

use super::{
    archive::{encode, requests_from, requests_of},
    calls::{Calls, Creation, SaveError},
    paths::{Path, Paths, Step},
    report::{Outcome, Result as ImportResult},
    stored::StoredConversation,
};
use crate::{
    commands::Failure,
    domain::{Conversation, ConversationId, Message, NewMessage, Part},
    os_error,
};

/// Approximate size of the messages of one save, in bytes. A save of one larger message is larger.
const SAVE_BYTES: usize = 2 << 20;

/// Client that imports conversations.
pub(super) struct Sender {
    pub(super) calls: Calls,
}

/// What an import has written.
#[derive(Default)]
struct Written {
    /// Conversations that this import has created for certain, each after the one that it branches from.
    created: Vec<ConversationId>,
    /// Whether the main conversation is new.
    is_new: bool,
    messages: u64,
    branches: u64,
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
        let mut written = Written::default();
        let performed = self.perform(&conversation, &mut paths, &mut written);
        let changed = match performed.await? {
            Ok(changed) => changed,
            Err(reason) => {
                self.calls.delete(&written.created).await?;
                return Ok(Outcome::rejected(source_id, number, reason));
            }
        };
        let Written {
            messages, branches, ..
        } = written;
        let result = match (written.is_new, messages + branches) {
            (true, _) => ImportResult::Imported {
                id,
                messages,
                branches,
            },
            (false, 0) => ImportResult::Skipped { id, changed },
            (false, _) => ImportResult::Continued {
                id,
                messages,
                branches,
                changed,
            },
        };
        Ok(Outcome {
            number,
            source_id,
            entry: None,
            result,
        })
    }

    /// Plans what to write, checks it and writes it. Returns as [`Self::plan`] does.
    async fn perform(
        &self,
        conversation: &Conversation,
        paths: &mut Paths,
        written: &mut Written,
    ) -> Result<Result<u64, String>, Failure> {
        let changed = match self.plan(paths).await? {
            Ok(changed) => changed,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Err(reason) = self.check(paths).await? {
            return Ok(Err(reason));
        }
        let outcome = self.write(conversation, paths, written).await?;
        Ok(outcome.map(|()| changed))
    }

    /// Decides what to write of each path. Returns the number of messages whose content differs from
    /// the stored one, or the reason of a rejection.
    async fn plan(&self, paths: &mut Paths) -> Result<Result<u64, String>, Failure> {
        let mut new = HashSet::new();
        let (mut changed, mut index) = (0, 0);
        while let Some(path) = paths.get(index) {
            let id = path.id;
            let is_new = path.parent.is_some_and(|parent| new.contains(&parent));
            let stored = if is_new {
                None
            } else {
                self.calls.stored(id).await?
            };
            match stored {
                None => {
                    new.insert(id);
                }
                Some(stored) => match resume(paths, index, &stored) {
                    Ok(differing) => changed += differing,
                    Err(reason) => return Ok(Err(rejected_at(index, reason))),
                },
            }
            index += 1;
        }
        Ok(Ok(changed))
    }

    /// Checks all messages before the first one is written, if what was written could not be removed
    /// again: messages that a conversation continues with. Returns the reason of a rejection.
    async fn check(&self, paths: &Paths) -> Result<Result<(), String>, Failure> {
        let continued = paths
            .iter()
            .find(|path| matches!(path.step, Step::Append { .. }));
        let Some(continued) = continued else {
            return Ok(Ok(()));
        };
        let batches = || {
            let paths = paths.iter().enumerate();
            paths.flat_map(|(index, path)| {
                batches(path.unwritten()).map(move |batch| (index, path, batch))
            })
        };
        // One save is complete or has no effect.
        if batches().nth(1).is_none() {
            return Ok(Ok(()));
        }
        for (index, path, batch) in batches() {
            let messages = &path.unwritten()[batch.clone()];
            if let Err(error) = self.calls.check(continued.id, messages).await? {
                let reason = reason_of(error, path.first_unwritten() + batch.start);
                return Ok(Err(rejected_at(index, reason)));
            }
        }
        Ok(Ok(()))
    }

    /// Writes what was planned. Returns the reason of a rejection.
    async fn write(
        &self,
        conversation: &Conversation,
        paths: &mut Paths,
        written: &mut Written,
    ) -> Result<Result<(), String>, Failure> {
        let mut index = 0;
        while paths.get(index).is_some() {
            if let Err(reason) = self.write_path(conversation, paths, index, written).await? {
                return Ok(Err(rejected_at(index, reason)));
            }
            paths.release(index);
            index += 1;
        }
        Ok(Ok(()))
    }

    async fn write_path(
        &self,
        conversation: &Conversation,
        paths: &mut Paths,
        index: usize,
        written: &mut Written,
    ) -> Result<Result<(), String>, Failure> {
        let Some(path) = paths.get(index) else {
            return Ok(Ok(()));
        };
        let id = path.id;
        if let Step::Create = path.step {
            let is_new = match self.create(conversation, path).await? {
                Creation::Done { messages, .. } => {
                    let step = match path.parent {
                        None => Step::Nothing,
                        // It has only the messages that it shares.
                        Some(_) => Step::Append {
                            from: 0,
                            last_seq: None,
                        },
                    };
                    paths.set_step(index, step);
                    written.created.push(id);
                    written.messages += messages;
                    true
                }
                Creation::Exists { is_unsure } => {
                    let count = path.messages.len() as u64;
                    if self.calls.look_for(id).await?.is_none() {
                        return Ok(Err(id_in_use()));
                    }
                    let Some(stored) = self.calls.stored(id).await? else {
                        return Ok(Err(id_in_use()));
                    };
                    if let Err(reason) = resume(paths, index, &stored) {
                        return Ok(Err(reason));
                    }
                    let unwritten = paths.get(index).map_or(0, |path| path.unwritten().len());
                    if is_unsure {
                        // What the attempt whose response was lost has written.
                        written.messages += count.saturating_sub(unwritten as u64);
                    }
                    is_unsure
                }
                Creation::Rejected(reason) | Creation::MessageIdReused(reason) => {
                    return Ok(Err(reason));
                }
            };
            if is_new {
                written.add_conversation(index);
            }
        }
        match paths.get(index) {
            Some(path) => self.append(path, written).await,
            None => Ok(Ok(())),
        }
    }

    /// Creates the conversation of a path: one with its messages, or a branch without its own.
    async fn create(&self, conversation: &Conversation, path: &Path) -> Result<Creation, Failure> {
        if let Some(parent) = path.parent {
            return self.calls.branch(parent, path.at_seq, path.id).await;
        }
        let conversation = Conversation {
            id: path.id,
            last_seq: i64::try_from(path.messages.len())?,
            ..conversation.clone()
        };
        let file = encode(&conversation, &path.messages);
        let requests = async || Ok(requests_of(self.calls.user(), file.clone()));
        Ok(match self.calls.import(requests).await? {
            Creation::Rejected(reason) => Creation::Rejected(in_line(&reason)),
            created => created,
        })
    }

    /// Saves the messages of a path that are not stored yet.
    async fn append(
        &self,
        path: &Path,
        written: &mut Written,
    ) -> Result<Result<(), String>, Failure> {
        let Step::Append { last_seq, .. } = path.step else {
            return Ok(Ok(()));
        };
        let mut expected = last_seq;
        for batch in batches(path.unwritten()) {
            let messages = &path.unwritten()[batch.clone()];
            if let Err(error) = self.calls.save(path.id, messages, expected).await? {
                let reason = reason_of(error, path.first_unwritten() + batch.start);
                return Ok(Err(reason));
            }
            let saved = i64::try_from(messages.len())?;
            expected = expected.map(|seq| seq + saved);
            written.messages += messages.len() as u64;
        }
        Ok(Ok(()))
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
        Ok(Outcome {
            number,
            result: self.restored(&name, &file).await?,
            source_id: Some(name),
            entry: None,
        })
    }

    async fn restored(&self, name: &str, file: &File) -> Result<ImportResult, Failure> {
        let rejected = |reason: String| Ok(ImportResult::Rejected { reason });
        let id = id_of(file)?;
        if let Some(id) = id
            && self.calls.last_seq_of(id).await?.is_some()
        {
            return Ok(ImportResult::Skipped { id, changed: 0 });
        }
        let requests = |new_message_ids| {
            requests_from(self.calls.user(), file, new_message_ids)
                .map_err(|error| format!("cannot read {name}: {}", os_error::describe(&error)))
        };
        let mut created = self.calls.import(async || Ok(requests(false)?)).await?;
        // For an earlier version, a branch that contains the messages of its restored parent.
        if matches!(created, Creation::MessageIdReused(_)) && id.is_some() {
            created = self.calls.import(async || Ok(requests(true)?)).await?;
        }
        let id_or_nil = id.unwrap_or(ConversationId::from_uuid(uuid::Uuid::nil()));
        match created {
            Creation::Done { id, messages } => Ok(ImportResult::Imported {
                id,
                messages,
                branches: 0,
            }),
            Creation::Exists { is_unsure } => match self.calls.look_for(id_or_nil).await? {
                None => rejected(id_in_use()),
                // It did not exist before, and the import of one file is complete or has no effect.
                Some(last_seq) if is_unsure => Ok(ImportResult::Imported {
                    id: id_or_nil,
                    messages: last_seq.unsigned_abs(),
                    branches: 0,
                }),
                Some(_) => Ok(ImportResult::Skipped {
                    id: id_or_nil,
                    changed: 0,
                }),
            },
            Creation::Rejected(reason) | Creation::MessageIdReused(reason) => rejected(reason),
        }
    }
}

impl Written {
    fn add_conversation(&mut self, index: usize) {
        match index {
            0 => self.is_new = true,
            _ => self.branches += 1,
        }
    }
}

/// Plans to add the messages of a path that are not stored yet to its conversation. Returns the number
/// of messages whose content differs from the stored one, or the reason of a rejection.
fn resume(paths: &mut Paths, index: usize, stored: &StoredConversation) -> Result<u64, String> {
    paths.set_step(index, Step::Nothing);
    let Some(path) = paths.get(index) else {
        return Ok(0);
    };
    let first = path.at_seq;
    let own = stored.messages.iter().copied();
    let own: Vec<_> = own.filter(|message| message.seq > first).collect();
    let is_complete = (first + 1..).zip(&own).all(|(seq, own)| seq == own.seq);
    let newest = stored.messages.last().map_or(0, |newest| newest.seq);
    if !is_complete || newest != stored.last_seq {
        // It was truncated: what was removed must not come back.
        return Ok(0);
    }
    let pairs = path.messages.iter().zip(&own);
    let differing = pairs
        .take_while(|(message, stored)| stored.is(message))
        .filter(|(message, stored)| stored.differs_from(message))
        .count();
    let from = paths.follow(index, &own).ok_or_else(diverged)?;
    let is_longer = paths
        .get(index)
        .is_some_and(|path| path.messages.len() > from);
    if is_longer {
        let last_seq = Some(stored.last_seq);
        paths.set_step(index, Step::Append { from, last_seq });
    }
    Ok(differing as u64)
}

/// Ranges of messages that are saved together.
fn batches(messages: &[Message]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.size() + blob_bytes(message);
            bytes <= SAVE_BYTES
        };
        let rest = messages.get(start..).filter(|rest| !rest.is_empty())?;
        let count = rest.iter().take(NewMessage::MAX_PER_SAVE);
        let count = count.take_while(fits).count().max(1);
        start += count;
        Some(start - count..start)
    })
}

fn blob_bytes(message: &Message) -> usize {
    let blobs = message.parts.iter().filter_map(Part::as_blob);
    blobs.map(|blob| blob.bytes).sum()
}

/// The reason for which messages were not saved, of which the first one has the number `first`.
fn reason_of(error: SaveError, first: usize) -> String {
    match error {
        SaveError::Diverged => diverged(),
        SaveError::Rejected(reason) => {
            let index = reason.strip_prefix("messages[").and_then(|rest| {
                let (index, member) = rest.split_once(']')?;
                Some((index.parse::<usize>().ok()?, member))
            });
            match index {
                Some((index, member)) => {
                    let member = member.trim_start_matches(['.', ' ']);
                    format!("message {}: {member}", first + index)
                }
                // The request is too large for the sidecar, or was rejected as a whole.
                None => format!("message {first} or a later one: {reason}"),
            }
        }
    }
}

/// The reason for which a file was rejected that has a message in each line but the first.
fn in_line(reason: &str) -> String {
    let line = reason.strip_prefix("line ").and_then(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_digit())?;
        let line: u64 = rest[..end].parse().ok()?;
        let member = rest[end..].trim_start_matches([':', ' ']);
        Some((line.checked_sub(1).filter(|number| *number > 0)?, member))
    });
    match line {
        Some((number, member)) => format!("message {number}: {member}"),
        None => reason.to_owned(),
    }
}

fn rejected_at(index: usize, reason: String) -> String {
    match index {
        0 => reason,
        _ => format!("a branch of it was rejected: {reason}"),
    }
}

fn diverged() -> String {
    "it was changed here in a way that its export does not continue: delete it first to import it \
     again"
        .to_owned()
}

fn id_in_use() -> String {
    "its id is in use by another user, or by branches of a deleted conversation".to_owned()
}

/// The id of the conversation in an archive, which begins with it; `None` if it has none.
fn id_of(file: &File) -> Result<Option<ConversationId>, Failure> {
    use std::os::unix::fs::FileExt as _;
    let mut start = vec![0; usize::try_from(START_BYTES)?];
    let read = file.read_at(&mut start, 0)?;
    let id = archive_id(&start[..read]);
    Ok(id.and_then(|id| ConversationId::parse(&id).ok()))
}
