//! The last spans arrive, and a collector that is away costs nobody anything.

use std::{net::TcpListener, time::Instant};

use tokio::task::JoinSet;

use crate::observed::{Observed, Trace, stop, traced};
use test_support::{
    PATIENCE, new_user,
    otlp_sink::{Mode, OtlpSink},
    requests::{begin, history, new_conversation, save, turn},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(the_spans_of_the_last_calls_arrive);

const CALLERS: usize = 10;
const TURNS: usize = 10;

async fn the_spans_of_the_last_calls_arrive(form: Form) {
    // Never because time has passed: when a batch is full, or at the end.
    let settings = [("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let observed = Observed::start_with(form, &settings).await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(hold_turns(observed.sidecar.memory()));
    }
    let traces: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let exported = observed.stop().await;
    assert_eq!(traces.len(), 3 * CALLERS * TURNS);
    for (trace, conversation) in traces {
        let call = exported.of(&trace);
        call.assert_is_a_tree();
        call.assert_is_of(&conversation);
    }
}

/// Three calls a turn.
async fn hold_turns(mut memory: Memory) -> Vec<(Trace, String)> {
    let mut traces = Vec::new();
    for _ in 0..TURNS {
        let (begun, request) = traced(begin(&new_user()));
        let answer = memory.begin_turn(request).await.unwrap().into_inner();
        let conversation = answer.conversation.unwrap().id;
        let (saved, request) = traced(save(&conversation, turn("one", "two")));
        memory.save_messages(request).await.unwrap();
        let (read, request) = traced(history(&conversation));
        memory.get_history(request).await.unwrap();
        traces.extend([begun, saved, read].map(|trace| (trace, conversation.clone())));
    }
    traces
}

#[tokio::test]
async fn a_collector_that_refuses_connections_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_goes_on_without(&nobody).await;
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_nothing() {
    let sink = OtlpSink::start_as(Mode::Silent).await;
    assert_goes_on_without(&sink.url()).await;
    assert!(sink.count("/v1/traces") > 0);
}

#[tokio::test]
async fn a_collector_that_is_overloaded_costs_nothing() {
    let sink = OtlpSink::start_as(Mode::Refuses).await;
    assert_goes_on_without(&sink.url()).await;
    assert!(sink.count("/v1/traces") > 0);
}

/// Sees that calls are answered and that the end comes, with metrics and spans
/// on their way to a collector that does not take them.
async fn assert_goes_on_without(collector: &str) {
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("DRAIN_SECONDS", "2"),
    ];
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let mut memory = sidecar.memory();
    let started = Instant::now();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for _ in 0..25 {
        let request = save(&conversation, turn("one", "two"));
        memory.save_messages(request).await.unwrap();
        memory.get_history(history(&conversation)).await.unwrap();
    }
    assert!(started.elapsed() < PATIENCE);
    let started = Instant::now();
    stop(&mut sidecar).await;
    assert!(started.elapsed().as_secs() < 10, "{:#?}", sidecar.log());
}
