//! Errors have one form, and each has the HTTP status of its code.

use http::{Method, StatusCode};
use serde_json::json;

use test_support::{
    eventually,
    http::{Http, HttpResponse, contents},
    new_id, new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    requests_without_a_route_are_rejected,
    errors_of_services_keep_their_details,
    bodies_must_be_json_of_the_message,
    a_missing_body_changes_nothing,
    queries_accept_only_parameters_of_the_method,
    deadlines_and_limits_apply_as_over_grpc,
);

fn is(response: &HttpResponse, status: u16, name: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.error()["status"], name);
}

async fn requests_without_a_route_are_rejected(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = new_id();
    for path in [
        "/",
        "/nothing",
        "/v1/conversations/",
        "/v1/conversations/a/b",
        &format!("/v1/conversations/{id}:forget"),
        &format!("/v1/conversations/{id}/history/"),
        "/v1/turns",
        "/openapi.json/x",
        "/metrics",
    ] {
        is(&http.get(path).await, 404, "NOT_FOUND");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/v1/conversations", "GET, HEAD, POST"),
        (Method::GET, "/v1/turns:begin", "POST"),
        (Method::POST, "/conversations/x", "DELETE, GET, HEAD"),
        (Method::OPTIONS, "/v1/sessions", "GET, HEAD, POST"),
        (Method::POST, "/openapi.json", "GET, HEAD"),
    ] {
        let rejected = http.json(method, path, "{}").await;
        is(&rejected, 405, "UNIMPLEMENTED");
        assert_eq!(rejected.headers["allow"], allowed);
    }
    let save = format!("/v1/conversations/{id}/messages");
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/json; charset=latin1")],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
    ] {
        let rejected = http.send(Method::POST, &save, headers, "{}").await;
        is(&rejected, 415, "INVALID_ARGUMENT");
    }
    let json = [("content-type", "Application/JSON; charset=\"UTF-8\"")];
    let accepted = http.send(Method::POST, &save, &json, "{}").await;
    assert_eq!(accepted.rejected_field(), "messages");
}

async fn errors_of_services_keep_their_details(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    http.save_text(&id, "one").await;
    let path = format!("/v1/conversations/{id}");
    let late = http.get(&format!("{path}/history?min_seq=7")).await;
    is(&late, 400, "FAILED_PRECONDITION");
    let reason = &late.error()["details"][0];
    assert_eq!(reason["reason"], "MIN_SEQ_NOT_REACHED");
    assert_eq!(reason["metadata"], json!({ "last_seq": "1" }));
    let save = |request_id: &str, expected: i64, text: &str| {
        json!({
            "requestId": request_id,
            "expectedLastSeq": expected,
            "messages": [{ "role": "ROLE_USER", "content": text }],
        })
    };
    let messages = format!("{path}/messages");
    let moved = http.post(&messages, &save("a", 9, "x")).await;
    is(&moved, 409, "ABORTED");
    assert_eq!(moved.error()["details"][0]["metadata"]["current_seq"], "1");
    http.post(&messages, &save("b", 1, "x")).await.ok();
    is(
        &http.post(&messages, &save("b", 1, "y")).await,
        409,
        "ALREADY_EXISTS",
    );
    // A conversation of another user looks exactly like a missing one.
    let foreign = http.get(&format!("{path}?user_id=somebody")).await;
    is(&foreign, 404, "NOT_FOUND");
    http.delete(&path).await.ok();
    let none = http.get(&format!("{path}?user_id=somebody")).await;
    assert_eq!(foreign.body, none.body);
    assert_eq!(none.error()["details"][1]["resourceName"], *id);
}

async fn bodies_must_be_json_of_the_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let path = format!("/v1/conversations/{}/messages", new_id());
    for (body, field) in [
        ("{", "body"),
        ("[1]", "body"),
        ("{}x", "body"),
        (
            r#"{"messages":[{"role":"ROLE_USER","content":4}]}"#,
            "messages[0].content",
        ),
        (r#"{"messages":[{"rôle":1}]}"#, "messages[0].rôle"),
        (r#"{"messages":[{"role":"ROLE_KING"}]}"#, "messages[0].role"),
        (
            r#"{"messages":[{"role":99,"content":"x"}]}"#,
            "messages[0].role",
        ),
        (r#"{"expectedLastSeq":"many"}"#, "expected_last_seq"),
        (r#"{"requestId":"a","request_id":"a"}"#, "request_id"),
        (
            r#"{"messages":[{"content":"\ud800"}]}"#,
            "messages[0].content",
        ),
    ] {
        let rejected = http.json(Method::POST, &path, body).await;
        assert_eq!(rejected.rejected_field(), field, "{body}");
    }
    let json = [("content-type", "application/json")];
    let latin = b"{\"requestId\":\"\xe9\"}".to_vec();
    let rejected = http.send(Method::POST, &path, &json, latin).await;
    assert_eq!(rejected.rejected_field(), "request_id");
    let unwanted = http.json(Method::DELETE, "/conversations/x", "{}").await;
    assert_eq!(unwanted.rejected_field(), "body");
}

/// An unset field means all messages in a truncation, and an empty title in an update.
async fn a_missing_body_changes_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    http.save_text(&id, "the title").await;
    let path = format!("/v1/conversations/{id}");
    for (method, path) in [
        (Method::POST, format!("{path}:truncate")),
        (Method::POST, format!("{path}:branch")),
        (Method::POST, format!("{path}/messages")),
        (Method::PATCH, format!("{path}?update_mask=title")),
        (Method::POST, "/v1/turns:begin".to_owned()),
    ] {
        for headers in [&[][..], &[("content-type", "application/json")]] {
            let rejected = http.send(method.clone(), &path, headers, "").await;
            assert_eq!(rejected.rejected_field(), "body", "{path}");
        }
    }
    let whole = http.get(&path).await.ok();
    assert_eq!(whole["conversation"]["title"], "the title");
    assert_eq!(contents(&whole), ["the title"]);
    let truncate = format!("{path}:truncate");
    let all = http.json(Method::POST, &truncate, "{}").await.ok();
    assert_eq!(all["removedMessages"], "1");
}

async fn queries_accept_only_parameters_of_the_method(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation("query").await;
    for (query, field) in [
        ("limit=1&limit=2", "limit"),
        ("user_id=a&userId=b", "userId"),
        ("what=1", "what"),
        ("conversation_id=x", "conversation_id"),
        ("limit=ten", "limit"),
        ("limit=-1", "limit"),
        ("limit=99999999999", "limit"),
        ("min_seq=1.5", "min_seq"),
        ("include_contexts=yes", "include_contexts"),
        ("consistency=SOMETIMES", "consistency"),
        ("user_id=%ff", "user_id"),
        ("user_id=a%00b", "user_id"),
    ] {
        let path = format!("/v1/conversations/{id}/history?{query}");
        assert_eq!(http.get(&path).await.rejected_field(), field, "{query}");
    }
    // If the body is the whole request, the query has no parameters.
    let rejected = http
        .json(Method::POST, "/v1/turns:begin?user_id=u", "{}")
        .await;
    assert_eq!(rejected.rejected_field(), "user_id");
    let path = format!("/v1/conversations/{id}?conversation.title=x");
    let rejected = http.json(Method::PATCH, &path, "{}").await;
    assert_eq!(rejected.rejected_field(), "conversation.title");
    let clamped = format!("/v1/conversations/{id}/history?limit=2147483647&&");
    http.get(&clamped).await.ok();
}

async fn deadlines_and_limits_apply_as_over_grpc(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONCURRENT_CALLS", "1")]).await;
    let http = Http::over_http_2(&sidecar);
    let late = http.send(
        Method::GET,
        "/conversations?user_id=u",
        &[("grpc-timeout", "1n")],
        "",
    );
    is(&late.await, 504, "DEADLINE_EXCEEDED");
    let calls = (0..64).map(|_| http.get("/conversations?user_id=u"));
    let responses = futures_util::future::join_all(calls).await;
    let rejected: Vec<_> = responses
        .iter()
        .filter(|response| response.status != StatusCode::OK)
        .collect();
    assert!(!rejected.is_empty() && rejected.len() < responses.len());
    for rejected in rejected {
        is(rejected, 429, "RESOURCE_EXHAUSTED");
        assert_eq!(rejected.error()["details"][0]["retryDelay"], "0.500s");
    }
    eventually("a call is accepted again", async || {
        http.get("/conversations?user_id=u").await.status == StatusCode::OK
    })
    .await;
}
