//! What is inserted, column by column.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::{Context, Metadata, NewMessage};

/// The columns of the messages, for `unnest`.
#[derive(Default)]
pub(super) struct Messages<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) roles: Vec<&'static str>,
    pub(super) contents: Vec<&'a str>,
    pub(super) tokens_used: Vec<Option<i32>>,
    pub(super) latency_ms: Vec<Option<i32>>,
    pub(super) created_at: Vec<DateTime<Utc>>,
    pub(super) metadata: Vec<Option<Json<&'a Metadata>>>,
}

impl<'a> Messages<'a> {
    /// `at` is the time of those that have none.
    pub(super) fn of(messages: impl Iterator<Item = &'a NewMessage>, at: DateTime<Utc>) -> Self {
        let mut columns = Self::default();
        for message in messages {
            columns.ids.push(message.id.as_uuid());
            columns.roles.push(message.role.as_str());
            columns.contents.push(message.content.as_str());
            columns.tokens_used.push(message.tokens_used);
            columns.latency_ms.push(message.latency_ms);
            columns.created_at.push(message.created_at.unwrap_or(at));
            columns.metadata.push(message.metadata.as_ref().map(Json));
        }
        columns
    }
}

/// The columns of all messages' contexts, for `unnest`.
#[derive(Default)]
pub(super) struct Contexts<'a> {
    /// Of the message, as the caller counts.
    pub(super) places: Vec<i64>,
    pub(super) positions: Vec<i32>,
    pub(super) doc_ids: Vec<&'a str>,
    pub(super) contents: Vec<&'a str>,
    pub(super) scores: Vec<Option<f64>>,
    pub(super) metadata: Vec<Option<Json<&'a Metadata>>>,
}

impl<'a> Contexts<'a> {
    pub(super) fn of(messages: impl Iterator<Item = (i64, &'a NewMessage)>) -> Self {
        let mut columns = Self::default();
        for (place, message) in messages {
            for (position, context) in (0..).zip(&message.contexts) {
                let Context {
                    doc_id,
                    content,
                    score,
                    metadata,
                } = context;
                columns.places.push(place);
                columns.positions.push(position);
                columns.doc_ids.push(doc_id);
                columns.contents.push(content.as_str());
                columns.scores.push(*score);
                columns.metadata.push(metadata.as_ref().map(Json));
            }
        }
        columns
    }
}
