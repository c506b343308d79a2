//! A primary that crashes under load, and whose standby is promoted.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conversation_memory::proto::{Role, SaveMessagesRequest};
use test_support::{
    new_user,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::{message, new_conversation, save},
    sidecar::{Form, Memory, Sidecar},
    within_progress,
};
use tokio::task::JoinSet;

use crate::load::stored;

const WRITERS: usize = 32;

/// Saves of all writers before the crash, and of each writer after the promotion.
const BEFORE: usize = 500;
const AFTER: usize = 5;

/// Time after the promotion within which each writer saves again, on a machine that is busy. Documented
/// is what the test prints on an idle one.
const RECOVERY_LIMIT: Duration = Duration::from_mins(1);

/// Save that was acknowledged, with the number of its last message.
type Acknowledged = (SaveMessagesRequest, i64);

/// Progress of all writers.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicUsize,
    is_promoted: AtomicBool,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_under_load_loses_no_acknowledged_save() {
    let (mut primary, redis) = tokio::join!(PostgresServer::start(), RedisServer::start(&[]));
    let standby = primary.start_standby().await;
    for statement in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        primary.execute(statement).await;
    }
    let both = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        primary.port(),
        standby.port()
    );
    let form = Form::Servers {
        database_url: both.clone(),
        redis_url: redis.url(),
    };
    let settings = [("DATABASE_READ_URL", both.as_str())];
    let sidecars = [
        Sidecar::start_with(&form, &settings).await,
        Sidecar::start_with(&form, &settings).await,
    ];
    let mut observer = sidecars[0].memory();
    let mut conversations = Vec::new();
    for _ in 0..WRITERS / 4 {
        conversations.push(new_conversation(&mut observer, &new_user()).await);
    }
    let progress = Arc::new(Progress::default());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let conversation = conversations[writer % conversations.len()].clone();
        let memory = sidecars[writer % 2].memory();
        writers.spawn(write(memory, conversation, writer, Arc::clone(&progress)));
    }
    within_progress(
        "the writers save",
        async || progress.acknowledged.load(Ordering::SeqCst),
        |acknowledged| *acknowledged >= BEFORE,
    )
    .await;
    primary.kill();
    standby
        .execute("ALTER SYSTEM RESET synchronous_standby_names")
        .await;
    standby.execute("SELECT pg_reload_conf()").await;
    standby.promote().await;
    let promoted = Instant::now();
    progress.is_promoted.store(true, Ordering::SeqCst);
    let outcomes = writers.join_all().await;
    let slowest = outcomes.iter().map(|(_, resumed)| *resumed).max().unwrap();
    let recovery = slowest.saturating_duration_since(promoted);
    let fastest = outcomes.iter().map(|(_, resumed)| *resumed).min().unwrap();
    let first = fastest.saturating_duration_since(promoted);
    eprintln!("the first writer saves {first:?} after the promotion, the last one {recovery:?}");
    assert!(recovery < RECOVERY_LIMIT, "{recovery:?}");

    let acknowledged: Vec<Acknowledged> = outcomes.into_iter().flat_map(|(all, _)| all).collect();
    eprintln!("{} saves were acknowledged", acknowledged.len());
    // A retry returns the first outcome, through either sidecar.
    for (position, (request, last_seq)) in acknowledged.iter().enumerate() {
        let mut memory = sidecars[position % 2].memory();
        let retried = memory.save_messages(request.clone()).await.unwrap();
        assert_eq!(retried.into_inner().last_seq, *last_seq);
    }
    for conversation in &conversations {
        let stored = stored(&mut observer, conversation).await.into_iter();
        let stored: HashMap<_, _> = stored.collect();
        let saves = acknowledged.iter();
        let saves = saves.filter(|(request, _)| request.conversation_id == *conversation);
        let mut number = 0;
        for (request, last_seq) in saves {
            assert_eq!(stored.get(last_seq), Some(&request.messages[0].content));
            number += 1;
        }
        // Everything was acknowledged in the end, and nothing is stored twice.
        assert_eq!(stored.len(), number);
    }
}

/// Saves one message after the other, each until it is acknowledged, and some after the promotion.
/// Returns the acknowledged saves, and when the first save after the promotion was acknowledged.
async fn write(
    mut memory: Memory,
    conversation: String,
    writer: usize,
    progress: Arc<Progress>,
) -> (Vec<Acknowledged>, Instant) {
    let (mut acknowledged, mut resumed, mut after) = (Vec::new(), None, 0);
    for number in 0.. {
        let text = format!("{writer}-{number}");
        let mut request = save(&conversation, vec![message(Role::User, &text)]);
        request.request_id = text;
        let was_promoted = progress.is_promoted.load(Ordering::SeqCst);
        let last_seq = loop {
            match memory.save_messages(request.clone()).await {
                Ok(saved) => break saved.into_inner().last_seq,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        acknowledged.push((request, last_seq));
        progress.acknowledged.fetch_add(1, Ordering::SeqCst);
        if progress.is_promoted.load(Ordering::SeqCst) {
            resumed.get_or_insert_with(Instant::now);
        }
        after += usize::from(was_promoted);
        if after == AFTER {
            break;
        }
    }
    (acknowledged, resumed.unwrap())
}
