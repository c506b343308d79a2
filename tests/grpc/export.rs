//! Exports of conversations.

use conversation_memory::proto::{
    DeleteConversationRequest, ExportConversationRequest, ExportFormat, RetrievedContext, Role,
};
use prost_types::value::Kind;
use serde_json::Value;
use tonic::Code;

use test_support::{
    new_id, new_user,
    requests::{message, new_conversation, object, reason, rejected_field, save, save_text},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    exports_the_whole_conversation,
    an_export_is_a_snapshot,
    exports_a_long_conversation_in_little_memory,
    rejects_invalid_exports,
);

pub(crate) fn export_of(conversation: &str, format: ExportFormat) -> ExportConversationRequest {
    ExportConversationRequest {
        conversation_id: conversation.to_owned(),
        format: format.into(),
        ..ExportConversationRequest::default()
    }
}

pub(crate) async fn file(memory: &mut Memory, request: ExportConversationRequest) -> String {
    let mut pieces = memory
        .export_conversation(request)
        .await
        .unwrap()
        .into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        let data = piece.file.unwrap().data;
        assert!(!data.is_empty());
        file.extend(data);
    }
    String::from_utf8(file).unwrap()
}

async fn exports_the_whole_conversation(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let mut answer = message(Role::Assistant, "=25 days,\n\"at least\"");
    answer.tokens_used = Some(7);
    answer.metadata = Some(object(&[("tool", Kind::StringValue("hr".to_owned()))]));
    answer.contexts = vec![RetrievedContext {
        doc_id: "hr.pdf".to_owned(),
        content: "25".to_owned(),
        ..RetrievedContext::default()
    }];
    let turn = vec![message(Role::User, "How many?"), answer];
    memory
        .save_messages(save(&conversation, turn))
        .await
        .unwrap();

    let request = export_of(&conversation, ExportFormat::Csv);
    let mut response = memory.export_conversation(request).await.unwrap();
    let name = format!("attachment; filename=\"{conversation}.csv\"");
    let disposition = response.metadata().get("content-disposition").unwrap();
    assert_eq!(disposition.to_str().unwrap(), name);
    let first = response.get_mut().message().await.unwrap().unwrap();
    assert_eq!(first.file.unwrap().content_type, "text/csv; charset=utf-8");

    let json = file(
        &mut memory,
        export_of(&conversation, ExportFormat::Unspecified),
    )
    .await;
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["conversation"]["id"], *conversation);
    assert_eq!(document["conversation"]["user_id"], *user);
    assert_eq!(document["conversation"]["title"], "How many?");
    assert_eq!(document["messages"][1]["contexts"][0]["doc_id"], "hr.pdf");
    assert_eq!(document["messages"][1]["metadata"]["tool"], "hr");

    let lines = file(&mut memory, export_of(&conversation, ExportFormat::Jsonl)).await;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[1..], *document["messages"].as_array().unwrap());

    let table = file(&mut memory, export_of(&conversation, ExportFormat::Csv)).await;
    assert!(
        table.contains(",assistant,\"'=25 days,\n\"\"at least\"\"\",7,,"),
        "{table}"
    );
}

/// Messages that are saved during an export are not in it, and deleted ones are.
async fn an_export_is_a_snapshot(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = long_conversation(&mut memory, 3_000).await;
    let request = export_of(&conversation, ExportFormat::Jsonl);
    let mut pieces = memory
        .export_conversation(request)
        .await
        .unwrap()
        .into_inner();
    let first = pieces.message().await.unwrap().unwrap();
    save_text(&mut memory, &conversation, "too late").await;
    let deletion = DeleteConversationRequest {
        conversation_id: conversation,
        ..DeleteConversationRequest::default()
    };
    memory.delete_conversation(deletion).await.unwrap();
    let mut file = first.file.unwrap().data.to_vec();
    while let Some(piece) = pieces.message().await.unwrap() {
        file.extend(piece.file.unwrap().data);
    }
    let file = String::from_utf8(file).unwrap();
    assert_eq!(file.lines().count(), 3_001);
    assert!(!file.contains("too late"));
}

async fn exports_a_long_conversation_in_little_memory(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = long_conversation(&mut memory, 20_000).await;
    // Memory that connections and the allocator keep is allocated before.
    file(&mut memory, export_of(&conversation, ExportFormat::Csv)).await;
    let before = sidecar.peak_kib();
    for format in [ExportFormat::Json, ExportFormat::Jsonl, ExportFormat::Csv] {
        let file = file(&mut memory, export_of(&conversation, format)).await;
        assert!(file.len() > 20_000 * 400);
    }
    let grown = sidecar.peak_kib() - before;
    assert!(grown < 8 << 10, "{grown} KiB for 20,000 messages");
}

pub(crate) async fn long_conversation(memory: &mut Memory, length: usize) -> String {
    let conversation = new_conversation(memory, &new_user()).await;
    let text = "A sentence as people write them. ".repeat(10);
    for _ in 0..length / 100 {
        let turn = vec![message(Role::User, &text); 100];
        memory
            .save_messages(save(&conversation, turn))
            .await
            .unwrap();
    }
    conversation
}

async fn rejects_invalid_exports(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    for (request, field) in [
        (export_of("x", ExportFormat::Json), "conversation_id"),
        (
            ExportConversationRequest {
                format: 9,
                ..export_of(&conversation, ExportFormat::Json)
            },
            "format",
        ),
        (
            ExportConversationRequest {
                user_id: "nul \0".to_owned(),
                ..export_of(&conversation, ExportFormat::Json)
            },
            "user_id",
        ),
    ] {
        let refused = memory.export_conversation(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    let foreign = ExportConversationRequest {
        user_id: new_user(),
        ..export_of(&conversation, ExportFormat::Json)
    };
    let foreign = memory.export_conversation(foreign).await.unwrap_err();
    let none = export_of(&new_id(), ExportFormat::Json);
    let none = memory.export_conversation(none).await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);
    assert_eq!(reason(&foreign), "CONVERSATION_NOT_FOUND");
    assert_eq!(foreign.message(), none.message());
}
