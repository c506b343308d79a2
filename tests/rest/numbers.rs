//! Numbers in metadata: each is kept, or rejected with the path of its field.

use http::{Method, StatusCode};
use prost_types::{Struct, value::Kind};
use serde_json::{Value, json};

use test_support::{
    http::Http,
    new_user,
    requests::{message, object, save},
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    numbers_are_the_same_over_all_interfaces,
    numbers_that_a_double_rounds_are_rejected,
    numbers_take_as_many_bytes_as_they_were_sent_with,
);

const NUMBERS: [f64; 14] = [
    0.0,
    -0.0,
    0.1,
    -1.5,
    9_007_199_254_740_991.0,
    9_007_199_254_740_992.0,
    18_014_398_509_481_984.0,
    1e16,
    1e21,
    1e308,
    f64::MAX,
    f64::MIN,
    5e-324,
    1e-7,
];

fn metadata() -> Struct {
    let numbers = NUMBERS.map(Kind::NumberValue);
    let names: Vec<String> = (0..NUMBERS.len())
        .map(|index| format!("n{index}"))
        .collect();
    let fields: Vec<(&str, Kind)> = names.iter().map(String::as_str).zip(numbers).collect();
    object(&fields)
}

/// Asserts that an object has the numbers with their signs.
fn assert_numbers(found: &Value) {
    for (index, number) in NUMBERS.iter().enumerate() {
        let found = found[format!("n{index}")].as_f64().unwrap();
        assert_eq!(found.to_bits(), number.to_bits(), "{number}: {found}");
    }
}

async fn numbers_are_the_same_over_all_interfaces(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (http, mut memory) = (Http::new(&sidecar), sidecar.memory());
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}");
    let mut saved = message(conversation_memory::proto::Role::User, "numbers");
    saved.metadata = Some(metadata());
    saved.contexts = vec![conversation_memory::proto::RetrievedContext {
        metadata: Some(metadata()),
        ..Default::default()
    }];
    memory.save_messages(save(&id, vec![saved])).await.unwrap();
    // From the window, where there is one, and from the store.
    for query in ["", "?consistency=strong", "?includeContexts=true"] {
        let history = http.get(&format!("{path}/history{query}")).await.ok();
        assert_numbers(&history["messages"][0]["metadata"]);
    }
    let listed = http
        .get(&format!("{path}/messages?includeContexts=true"))
        .await
        .ok();
    let listed = &listed["messages"][0];
    assert_numbers(&listed["metadata"]);
    assert_numbers(&listed["contexts"][0]["metadata"]);
    // What was read can be sent again.
    let update = json!({ "metadata": listed["metadata"] });
    let updated = http
        .json(Method::PATCH, &path, &update.to_string())
        .await
        .ok();
    assert_numbers(&updated["conversation"]["metadata"]);
    assert_numbers(&http.get(&path).await.ok()["conversation"]["metadata"]);
    for format in ["json", "jsonl"] {
        let file = http.get(&format!("{path}:export?format={format}")).await;
        assert_eq!(file.status, StatusCode::OK);
        let import = format!("/v1/conversations:import?userId={}", new_user());
        let headers = [("content-type", "application/json")];
        let imported = http
            .send(Method::POST, &import, &headers, file.body)
            .await
            .ok();
        let id = imported["conversation"]["id"].as_str().unwrap().to_owned();
        assert_numbers(&imported["conversation"]["metadata"]);
        let path = format!("/v1/conversations/{id}/messages?includeContexts=true");
        let listed = http.get(&path).await.ok();
        assert_numbers(&listed["messages"][0]["metadata"]);
        assert_numbers(&listed["messages"][0]["contexts"][0]["metadata"]);
    }
}

async fn numbers_that_a_double_rounds_are_rejected(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let id = http.conversation(&user).await;
    let path = format!("/v1/conversations/{id}");
    for number in [
        "1180000000000000123",
        "-9007199254740993",
        "18446744073709551615",
        "123456789012345678901234567890",
        "1180000000000000123.0",
        "1180000000000000123e0",
        "-1.180000000000000123E18",
        "9007199254740993.0",
    ] {
        let metadata = format!(r#"{{"a":[{{"id":{number}}}]}}"#);
        let body =
            format!(r#"{{"messages":[{{"role":"user","content":"x","metadata":{metadata}}}]}}"#);
        let rejected = http
            .json(Method::POST, &format!("{path}/messages"), &body)
            .await;
        assert_rejected(&rejected.error(), "messages[0].metadata");
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"x"}},{{"role":"user","content":"x","contexts":[{{}},{{"metadata":{metadata}}}]}}]}}"#
        );
        let rejected = http
            .json(Method::POST, &format!("{path}/messages"), &body)
            .await;
        assert_rejected(&rejected.error(), "messages[1].contexts[1].metadata");
        let body = format!(r#"{{"userId":"{user}","metadata":{metadata}}}"#);
        let rejected = http.json(Method::POST, "/v1/conversations", &body).await;
        assert_rejected(&rejected.error(), "metadata");
        let rejected = http
            .json(
                Method::PATCH,
                &path,
                &format!(r#"{{"metadata":{metadata}}}"#),
            )
            .await;
        assert_rejected(&rejected.error(), "conversation.metadata");
        let header = r#""format":"conversation-memory","version":1"#;
        let message = format!(r#"{{"role":"user","content":"x","metadata":{metadata}}}"#);
        for file in [
            format!(r#"{{{header},"conversation":{{}},"messages":[{message}]}}"#),
            format!("{{{header},\"conversation\":{{}}}}\n{message}\n"),
            format!(r#"{{{header},"conversation":{{"metadata":{metadata}}},"messages":[]}}"#),
        ] {
            let import = format!("/v1/conversations:import?userId={}", new_user());
            let headers = [("content-type", "application/json")];
            let rejected = http.send(Method::POST, &import, &headers, file).await;
            assert_eq!(rejected.status, StatusCode::BAD_REQUEST);
            assert!(
                rejected
                    .error()
                    .to_string()
                    .contains("a double would round")
            );
        }
    }
    let listed = http.get(&format!("{path}/messages")).await.ok();
    assert_eq!(listed["messages"].as_array().map_or(0, Vec::len), 0);
    // Parts are texts, which are kept as they are.
    let text = r#"{"id":1180000000000000123}"#;
    let body = json!({ "messages": [{ "role": "assistant", "parts": [
        { "toolCall": { "id": "1", "name": "f", "arguments": text } },
        { "generic": { "type": "t", "json": text } },
    ] }] });
    http.post(&format!("{path}/messages"), &body).await.ok();
    let listed = http.get(&format!("{path}/messages")).await.ok();
    let parts = &listed["messages"][0]["parts"];
    assert_eq!(parts[0]["toolCall"]["arguments"], text);
    assert_eq!(parts[1]["generic"]["json"], text);
}

fn assert_rejected(error: &Value, field: &str) {
    assert_eq!(error["code"], 400);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("{field} must not have numbers beyond 2^53")),
        "{message}"
    );
}

async fn numbers_take_as_many_bytes_as_they_were_sent_with(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}/messages");
    let numbers = json!({ "numbers": vec![1e308; 9_000] });
    let body = json!({ "messages": [{ "role": "user", "content": "x", "metadata": numbers }] });
    let sent = body.to_string();
    http.post(&path, &body).await.ok();
    let received = http.get(&path).await;
    received.ok();
    assert!(
        received.body.len() < sent.len() + 1_000,
        "{} bytes",
        received.body.len()
    );
}
