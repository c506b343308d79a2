use super::{Error, Memory};
use crate::{
    domain::{
        ConversationRef, Digest, Message, NewMessage, RequestId, Role, SessionId, Title, UserId,
    },
    recent::Announcement,
    store::{APPEND_LIMIT, Append, Appended, Request, StoreError},
};

/// A turn to be saved.
#[derive(Clone, Debug)]
pub struct SaveMessages {
    /// Where to.
    pub conversation: ConversationRef,
    /// What, in order.
    pub messages: Vec<NewMessage>,
    /// The idempotency key.
    pub request_id: Option<RequestId>,
    /// Save only if the conversation still ends here.
    pub expected_last_seq: Option<i64>,
    /// The session to renew.
    pub session_id: Option<SessionId>,
}

/// A turn that is durable.
#[derive(Debug)]
pub struct Saved {
    /// Its messages, without contexts.
    pub messages: Vec<Message>,
    /// The number of the last of them.
    pub last_seq: i64,
    /// Whether it had been saved before.
    pub replayed: bool,
}

impl Memory {
    /// Saves a turn, whole or not at all.
    pub async fn save_messages(&self, request: SaveMessages) -> Result<Saved, Error> {
        let append = Append {
            title: title_of(&request.messages),
            request: request.request_id.map(|id| Request {
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

    async fn append(&self, append: Append) -> Result<Saved, Error> {
        let id = append.conversation.id;
        let announced = self.0.recent.announce(id, APPEND_LIMIT).await;
        match self.0.store.append(&append).await {
            Ok(Appended::Saved { owner, first_seq }) => {
                Ok(self.publish(announced, append, &owner, first_seq).await)
            }
            Ok(Appended::Replayed { last_seq, messages }) => {
                self.0.recent.publish_replay(announced, last_seq).await;
                Ok(Saved {
                    messages,
                    last_seq,
                    replayed: true,
                })
            }
            Err(error) => {
                self.0.recent.settle(announced, &error).await;
                // Without a key a repeated save may be a second one.
                Err(Error::of_write(error, id, append.is_repeatable()))
            }
        }
    }

    async fn publish(
        &self,
        announced: Announcement,
        append: Append,
        owner: &UserId,
        first_seq: i64,
    ) -> Saved {
        let Append {
            conversation,
            messages,
            session_id,
            at,
            ..
        } = append;
        let messages: Vec<Message> = (first_seq..)
            .zip(messages)
            .map(|(seq, message)| message.into_stored(conversation.id, seq, at))
            .collect();
        tokio::join!(
            self.0.recent.publish(announced, owner, &messages),
            self.renew_session(session_id, owner),
        );
        Saved {
            last_seq: messages.last().map_or(first_seq, |message| message.seq),
            messages,
            replayed: false,
        }
    }
}

impl dyn crate::recent::RecentWindow {
    /// Ends an announcement whose write failed.
    pub(super) async fn settle(&self, announced: Announcement, error: &StoreError) {
        match error {
            StoreError::OutcomeUnknown(_) => self.leave(announced).await,
            StoreError::NotFound => self.forget(announced).await,
            _ => self.abort(announced).await,
        }
    }
}

fn title_of(messages: &[NewMessage]) -> Option<Title> {
    messages
        .iter()
        .find(|message| message.role == Role::User)
        .and_then(|message| Title::from_content(message.content.as_str()))
}
