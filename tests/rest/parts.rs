//! Messages with parts, and the data of blobs, over HTTP.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Value, json};

use test_support::{
    http::Http,
    new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    parts_have_their_json_form,
    a_blob_of_the_maximum_size_is_saved_and_downloaded,
    data_is_downloaded_and_never_shown_as_a_page,
    invalid_parts_are_rejected_by_their_path,
    messages_are_compacted_and_redacted,
);

/// Saves one message of a user with these parts in a new conversation, and returns the path of the
/// conversation.
async fn saved(http: &Http, parts: Value) -> String {
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}");
    let save = json!({ "messages": [{ "role": "user", "parts": parts }] });
    http.post(&format!("{path}/messages"), &save).await.ok();
    path
}

fn blob(mime_type: &str, data: &[u8]) -> Value {
    json!({ "blob": { "mimeType": mime_type, "data": STANDARD.encode(data) } })
}

async fn parts_have_their_json_form(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}");
    let question = json!([
        { "text": { "content": "What is this?" } },
        { "blob": { "mimeType": "image/png", "modality": "image", "data": "AJ+Slg==" } },
        { "uri": { "uri": "https://example.com/cat.jpg" } },
        { "file": { "mimeType": "image/jpeg", "fileId": "file-1" } },
        { "generic": { "type": "other", "json": "{\"big\":9007199254740993}" } },
    ]);
    let call = json!([
        { "reasoning": { "content": "A picture: look at it." } },
        { "toolCall": { "id": "call_1", "name": "look", "arguments": "{not json" } },
    ]);
    let result = json!([{ "toolCallResponse": { "id": "call_1", "response": "a cat" } }]);
    let save = json!({ "messages": [
        { "role": "user", "parts": question },
        { "role": "assistant", "parts": call },
        { "role": "tool", "parts": result },
    ] });
    let saved = http.post(&format!("{path}/messages"), &save).await.ok();
    let mut without_data = question.clone();
    without_data[1]["blob"] =
        json!({ "mimeType": "image/png", "modality": "image", "sizeBytes": "4" });
    assert_eq!(saved["messages"][0]["parts"], without_data);
    let mut with_data = question;
    with_data[1]["blob"]["sizeBytes"] = "4".into();
    for (query, expected) in [
        ("history", &with_data),
        ("history?consistency=strong", &with_data),
        ("messages?include_blobs=true", &with_data),
        ("messages", &without_data),
    ] {
        let read = http.get(&format!("{path}/{query}")).await.ok();
        let messages = &read["messages"];
        assert_eq!(messages[0]["content"], "What is this?");
        assert_eq!(messages[0]["parts"], *expected, "{query}");
        assert_eq!(messages[1]["parts"], call);
        assert_eq!(messages[2]["parts"], result);
        assert_eq!(messages[2]["content"], "a cat");
    }
    // Other forms of base64 and names of fields are those that proto3 allows.
    let save = json!({ "messages": [
        { "role": "user", "parts": [{ "blob": { "mime_type": "image/png", "data": "AJ-Slg" } }] },
    ] });
    http.post(&format!("{path}/messages"), &save).await.ok();
    let file = http.get(&format!("{path}/messages/4/parts/0:data")).await;
    assert_eq!(file.body[..], [0, 159, 146, 150]);
}

async fn a_blob_of_the_maximum_size_is_saved_and_downloaded(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let data: Vec<u8> = (0..8_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    let path = saved(&http, json!([blob("image/jpeg", &data)])).await;
    let file = http.get(&format!("{path}/messages/1/parts/0:data")).await;
    assert_eq!(file.status, StatusCode::OK);
    assert!(file.body == data, "the data differs");
    // It does not fit into a history, which has its size only.
    let read = http.get(&format!("{path}/history")).await.ok();
    assert_eq!(
        read["messages"][0]["parts"][0]["blob"],
        json!({ "mimeType": "image/jpeg", "sizeBytes": "8388608" })
    );
}

async fn data_is_downloaded_and_never_shown_as_a_page(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let page = b"<script>alert(1)</script>";
    for mime_type in [
        "image/png",
        "text/html",
        "text/html; charset=utf-7",
        "TEXT/HTML;a=\"b\\\"; x",
        "application/grpc",
        "application/json",
        "a/",
        "/ ",
    ] {
        let path = saved(&http, json!([blob(mime_type, page)])).await;
        let file = http.get(&format!("{path}/messages/1/parts/0:data")).await;
        assert_eq!(file.status, StatusCode::OK, "{mime_type}");
        assert_eq!(file.headers["content-type"], *mime_type.trim());
        assert_eq!(file.headers["content-disposition"], "attachment");
        assert_eq!(file.headers["x-content-type-options"], "nosniff");
        assert_eq!(file.headers["cache-control"], "no-store");
        assert_eq!(file.body[..], page[..]);
    }
    let path = saved(&http, json!([blob("image/png", page)])).await;
    for missing in ["1/parts/1:data", "2/parts/0:data"] {
        let missing = http.get(&format!("{path}/messages/{missing}")).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
        assert_eq!(missing.error()["details"][0]["reason"], "BLOB_NOT_FOUND");
    }
    for (invalid, field) in [
        ("1/parts/x:data", "part"),
        ("1/parts/-1:data", "part"),
        ("x/parts/0:data", "seq"),
        ("-1/parts/0:data", "seq"),
    ] {
        let rejected = http.get(&format!("{path}/messages/{invalid}")).await;
        assert_eq!(rejected.rejected_field(), field, "{invalid}");
    }
}

async fn invalid_parts_are_rejected_by_their_path(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}/messages");
    let call = json!({ "toolCall": { "id": "1", "name": "look" } });
    for (parts, field) in [
        (json!([{ "image": { "url": "x" } }]), "[0].image"),
        (json!([{ "type": "text" }]), "[0].type"),
        (json!([{}]), "[0]"),
        (json!([{ "text": "x" }]), "[0].text"),
        (
            json!([call, { "text": { "content": 1 } }]),
            "[1].text.content",
        ),
        (
            json!([{ "uri": { "uri": "x", "mime_type": "text" } }]),
            "[0].uri.mime_type",
        ),
        (
            json!([{ "blob": { "mimeType": "a/b", "data": "not base64" } }]),
            "[0].blob.data",
        ),
        (
            json!([{ "blob": { "mimeType": "a/b", "data": [1, 2] } }]),
            "[0].blob.data",
        ),
        (
            json!([{ "blob": { "mimeType": "a/b\r\nset-cookie: c", "data": "AAAA" } }]),
            "[0].blob.mime_type",
        ),
        (
            json!([{ "blob": { "mimeType": "тест/é", "data": "AAAA" } }]),
            "[0].blob.mime_type",
        ),
        (json!([blob("a/b", &[0; (8 << 20) + 1])]), "[0].blob.data"),
        (json!([call, call]), "[1].tool_call.id"),
    ] {
        let save = json!({ "messages": [{ "role": "assistant", "parts": parts }] });
        let rejected = http.post(&path, &save).await.rejected_field();
        assert_eq!(rejected, format!("messages[0].parts{field}"));
    }
    // A part is of one type.
    let two = r#"{"messages":[{"role":1,"parts":[{"text":{"content":"a"},"uri":{"uri":"b"}}]}]}"#;
    let rejected = http.json(http::Method::POST, &path, two).await;
    let field = rejected.rejected_field();
    assert!(field.starts_with("messages[0].parts[0]"), "{field}");
    let whole = http.get(&format!("/conversations/{id}")).await.ok();
    assert_eq!(whole["messages"], Value::Null);
}

async fn messages_are_compacted_and_redacted(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let path = saved(
        &http,
        json!([blob("image/png", b"secret"), { "text": { "content": "a" } }]),
    );
    let path = path.await;
    let compact = json!({ "uptoSeq": 1, "summary": "A picture." });
    let compacted = http.post(&format!("{path}:compact"), &compact).await.ok();
    assert_eq!(compacted, json!({ "lastSeq": "1" }));
    let read = http.get(&format!("{path}/history")).await.ok();
    assert_eq!(read["messages"][0]["content"], "A picture.");
    assert_eq!(read["messages"][0]["isSummary"], true);
    let redact = format!("{path}/messages:redact");
    let redacted = http.post(&redact, &json!({ "seqs": [1] })).await.ok();
    assert_eq!(redacted["messages"][0]["redacted"], true);
    assert_eq!(redacted["messages"][0]["parts"], Value::Null);
    let file = http.get(&format!("{path}/messages/1/parts/0:data")).await;
    assert_eq!(file.status, StatusCode::NOT_FOUND);
    // The summary stood for the message.
    let read = http.get(&format!("{path}/history")).await.ok();
    assert_eq!(read["messages"][0]["isSummary"], Value::Null);
    let rejected = http.post(&redact, &json!({ "seqs": [] })).await;
    assert_eq!(rejected.rejected_field(), "seqs");
}
