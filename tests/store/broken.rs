//! Connections that break between the commit and its acknowledgement.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use conversation_memory::{
    domain::ConversationRef,
    store::{APPEND_LIMIT, Append, Appended, Newest, Store, StoreError, postgres::PostgresStore},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use test_support::{
    stopwatch::Stopwatch,
    store_fixture::{
        append_of, at, new_conversation, owned_ref, retry_of, server_options,
        truncation_with_request_id, turn, user, with_chosen_id, with_request_id,
    },
};

/// State of a [`FaultyProxy`] that forwards everything.
const PASS: u8 = 0;
/// State that drops the response to the next request, closes its connection, and forwards
/// later connections.
const BREAK_ONCE: u8 = 1;
/// State that drops the response to the next request, and accepts no connections.
const BREAK: u8 = 2;
/// State that accepts requests and forwards nothing.
const HANG: u8 = 3;

/// Proxy to the server that can interrupt its connections.
struct FaultyProxy {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    _tasks: JoinSet<()>,
}

impl FaultyProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(AtomicU8::new(PASS));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if shared.load(Ordering::SeqCst) != BREAK {
                    connections.spawn(forward(client, Arc::clone(&shared)));
                }
            }
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    /// Opens a store that connects through this proxy, with one connection that has executed all
    /// statements of saves before, so that its next save is one message to the server.
    async fn store(&self) -> (PostgresStore, ConversationRef) {
        let options = server_options().host("127.0.0.1").port(self.address.port());
        let store = PostgresStore::new(options, 1);
        store.prepare(true).await.unwrap();
        let new = new_conversation(&user());
        store.create(&new, at(0)).await.unwrap();
        let conversation = owned_ref(&new);
        store
            .append(&turn(&conversation, &["before"]))
            .await
            .unwrap();
        let mut rejected = turn(&conversation, &["rejected"]);
        rejected.expected_last_seq = Some(0);
        let rejected = store.append(&rejected).await;
        assert!(matches!(rejected, Err(StoreError::Conflict { .. })));
        (store, conversation)
    }
}

async fn forward(client: TcpStream, state: Arc<AtomicU8>) {
    let options = server_options();
    let upstream = TcpStream::connect((options.get_host(), options.get_port()));
    let (mut from_server, mut to_server) = upstream.await.unwrap().into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let is_broken = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let size = from_client.read(&mut buffer).await.unwrap_or(0);
            // The pool tests a returned connection with a message of five bytes. The response
            // to it is forwarded.
            match state.load(Ordering::SeqCst) {
                BREAK | BREAK_ONCE if size > 5 => is_broken.store(true, Ordering::SeqCst),
                HANG if size > 5 => std::future::pending().await,
                _ => {}
            }
            if size == 0 || to_server.write_all(&buffer[..size]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let size = from_server.read(&mut buffer).await.unwrap_or(0);
            if is_broken.load(Ordering::SeqCst) {
                let _ =
                    state.compare_exchange(BREAK_ONCE, PASS, Ordering::SeqCst, Ordering::SeqCst);
                break;
            }
            if size == 0 || to_client.write_all(&buffer[..size]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn texts(store: &PostgresStore, conversation: &ConversationRef) -> Vec<String> {
    let Newest { messages, .. } = store.newest(conversation, 100, false).await.unwrap();
    messages
        .into_iter()
        .map(|message| message.content.into_string())
        .collect()
}

fn saves(conversation: &ConversationRef) -> [Append; 3] {
    [
        turn(conversation, &["asked", "heard"]),
        with_request_id(turn(conversation, &["asked", "heard"]), "key"),
        append_of(
            conversation,
            vec![with_chosen_id("asked"), with_chosen_id("heard")],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn save_with_lost_acknowledgement_is_found() {
    let proxy = FaultyProxy::start().await;
    let (store, conversation) = proxy.store().await;
    for (done, mut append) in (0_usize..).zip(saves(&conversation)) {
        let end = i64::try_from(1 + done * 2).unwrap();
        append.expected_last_seq = Some(end);
        proxy.set(BREAK_ONCE);
        let outcome = store.append(&append).await.unwrap();
        match outcome {
            Appended::Saved { first_seq, .. } => assert_eq!(first_seq, end + 1),
            // If the caller chose the ids, another call may have saved the turn.
            Appended::Replayed { last_seq, .. } => assert_eq!((done, last_seq), (2, end + 2)),
        }
        let expected = ["asked", "heard"].repeat(done + 1);
        assert_eq!(texts(&store, &conversation).await[1..], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_is_unknown_while_the_server_is_unreachable() {
    let proxy = FaultyProxy::start().await;
    for place in 0..3 {
        let (store, conversation) = proxy.store().await;
        let append = saves(&conversation)[place].clone();
        proxy.set(BREAK);
        let outcome = store.append(&append).await;
        assert!(
            matches!(outcome, Err(StoreError::OutcomeUnknown(_))),
            "{outcome:?}"
        );
        // Nothing can be sent any more, so nothing can have been written.
        let outcome = store.append(&append).await;
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
        let removal = truncation_with_request_id(&conversation, 0, "removal");
        let outcome = store.truncate(&removal).await;
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
        proxy.set(PASS);
        if place > 0 {
            let outcome = store.append(&retry_of(&append)).await.unwrap();
            assert!(matches!(outcome, Appended::Replayed { last_seq: 3, .. }));
        }
        assert_eq!(
            texts(&store, &conversation).await,
            ["before", "asked", "heard"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_read_is_retried() {
    let proxy = FaultyProxy::start().await;
    let (store, conversation) = proxy.store().await;
    for _ in 0..3 {
        assert_eq!(texts(&store, &conversation).await, ["before"]);
        proxy.set(BREAK_ONCE);
        assert_eq!(texts(&store, &conversation).await, ["before"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_hung_server_end_in_time() {
    let proxy = FaultyProxy::start().await;
    let (store, conversation) = proxy.store().await;
    assert_eq!(texts(&store, &conversation).await, ["before"]);
    proxy.set(HANG);
    let started = Stopwatch::start();
    let outcome = store.append(&turn(&conversation, &["asked"])).await;
    assert!(
        matches!(outcome, Err(StoreError::OutcomeUnknown(_))),
        "{outcome:?}"
    );
    assert!(started.elapsed() < APPEND_LIMIT);
    // No connection can be opened, which is detected sooner.
    let started = Stopwatch::start();
    let outcome = store.append(&turn(&conversation, &["asked"])).await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    assert!(started.elapsed() < Duration::from_millis(2_500));
    proxy.set(PASS);
    // The hung connection is replaced, and the store works again.
    while store
        .append(&turn(&conversation, &["heard"]))
        .await
        .is_err()
    {}
    assert_eq!(texts(&store, &conversation).await, ["before", "heard"]);
}

/// A snapshot is not retried, and limits its own time.
#[tokio::test(flavor = "multi_thread")]
async fn snapshot_on_a_hung_server_ends_in_time() {
    let proxy = FaultyProxy::start().await;
    let (store, conversation) = proxy.store().await;
    assert_eq!(texts(&store, &conversation).await, ["before"]);
    proxy.set(HANG);
    let started = Stopwatch::start();
    let error = store.snapshot(&conversation).await.err();
    assert!(
        matches!(error, Some(StoreError::Unavailable(_))),
        "{error:?}"
    );
    assert!(started.elapsed() < APPEND_LIMIT);
}
