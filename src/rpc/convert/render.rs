use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use crate::{
    domain::{
        AuthorName, Conversation, DeptId, Message, RawPart, RetrievedContext, Role, Session, Title,
    },
    memory::{BeginTurnOutcome, SessionState, Source},
    proto,
    rpc::{convert::captured, structs},
    store::{ConversationPage, SearchHit},
    telemetry::call,
};

/// Renders messages, in their order.
pub(crate) fn messages(messages: Vec<Message>) -> Vec<proto::Message> {
    call::capture_output(|| {
        captured::messages(messages.iter().map(|m| (m.role, m.content.as_str())))
    });
    messages.into_iter().map(message).collect()
}

/// Renders the hits of a search.
pub(crate) fn hits(hits: Vec<SearchHit>) -> Vec<proto::search_messages_response::Hit> {
    call::capture_output(|| {
        let messages = hits.iter().map(|hit| &hit.message);
        captured::messages(messages.map(|m| (m.role, m.content.as_str())))
    });
    hits.into_iter()
        .map(|hit| proto::search_messages_response::Hit {
            message: Some(message(hit.message)),
            conversation_title: hit.title.map(Title::into_string).unwrap_or_default(),
            snippet: hit.snippet,
            rank: hit.key.rank,
        })
        .collect()
}

fn message(message: Message) -> proto::Message {
    proto::Message {
        id: message.id.to_string(),
        conversation_id: message.conversation_id.to_string(),
        seq: message.seq,
        role: role(message.role).into(),
        name: message
            .name
            .clone()
            .map(AuthorName::into_string)
            .unwrap_or_default(),
        parts: message.raw_parts().into_iter().map(part).collect(),
        is_summary: message.is_summary(),
        token_count: message.token_count,
        pinned: message.pinned,
        redacted: message.redacted,
        content: message.content.into_string(),
        tokens_used: message.tokens_used,
        latency_ms: message.latency_ms,
        created_at: Some(timestamp(message.created_at)),
        metadata: message.metadata.map(structs::render),
        contexts: message.contexts.into_iter().map(context).collect(),
    }
}

fn part(part: RawPart) -> proto::Part {
    use proto::part::Kind;
    let kind = match part {
        RawPart::Text { content } => Kind::Text(proto::TextPart { content }),
        RawPart::Reasoning { content } => Kind::Reasoning(proto::ReasoningPart { content }),
        RawPart::ToolCall {
            id,
            name,
            arguments,
        } => Kind::ToolCall(proto::ToolCallPart {
            id,
            name,
            arguments,
        }),
        RawPart::ToolCallResponse { id, response } => {
            Kind::ToolCallResponse(proto::ToolCallResponsePart { id, response })
        }
        RawPart::Blob {
            mime_type,
            modality,
            data,
            bytes,
        } => Kind::Blob(proto::BlobPart {
            mime_type,
            modality,
            data: data.unwrap_or_default(),
            size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }),
        RawPart::Uri {
            mime_type,
            modality,
            uri,
        } => Kind::Uri(proto::UriPart {
            mime_type,
            modality,
            uri,
        }),
        RawPart::File {
            mime_type,
            modality,
            file_id,
        } => Kind::File(proto::FilePart {
            mime_type,
            modality,
            file_id,
        }),
        RawPart::Generic { generic_type, json } => Kind::Generic(proto::GenericPart {
            r#type: generic_type,
            json,
        }),
    };
    proto::Part { kind: Some(kind) }
}

/// Renders a conversation.
pub(crate) fn conversation(conversation: Conversation) -> proto::Conversation {
    proto::Conversation {
        id: conversation.id.to_string(),
        user_id: conversation.user_id.into_string(),
        dept_id: conversation
            .dept_id
            .map(DeptId::into_string)
            .unwrap_or_default(),
        title: conversation
            .title
            .map(Title::into_string)
            .unwrap_or_default(),
        last_seq: conversation.last_seq,
        created_at: Some(timestamp(conversation.created_at)),
        updated_at: Some(timestamp(conversation.updated_at)),
        metadata: conversation.metadata.map(structs::render),
        parent_id: conversation
            .parent_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        branched_at_seq: conversation.branched_at_seq.unwrap_or_default(),
        compacted_upto_seq: conversation.compacted_upto_seq,
    }
}

/// Renders a page of conversations, with the key after which the next page starts.
pub(crate) fn conversation_page(page: ConversationPage) -> (Vec<proto::Conversation>, Option<i64>) {
    let conversations = page.conversations.into_iter().map(conversation);
    (conversations.collect(), page.next)
}

/// Renders a session.
pub(crate) fn session(session: Session) -> proto::Session {
    proto::Session {
        id: session.id.to_string(),
        user_id: session.user_id.into_string(),
        dept_id: session.dept_id.map(DeptId::into_string).unwrap_or_default(),
        conversation_id: session
            .conversation_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        created_at: Some(timestamp(session.created_at)),
        last_active_at: Some(timestamp(session.last_active_at)),
        expires_at: Some(timestamp(session.expires_at)),
    }
}

/// Renders the result of `BeginTurn`.
pub(crate) fn begun(begun: BeginTurnOutcome) -> proto::BeginTurnResponse {
    let state = match begun.session_state {
        SessionState::Started => proto::SessionState::Started,
        SessionState::Continued => proto::SessionState::Continued,
        SessionState::Resumed => proto::SessionState::Resumed,
        SessionState::Unavailable => proto::SessionState::Unavailable,
    };
    let conversation = match begun.conversation {
        Some(whole) => conversation(whole),
        None => proto::Conversation {
            id: begun.conversation_id.to_string(),
            user_id: begun.user_id.into_string(),
            last_seq: begun.last_seq,
            ..proto::Conversation::default()
        },
    };
    proto::BeginTurnResponse {
        session: begun.session.map(session),
        session_state: state.into(),
        conversation: Some(conversation),
        token_count: begun.history.token_count.try_into().unwrap_or(i64::MAX),
        older_omitted: begun.history.older_omitted,
        messages: messages(begun.history.messages),
        source: source(begun.source),
        compaction_due: begun.compaction_due,
    }
}

/// Renders the source of a response.
pub(crate) fn source(source: Source) -> i32 {
    match source {
        Source::Cache => proto::Source::Cache,
        Source::Store => proto::Source::Store,
    }
    .into()
}

fn context(context: RetrievedContext) -> proto::RetrievedContext {
    proto::RetrievedContext {
        doc_id: context.doc_id,
        content: context.content.into_string(),
        score: context.score,
        metadata: context.metadata.map(structs::render),
    }
}

fn role(role: Role) -> proto::Role {
    match role {
        Role::User => proto::Role::User,
        Role::Assistant => proto::Role::Assistant,
        Role::System => proto::Role::System,
        Role::Tool => proto::Role::Tool,
    }
}

#[expect(clippy::cast_possible_wrap, reason = "below 2,000,000,000")]
fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: time.timestamp_subsec_nanos() as i32,
    }
}
