//! Duration and result of calls on Redis, and its availability.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use conversation_memory::{
    call::{
        Call, CallKind, EndedSpans, NewCall, Scope, Span, SpanDestination, SpanRecord, TracedCall,
    },
    recent::RecentWindow,
    redis::{Redis, RedisError, RedisSettings, RedisTarget, Script},
};
use futures_util::FutureExt as _;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};

use crate::meter::{Meter, Point};
use test_support::{
    eventually,
    redis_server::{RedisServer, connect_and_wait},
    window::{NONE, WindowFixture},
};

const DURATION: &str = "db.client.operation.duration";
const AVAILABLE: &str = "conversation_memory.redis.available";
const OUTAGES: &str = "conversation_memory.redis.outages";

/// Client whose calls do not time out on a busy machine, but soon on a frozen Redis.
pub(crate) fn connect_with_long_timeout(url: &str) -> Redis {
    let settings = RedisSettings {
        call_timeout: Duration::from_millis(500),
        ..RedisSettings::default()
    };
    Redis::connect(RedisTarget::from_url(url).unwrap(), settings)
}

/// Number of calls by script, or by command without a script, and error.
fn calls(meter: &Meter) -> BTreeMap<(String, String), u64> {
    let key_and_count = |mut point: Point| {
        assert_eq!(point.unit, "s");
        assert!(point.sum > 0.0 && point.sum < 60.0, "{point:?}");
        let mut take = |label: &str| point.labels.remove(label).unwrap_or_default();
        assert_eq!(take("db.system.name"), "redis");
        let operation = take("db.operation.name");
        let script = take("db.stored_procedure.name");
        assert_eq!(operation == "EVALSHA", !script.is_empty());
        let name = if script.is_empty() { operation } else { script };
        let key = (name, take("error.type"));
        assert!(point.labels.is_empty(), "{point:?}");
        (key, point.count)
    };
    meter
        .points(DURATION)
        .into_iter()
        .map(key_and_count)
        .collect()
}

fn expected<const N: usize>(calls: [(&str, &str, u64); N]) -> BTreeMap<(String, String), u64> {
    calls
        .map(|(script, error, count)| ((script.to_owned(), error.to_owned()), count))
        .into()
}

async fn run(redis: &Redis, script: &Script) -> Result<(), RedisError> {
    redis.run(script, "key", &[]).await.map(drop)
}

#[tokio::test]
async fn calls_are_counted_by_script() {
    let server = RedisServer::start(&[]).await;
    let meter = Meter::start().await;
    let fixture = WindowFixture::on(&server.url(), "").await;
    fixture.save(1..=1).await;
    fixture.save(2..=2).await;
    fixture
        .recent
        .publish_replay(fixture.announce().await, 2)
        .await;
    fixture.recent.abort(fixture.announce().await).await;
    fixture.hit(10).await;
    // A script that Redis does not know is sent again within the same call.
    server.call(&["SCRIPT", "FLUSH"]).await;
    fixture.recent.retire(fixture.announce().await).await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 0, NONE, true).await;
    assert_eq!(
        calls(&meter),
        expected([
            ("announce", "", 5),
            ("publish", "", 2),
            ("publish_replay", "", 1),
            ("abort", "", 1),
            ("drop", "", 1),
            ("HGETALL", "", 2),
            ("newest", "", 1),
            ("fill", "", 1),
        ])
    );
}

#[tokio::test]
async fn failed_calls_are_counted_by_error() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let meter = Meter::start().await;
    let redis = connect_with_long_timeout(&server.url());
    redis.wait_until_available().await;
    let ok = Script::new("ok", "return 1");
    run(&redis, &ok).await.unwrap();
    let bad = Script::new("bad", "return redis.call('NO', KEYS[1])");
    run(&redis, &bad).await.unwrap_err();
    let list = Script::new("list", "return redis.call('LLEN', KEYS[1])");
    server.call(&["SET", "key", "text"]).await;
    run(&redis, &list).await.unwrap_err();
    server.call(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let set = Script::new("set", "return redis.call('SET', KEYS[1], '1')");
    run(&redis, &set).await.unwrap_err();
    let expected_with = |more: &[(&str, &str, u64)]| {
        let mut calls = expected([
            ("ok", "", 1),
            ("bad", "refused", 1),
            ("list", "wrong_type", 1),
            ("set", "out_of_memory", 1),
        ]);
        for (script, error, count) in more {
            calls.insert(((*script).to_owned(), (*error).to_owned()), *count);
        }
        calls
    };
    assert_eq!(calls(&meter), expected_with(&[]));

    assert!(
        run(&redis, &ok).now_or_never().is_none(),
        "the call needs a round trip"
    );
    let cancelled = ("ok", "cancelled", 1);
    assert_eq!(calls(&meter), expected_with(&[cancelled]));

    server.freeze();
    assert_eq!(run(&redis, &ok).await, Err(RedisError::NoReply));
    assert_eq!(run(&redis, &ok).await, Err(RedisError::Unavailable));
    assert_eq!(run(&redis, &ok).await, Err(RedisError::Unavailable));
    let unanswered = ("ok", "unanswered", 1);
    let unavailable = ("ok", "unavailable", 2);
    assert_eq!(
        calls(&meter),
        expected_with(&[cancelled, unanswered, unavailable])
    );
    server.thaw();
    redis.shutdown().await;
}

#[tokio::test]
async fn outages_are_counted() {
    let mut server = RedisServer::stopped(&[]);
    let meter = Meter::start().await;
    let redis = connect_with_long_timeout(&server.url());
    assert_eq!(meter.value(AVAILABLE), Some(0.0));
    assert_eq!(meter.value(OUTAGES), Some(0.0), "no reply was received yet");
    for outages in 1..=2 {
        server.run().await;
        redis.wait_until_available().await;
        assert_eq!(meter.value(AVAILABLE), Some(1.0));
        server.kill();
        let ok = Script::new("ok", "return 1");
        eventually("the outage is detected", async || {
            run(&redis, &ok).await.is_err() && !redis.is_available()
        })
        .await;
        assert_eq!(meter.value(AVAILABLE), Some(0.0));
        assert_eq!(meter.value(OUTAGES), Some(outages.into()));
    }
    redis.shutdown().await;
    assert_eq!(meter.value(OUTAGES), Some(2.0), "a shutdown is no outage");
    drop(redis);
    assert_eq!(meter.value(AVAILABLE), None, "the client was dropped");
}

/// Redis that replies, and refuses writes for any reason, is not available to operators.
#[tokio::test]
async fn refused_writes_count_as_unavailability() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let meter = Meter::start().await;
    let user = ["ACL", "SETUSER", "default"];
    let settings: [(&[&str], &[&str]); 3] = [
        (
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        (
            &[user[0], user[1], user[2], "-set"],
            &[user[0], user[1], user[2], "+set"],
        ),
    ];
    let redis = connect_with_long_timeout(&server.url());
    redis.wait_until_available().await;
    let write = Script::new("write", "return redis.call('SET', KEYS[1], '1')");
    let read = Script::new("read", "return redis.call('GET', KEYS[1])");
    for (refuse, permit) in settings {
        run(&redis, &write).await.unwrap();
        server.call(refuse).await;
        run(&redis, &write).await.unwrap_err();
        assert_eq!(meter.value(AVAILABLE), Some(0.0), "{refuse:?}");
        run(&redis, &read).await.unwrap();
        assert_eq!(
            meter.value(AVAILABLE),
            Some(0.0),
            "reads do not change that"
        );
        // Longer than a single refusal is remembered, while no call writes.
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(meter.value(AVAILABLE), Some(0.0), "{refuse:?}");
        assert_eq!(meter.value(OUTAGES), Some(0.0), "calls are still sent");
        server.call(permit).await;
        eventually("writes are permitted again", async || {
            meter.value(AVAILABLE) == Some(1.0)
        })
        .await;
    }
    redis.shutdown().await;
}

/// Destination that stores spans.
#[derive(Debug, Default)]
struct StoredSpans {
    spans: Mutex<Vec<SpanRecord>>,
    ids: AtomicU64,
}

impl SpanDestination for StoredSpans {
    fn new_span_id(&self) -> SpanId {
        SpanId::from(2 + self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn export(&self, _: &Call, ended: EndedSpans) {
        self.spans.lock().unwrap().extend(ended.spans);
    }
}

/// Begins a call whose spans are stored.
fn traced_call(spans: &Arc<StoredSpans>) -> (Scope, Span) {
    let trace = TraceId::from(1);
    let id = SpanId::from(1);
    let new = NewCall {
        method: "root",
        kind: CallKind {
            run: "tool",
            operation: None,
        },
        caller_name: None,
        trace: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
    };
    let traced = TracedCall {
        parent: SpanContext::NONE,
        caller_run: None,
        captures_content: false,
        attributes: Vec::new(),
        destination: Arc::clone(spans) as Arc<dyn SpanDestination>,
    };
    Call::traced(new, traced)
}

fn attributes(span: &SpanRecord) -> BTreeMap<&str, String> {
    let attributes = span.attributes.iter();
    attributes
        .map(|attribute| (attribute.key.as_str(), attribute.value.to_string()))
        .collect()
}

#[tokio::test]
async fn a_call_within_a_trace_creates_a_span() {
    let server = RedisServer::start(&[]).await;
    let _meter = Meter::start().await;
    let spans = Arc::<StoredSpans>::default();
    let redis = connect_and_wait(&server.url(), "").await;
    let ok = Script::new("announce", "return 'secret ' .. ARGV[1]");

    redis.run(&ok, "secret", &[Bytes::new()]).await.unwrap();
    assert_eq!(spans.ids.load(Ordering::Relaxed), 0, "there is no trace");

    let (scope, root) = traced_call(&spans);
    let args = [Bytes::from_static(b"secret")];
    let call = async {
        redis.run(&ok, "secret", &args).await.unwrap();
        let bad = Script::new("bad", "return redis.call('secret')");
        redis.run(&bad, "secret", &args).await.unwrap_err();
    };
    scope.run(call).await;
    drop(root);
    let spans = spans.spans.lock().unwrap();
    let [call, failed, root] = spans.as_slice() else {
        panic!("{spans:?}");
    };
    assert_eq!(root.parent, SpanId::INVALID);
    for span in [call, failed] {
        assert_eq!(span.parent, root.id);
        assert_eq!(span.kind, SpanKind::Client);
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
    assert_eq!(call.name, "EVALSHA announce");
    assert_eq!(call.status, Status::Unset);
    let port = server.port().to_string();
    let mut expected = BTreeMap::from([
        ("db.system.name", "redis"),
        ("db.operation.name", "EVALSHA"),
        ("db.stored_procedure.name", "announce"),
        ("db.namespace", "0"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ])
    .into_iter()
    .map(|(key, value)| (key, value.to_owned()))
    .collect::<BTreeMap<_, _>>();
    assert_eq!(attributes(call), expected);
    assert_eq!(failed.status, Status::error(""));
    expected.insert("db.stored_procedure.name", "bad".to_owned());
    expected.insert("error.type", "refused".to_owned());
    assert_eq!(attributes(failed), expected);
}
