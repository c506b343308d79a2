//! Connections that break when it hurts: after the commit, before its answer.

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
    store::{APPEND_LIMIT, Append, Appended, Store, StoreError, postgres::PostgresStore},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use test_support::{
    stopwatch::Stopwatch,
    world::{
        at, chosen, keyed, keyed_truncation, named, new_conversation, retry_of, save_of, server,
        turn, user,
    },
};

/// What a [`Wire`] does.
const PASS: u8 = 0;
/// Swallows the answer to what is sent next, breaks that connection, and passes on
/// the next one.
const CUT_ONCE: u8 = 1;
/// Swallows the answer to what is sent next, and lets nobody connect.
const CUT: u8 = 2;
/// Takes what is sent and answers nothing.
const HANG: u8 = 3;

/// A wire to the server that can be cut.
struct Wire {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    _tasks: JoinSet<()>,
}

impl Wire {
    async fn lay() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(AtomicU8::new(PASS));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if shared.load(Ordering::SeqCst) != CUT {
                    connections.spawn(carry(client, Arc::clone(&shared)));
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

    /// A store at the end of this wire, with one connection that has saved
    /// before: its next save is one message to the server.
    async fn store(&self) -> (PostgresStore, ConversationRef) {
        let options = server().host("127.0.0.1").port(self.address.port());
        let store = PostgresStore::new(options, 1);
        store.prepare(true).await.unwrap();
        let new = new_conversation(&user());
        store.create(&new, at(0)).await.unwrap();
        let conversation = named(&new);
        store
            .append(&turn(&conversation, &["before"]))
            .await
            .unwrap();
        (store, conversation)
    }
}

async fn carry(client: TcpStream, state: Arc<AtomicU8>) {
    let options = server();
    let upstream = TcpStream::connect((options.get_host(), options.get_port()));
    let (mut from_server, mut to_server) = upstream.await.unwrap().into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let doomed = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let size = from_client.read(&mut buffer).await.unwrap_or(0);
            // A connection that goes back to its pool is asked with five bytes
            // whether it is in order. That answer may pass.
            match state.load(Ordering::SeqCst) {
                CUT | CUT_ONCE if size > 5 => doomed.store(true, Ordering::SeqCst),
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
            if doomed.load(Ordering::SeqCst) {
                let _ = state.compare_exchange(CUT_ONCE, PASS, Ordering::SeqCst, Ordering::SeqCst);
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
    let (_, messages) = store.newest(conversation, 100, false).await.unwrap();
    messages
        .into_iter()
        .map(|message| message.content.into_string())
        .collect()
}

fn saves(conversation: &ConversationRef) -> [Append; 3] {
    [
        turn(conversation, &["asked", "heard"]),
        keyed(turn(conversation, &["asked", "heard"]), "key"),
        save_of(conversation, vec![chosen("asked"), chosen("heard")]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_is_found_again() {
    let wire = Wire::lay().await;
    let (store, conversation) = wire.store().await;
    for (done, mut append) in (0_usize..).zip(saves(&conversation)) {
        let end = i64::try_from(1 + done * 2).unwrap();
        append.expected_last_seq = Some(end);
        wire.set(CUT_ONCE);
        let outcome = store.append(&append).await.unwrap();
        match outcome {
            Appended::Saved { first_seq, .. } => assert_eq!(first_seq, end + 1),
            // With ids of the caller's it may have been another call.
            Appended::Replayed { last_seq, .. } => assert_eq!((done, last_seq), (2, end + 2)),
        }
        let expected = ["asked", "heard"].repeat(done + 1);
        assert_eq!(texts(&store, &conversation).await[1..], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_found_is_unknown() {
    let wire = Wire::lay().await;
    for place in 0..3 {
        let (store, conversation) = wire.store().await;
        let append = saves(&conversation)[place].clone();
        wire.set(CUT);
        let outcome = store.append(&append).await;
        assert!(
            matches!(outcome, Err(StoreError::OutcomeUnknown(_))),
            "{outcome:?}"
        );
        // Nothing can be sent any more: nothing can have been done.
        let outcome = store.append(&append).await;
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
        let removal = keyed_truncation(&conversation, 0, "removal");
        let outcome = store.truncate(&removal).await;
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
        wire.set(PASS);
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
async fn a_read_that_was_cut_off_is_read_again() {
    let wire = Wire::lay().await;
    let (store, conversation) = wire.store().await;
    for _ in 0..3 {
        assert_eq!(texts(&store, &conversation).await, ["before"]);
        wire.set(CUT_ONCE);
        assert_eq!(texts(&store, &conversation).await, ["before"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up_in_time() {
    let wire = Wire::lay().await;
    let (store, conversation) = wire.store().await;
    assert_eq!(texts(&store, &conversation).await, ["before"]);
    wire.set(HANG);
    let started = Stopwatch::start();
    let outcome = store.append(&turn(&conversation, &["asked"])).await;
    assert!(
        matches!(outcome, Err(StoreError::OutcomeUnknown(_))),
        "{outcome:?}"
    );
    assert!(started.elapsed() < APPEND_LIMIT);
    // Nobody can connect: that is known sooner.
    let started = Stopwatch::start();
    let outcome = store.append(&turn(&conversation, &["asked"])).await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    assert!(started.elapsed() < Duration::from_millis(2_500));
    wire.set(PASS);
    // The connection that hung makes room, and the store is well again.
    while store
        .append(&turn(&conversation, &["heard"]))
        .await
        .is_err()
    {}
    assert_eq!(texts(&store, &conversation).await, ["before", "heard"]);
}
