//! A failure is logged once, where its trace and its conversation can be found.

use std::{collections::BTreeSet, time::Duration};

use conversation_memory::proto::Consistency;
use serde_json::Value;
use tonic::Code;

use crate::{
    observed::{Observed, traced},
    otlp_sink::SpanStatus,
    requests::{history, new_conversation, new_user, save, say, turn},
    support::{eventually, given, postgres_server::PostgresServer, sidecar::Form},
};

#[tokio::test]
async fn a_failure_is_logged_once_with_its_trace() {
    let mut postgres = PostgresServer::start().await;
    let observed = Observed::start(on(&postgres)).await;
    let mut memory = observed.sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    say(&mut memory, &conversation, "one").await;
    postgres.stop();
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    let (trace, request) = traced(strong);
    let refused = memory.get_history(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let exported = observed.stop().await;

    let call = exported.of(&trace);
    call.assert_is_of(&conversation);
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
        panic!("one line is expected: {lines:#?}");
    };
    assert_eq!(line["conversation_id"], conversation.as_str());
    let ids: Vec<&str> = call.spans.iter().map(|span| span.id.as_str()).collect();
    assert!(ids.contains(&line["span_id"].as_str().unwrap()), "{line}");
    let failures = lines
        .iter()
        .filter(|line| line["level"] == "ERROR" || line["level"] == "WARN");
    assert_eq!(failures.count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn what_goes_on_after_the_deadline_is_told_as_well() {
    let postgres = PostgresServer::start().await;
    let observed = Observed::start(on(&postgres)).await;
    let mut memory = observed.sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    postgres.freeze();
    let (trace, mut request) = traced(save(&conversation, turn("one", "two")));
    request.set_timeout(Duration::from_millis(200));
    let late = memory.save_messages(request).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    postgres.thaw();
    let saved = async || {
        let read = memory.get_history(history(&conversation)).await;
        read.unwrap().into_inner().last_seq == 2
    };
    eventually("the save is done", saved).await;
    let exported = observed.stop().await;
    let call = exported.of(&trace);
    call.assert_is_of(&conversation);
    call.assert_is_a_tree();
    assert_eq!(call.databases(), BTreeSet::from(["postgresql", "redis"]));
    let status = call.server.text("rpc.response.status_code");
    assert_eq!(status, "DEADLINE_EXCEEDED");
    assert_eq!(call.server.status, SpanStatus::Error);
}

fn on(postgres: &PostgresServer) -> Form {
    Form::Servers {
        database_url: postgres.url(),
        redis_url: given("TEST_REDIS_URL"),
    }
}
