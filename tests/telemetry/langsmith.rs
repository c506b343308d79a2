//! Callers that use LangSmith's SDK: the sidecar's spans become child runs of the
//! caller's run.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::Digest as _;
use tonic::Request;

use crate::observed::{CallSpans, ObservedSidecar, ascii, traced};
use test_support::{
    new_user,
    otlp_sink::Span,
    python::python,
    requests::{begin, history, new_conversation, save, save_text, turn},
    sidecar::Form,
};

const OVERRIDES: [&str; 5] = [
    "langsmith.trace.id",
    "langsmith.span.id",
    "langsmith.span.parent_id",
    "langsmith.span.dotted_order",
    "langsmith.trace.session_name",
];

test_support::in_both_forms!(spans_are_child_runs_of_the_caller);

/// Lets callers choose the project.
const PROJECT_FROM_CALLER: (&str, &str) = ("LANGSMITH_PROJECT_FROM_CALLER", "true");

async fn spans_are_child_runs_of_the_caller(form: Form) {
    let observed = ObservedSidecar::start_with(form, &[PROJECT_FROM_CALLER]).await;
    let mut memory = observed.memory().await;
    let runs = python("langsmith_runs.py", &["headers"], "").await;
    let (begun, request) = traced(begin(&new_user()));
    let request = with_headers(request, &runs["root"]["headers"]);
    let answer = memory.begin_turn(request).await.unwrap().into_inner();
    let conversation = answer.conversation.unwrap().id;
    let (saved, request) = traced(save(&conversation, turn("one", "two")));
    let request = with_headers(request, &runs["child"]["headers"]);
    memory.save_messages(request).await.unwrap();
    // A call without a `traceparent`.
    let request = Request::new(history(&conversation));
    let request = with_headers(request, &runs["child"]["headers"]);
    memory.get_history(request).await.unwrap();

    let exported = observed.stop().await;
    let spans = &exported.spans;
    let read = spans
        .iter()
        .find(|span| span.name.ends_with("/GetHistory") && span.text("session.id") == conversation);
    let mut runs_seen = Vec::new();
    for (call, run) in [
        (exported.call(&begun), &runs["root"]),
        (exported.call(&saved), &runs["child"]),
        (
            CallSpans::with_descendants(read.unwrap(), spans),
            &runs["child"],
        ),
    ] {
        call.assert_is_a_tree();
        for (key, value) in [
            ("langsmith.trace.id", "trace_id"),
            ("langsmith.trace.session_name", "project"),
        ] {
            call.assert_on_every_span(key, run[value].as_str().unwrap());
        }
        for span in &call.spans {
            assert_extends_parent(span, &call, run);
        }
        runs_seen.extend(call.spans);
    }
    assert_sdk_accepts(&runs_seen).await;
}

/// Asserts that a span's dotted order extends that of its parent; for the server span,
/// that of the caller's run.
fn assert_extends_parent(span: &Span, call: &CallSpans, run: &Value) {
    let parent = call.spans.iter().find(|other| other.id == span.parent_id);
    let (id, order) = match parent {
        Some(parent) => (
            parent.text("langsmith.span.id"),
            parent.text("langsmith.span.dotted_order"),
        ),
        None => (
            run["id"].as_str().unwrap(),
            run["headers"]["langsmith-trace"].as_str().unwrap(),
        ),
    };
    assert_eq!(span.text("langsmith.span.parent_id"), id, "{span:#?}");
    let own = span.text("langsmith.span.dotted_order").strip_prefix(order);
    let own = own
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or_else(|| panic!("{span:#?}"));
    assert!(
        !own.contains('.') && own.ends_with(span.text("langsmith.span.id")),
        "{span:#?}"
    );
}

/// Asserts that the SDK parses the dotted orders, and that every run has its own id.
async fn assert_sdk_accepts(spans: &[Span]) {
    let orders: Vec<&str> = spans
        .iter()
        .map(|span| span.text("langsmith.span.dotted_order"))
        .collect();
    let parsed = python("langsmith_runs.py", &["parse"], &json!(orders).to_string()).await;
    let mut ids = BTreeSet::new();
    for (span, parsed) in spans.iter().zip(parsed.as_array().unwrap()) {
        let parsed = parsed.as_array().unwrap();
        let [.., parent, own] = &parsed[..] else {
            panic!("{parsed:?} of {span:#?}");
        };
        assert_eq!(parsed[0], span.text("langsmith.trace.id"));
        assert_eq!(parent, span.text("langsmith.span.parent_id"));
        assert_eq!(own, span.text("langsmith.span.id"));
        assert!(ids.insert(own.to_string()), "duplicate run: {span:#?}");
    }
    assert_eq!(ids.len(), spans.len());
}

const RUN: &str = "20251122T141148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403";

#[tokio::test]
async fn invalid_headers_are_ignored() {
    let observed = ObservedSidecar::start(Form::embedded()).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    let long = "x".repeat(7_000);
    let deep = vec![RUN; 110].join(".");
    let invalid: [&[u8]; 19] = [
        b"",
        b" ",
        b".",
        b"....",
        b"\xff\xfe\xfd",
        "20251122T141148556333Z\u{e9}1a20399-4ecc-7a77-80ef-9f5fb36b740\u{e9}".as_bytes(),
        b"01a20399-4ecc-7a77-80ef-9f5fb36b7403",
        b"20251122T141148556333Z",
        b"20251322T141148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403",
        b"20251122T251148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403",
        b"99999999T999999999999Z01a20399-4ecc-7a77-80ef-9f5fb36b7403",
        b"20251122T141160556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403",
        b"2025 1 1T141148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403",
        b"20251122T141148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b740g",
        b"20251122T141148556333Zffffffffffffffffffffffffffffffffffffff",
        b"20251122T141148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403.",
        b"20251122T141148556333Z01a20399-4ecc-7a77-80ef-9f5fb36b7403.x",
        long.as_bytes(),
        &deep.as_bytes()[..deep.len() - 1],
    ];
    let mut traces = Vec::new();
    for value in invalid {
        let (trace, mut request) = traced(history(&conversation));
        for name in ["langsmith-trace", "baggage"] {
            request.metadata_mut().insert(name, ascii(value));
        }
        memory.get_history(request).await.unwrap();
        traces.push((trace, String::from_utf8_lossy(value).into_owned()));
    }
    let exported = observed.stop().await;
    for (trace, value) in traces {
        for span in exported.call(&trace).spans {
            for key in OVERRIDES {
                assert!(!span.attributes.contains_key(key), "{value:?}: {span:#?}");
            }
        }
    }
}

#[tokio::test]
async fn a_run_without_a_project_is_continued() {
    let observed = ObservedSidecar::start_with(Form::embedded(), &[PROJECT_FROM_CALLER]).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut traces = Vec::new();
    for baggage in [
        "",
        "langsmith-project",
        "langsmith-project=%ff%f",
        "a=b,,=",
        "langsmith-project=",
    ] {
        let (trace, mut request) = traced(history(&conversation));
        request.metadata_mut().insert("langsmith-trace", ascii(RUN));
        request.metadata_mut().insert("baggage", ascii(baggage));
        memory.get_history(request).await.unwrap();
        traces.push(trace);
    }
    let exported = observed.stop().await;
    for trace in traces {
        let call = exported.call(&trace);
        call.assert_on_every_span("langsmith.trace.id", &RUN[22..]);
        call.assert_on_every_span("langsmith.trace.session_name", "");
    }
}

#[tokio::test]
async fn callers_choose_neither_the_project_nor_attributes_of_the_server() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let hash = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest("token"));
    std::fs::write(file.path(), format!("agent:{hash}\n")).unwrap();
    let tokens = ("AUTH_TOKENS_FILE", file.path().to_str().unwrap());
    let observed = ObservedSidecar::start_with(Form::embedded(), &[tokens]).await;
    let mut memory = observed.memory().await;
    let (begun, mut request) = traced(begin(&new_user()));
    let hostile = "langsmith-project=other,langsmith-tags=a,langsmith-metadata=%7B%22conversation_id\
                   %22%3A%22x%22%2C%22thread_id%22%3A%22x%22%7D,langsmith.metadata.conversation_id=x,\
                   session.id=x,gen_ai.conversation.id=x,enduser.id=x,langsmith.span.kind=llm";
    for (name, value) in [
        ("authorization", "Bearer token"),
        ("langsmith-trace", RUN),
        ("baggage", hostile),
        ("tracestate", "langsmith-project=other"),
        ("langsmith-project", "other"),
        ("session.id", "x"),
        ("x-conversation-id", "x"),
    ] {
        request.metadata_mut().insert(name, ascii(value));
    }
    let answer = memory.begin_turn(request).await.unwrap().into_inner();
    let conversation = answer.conversation.unwrap().id;
    let exported = observed.stop().await;
    let call = exported.call(&begun);
    for (key, value) in [
        ("langsmith.trace.session_name", ""),
        ("langsmith.metadata.conversation_id", &conversation),
        ("langsmith.metadata.thread_id", &conversation),
        ("session.id", &conversation),
        ("gen_ai.conversation.id", &conversation),
        ("langsmith.span.kind", "chain"),
        ("langsmith.trace.id", &RUN[22..]),
    ] {
        call.assert_on_every_span(key, value);
    }
    let names = call.spans.iter().map(|span| span.text("enduser.id"));
    assert_eq!(names.collect::<String>(), "agent");
    for span in &call.spans {
        let mut keys = span.attributes.keys();
        let found = keys.find(|key| key.contains("tags") || key.starts_with("baggage"));
        assert_eq!(found, None, "{span:#?}");
    }
}

#[tokio::test]
async fn oversized_metadata_fails_only_its_own_call() {
    let observed = ObservedSidecar::start(Form::embedded()).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for name in ["langsmith-trace", "baggage", "traceparent", "tracestate"] {
        let with = |bytes| {
            let mut request = Request::new(history(&conversation));
            let text = ascii("x".repeat(bytes));
            request.metadata_mut().insert(name, text);
            request
        };
        memory.get_history(with(12_000)).await.unwrap();
        // The transport rejects it with an HTTP status, whose mapping to a gRPC status
        // is up to the client.
        memory.get_history(with(100_000)).await.unwrap_err();
        let (_, next) = traced(history(&conversation));
        memory.get_history(next).await.unwrap();
    }
    observed.stop().await;
}

fn with_headers<T>(mut request: Request<T>, headers: &Value) -> Request<T> {
    for (name, value) in headers.as_object().unwrap() {
        let name: tonic::metadata::AsciiMetadataKey = name.parse().unwrap();
        let value = ascii(value.as_str().unwrap());
        request.metadata_mut().insert(name, value);
    }
    request
}
