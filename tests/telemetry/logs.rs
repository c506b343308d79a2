//! A failure is logged once, with its trace and its conversation.

use std::collections::BTreeSet;

use conversation_memory::proto::Consistency;
use serde_json::Value;
use tonic::Code;

use crate::{
    metrics::window_key,
    observed::{ObservedSidecar, traced},
};
use test_support::{
    eventually, new_user,
    otlp_sink::SpanStatus,
    postgres_server::PostgresServer,
    redis_server,
    requests::{history, new_conversation, save, save_text, turn},
    required_variable,
    sidecar::Form,
};

#[tokio::test]
async fn a_failure_is_logged_once_with_its_trace() {
    let mut postgres = PostgresServer::start().await;
    let observed = ObservedSidecar::start(servers_with(&postgres)).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &conversation, "one").await;
    postgres.stop();
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    let (trace, request) = traced(strong);
    let error = memory.get_history(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let exported = observed.stop().await;

    let call = exported.call(&trace);
    call.assert_conversation(&conversation);
    assert_eq!(call.server.text("rpc.response.status_code"), "UNAVAILABLE");
    assert_eq!(call.server.text("error.type"), "UNAVAILABLE");
    assert_eq!(call.server.status, SpanStatus::Error);
    let failed = call
        .spans
        .iter()
        .find(|span| span.text("db.system.name") == "postgresql");
    assert_eq!(failed.unwrap().status, SpanStatus::Error);

    let lines: Vec<Value> = exported
        .log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_call: Vec<&Value> = lines
        .iter()
        .filter(|line| line["trace_id"] == trace.id.as_str())
        .collect();
    let [line] = of_call[..] else {
        panic!("expected one line: {lines:#?}");
    };
    assert_eq!(line["conversation_id"], conversation.as_str());
    let ids: Vec<&str> = call.spans.iter().map(|span| span.id.as_str()).collect();
    assert!(ids.contains(&line["span_id"].as_str().unwrap()), "{line}");
    // On a busy machine Redis can time out, which is logged too.
    let failures = lines.iter().filter(|line| {
        let is_failure = line["level"] == "ERROR" || line["level"] == "WARN";
        is_failure && !line["message"].as_str().unwrap().contains("Redis")
    });
    assert_eq!(failures.count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn a_write_that_outlives_its_caller_is_traced() {
    let postgres = PostgresServer::start().await;
    let observed = ObservedSidecar::start(servers_with(&postgres)).await;
    let mut memory = observed.memory().await;
    let conversation = new_conversation(&mut memory, &new_user()).await;
    postgres.freeze();
    let (trace, request) = traced(save(&conversation, turn("one", "two")));
    let mut cancelled = memory.clone();
    let caller = tokio::spawn(async move { cancelled.save_messages(request).await });
    let (redis, key) = (
        required_variable("TEST_REDIS_URL"),
        window_key(&conversation),
    );
    eventually("the save is announced", async || {
        let fields = redis_server::call(&redis, &["HKEYS", &key]).await;
        fields.unwrap().contains("p:")
    })
    .await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    postgres.thaw();
    eventually("the save is committed", async || {
        let read = memory.get_history(history(&conversation)).await;
        read.unwrap().into_inner().last_seq == 2
    })
    .await;
    let exported = observed.stop().await;
    let call = exported.call(&trace);
    call.assert_conversation(&conversation);
    call.assert_is_a_tree();
    assert_eq!(call.databases(), BTreeSet::from(["postgresql", "redis"]));
    let status = call.server.text("rpc.response.status_code");
    assert_eq!(status, "CANCELLED");
    assert_eq!(call.server.status, SpanStatus::Unset);
}

fn servers_with(postgres: &PostgresServer) -> Form {
    Form::Servers {
        database_url: postgres.url(),
        redis_url: required_variable("TEST_REDIS_URL"),
    }
}
