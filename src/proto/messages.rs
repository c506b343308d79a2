//! Messages of conversations in the encoding of the API.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use super::{Message, Part, RetrievedContext, Role, part::Kind, structs};
use crate::domain::{self, AuthorName, RawPart};

impl From<domain::Message> for Message {
    fn from(message: domain::Message) -> Self {
        Self {
            id: message.id.to_string(),
            conversation_id: message.conversation_id.to_string(),
            seq: message.seq,
            role: Role::from(message.role).into(),
            name: message
                .name
                .clone()
                .map(AuthorName::into_string)
                .unwrap_or_default(),
            parts: message.raw_parts().into_iter().map(Part::from).collect(),
            is_summary: message.is_summary(),
            token_count: message.token_count,
            pinned: message.pinned,
            redacted: message.redacted,
            content: message.content.into_string(),
            tokens_used: message.tokens_used,
            latency_ms: message.latency_ms,
            created_at: Some(timestamp(message.created_at)),
            metadata: message.metadata.map(structs::render),
            contexts: message
                .contexts
                .into_iter()
                .map(RetrievedContext::from)
                .collect(),
        }
    }
}

impl From<domain::Role> for Role {
    fn from(role: domain::Role) -> Self {
        match role {
            domain::Role::User => Self::User,
            domain::Role::Assistant => Self::Assistant,
            domain::Role::System => Self::System,
            domain::Role::Tool => Self::Tool,
        }
    }
}

impl From<RawPart> for Part {
    fn from(part: RawPart) -> Self {
        let kind = match part {
            RawPart::Text { content } => Kind::Text(super::TextPart { content }),
            RawPart::Reasoning { content } => Kind::Reasoning(super::ReasoningPart { content }),
            RawPart::ToolCall {
                id,
                name,
                arguments,
            } => Kind::ToolCall(super::ToolCallPart {
                id,
                name,
                arguments,
            }),
            RawPart::ToolCallResponse { id, response } => {
                Kind::ToolCallResponse(super::ToolCallResponsePart { id, response })
            }
            RawPart::Blob {
                mime_type,
                modality,
                data,
                bytes,
            } => Kind::Blob(super::BlobPart {
                mime_type,
                modality,
                data: data.unwrap_or_default(),
                size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            }),
            RawPart::Uri {
                mime_type,
                modality,
                uri,
            } => Kind::Uri(super::UriPart {
                mime_type,
                modality,
                uri,
            }),
            RawPart::File {
                mime_type,
                modality,
                file_id,
            } => Kind::File(super::FilePart {
                mime_type,
                modality,
                file_id,
            }),
            RawPart::Generic { generic_type, json } => Kind::Generic(super::GenericPart {
                r#type: generic_type,
                json,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<domain::RetrievedContext> for RetrievedContext {
    fn from(context: domain::RetrievedContext) -> Self {
        Self {
            doc_id: context.doc_id,
            content: context.content.into_string(),
            score: context.score,
            metadata: context.metadata.map(structs::render),
        }
    }
}

/// Converts a time of the years 1 to 9999.
#[expect(clippy::cast_possible_wrap, reason = "below 2,000,000,000")]
pub(crate) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: time.timestamp_subsec_nanos() as i32,
    }
}
