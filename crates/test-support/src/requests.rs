//! Short constructors of requests, and checks of responses.

use bytes::Bytes;
use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, CreateConversationRequest, CreateSessionRequest,
    DeleteConversationRequest, GetHistoryRequest, HttpBody, ImportConversationRequest, Message,
    Part, Role, SaveMessagesRequest, SaveMessagesResponse, ToolCallPart, ToolCallResponsePart,
    import_conversation_request::{Options, Part as ImportPart},
    part,
};
use prost_types::{Struct, Value, value::Kind};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::sidecar::Memory;

pub fn message(role: Role, content: &str) -> Message {
    Message {
        role: role.into(),
        content: content.to_owned(),
        ..Message::default()
    }
}

pub fn turn(question: &str, answer: &str) -> Vec<Message> {
    vec![
        message(Role::User, question),
        message(Role::Assistant, answer),
    ]
}

pub fn part(kind: part::Kind) -> Part {
    Part { kind: Some(kind) }
}

/// Creates a message with tool calls.
pub fn tool_call(ids: &[&str]) -> Message {
    let parts = ids.iter().map(|id| {
        part(part::Kind::ToolCall(ToolCallPart {
            id: (*id).to_owned(),
            name: "look_up".to_owned(),
            arguments: "{}".to_owned(),
        }))
    });
    Message {
        parts: parts.collect(),
        ..message(Role::Assistant, "")
    }
}

/// Creates the message with the result of a tool call.
pub fn tool_result(id: &str, response: &str) -> Message {
    let response = ToolCallResponsePart {
        id: id.to_owned(),
        response: response.to_owned(),
    };
    Message {
        parts: vec![part(part::Kind::ToolCallResponse(response))],
        ..message(Role::Tool, "")
    }
}

pub fn save(conversation: &str, messages: Vec<Message>) -> SaveMessagesRequest {
    SaveMessagesRequest {
        conversation_id: conversation.to_owned(),
        messages,
        ..SaveMessagesRequest::default()
    }
}

pub fn history(conversation: &str) -> GetHistoryRequest {
    GetHistoryRequest {
        conversation_id: conversation.to_owned(),
        ..GetHistoryRequest::default()
    }
}

pub fn begin(user: &str) -> BeginTurnRequest {
    BeginTurnRequest {
        user_id: user.to_owned(),
        ..BeginTurnRequest::default()
    }
}

pub fn branch_at(conversation: &str, at_seq: i64) -> BranchConversationRequest {
    BranchConversationRequest {
        conversation_id: conversation.to_owned(),
        at_seq,
        ..BranchConversationRequest::default()
    }
}

pub fn delete(conversation: &str) -> DeleteConversationRequest {
    DeleteConversationRequest {
        conversation_id: conversation.to_owned(),
        ..DeleteConversationRequest::default()
    }
}

pub fn create_session(user: &str) -> CreateSessionRequest {
    CreateSessionRequest {
        user_id: user.to_owned(),
        ..CreateSessionRequest::default()
    }
}

/// Creates the requests of an import: its options, and a file in pieces.
pub fn import(
    options: Options,
    file: impl IntoIterator<Item = Bytes>,
) -> Vec<ImportConversationRequest> {
    let pieces = file.into_iter().map(|data| {
        ImportPart::File(HttpBody {
            data,
            ..HttpBody::default()
        })
    });
    std::iter::once(ImportPart::Options(options))
        .chain(pieces)
        .map(|part| ImportConversationRequest { part: Some(part) })
        .collect()
}

/// Saves a message with the number `seq`, and branches after it.
pub async fn nest(memory: &mut Memory, conversation: &str, seq: i64) -> Result<String, Status> {
    let text = vec![message(Role::User, "deeper")];
    memory.save_messages(save(conversation, text)).await?;
    let branched = memory
        .branch_conversation(branch_at(conversation, seq))
        .await?;
    Ok(branched.into_inner().conversation.unwrap().id)
}

pub async fn new_conversation(memory: &mut Memory, user: &str) -> String {
    let request = CreateConversationRequest {
        user_id: user.to_owned(),
        ..CreateConversationRequest::default()
    };
    let created = memory.create_conversation(request).await.unwrap();
    created.into_inner().conversation.unwrap().id
}

pub async fn save_text(
    memory: &mut Memory,
    conversation: &str,
    text: &str,
) -> SaveMessagesResponse {
    let request = save(conversation, vec![message(Role::User, text)]);
    memory.save_messages(request).await.unwrap().into_inner()
}

pub fn contents(messages: &[Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.content.as_str())
        .collect()
}

pub fn seqs(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq).collect()
}

pub fn object(fields: &[(&str, Kind)]) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(key, kind)| {
                let value = Value {
                    kind: Some(kind.clone()),
                };
                ((*key).to_owned(), value)
            })
            .collect(),
    }
}

/// Returns the field that the error of an invalid request names.
pub fn rejected_field(status: &Status) -> String {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    assert!(!violations[0].description.is_empty());
    violations[0].field.clone()
}

/// Returns the reason in an error's `ErrorInfo`.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().expect("ErrorInfo").reason.clone()
}
