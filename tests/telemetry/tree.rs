//! The spans of a call form one tree: the caller's span, the server span, the use case,
//! and the calls on Redis and the store.

use conversation_memory::proto::{Consistency, DeleteConversationRequest, Source};
use serde_json::json;
use tonic::Code;

use crate::observed::{CallSpans, ObservedSidecar, Trace, traced, traced_with_flags};
use test_support::{
    eventually, new_id, new_user,
    otlp_sink::{SpanKind, SpanStatus},
    python::python,
    requests::{begin, history, new_conversation, save, save_text, turn},
    sidecar::{Form, Memory},
};

test_support::in_both_forms!(
    the_spans_of_a_call_form_a_tree,
    continues_the_trace_of_a_python_client,
    unsampled_traces_are_not_exported,
);

const SERVICE: &str = "conversation_memory.v1.ConversationMemory";

async fn the_spans_of_a_call_form_a_tree(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let mut memory = observed.memory().await;
    let user = new_user();
    let (begun, request) = traced(begin(&user));
    let answer = memory.begin_turn(request).await.unwrap().into_inner();
    let conversation = answer.conversation.unwrap().id;
    let (saved, request) = traced(save(&conversation, turn("one", "two")));
    memory.save_messages(request).await.unwrap();
    let read = read_newest(&mut memory, &conversation).await;
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    let (from_store, request) = traced(strong);
    memory.get_history(request).await.unwrap();
    let (deleted, request) = traced(DeleteConversationRequest {
        conversation_id: conversation,
        ..DeleteConversationRequest::default()
    });
    memory.delete_conversation(request).await.unwrap();

    // The windows of the embedded form are in the process.
    let (redis, store, both): (&[&str], &[&str], &[&str]) = match observed.form {
        Form::Embedded(_) => (&[], &["sqlite"], &["sqlite"]),
        Form::Servers { .. } => (&["redis"], &["postgresql"], &["postgresql", "redis"]),
    };
    let exported = observed.stop().await;
    for (trace, method, kind, operation, databases) in [
        (begun, "BeginTurn", "chain", "search_memory", both),
        (saved, "SaveMessages", "tool", "create_memory", both),
        (read, "GetHistory", "retriever", "search_memory", redis),
        (
            from_store,
            "GetHistory",
            "retriever",
            "search_memory",
            store,
        ),
        (
            deleted,
            "DeleteConversation",
            "tool",
            "delete_memory_store",
            both,
        ),
    ] {
        let call = exported.call(&trace);
        assert_is_served(&call, method, "OK");
        call.assert_on_every_span("langsmith.span.kind", kind);
        assert_eq!(call.server.text("gen_ai.operation.name"), operation);
        assert_eq!(call.databases(), databases.iter().copied().collect());
        assert_contains_no_values(&call, &user);
    }
}

/// Reads a history from the window.
async fn read_newest(memory: &mut Memory, conversation: &str) -> Trace {
    let mut read = None;
    eventually("the history is read from the window", async || {
        let (trace, request) = traced(history(conversation));
        let answer = memory.get_history(request).await.unwrap();
        read = Some(trace);
        answer.into_inner().source() == Source::Cache
    })
    .await;
    read.unwrap()
}

fn assert_is_served(call: &CallSpans, method: &str, status: &str) {
    call.assert_is_a_tree();
    let method = format!("{SERVICE}/{method}");
    assert_eq!(call.server.name, method);
    assert_eq!(call.server.text("rpc.system.name"), "grpc");
    assert_eq!(call.server.text("rpc.method"), method);
    assert_eq!(call.server.text("rpc.response.status_code"), status);
}

/// Asserts that the spans of database calls contain no values.
fn assert_contains_no_values(call: &CallSpans, user: &str) {
    let clients = call
        .spans
        .iter()
        .filter(|span| span.kind == SpanKind::Client);
    for span in clients {
        assert!(!span.text("db.operation.name").is_empty(), "{span:#?}");
        let is_parameter = |key: &String| key.starts_with("db.query.parameter");
        assert!(!span.attributes.keys().any(is_parameter), "{span:#?}");
        assert!(!format!("{span:?}").contains(user), "{span:#?}");
    }
}

#[tokio::test]
async fn a_rejected_request_is_no_server_error() {
    let observed = ObservedSidecar::start(Form::embedded()).await;
    let mut memory = observed.memory().await;
    let (trace, request) = traced(history(&new_id()));
    let error = memory.get_history(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let call = observed.stop().await.call(&trace);
    assert_is_served(&call, "GetHistory", "NOT_FOUND");
    for span in &call.spans {
        assert_eq!(span.status, SpanStatus::Unset, "{span:#?}");
    }
}

/// The client is `tests/python/traced_client.py`.
async fn continues_the_trace_of_a_python_client(form: Form) {
    let is_embedded = matches!(form, Form::Embedded(_));
    let observed = ObservedSidecar::start(form).await;
    let address = observed.sidecar.address.to_string();
    let collector = format!("{}/v1/traces", observed.sink.url());
    let result = python("traced_client.py", &[&address, &collector], "").await;
    let exported = observed.stop().await;
    let spans_of = |name: &str| {
        let spans = exported.spans.iter();
        let spans = spans.filter(|span| span.resource["service.name"] == name);
        spans.cloned().collect::<Vec<_>>()
    };
    let (agent, own) = (spans_of("agent"), spans_of("conversation-memory"));
    let roots: Vec<_> = agent
        .iter()
        .filter(|span| span.parent_id.is_empty())
        .collect();
    assert_eq!(roots.len(), 1, "{agent:#?}");
    for method in ["BeginTurn", "SaveMessages", "GetHistory"] {
        let client = agent
            .iter()
            .find(|span| span.name.ends_with(method))
            .unwrap();
        assert_eq!(client.kind, SpanKind::Client);
        assert_eq!(client.parent_id, roots[0].id);
        let server = own.iter().find(|span| span.name.ends_with(method)).unwrap();
        assert_eq!(server.parent_id, client.id);
        let call = CallSpans::with_descendants(server, &own);
        assert_is_served(&call, method, "OK");
        call.assert_conversation(result["conversation"].as_str().unwrap());
        // The history is read from the window in the process.
        let is_in_process = is_embedded && method == "GetHistory";
        assert_eq!(call.databases().is_empty(), is_in_process);
    }
    for span in own.iter().chain(&agent) {
        assert_eq!(json!(span.trace_id), result["trace"], "{span:#?}");
    }
}

async fn unsampled_traces_are_not_exported(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let mut memory = observed.sidecar.memory();
    let (_, request) = traced_with_flags(begin(&new_user()), "00");
    let begun = memory.begin_turn(request).await.unwrap().into_inner();
    let conversation = begun.conversation.unwrap().id;
    let (_, request) = traced_with_flags(save(&conversation, turn("one", "two")), "00");
    memory.save_messages(request).await.unwrap();
    let (sampled, request) = traced(history(&conversation));
    memory.get_history(request).await.unwrap();
    let exported = observed.stop().await;
    for span in &exported.spans {
        assert_eq!(span.trace_id, sampled.id, "{span:#?}");
    }
    assert!(!exported.spans.is_empty());
}

#[tokio::test]
async fn otel_propagators_none_ignores_the_callers_trace() {
    let settings = [("OTEL_PROPAGATORS", "none")];
    let observed = ObservedSidecar::start_with(Form::embedded(), &settings).await;
    let (_, request) = traced_with_flags(begin(&new_user()), "00");
    observed.sidecar.memory().begin_turn(request).await.unwrap();
    let spans = observed.stop().await.spans;
    let server = spans.iter().find(|span| span.kind == SpanKind::Server);
    assert_eq!(server.unwrap().parent_id, "");
}

#[tokio::test]
async fn a_call_without_a_trace_starts_one() {
    let observed = ObservedSidecar::start(Form::embedded()).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    let spans = observed.stop().await.spans;
    let roots = spans.iter().filter(|span| span.parent_id.is_empty());
    let mut names: Vec<&str> = roots.map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["CreateConversation", "SaveMessages"].map(|method| format!("{SERVICE}/{method}"))
    );
}
