//! Insertion of messages, column by column. A new column is added only in this file: to the
//! struct, to its placeholders and to its binding.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    domain::{AuthorName, NewMessage, Part, RetrievedContext},
    store::metadata_json::{self, MetadataJson},
};

/// Placeholders that [`bind_contexts`], [`bind_blobs`] and [`bind_messages`] bind, after the other
/// parameters of the statement.
macro_rules! placeholders {
    (append contexts) => {
        "$13, $14, $15, $16, $17, $18"
    };
    (append blobs) => {
        "$19, $20, $21"
    };
    (append messages) => {
        "$22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33"
    };
    (batch contexts) => {
        "$16, $17, $18, $19, $20, $21"
    };
    (batch blobs) => {
        "$23, $24, $25"
    };
    (batch messages) => {
        "$27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38"
    };
    (import contexts) => {
        "$2, $3, $4, $5, $6, $7"
    };
    (import blobs) => {
        "$2, $3, $4"
    };
    (import messages) => {
        "$3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14"
    };
}
pub(super) use placeholders;

/// Columns of [`MessageColumns`], in the order of the placeholders.
macro_rules! message_values {
    ($prefix:literal) => {
        concat!(
            $crate::store::sql::common_columns!($prefix),
            ", ",
            $crate::store::sql::own_message_columns!($prefix)
        )
    };
}
pub(super) use message_values;

/// Values of messages, one array for each column, for `unnest`.
#[derive(Default)]
pub(super) struct MessageColumns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) created_at: Vec<DateTime<Utc>>,
    pub(super) metadata: Vec<Option<Json<MetadataJson<'a>>>>,
    pub(super) roles: Vec<&'static str>,
    pub(super) contents: Vec<&'a str>,
    pub(super) tokens_used: Vec<Option<i32>>,
    pub(super) latency_ms: Vec<Option<i32>>,
    pub(super) names: Vec<Option<&'a str>>,
    pub(super) parts: Vec<Option<Json<&'a [Part]>>>,
    pub(super) token_counts: Vec<Option<i32>>,
    pub(super) pinned: Vec<bool>,
    pub(super) redacted: Vec<bool>,
}

/// Binds [`MessageColumns`] to a query.
macro_rules! bind_messages {
    ($query:expr, $columns:ident) => {
        $query
            .bind($columns.ids)
            .bind($columns.created_at)
            .bind($columns.metadata)
            .bind($columns.roles)
            .bind($columns.contents)
            .bind($columns.tokens_used)
            .bind($columns.latency_ms)
            .bind($columns.names)
            .bind($columns.parts)
            .bind($columns.token_counts)
            .bind($columns.pinned)
            .bind($columns.redacted)
    };
}
pub(super) use bind_messages;

impl<'a> MessageColumns<'a> {
    /// Collects the columns. `at` is the time of messages that have none.
    pub(super) fn new(messages: impl Iterator<Item = &'a NewMessage>, at: DateTime<Utc>) -> Self {
        let mut columns = Self::default();
        columns.extend(messages, at);
        columns
    }

    /// Adds messages. See [`Self::new`].
    pub(super) fn extend(
        &mut self,
        messages: impl Iterator<Item = &'a NewMessage>,
        at: DateTime<Utc>,
    ) {
        for message in messages {
            self.ids.push(message.id.as_uuid());
            self.created_at.push(message.created_at.unwrap_or(at));
            self.metadata
                .push(message.metadata.as_ref().map(metadata_json::bindable));
            self.roles.push(message.role.as_str());
            self.contents.push(message.content.as_str());
            self.tokens_used.push(message.tokens_used);
            self.latency_ms.push(message.latency_ms);
            let name = message.name.as_ref().map(AuthorName::as_str);
            self.names.push(name);
            let parts = (!message.parts.is_empty()).then_some(Json(&message.parts[..]));
            self.parts.push(parts);
            self.token_counts.push(message.token_count);
            self.pinned.push(message.pinned);
            self.redacted.push(message.redacted);
        }
    }
}

/// Values of the contexts of messages, one array for each column, for `unnest`.
#[derive(Default)]
pub(super) struct ContextColumns<'a> {
    /// Numbers of the contexts' messages, as the statement counts them.
    pub(super) message_numbers: Vec<i64>,
    /// Positions of the contexts in their messages, from 0.
    pub(super) positions: Vec<i32>,
    pub(super) doc_ids: Vec<&'a str>,
    pub(super) contents: Vec<&'a str>,
    pub(super) scores: Vec<Option<f64>>,
    pub(super) metadata: Vec<Option<Json<MetadataJson<'a>>>>,
}

/// Binds [`ContextColumns`] to a query.
macro_rules! bind_contexts {
    ($query:expr, $columns:ident) => {
        $query
            .bind($columns.message_numbers)
            .bind($columns.positions)
            .bind($columns.doc_ids)
            .bind($columns.contents)
            .bind($columns.scores)
            .bind($columns.metadata)
    };
}
pub(super) use bind_contexts;

impl<'a> ContextColumns<'a> {
    /// Collects the columns of the contexts of numbered messages.
    pub(super) fn new(messages: impl Iterator<Item = (i64, &'a NewMessage)>) -> Self {
        let mut columns = Self::default();
        for (number, message) in messages {
            for (position, context) in (0..).zip(&message.contexts) {
                let RetrievedContext {
                    doc_id,
                    content,
                    score,
                    metadata,
                } = context;
                columns.message_numbers.push(number);
                columns.positions.push(position);
                columns.doc_ids.push(doc_id);
                columns.contents.push(content.as_str());
                columns.scores.push(*score);
                columns
                    .metadata
                    .push(metadata.as_ref().map(metadata_json::bindable));
            }
        }
        columns
    }
}

/// Data of the blobs of messages, one array for each column, for `unnest`.
#[derive(Default)]
pub(super) struct BlobColumns<'a> {
    /// Numbers of the blobs' messages, as the statement counts them.
    pub(super) message_numbers: Vec<i64>,
    /// Indices of the parts in their messages, from 0.
    pub(super) positions: Vec<i32>,
    pub(super) data: Vec<&'a [u8]>,
}

/// Binds [`BlobColumns`] to a query.
macro_rules! bind_blobs {
    ($query:expr, $columns:ident) => {
        $query
            .bind($columns.message_numbers)
            .bind($columns.positions)
            .bind($columns.data)
    };
}
pub(super) use bind_blobs;

impl<'a> BlobColumns<'a> {
    /// Collects the columns of the blobs of numbered messages.
    pub(super) fn new(messages: impl Iterator<Item = (i64, &'a NewMessage)>) -> Self {
        let mut columns = Self::default();
        for (number, message) in messages {
            for (position, part) in (0..).zip(&message.parts) {
                if let Some(data) = part.as_blob().and_then(|blob| blob.data.as_ref()) {
                    columns.message_numbers.push(number);
                    columns.positions.push(position);
                    columns.data.push(data);
                }
            }
        }
        columns
    }
}
