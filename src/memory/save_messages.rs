use super::{Error, Memory, write_through::WindowUpdate};
use crate::{
    domain::{
        ConversationRef, Digest, Message, NewMessage, RequestId, Role, SessionId, Title, UserId,
    },
    store::{APPEND_LIMIT, Append, Appended, RequestIdentity, StoreError},
};

/// Turn to be saved.
#[derive(Clone, Debug)]
pub struct SaveMessages {
    /// Conversation to append to.
    pub conversation: ConversationRef,
    /// Messages in order.
    pub messages: Vec<NewMessage>,
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Number that the conversation must end at; `None` skips the check.
    pub expected_last_seq: Option<i64>,
    /// Session to renew.
    pub session_id: Option<SessionId>,
}

/// Turn that is saved durably.
#[derive(Debug)]
pub struct SaveOutcome {
    /// Messages of the turn, without contexts.
    pub messages: Vec<Message>,
    /// Number of the turn's last message.
    pub last_seq: i64,
    /// Whether an earlier request had saved the turn.
    pub replayed: bool,
}

/// Committed turn; `owner` is `None` if it was a replay.
struct Committed {
    owner: Option<UserId>,
    outcome: SaveOutcome,
}

impl Memory {
    /// Saves a turn, completely or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::SeqMismatch`], [`Error::Reused`], [`Error::Overloaded`]
    /// and [`Error::Unavailable`] mean that nothing was saved; after [`Error::OutcomeUnknown`]
    /// the turn may be saved.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn save_messages(&self, request: SaveMessages) -> Result<SaveOutcome, Error> {
        let append = Append {
            title: derive_title(&request.messages),
            request: request.request_id.map(|id| RequestIdentity {
                id,
                digest: Digest::of_messages(&request.messages),
            }),
            conversation: request.conversation,
            messages: request.messages,
            expected_last_seq: request.expected_last_seq,
            session_id: request.session_id,
            at: self.0.clock.now(),
        };
        let memory = self.clone();
        self.uninterrupted(async move { memory.append(append).await })
            .await
    }

    async fn append(&self, append: Append) -> Result<SaveOutcome, Error> {
        let id = append.conversation.id;
        let session_id = append.session_id;
        // Without an idempotency key, a retry may save the turn a second time.
        let retry_is_safe = append.is_repeatable();
        let write = async {
            let appended = self.0.store.append(&append).await?;
            Ok::<_, StoreError>(Committed::new(append, appended))
        };
        let renew_session = async |committed: &Committed| {
            if let Some(owner) = &committed.owner {
                self.renew_session(session_id, owner).await;
            }
        };
        let committed = self
            .write_through(
                id,
                APPEND_LIMIT,
                write,
                Committed::window_update,
                renew_session,
            )
            .await
            .map_err(|error| Error::from_write(error, id, retry_is_safe))?;
        Ok(committed.outcome)
    }
}

impl Committed {
    fn new(append: Append, appended: Appended) -> Self {
        match appended {
            Appended::Saved { owner, first_seq } => {
                let messages: Vec<Message> = (first_seq..)
                    .zip(append.messages)
                    .map(|(seq, message)| {
                        message.into_stored(append.conversation.id, seq, append.at)
                    })
                    .collect();
                Self {
                    owner: Some(owner),
                    outcome: SaveOutcome {
                        last_seq: messages.last().map_or(first_seq, |message| message.seq),
                        messages,
                        replayed: false,
                    },
                }
            }
            Appended::Replayed { last_seq, messages } => Self {
                owner: None,
                outcome: SaveOutcome {
                    messages,
                    last_seq,
                    replayed: true,
                },
            },
        }
    }

    fn window_update(&self) -> WindowUpdate<'_> {
        let SaveOutcome {
            messages, last_seq, ..
        } = &self.outcome;
        match &self.owner {
            Some(owner) => WindowUpdate::Append { owner, messages },
            None => WindowUpdate::Replay {
                last_seq: *last_seq,
            },
        }
    }
}

/// Derives the title for a conversation that has none, from the first user message.
fn derive_title(messages: &[NewMessage]) -> Option<Title> {
    messages
        .iter()
        .find(|message| message.role == Role::User)
        .and_then(|message| Title::from_content(message.content.as_str()))
}
