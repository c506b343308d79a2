use prost::bytes::Bytes;

use crate::{
    call,
    domain::{Conversation, DeptId, Message, Session, Title},
    memory::{BeginTurnOutcome, HistoryMessages, HistoryOutcome, SessionState, Source},
    proto::{self, structs, timestamp},
    rpc::convert::captured,
    store::{ConversationPage, SearchHit},
};

/// Renders messages, in their order.
pub(crate) fn messages(messages: Vec<Message>) -> Vec<proto::Message> {
    call::capture_output(|| {
        captured::messages(messages.iter().map(|m| (m.role, m.content.as_str())))
    });
    messages.into_iter().map(proto::Message::from).collect()
}

/// Renders the messages of a history: those to be encoded, and those that are encoded already.
fn history(messages: HistoryMessages) -> (Vec<proto::Message>, Vec<Bytes>) {
    let encoded = match messages {
        HistoryMessages::Decoded(decoded) => return (self::messages(decoded), Vec::new()),
        HistoryMessages::Encoded(encoded) => encoded,
    };
    call::capture_output(|| {
        let decoded: Vec<_> = encoded
            .iter()
            .filter_map(|message| Some((message.role, message.decode()?.content)))
            .collect();
        captured::messages(
            decoded
                .iter()
                .map(|(role, content)| (*role, content.as_str())),
        )
    });
    let encoded = encoded.into_iter().map(|message| message.bytes);
    (Vec::new(), encoded.collect())
}

/// Renders the result of `GetHistory`.
pub(crate) fn read_history(read: HistoryOutcome) -> proto::EncodedGetHistoryResponse {
    let (messages, encoded) = history(read.history.messages);
    proto::HistoryResponse {
        response: proto::GetHistoryResponse {
            token_count: read.history.token_count.try_into().unwrap_or(i64::MAX),
            older_omitted: read.history.older_omitted,
            messages,
            last_seq: read.last_seq,
            source: source(read.source),
            compaction_due: read.compaction_due,
        },
        encoded,
    }
}

/// Renders the hits of a search.
pub(crate) fn hits(hits: Vec<SearchHit>) -> Vec<proto::search_messages_response::Hit> {
    call::capture_output(|| {
        let messages = hits.iter().map(|hit| &hit.message);
        captured::messages(messages.map(|m| (m.role, m.content.as_str())))
    });
    hits.into_iter()
        .map(|hit| proto::search_messages_response::Hit {
            message: Some(hit.message.into()),
            conversation_title: hit.title.map(Title::into_string).unwrap_or_default(),
            snippet: hit.snippet,
            rank: hit.key.rank,
        })
        .collect()
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
pub(crate) fn begun(begun: BeginTurnOutcome) -> proto::EncodedBeginTurnResponse {
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
    let (messages, encoded) = history(begun.history.messages);
    proto::HistoryResponse {
        response: proto::BeginTurnResponse {
            session: begun.session.map(session),
            session_state: state.into(),
            conversation: Some(conversation),
            token_count: begun.history.token_count.try_into().unwrap_or(i64::MAX),
            older_omitted: begun.history.older_omitted,
            messages,
            source: source(begun.source),
            compaction_due: begun.compaction_due,
        },
        encoded,
    }
}

/// Renders the source of a response.
fn source(source: Source) -> i32 {
    match source {
        Source::Cache => proto::Source::Cache,
        Source::Store => proto::Source::Store,
    }
    .into()
}
