use super::{Error, Memory, budget::Budget, write_through::WindowUpdate};
use crate::{
    domain::{
        Content, ConversationRef, Digest, Message, NewMessage, RequestId, Role, SessionId, Title,
        UserId,
    },
    store::{APPEND_LIMIT, Append, Appended, Invalidation, RequestIdentity, StoreError},
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
    /// Whether the conversation should be compacted.
    pub compaction_due: bool,
}

/// Committed turn.
struct Committed {
    /// `None` if it was a replay.
    saved: Option<Saved>,
    outcome: SaveOutcome,
}

/// State of the conversation after a save.
struct Saved {
    owner: UserId,
    uncompacted_tokens: i64,
    /// Whether a message of the turn is pinned.
    has_pinned: bool,
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
        let messages = request.messages;
        // The digest contains what the caller sent. It is computed before tokens are counted.
        let identity = request.request_id.map(|id| RequestIdentity {
            id,
            digest: Digest::of_messages(&messages),
        });
        let messages = self.count_tokens(messages).await?;
        let append = Append {
            title: derive_title(&messages),
            request: identity,
            conversation: request.conversation,
            messages,
            expected_last_seq: request.expected_last_seq,
            session_id: request.session_id,
            invalidation: Invalidation::Never,
            at: self.0.clock.now(),
        };
        let memory = self.clone();
        self.uninterrupted(async move { memory.append(append).await })
            .await
    }

    async fn append(&self, mut append: Append) -> Result<SaveOutcome, Error> {
        let conversation = append.conversation.clone();
        let id = conversation.id;
        let session_id = append.session_id;
        // Without an idempotency key, a retry may save the turn a second time.
        let retry_is_safe = append.is_repeatable();
        let write = async |invalidation| {
            append.invalidation = invalidation;
            let appended = self.0.store.append(&append).await?;
            Ok::<_, StoreError>(Committed::new(append, appended))
        };
        let renew_session = async |committed: &Committed| {
            if let Some(saved) = &committed.saved {
                self.renew_session(session_id, &saved.owner).await;
            }
        };
        let committed = self
            .write_through(
                &conversation,
                APPEND_LIMIT,
                write,
                Committed::window_update,
                renew_session,
            )
            .await
            .map_err(|error| Error::from_write(error, id, retry_is_safe))?;
        let mut outcome = committed.outcome;
        leave_out_texts(&mut outcome.messages);
        if let Some(saved) = committed.saved {
            outcome.compaction_due = self.is_compaction_due(saved.uncompacted_tokens);
        }
        Ok(outcome)
    }
}

impl Committed {
    fn new(append: Append, appended: Appended) -> Self {
        match appended {
            Appended::Saved {
                owner,
                first_seq,
                uncompacted_tokens,
            } => {
                let has_pinned = append.has_pinned();
                let messages: Vec<Message> = (first_seq..)
                    .zip(append.messages)
                    .map(|(seq, message)| {
                        message.into_stored(append.conversation.id, seq, append.at)
                    })
                    .collect();
                Self {
                    saved: Some(Saved {
                        owner,
                        uncompacted_tokens,
                        has_pinned,
                    }),
                    outcome: SaveOutcome {
                        last_seq: messages.last().map_or(first_seq, |message| message.seq),
                        messages,
                        replayed: false,
                        compaction_due: false,
                    },
                }
            }
            Appended::Replayed { last_seq, messages } => Self {
                saved: None,
                outcome: SaveOutcome {
                    messages,
                    last_seq,
                    replayed: true,
                    compaction_due: false,
                },
            },
        }
    }

    fn window_update(&self) -> WindowUpdate<'_> {
        let SaveOutcome {
            messages, last_seq, ..
        } = &self.outcome;
        match &self.saved {
            // A window receives its pinned messages when it is filled.
            Some(saved) if saved.has_pinned => WindowUpdate::Removal,
            Some(saved) => WindowUpdate::Append {
                owner: &saved.owner,
                messages,
                uncompacted_tokens: saved.uncompacted_tokens,
            },
            None => WindowUpdate::Replay {
                last_seq: *last_seq,
            },
        }
    }
}

/// Leaves out the texts of messages that do not fit in a response. The caller has them.
fn leave_out_texts(messages: &mut [Message]) {
    let mut budget = Budget::default();
    for message in messages {
        if !budget.admits(message) {
            message.content = Content::default();
            message.parts.clear();
            message.metadata = None;
        }
    }
}

/// Derives the title for a conversation that has none, from the first user message, and returns
/// it with the index of that message.
pub(super) fn derive_title(messages: &[NewMessage]) -> Option<(Title, usize)> {
    let index = messages
        .iter()
        .position(|message| message.role == Role::User)?;
    let title = Title::from_content(messages[index].content.as_str())?;
    Some((title, index))
}
