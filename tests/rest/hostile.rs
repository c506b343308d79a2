//! Hostile input over HTTP: it is rejected as over gRPC, and takes no more memory.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use test_support::{
    http::{Http, contents},
    new_id, new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    rejects_invalid_values_and_writes_nothing,
    unusual_texts_are_returned_unchanged,
    rejects_bodies_above_the_size_limit,
    small_bodies_with_many_values_take_little_memory,
    rejects_page_tokens_of_other_requests,
);

async fn rejects_invalid_values_and_writes_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}/messages");
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    for (flaw, field) in [
        (json!({ "content": "nul \0" }), "messages[1].content"),
        (
            json!({ "content": "x".repeat((1 << 20) + 1) }),
            "messages[1].content",
        ),
        (json!({ "id": "no-uuid" }), "messages[1].id"),
        (json!({ "tokensUsed": -1 }), "messages[1].tokens_used"),
        (json!({ "latencyMs": -1 }), "messages[1].latency_ms"),
        (json!({ "role": "ROLE_UNSPECIFIED" }), "messages[1].role"),
        (
            json!({ "createdAt": "0000-01-01T00:00:00Z" }),
            "messages[1].created_at",
        ),
        (json!({ "metadata": { "a": "\0" } }), "messages[1].metadata"),
        (
            json!({ "metadata": { "a": "x".repeat(64 << 10) } }),
            "messages[1].metadata",
        ),
        (json!({ "metadata": deep }), "messages[1].metadata"),
        (
            json!({ "contexts": [{ "score": "NaN" }] }),
            "messages[1].contexts[0].score",
        ),
    ] {
        let mut bad = json!({ "role": "ROLE_USER", "content": "bad" });
        for (name, value) in flaw.as_object().unwrap() {
            bad[name] = value.clone();
        }
        let save = json!({ "messages": [{ "role": "ROLE_USER", "content": "good" }, bad] });
        let rejected = http.post(&path, &save).await.rejected_field();
        assert_eq!(rejected, field);
    }
    for bad in [
        "x",
        "%7B0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f%7D",
        "..%2F..%2Fetc",
        "%00",
        "%20",
    ] {
        let rejected = http.get(&format!("/v1/conversations/{bad}/history")).await;
        assert_eq!(rejected.rejected_field(), "conversation_id");
    }
    let long = "é".repeat(256);
    for user in ["", "a\0b", &long] {
        let begin = json!({ "userId": user });
        let rejected = http.post("/v1/turns:begin", &begin).await;
        assert_eq!(rejected.rejected_field(), "user_id");
    }
    let whole = http.get(&format!("/conversations/{id}")).await.ok();
    assert_eq!(whole["messages"], Value::Null);
}

async fn unusual_texts_are_returned_unchanged(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let planes: String = (0..17)
        .filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x41))
        .collect();
    let texts = [
        planes,
        "\u{feff}\u{202e}\u{200b}\u{1}\u{7f}\r\n\t\u{2028}\u{fffd}\u{10ffff}".to_owned(),
        "'; DROP TABLE messages; -- <script>alert(1)</script> %s ${x} \\ \\u0000".to_owned(),
        "العربية עברית 👩‍👩‍👧‍👦".to_owned(),
        "w".repeat(1 << 20),
    ];
    for text in &texts {
        http.save_text(&id, text).await;
    }
    let read = http.get(&format!("/v1/conversations/{id}/history")).await;
    assert_eq!(read.headers["x-content-type-options"], "nosniff");
    assert_eq!(contents(&read.ok()), texts);
}

async fn rejects_bodies_above_the_size_limit(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let path = format!("/v1/conversations/{}/messages", new_id());
    let large = " ".repeat((12 << 20) + 1);
    let rejected = http.json(Method::POST, &path, &large).await;
    assert_eq!(rejected.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(rejected.error()["status"], "RESOURCE_EXHAUSTED");
    // A body of the largest size is read, and rejected for its content.
    let most = format!("{}{{}}", " ".repeat((12 << 20) - 2));
    let read = http.json(Method::POST, &path, &most).await;
    assert_eq!(read.rejected_field(), "messages");
}

async fn small_bodies_with_many_values_take_little_memory(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}/messages");
    http.save_text(&id, "before").await;
    let before = sidecar.resident_kib();
    let list = |item: &str| {
        format!(
            "[{}{item}]",
            format!("{item},").repeat((3 << 20) / (item.len() + 1))
        )
    };
    for body in [
        format!(r#"{{"messages":{}}}"#, list("{}")),
        format!(r#"{{"messages":[{{"contexts":{}}}]}}"#, list("{}")),
        format!(r#"{{"messages":[{{"metadata":{{"a":{}}}}}]}}"#, list("0")),
        format!(r#"{{"messages":[{{"metadata":{{"a":{}}}}}]}}"#, list("{}")),
        format!(r#"{{"messages":[{{"metadata":{{"a":{}}}}}]}}"#, list("[]")),
    ] {
        let rejected = http.json(Method::POST, &path, &body).await;
        assert_eq!(
            rejected.status,
            StatusCode::PAYLOAD_TOO_LARGE,
            "{rejected:?}"
        );
        rejected.error();
    }
    // The largest number of values that is accepted, in the forms that take the most memory.
    let repeat =
        |item: &str, count: usize| format!("[{}{item}]", format!("{item},").repeat(count - 1));
    let keys: Vec<_> = (0..199_000).map(|at| format!(r#""{at}":0"#)).collect();
    for body in [
        format!(r#"{{"messages":[{{"metadata":{{{}}}}}]}}"#, keys.join(",")),
        format!(
            r#"{{"messages":[{{"metadata":{{"a":{}}}}}]}}"#,
            repeat("0", 199_000)
        ),
        format!(
            r#"{{"messages":[{{"metadata":{{"a":{}}}}}]}}"#,
            repeat(r#"{"a":0}"#, 22_000)
        ),
        format!(r#"{{"messages":{}}}"#, repeat(r#"{"role":1}"#, 22_000)),
        format!(
            r#"{{"messages":[{{"contexts":{}}}]}}"#,
            repeat(r#"{"docId":"d"}"#, 22_000)
        ),
    ] {
        let rejected = http.json(Method::POST, &path, &body).await;
        assert!(rejected.status.is_client_error(), "{rejected:?}");
    }
    // Deeper than any body that is parsed.
    let deep = format!(
        r#"{{"messages":[{{"metadata":{{"a":{}"#,
        "[".repeat(1 << 20)
    );
    let rejected = http.json(Method::POST, &path, &deep).await;
    assert_eq!(rejected.rejected_field(), "messages[0].metadata");
    assert!(sidecar.peak_kib() < before + (64 << 10));
    let whole = http.get(&format!("/conversations/{id}")).await.ok();
    assert_eq!(contents(&whole), ["before"]);
}

async fn rejects_page_tokens_of_other_requests(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let id = http.conversation(&user).await;
    for text in ["1", "2", "3"] {
        http.save_text(&id, text).await;
    }
    let path = format!("/v1/conversations/{id}/messages?page_size=1");
    let page = http.get(&path).await.ok();
    let token = page["nextPageToken"].as_str().unwrap();
    for bad in [
        format!("{path}&page_token=garbage"),
        format!("{path}&page_token={token}&newest_first=true"),
        format!("/conversations?user_id={user}&page_token={token}"),
    ] {
        assert_eq!(http.get(&bad).await.rejected_field(), "page_token");
    }
    let next = http.get(&format!("{path}&page_token={token}")).await.ok();
    assert_eq!(contents(&next), ["2"]);
}
