//! Metrics, scraped and pushed, match the calls that were made.

use std::collections::BTreeMap;

use conversation_memory::proto::{Consistency, Role, Source};
use http::uri::PathAndQuery;
use serde::Deserialize;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::observed::{stop, wait_for_redis};
use test_support::{
    eventually, new_user,
    otlp_sink::{OtlpSink, Point, PointValue},
    python::python,
    redis_server::RedisServer,
    requests::{history, message, new_conversation, save, turn},
    required_variable,
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(calls_are_counted, unknown_methods_share_one_label);

const SERVICE: &str = "conversation_memory.v1.ConversationMemory";
const DURATION: &str = "rpc_server_call_duration_seconds";
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

#[derive(Debug, Deserialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Samples of one scrape.
#[derive(Debug)]
pub(crate) struct Scrape(Vec<Sample>);

impl Scrape {
    pub(crate) async fn of(sidecar: &mut Sidecar) -> Self {
        let url = format!("http://{}/metrics", sidecar.operations().await);
        let samples = python("scrape.py", &[&url], "").await;
        Self(serde_json::from_value(samples).unwrap())
    }

    /// Whether there is a sample with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }

    /// Whether there is a sample with this name and these labels.
    pub(crate) fn has_labels(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let mut samples = self.0.iter().filter(|sample| sample.name == name);
        samples.any(|sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            labels.iter().all(has)
        })
    }

    /// Sum of the samples with this name and these labels. 0 if there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(has)
        };
        let values = self.0.iter().filter(matches).map(|sample| sample.value);
        values.fold(0.0, |sum, value| sum + value)
    }

    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name}{labels:?}: {sum}");
        format!("{sum}").parse().unwrap()
    }

    /// Number of calls of a method that ended with a status.
    fn calls(&self, method: &str, status: &str) -> u64 {
        let labels = [("rpc_method", method), ("rpc_response_status_code", status)];
        self.count(&format!("{DURATION}_count"), &labels)
    }

    /// Window lookups since another scrape: hit, miss, busy, short, error.
    fn lookups_since(&self, before: &Self) -> [u64; 5] {
        let name = "conversation_memory_recent_window_lookups_total";
        ["hit", "miss", "busy", "short", "error"].map(|outcome| {
            let labels = [("outcome", outcome)];
            self.count(name, &labels) - before.count(name, &labels)
        })
    }

    fn outages(&self) -> u64 {
        self.count("conversation_memory_redis_outages_total", &[])
    }
}

async fn calls_are_counted(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let (conversation, _) = make_calls(&mut memory).await;
    let mut strong = history(&conversation);
    strong.set_consistency(Consistency::Strong);
    memory.get_history(strong).await.unwrap();

    let scrape = Scrape::of(&mut sidecar).await;
    let of = |method: &str| format!("{SERVICE}/{method}");
    assert_eq!(scrape.calls(&of("CreateConversation"), "OK"), 1);
    assert_eq!(scrape.calls(&of("SaveMessages"), "OK"), 2);
    assert_eq!(scrape.calls(&of("SaveMessages"), "INVALID_ARGUMENT"), 1);
    assert_eq!(scrape.calls(&of("GetHistory"), "OK"), 11);
    assert_eq!(
        scrape.count("conversation_memory_messages_saved_total", &[]),
        2
    );
    assert_eq!(
        scrape.count("conversation_memory_saves_replayed_total", &[]),
        1
    );
    let system = [("rpc_system_name", "grpc")];
    assert_eq!(scrape.count(&format!("{DURATION}_count"), &system), 15);
    assert_bounds(&scrape);
    let database = match form {
        Form::Embedded(_) => "sqlite",
        Form::Servers { .. } => "postgresql",
    };
    let operations = [("db_system_name", database)];
    assert!(scrape.count("db_client_operation_duration_seconds_count", &operations) >= 4);
    for sample in &scrape.0 {
        let is_bounded = |value: &String| !value.contains(&conversation) && value.len() < 100;
        assert!(sample.labels.values().all(is_bounded), "{sample:?}");
    }
}

fn assert_bounds(scrape: &Scrape) {
    let method = format!("{SERVICE}/GetHistory");
    let buckets = scrape.0.iter().filter(|sample| {
        sample.name == format!("{DURATION}_bucket") && sample.labels["rpc_method"] == method
    });
    let bounds: Vec<f64> = buckets
        .map(|sample| sample.labels["le"].parse().unwrap())
        .collect();
    let expected: Vec<f64> = BOUNDS.into_iter().chain([f64::INFINITY]).collect();
    assert_eq!(bounds, expected);
}

/// Creates a conversation, saves a turn of two messages, repeats the save, makes an
/// invalid save, and reads ten times. Returns the conversation and the sources of the
/// reads.
async fn make_calls(memory: &mut Memory) -> (String, Vec<Source>) {
    let conversation = new_conversation(memory, &new_user()).await;
    let mut request = save(&conversation, turn("one", "two"));
    request.request_id = "turn-1".to_owned();
    for replayed in [false, true] {
        let saved = memory.save_messages(request.clone()).await.unwrap();
        assert_eq!(saved.into_inner().replayed, replayed);
    }
    let invalid = save(&conversation, vec![message(Role::User, "\0")]);
    memory.save_messages(invalid).await.unwrap_err();
    let mut sources = Vec::new();
    for _ in 0..10 {
        let read = memory.get_history(history(&conversation)).await.unwrap();
        sources.push(read.into_inner().source());
    }
    (conversation, sources)
}

#[tokio::test]
async fn lookups_are_counted_by_outcome() {
    let mut redis = RedisServer::start(&[]).await;
    let form = Form::Servers {
        database_url: required_variable("TEST_DATABASE_URL"),
        redis_url: redis.url(),
    };
    let mut sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let last = loop {
        wait_for_redis(&mut memory).await;
        let before = Scrape::of(&mut sidecar).await;
        let sources = read_window(&mut memory, &redis).await;
        let now = Scrape::of(&mut sidecar).await;
        // On a busy machine Redis can exceed the sidecar's timeout.
        if now.outages() == before.outages() {
            assert_eq!(sources[..10], [Source::Cache; 10]);
            assert_eq!(sources[10..], [Source::Store; 2]);
            assert_eq!(now.lookups_since(&before), [10, 1, 0, 1, 0]);
            break now;
        }
    };
    let system = [("db_system_name", "redis")];
    let operations = "db_client_operation_duration_seconds_count";
    assert!(last.count(operations, &system) >= 13);
    redis.kill();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    memory.get_history(history(&conversation)).await.unwrap();
    let now = Scrape::of(&mut sidecar).await;
    assert_eq!(now.lookups_since(&last), [0, 0, 0, 0, 1]);
}

/// Reads ten times from a window, once without a window, and once more messages than
/// the window contains. Returns the sources of the reads.
async fn read_window(memory: &mut Memory, redis: &RedisServer) -> Vec<Source> {
    let (conversation, mut sources) = make_calls(memory).await;
    let key = window_key(&conversation);
    redis.call(&["DEL", &key]).await;
    let mut request = history(&conversation);
    let read = memory.get_history(request.clone()).await.unwrap();
    sources.push(read.into_inner().source());
    let more = (0..10).map(|_| message(Role::User, "more")).collect();
    memory
        .save_messages(save(&conversation, more))
        .await
        .unwrap();
    request.limit = 12;
    let read = memory.get_history(request).await.unwrap();
    sources.push(read.into_inner().source());
    sources
}

async fn unknown_methods_share_one_label(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    for path in [
        "/conversation_memory.v1.ConversationMemory/Nonsense1",
        "/conversation_memory.v1.ConversationMemory/Nonsense2",
        "/nonsense.v1.Service/GetHistory",
        // Health probes are not counted as calls.
        "/grpc.health.v1.Health/Nonsense",
    ] {
        let mut client = tonic::client::Grpc::new(sidecar.channel());
        client.ready().await.unwrap();
        let codec = ProstCodec::<(), ()>::default();
        let path = PathAndQuery::from_static(path);
        let result = client.unary(Request::new(()), path, codec).await;
        assert_eq!(result.unwrap_err().code(), Code::Unimplemented);
    }
    let scrape = Scrape::of(&mut sidecar).await;
    assert_eq!(scrape.calls("_OTHER", "UNIMPLEMENTED"), 3);
    for sample in scrape.0 {
        let is_bounded = |value: &String| !value.to_lowercase().contains("nonsense");
        assert!(sample.labels.values().all(is_bounded), "{sample:?}");
    }
}

#[tokio::test]
async fn metrics_are_pushed_periodically() {
    let sink = OtlpSink::start().await;
    let form = Form::embedded();
    let mut sidecar = start_pushing(&form, &sink, "200").await;
    make_calls(&mut sidecar.memory()).await;
    eventually("ten reads are pushed", async || {
        history_calls(&sink.points()) == 10
    })
    .await;
    let points = sink.points();
    let duration = points
        .iter()
        .find(|point| point.metric == "rpc.server.call.duration");
    let duration = duration.unwrap();
    assert_eq!(duration.unit, "s");
    assert_eq!(duration.resource["service.name"], "conversation-memory");
    let PointValue::Histogram { bounds, .. } = &duration.value else {
        panic!("{duration:?}");
    };
    assert_eq!(bounds[..], BOUNDS);
    stop(&mut sidecar).await;
}

#[tokio::test]
async fn metrics_are_pushed_at_shutdown() {
    let sink = OtlpSink::start().await;
    let form = Form::embedded();
    let mut sidecar = start_pushing(&form, &sink, "600000").await;
    make_calls(&mut sidecar.memory()).await;
    stop(&mut sidecar).await;
    let points = sink.points();
    assert_eq!(history_calls(&points), 10);
    let saved = points
        .iter()
        .find(|point| point.metric == "conversation_memory.messages.saved");
    assert_eq!(saved.unwrap().value, PointValue::Number(2.0));
}

/// Starts a sidecar that pushes metrics.
async fn start_pushing(form: &Form, sink: &OtlpSink, interval: &str) -> Sidecar {
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url()),
        ("OTEL_METRICS_EXPORTER", "otlp".to_owned()),
        ("OTEL_TRACES_EXPORTER", "none".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", interval.to_owned()),
    ];
    let settings = settings
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    Sidecar::start_with(form, &settings).await
}

/// Number of calls of GetHistory in the most recent point.
fn history_calls(points: &[Point]) -> u64 {
    let method = format!("{SERVICE}/GetHistory");
    let last = points.iter().rev().find(|point| {
        point.metric == "rpc.server.call.duration" && point.attributes["rpc.method"] == method
    });
    match last.map(|point| &point.value) {
        Some(PointValue::Histogram { count, .. }) => *count,
        _ => 0,
    }
}

/// Key of a conversation's window in Redis.
pub(crate) fn window_key(conversation: &str) -> String {
    format!("history:{conversation}:recent")
}
