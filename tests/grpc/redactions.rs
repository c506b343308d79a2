//! Redaction of single messages, and what is left of removed messages.

use std::slice::from_ref;

use conversation_memory::proto::{
    BeginTurnRequest, BlobPart, BranchConversationRequest, CompactConversationRequest, Consistency,
    ExportFormat, GenericPart, GetBlobRequest, GetConversationRequest, GetHistoryRequest,
    ListBranchesRequest, ListConversationsRequest, ListMessagesRequest, Message,
    RedactMessagesRequest, RetrievedContext, Role, SearchMessagesRequest,
    TruncateConversationRequest, part::Kind,
};
use prost_types::value::Kind as ValueKind;
use tonic::Code;

use test_support::{
    new_id, new_user,
    requests::{
        begin, history, message, new_conversation, object, part, reason, rejected_field, save,
        save_text, seqs, tool_call, tool_result,
    },
    sidecar::{Form, Memory, Sidecar},
};

use crate::{
    compactions::compaction_of,
    export::{export_of, file},
};

test_support::in_both_forms!(
    redaction_leaves_number_id_role_and_times,
    no_response_contains_a_redacted_message,
    no_response_contains_a_truncated_message,
    a_redacted_call_or_result_leaves_a_valid_history,
    rejects_invalid_redactions,
);

/// Word of the message that is removed.
const CANARY: &str = "canary";
/// The same in base64, as exports contain the data of blobs, in lower case.
const ENCODED_CANARY: &str = "y2fuyxj5";

fn redaction_of(conversation: &str, seqs: &[i64]) -> RedactMessagesRequest {
    RedactMessagesRequest {
        conversation_id: conversation.to_owned(),
        seqs: seqs.to_vec(),
        ..RedactMessagesRequest::default()
    }
}

/// A message with the canary in every field that has text.
fn full_message() -> Message {
    let mut full = message(Role::User, "");
    full.parts = vec![
        part(Kind::Text(conversation_memory::proto::TextPart {
            content: CANARY.to_owned(),
        })),
        part(Kind::Blob(BlobPart {
            mime_type: "text/plain".to_owned(),
            modality: CANARY.to_owned(),
            data: CANARY.as_bytes().to_vec().into(),
            size_bytes: 0,
        })),
        part(Kind::Generic(GenericPart {
            r#type: CANARY.to_owned(),
            json: format!("\"{CANARY}\""),
        })),
    ];
    full.name = CANARY.to_owned();
    full.pinned = true;
    full.tokens_used = Some(3);
    full.metadata = Some(object(&[(
        CANARY,
        ValueKind::StringValue(CANARY.to_owned()),
    )]));
    full.contexts = vec![RetrievedContext {
        doc_id: CANARY.to_owned(),
        content: CANARY.to_owned(),
        ..RetrievedContext::default()
    }];
    full
}

async fn branch(memory: &mut Memory, conversation: &str, at_seq: i64) -> String {
    let request = BranchConversationRequest {
        conversation_id: conversation.to_owned(),
        at_seq,
        ..BranchConversationRequest::default()
    };
    let branched = memory.branch_conversation(request).await.unwrap();
    branched.into_inner().conversation.unwrap().id
}

/// The bytes of a response, which contain its texts unchanged.
fn text_of(response: &impl prost::Message) -> String {
    String::from_utf8_lossy(&response.encode_to_vec()).into_owned()
}

/// All that the methods of the contract return of a user and these conversations.
async fn all_responses(memory: &mut Memory, user: &str, conversations: &[String]) -> String {
    let mut seen = String::new();
    let list = ListConversationsRequest {
        user_id: user.to_owned(),
        ..ListConversationsRequest::default()
    };
    seen += &text_of(&memory.list_conversations(list).await.unwrap().into_inner());
    let search = SearchMessagesRequest {
        user_id: user.to_owned(),
        query: CANARY.to_owned(),
        ..SearchMessagesRequest::default()
    };
    seen += &text_of(&memory.search_messages(search).await.unwrap().into_inner());
    for conversation in conversations {
        for (consistency, include_contexts) in [
            (Consistency::Cached, false),
            (Consistency::Cached, false),
            (Consistency::Cached, true),
            (Consistency::Strong, false),
        ] {
            let request = GetHistoryRequest {
                consistency: consistency.into(),
                include_contexts,
                limit: 100,
                ..history(conversation)
            };
            seen += &text_of(&memory.get_history(request).await.unwrap().into_inner());
        }
        let turn = BeginTurnRequest {
            conversation_id: conversation.clone(),
            ..begin(user)
        };
        seen += &text_of(&memory.begin_turn(turn).await.unwrap().into_inner());
        let get = GetConversationRequest {
            conversation_id: conversation.clone(),
            include_contexts: true,
            include_blobs: true,
            ..GetConversationRequest::default()
        };
        seen += &text_of(&memory.get_conversation(get).await.unwrap().into_inner());
        let list = ListMessagesRequest {
            conversation_id: conversation.clone(),
            include_contexts: true,
            include_blobs: true,
            newest_first: true,
            ..ListMessagesRequest::default()
        };
        seen += &text_of(&memory.list_messages(list).await.unwrap().into_inner());
        let branches = ListBranchesRequest {
            conversation_id: conversation.clone(),
            ..ListBranchesRequest::default()
        };
        seen += &text_of(&memory.list_branches(branches).await.unwrap().into_inner());
        for format in [ExportFormat::Json, ExportFormat::Jsonl, ExportFormat::Csv] {
            seen += &file(memory, export_of(conversation, format)).await;
        }
    }
    seen.to_lowercase()
}

/// A conversation that begins with a message that contains the canary, as do its derived title and
/// its summary, with a branch and a branch of that, all of them read through each sidecar.
async fn canary_conversations(sidecars: &[Sidecar], user: &str) -> Vec<String> {
    let mut memory = sidecars[0].memory();
    let conversation = new_conversation(&mut memory, user).await;
    save_text(&mut memory, &conversation, "  ").await;
    let mut turn = save(&conversation, vec![full_message()]);
    turn.request_id = "turn".to_owned();
    memory.save_messages(turn).await.unwrap();
    save_text(&mut memory, &conversation, "elephant").await;
    let compaction = CompactConversationRequest {
        request_id: "compaction".to_owned(),
        ..compaction_of(&conversation, 2, "A canary was mentioned.")
    };
    memory.compact_conversation(compaction).await.unwrap();
    let child = branch(&mut memory, &conversation, 3).await;
    save_text(&mut memory, &child, "own").await;
    let grandchild = branch(&mut memory, &child, 4).await;
    let conversations = vec![conversation, child, grandchild];
    for sidecar in sidecars {
        let seen = all_responses(&mut sidecar.memory(), user, &conversations).await;
        assert!(seen.contains(CANARY) && seen.contains(ENCODED_CANARY));
    }
    conversations
}

async fn redaction_leaves_number_id_role_and_times(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let messages = vec![message(Role::User, "first"), full_message()];
    let request = save(&conversation, messages);
    let saved = memory.save_messages(request).await.unwrap().into_inner();
    let request = redaction_of(&conversation, &[2]);
    let redacted = memory.redact_messages(request.clone()).await.unwrap();
    let expected = Message {
        id: saved.messages[1].id.clone(),
        conversation_id: conversation.clone(),
        seq: 2,
        role: Role::User.into(),
        created_at: saved.messages[1].created_at,
        tokens_used: Some(3),
        token_count: Some(0),
        redacted: true,
        ..Message::default()
    };
    assert_eq!(redacted.into_inner().messages[..], *from_ref(&expected));
    let again = memory.redact_messages(request).await.unwrap().into_inner();
    assert_eq!(again.messages[..], *from_ref(&expected));
    let list = ListMessagesRequest {
        conversation_id: conversation.clone(),
        include_contexts: true,
        ..ListMessagesRequest::default()
    };
    let listed = memory.list_messages(list).await.unwrap().into_inner();
    assert_eq!(listed.messages[1], expected);
    assert_eq!(listed.messages[0].content, "first");
    let blob = GetBlobRequest {
        conversation_id: conversation,
        seq: 2,
        part: 1,
        ..GetBlobRequest::default()
    };
    let refused = memory.get_blob(blob).await.unwrap_err();
    assert_eq!(reason(&refused), "BLOB_NOT_FOUND");
}

async fn no_response_contains_a_redacted_message(form: Form) {
    let sidecars = Sidecar::start_all(&form).await;
    let user = new_user();
    let conversations = canary_conversations(&sidecars, &user).await;
    let mut memory = sidecars[sidecars.len() - 1].memory();
    // Redacted in the branch, the message is redacted in its parent and in its own branch, too.
    let request = redaction_of(&conversations[1], &[2]);
    let redacted = memory.redact_messages(request).await.unwrap();
    let mut seen = text_of(&redacted.into_inner());
    for sidecar in &sidecars {
        seen += &all_responses(&mut sidecar.memory(), &user, &conversations).await;
    }
    let mut turn = save(&conversations[0], vec![full_message()]);
    turn.request_id = "turn".to_owned();
    let replayed = memory.save_messages(turn).await.unwrap().into_inner();
    assert!(replayed.replayed && replayed.messages[0].redacted);
    seen += &text_of(&replayed);
    assert!(
        !seen.contains(CANARY) && !seen.contains(ENCODED_CANARY),
        "{seen}"
    );
    // Its documents are gone, those of other messages are not.
    let request = SearchMessagesRequest {
        user_id: user,
        query: "elephant".to_owned(),
        ..SearchMessagesRequest::default()
    };
    let found = memory.search_messages(request).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), 1);
}

async fn no_response_contains_a_truncated_message(form: Form) {
    let sidecars = Sidecar::start_all(&form).await;
    let user = new_user();
    let conversations = canary_conversations(&sidecars, &user).await;
    let mut memory = sidecars[sidecars.len() - 1].memory();
    for (removed, conversation) in conversations.iter().enumerate() {
        let request = TruncateConversationRequest {
            conversation_id: conversation.clone(),
            after_seq: 1,
            ..TruncateConversationRequest::default()
        };
        memory.truncate_conversation(request).await.unwrap();
        // The remaining branches keep the message.
        let (of_removed, of_others) = conversations.split_at(removed + 1);
        for sidecar in &sidecars {
            let mut memory = sidecar.memory();
            for conversation in of_removed {
                let request = GetConversationRequest {
                    conversation_id: conversation.clone(),
                    include_contexts: true,
                    ..GetConversationRequest::default()
                };
                let read = memory.get_conversation(request).await.unwrap();
                let read = text_of(&read.into_inner());
                assert!(!read.contains(CANARY), "{read}");
                let read = memory.get_history(history(conversation)).await.unwrap();
                let read = text_of(&read.into_inner());
                assert!(!read.contains(CANARY), "{read}");
            }
            for conversation in of_others {
                let read = memory.get_history(history(conversation)).await.unwrap();
                assert!(text_of(&read.into_inner()).contains(CANARY));
            }
        }
    }
    for sidecar in &sidecars {
        let seen = all_responses(&mut sidecar.memory(), &user, &conversations).await;
        assert!(
            !seen.contains(CANARY) && !seen.contains(ENCODED_CANARY),
            "{seen}"
        );
    }
}

async fn a_redacted_call_or_result_leaves_a_valid_history(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    for (redacted, expected) in [(2, vec![1, 2, 4]), (3, vec![1, 3, 4])] {
        let conversation = new_conversation(&mut memory, &new_user()).await;
        let messages = vec![
            message(Role::User, "question"),
            tool_call(&["call_1"]),
            tool_result("call_1", "sunny"),
            message(Role::Assistant, "answer"),
        ];
        let saved = memory.save_messages(save(&conversation, messages)).await;
        saved.unwrap();
        let request = redaction_of(&conversation, &[redacted]);
        memory.redact_messages(request).await.unwrap();
        let read = memory.get_history(history(&conversation)).await.unwrap();
        let messages = read.into_inner().messages;
        let (calls, results): (usize, usize) = messages.iter().fold((0, 0), |(c, r), message| {
            let is = |call: bool| {
                let parts = message.parts.iter();
                let kinds = parts.filter(|part| match part.kind {
                    Some(Kind::ToolCall(_)) => call,
                    Some(Kind::ToolCallResponse(_)) => !call,
                    _ => false,
                });
                kinds.count()
            };
            (c + is(true), r + is(false))
        });
        assert_eq!((calls, results), (0, 0), "{messages:?}");
        assert!(seqs(&messages).iter().all(|seq| expected.contains(seq)));
        assert!(seqs(&messages).starts_with(&[1]) && seqs(&messages).ends_with(&[4]));
    }
}

async fn rejects_invalid_redactions(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "1").await;
    for (seqs, field) in [
        (vec![], "seqs"),
        (vec![1; 101], "seqs"),
        (vec![1, 0], "seqs[1]"),
        (vec![-1], "seqs[0]"),
    ] {
        let request = redaction_of(&conversation, &seqs);
        let refused = memory.redact_messages(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    let request = redaction_of(&conversation, &[1, 2]);
    let refused = memory.redact_messages(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(reason(&refused), "MESSAGE_NOT_FOUND");
    let mut foreign = redaction_of(&conversation, &[1]);
    foreign.user_id = new_user();
    for request in [foreign, redaction_of(&new_id(), &[1])] {
        let refused = memory.redact_messages(request).await.unwrap_err();
        assert_eq!(reason(&refused), "CONVERSATION_NOT_FOUND");
    }
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(read.into_inner().messages[0].content, "1");
}
