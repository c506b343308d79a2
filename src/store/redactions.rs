//! Redactions: removals of the texts of single messages in all conversations that contain them.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Redacted,
    effects::{RemovalEffect, is_derived},
};
use crate::domain::{ConversationId, Message, Role};

/// Message to redact, with the id that it is stored under.
pub(super) struct StoredMessage {
    pub(super) source: Uuid,
    pub(super) message: Message,
}

/// Messages to redact, and the conversations that contain them.
pub(super) struct LocatedMessages {
    /// Messages in ascending order.
    pub(super) messages: Vec<StoredMessage>,
    /// Ids of the conversations, each with the positions in `messages` of those that it contains.
    pub(super) conversations: BTreeMap<Uuid, Vec<usize>>,
}

/// Titles by conversation, each with the number of the message that it was derived from.
pub(super) type Titles = BTreeMap<Uuid, (Option<String>, Option<i64>)>;

impl LocatedMessages {
    /// Returns the effects of the redaction on the conversations. Messages that have been redacted
    /// before have none, so that a retry changes nothing.
    pub(super) fn effects(&self, titles: &Titles) -> Vec<RemovalEffect> {
        let effects = self.conversations.iter().filter_map(|(id, positions)| {
            let removed: Vec<&Message> = positions
                .iter()
                .map(|position| &self.messages[*position].message)
                .filter(|message| !message.redacted)
                .collect();
            let first = removed.iter().map(|message| message.seq).min()?;
            let tokens: u64 = removed.iter().map(|message| message.tokens()).sum();
            Some(RemovalEffect {
                conversation: *id,
                after_seq: first - 1,
                tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
                clears_title: titles
                    .get(id)
                    .is_some_and(|(title, seq)| is_title_of(title.as_deref(), *seq, &removed)),
            })
        });
        effects.collect()
    }

    /// Returns the ids of the conversations.
    pub(super) fn conversation_ids(&self) -> Vec<ConversationId> {
        let ids = self.conversations.keys();
        ids.map(|id| ConversationId::from_uuid(*id)).collect()
    }

    /// Returns the outcome of the redaction.
    pub(super) fn into_redacted(self) -> Redacted {
        let conversations = self.conversation_ids();
        let mut messages: Vec<Message> = self
            .messages
            .into_iter()
            .map(|stored| stored.message)
            .collect();
        messages.iter_mut().for_each(Message::redact);
        Redacted {
            messages,
            conversations,
        }
    }
}

/// Whether a title was derived from one of the messages.
fn is_title_of(title: Option<&str>, title_seq: Option<i64>, messages: &[&Message]) -> bool {
    let Some(title) = title else {
        return false;
    };
    messages.iter().any(|message| match title_seq {
        Some(seq) => message.seq == seq,
        None => message.role == Role::User && is_derived(title, message.content.as_str()),
    })
}

/// Defines `locate` and `erase` for a kind of connection, the function that converts a UUID to the
/// type of a key column, and that type. They are a macro for the same reason as
/// [`reads`](super::reads).
macro_rules! redactions {
    ($connection:ty, $key:path, $column:ty) => {
        use sqlx::{FromRow as _, Row as _, query, query_as};

        use super::{MessageRow, conversations};
        use $crate::{
            domain::{ConversationId, ConversationRef},
            store::{
                Redacted, StoreError,
                operation_error::OperationError,
                redactions::{LocatedMessages, StoredMessage, Titles},
                sql,
            },
        };

        /// Locates messages of a conversation, and all conversations that contain them.
        async fn locate(
            connection: &mut $connection,
            conversation: &ConversationRef,
            seqs: &[i64],
        ) -> Result<LocatedMessages, OperationError> {
            if conversations::find(connection, conversation)
                .await?
                .is_none()
            {
                return Err(StoreError::NotFound.into());
            }
            let seqs: std::collections::BTreeSet<i64> = seqs.iter().copied().collect();
            let mut messages = Vec::with_capacity(seqs.len());
            let mut sources: std::collections::BTreeMap<Uuid, Vec<usize>> =
                std::collections::BTreeMap::new();
            for seq in seqs {
                let row = query(sql::STORED_MESSAGE)
                    .bind($key(conversation.id.as_uuid()))
                    .bind(seq)
                    .fetch_optional(&mut *connection)
                    .await?
                    .ok_or(StoreError::MessageNotFound { seq })?;
                let source: Uuid = row.try_get::<$column, _>("source_id")?.into();
                let message = MessageRow::from_row(&row)?.decode(conversation.id)?;
                sources.entry(source).or_default().push(messages.len());
                messages.push(StoredMessage { source, message });
            }
            let mut located = LocatedMessages {
                messages,
                conversations: std::collections::BTreeMap::new(),
            };
            for (source, positions) in sources {
                find_containing(connection, &mut located, source, &positions).await?;
            }
            Ok(located)
        }

        /// Finds the conversations that contain messages that are stored under `source`.
        async fn find_containing(
            connection: &mut $connection,
            located: &mut LocatedMessages,
            source: Uuid,
            positions: &[usize],
        ) -> Result<(), OperationError> {
            // Positions are in ascending order of the numbers.
            let seq = |position: usize| located.messages[position].message.seq;
            let ranges: Vec<($column, i64, i64)> = query_as(sql::CONTAINING)
                .bind($key(source))
                .bind(positions.first().map(|first| seq(*first)))
                .bind(positions.last().map(|last| seq(*last)))
                .fetch_all(connection)
                .await?;
            for (conversation, after_seq, upto_seq) in ranges {
                for position in positions {
                    let seq = located.messages[*position].message.seq;
                    if seq > after_seq && seq <= upto_seq {
                        let id: Uuid = conversation.into();
                        located.conversations.entry(id).or_default().push(*position);
                    }
                }
            }
            Ok(())
        }

        /// Removes the texts of messages, where they are stored.
        async fn erase(
            connection: &mut $connection,
            located: &LocatedMessages,
        ) -> Result<(), OperationError> {
            for StoredMessage { source, message } in &located.messages {
                if message.redacted {
                    continue;
                }
                for statement in sql::REDACT {
                    query(statement)
                        .bind($key(*source))
                        .bind(message.seq)
                        .execute(&mut *connection)
                        .await?;
                }
            }
            Ok(())
        }
    };
}

pub(super) use redactions;
