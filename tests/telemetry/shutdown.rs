//! The last spans are exported at shutdown, and an unavailable collector affects neither
//! calls nor the shutdown.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::observed::{ObservedSidecar, Trace, stop, traced};
use test_support::{
    new_user,
    otlp_sink::{Mode, OtlpSink},
    ports::free_address,
    requests::{begin, history, new_conversation, save, turn},
    sidecar::{Form, Memory, Sidecar},
    stopwatch::Stopwatch,
};

test_support::in_both_forms!(the_last_spans_are_exported_at_shutdown);

/// Longest time that 51 calls may take: one that waited for the collector would take longer.
const CALLS_LIMIT: Duration = Duration::from_secs(30);

const CALLERS: usize = 10;
const TURNS: usize = 10;

async fn the_last_spans_are_exported_at_shutdown(form: Form) {
    // Batches are exported when they are full or at shutdown, not after a delay.
    let settings = [("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let observed = ObservedSidecar::start_with(form, &settings).await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(run_turns(observed.sidecar.memory()));
    }
    let traces: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let exported = observed.stop().await;
    assert_eq!(traces.len(), 3 * CALLERS * TURNS);
    for (trace, conversation) in traces {
        let call = exported.call(&trace);
        call.assert_is_a_tree();
        call.assert_conversation(&conversation);
    }
}

/// Makes three calls per turn.
async fn run_turns(mut memory: Memory) -> Vec<(Trace, String)> {
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
async fn a_collector_that_refuses_connections_affects_no_call() {
    let closed_port = format!("http://{}", free_address());
    assert_calls_are_unaffected_by(&closed_port).await;
}

#[tokio::test]
async fn a_collector_that_never_responds_affects_no_call() {
    let sink = OtlpSink::start_as(Mode::Hangs).await;
    assert_calls_are_unaffected_by(&sink.url()).await;
    assert!(sink.count("/v1/traces") > 0);
}

#[tokio::test]
async fn an_overloaded_collector_affects_no_call() {
    let sink = OtlpSink::start_as(Mode::Rejects).await;
    assert_calls_are_unaffected_by(&sink.url()).await;
    assert!(sink.count("/v1/traces") > 0);
}

/// Asserts that calls and the shutdown complete while spans and metrics are exported to
/// a collector that does not accept them.
async fn assert_calls_are_unaffected_by(collector: &str) {
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
    let started = Stopwatch::start();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for _ in 0..25 {
        let request = save(&conversation, turn("one", "two"));
        memory.save_messages(request).await.unwrap();
        memory.get_history(history(&conversation)).await.unwrap();
    }
    assert!(started.elapsed() < CALLS_LIMIT);
    let started = Stopwatch::start();
    stop(&mut sidecar).await;
    assert!(started.elapsed().as_secs() < 10, "{:#?}", sidecar.log());
}
