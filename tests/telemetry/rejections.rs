//! The counter and the log lines of what limits reject.

use conversation_memory::proto::{
    BlobPart, Message, Part, Role, part::Kind, session_service_client::SessionServiceClient,
};
use http::{Method, StatusCode};
use prost_types::value;
use serde_json::json;
use test_support::{
    http::Http,
    new_user,
    requests::{create_session, message, new_conversation, object, save},
    sidecar::{Form, Sidecar},
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::metrics::Scrape;

test_support::in_both_forms!(rejections_are_counted_by_limit);

const REJECTIONS: &str = "conversation_memory_rejections_total";

pub(crate) fn rejections(scrape: &Scrape, limit: &str) -> u64 {
    scrape.count(REJECTIONS, &[("limit", limit)])
}

async fn rejections_are_counted_by_limit(form: Form) {
    let settings = [
        ("MAX_REQUEST_BYTES", "200000"),
        ("MAX_BLOB_BYTES", "10"),
        ("MAX_CONTENT_BYTES", "1000"),
        ("MAX_METADATA_BYTES", "100"),
        ("MAX_SESSIONS_PER_USER", "2"),
    ];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let before = Scrape::of(&mut sidecar).await;
    for limit in [
        "MAX_CONNECTIONS",
        "MAX_CALLER_RATE",
        "searches",
        "transfers",
    ] {
        // A rate over a series that begins with 1 would miss the first rejection.
        assert!(
            before.has_labels(REJECTIONS, &[("limit", limit)]),
            "{limit}"
        );
    }
    exceed_sizes(&sidecar).await;
    exceed_sizes_over_rest(&sidecar).await;
    end_sessions(&sidecar).await;
    check_a_long_name(&sidecar).await;
    let http = Http::new(&sidecar);
    let headers = [("host", "evil.example")];
    http.send(Method::GET, "/x", &headers, "").await;
    let headers = [("origin", "https://evil.example")];
    http.send(Method::POST, "/x", &headers, "").await;
    let after = Scrape::of(&mut sidecar).await;
    let expected = [
        ("MAX_CONTENT_BYTES", 1),
        ("MAX_METADATA_BYTES", 1),
        ("MAX_BLOB_BYTES", 1),
        ("MAX_REQUEST_BYTES", 2),
        ("request_elements", 1),
        ("probe_bytes", 1),
        ("MAX_SESSIONS_PER_USER", 2),
        ("ALLOWED_HOSTS", 1),
        ("CORS_ALLOWED_ORIGINS", 1),
    ];
    for (limit, number) in expected {
        assert_eq!(rejections(&after, limit), number, "{limit}");
        let log = sidecar.log();
        assert!(log.iter().any(|line| line.contains(limit)), "{limit}");
    }
    let all: u64 = expected.iter().map(|(_, number)| number).sum();
    assert_eq!(after.count(REJECTIONS, &[]), all);
}

async fn exceed_sizes(sidecar: &Sidecar) {
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    let long = message(Role::User, &"x".repeat(1_001));
    let metadata = Some(object(&[("a", value::Kind::StringValue("x".repeat(100)))]));
    let part = |kind| Part { kind: Some(kind) };
    let blob = BlobPart {
        mime_type: "image/png".to_owned(),
        data: vec![1; 11].into(),
        ..BlobPart::default()
    };
    for (rejected, setting) in [
        (long, "MAX_CONTENT_BYTES"),
        (
            Message {
                metadata,
                ..message(Role::User, "x")
            },
            "MAX_METADATA_BYTES",
        ),
        (
            Message {
                parts: vec![part(Kind::Blob(blob))],
                ..message(Role::User, "")
            },
            "MAX_BLOB_BYTES",
        ),
    ] {
        let error = memory.save_messages(save(&id, vec![rejected])).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(setting), "{error:?}");
    }
    let large = message(Role::User, &"x".repeat(200_001));
    let error = memory.save_messages(save(&id, vec![large])).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    let advice = "split the request, or raise MAX_REQUEST_BYTES";
    assert!(error.message().ends_with(advice), "{error:?}");
}

async fn exceed_sizes_over_rest(sidecar: &Sidecar) {
    let http = Http::new(sidecar);
    let body = json!({ "title": "x".repeat(200_001) });
    let many = json!({ "metadata": { "a": vec![json!({}); 25_001] } });
    assert!(many.to_string().len() < 200_000);
    for body in [body, many] {
        let rejected = http.post("/v1/conversations", &body).await;
        assert_eq!(rejected.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(!rejected.headers.contains_key("retry-after"));
        let message = rejected.error()["message"].to_string();
        assert!(message.contains("split the request"), "{message}");
    }
}

async fn end_sessions(sidecar: &Sidecar) {
    let mut sessions = SessionServiceClient::new(sidecar.channel());
    let user_id = new_user();
    for _ in 0..4 {
        sessions
            .create_session(create_session(&user_id))
            .await
            .unwrap();
    }
}

/// Exceeds the size of a health check, which has a limit of its own.
async fn check_a_long_name(sidecar: &Sidecar) {
    let request = HealthCheckRequest {
        service: "x".repeat(5_000),
    };
    let error = HealthClient::new(sidecar.channel()).check(request).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(!error.message().contains("MAX_REQUEST_BYTES"), "{error:?}");
}

#[tokio::test]
async fn a_rejection_that_ends_by_itself_has_a_retry_after_over_rest() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, &[("MAX_CALLER_RATE", "1")]).await;
    let http = Http::new(&sidecar);
    let mut refused = 0;
    for _ in 0..4 {
        let response = http.get("/v1/conversations?user_id=ana").await;
        if response.status == StatusCode::OK {
            continue;
        }
        refused += 1;
        assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers["retry-after"], "1");
        let message = response.error()["message"].to_string();
        assert!(message.contains("MAX_CALLER_RATE"), "{message}");
    }
    assert!(refused > 0);
    let scrape = Scrape::of(&mut sidecar).await;
    assert_eq!(rejections(&scrape, "MAX_CALLER_RATE"), refused);
    let log = sidecar.log();
    let lines = log
        .iter()
        .filter(|line| line.contains("a limit was exceeded"));
    // Later ones are counted, and logged together a minute later.
    assert_eq!(lines.count(), 1);
}
