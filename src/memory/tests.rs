use std::{
    error::Error as _,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{write_through::WindowUpdate, *};
use crate::{
    domain::{
        ConversationId, ConversationRef, Limits, Message, MessageId, NewMessage, NumberedMessage,
        RawMessage, Role, SystemClock, UserId, UuidV7,
    },
    recent::{Announcement, Claim, FillLease, Lookup, Window, none::NoWindow},
    sessions::in_process::{InProcessLimits, InProcessSessions},
    store::{StoreError, sqlite::SqliteStore},
};

fn memory() -> Memory {
    memory_with(Arc::new(NoWindow))
}

fn memory_with(recent: Arc<dyn RecentWindow>) -> Memory {
    memory_of(recent, TokenEncoding::None)
}

pub(super) fn memory_counting(encoding: TokenEncoding) -> Memory {
    memory_of(Arc::new(NoWindow), encoding)
}

fn memory_of(recent: Arc<dyn RecentWindow>, token_encoding: TokenEncoding) -> Memory {
    memory_in(tempfile::tempdir().unwrap().path(), recent, token_encoding)
}

fn memory_in(
    folder: &Path,
    recent: Arc<dyn RecentWindow>,
    token_encoding: TokenEncoding,
) -> Memory {
    let store = SqliteStore::open(&folder.join("conversations.db")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Memory::new(Dependencies {
        store: Arc::new(store),
        recent,
        sessions: Arc::new(InProcessSessions::new(
            Duration::from_mins(1),
            Arc::clone(&clock),
            InProcessLimits::default(),
        )),
        clock,
        ids: Arc::new(UuidV7),
        writes: TaskTracker::new(),
        write_permits: FairSemaphore::new(1),
        read_permits: FairSemaphore::new(1),
        response_bytes: FairSemaphore::new(1 << 20),
        import_permit: FairSemaphore::new(1),
        default_limit: 6,
        compaction_tokens: 0,
        token_encoding,
    })
}

#[tokio::test]
async fn panics_do_not_reveal_their_text() {
    let memory = memory();
    // Twice, since a panic must return its permit.
    for _ in 0..2 {
        let failed = memory
            .uninterrupted(async { panic!("message text") as Result<(), Error> })
            .await
            .unwrap_err();
        let cause = failed.source().unwrap();
        assert_eq!(cause.to_string(), "a write panicked");
        assert!(!format!("{failed:?}").contains("message text"));
    }
}

#[tokio::test]
async fn abandoned_writes_count_towards_the_limit() {
    let memory = memory();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let slow = memory.uninterrupted(async {
        let _ = finished.await;
        Ok(())
    });
    // The caller stops waiting while the write runs.
    let abandoned = tokio::time::timeout(Duration::from_millis(1), slow).await;
    assert!(abandoned.is_err());
    let rejected = memory.uninterrupted(async { Ok(()) }).await;
    assert!(matches!(rejected, Err(Error::Overloaded)));
    finish.send(()).unwrap();
    memory.0.writes.close();
    memory.0.writes.wait().await;
    memory.uninterrupted(async { Ok(()) }).await.unwrap();
}

#[tokio::test]
async fn callers_with_unread_responses_do_not_read_from_the_store() {
    let memory = memory();
    let (caller, other) = (ShareKey::new("caller"), ShareKey::new("other"));
    let read = |key: ShareKey| key.scope(memory.read_permit());
    // A quarter is reserved for others.
    let unread = memory.0.response_bytes.try_acquire(caller, 700 << 10);
    assert!(unread.is_some());
    let rejected = read(caller).await;
    assert!(matches!(rejected, Err(Error::TooManyResponseBytes { max }) if max == 1 << 20));
    read(other).await.unwrap();
    drop(unread);
    read(caller).await.unwrap();
}

#[tokio::test]
async fn imports_write_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let memory = memory_in(folder.path(), Arc::new(NoWindow), TokenEncoding::None);
    memory.0.store.prepare(true).await.unwrap();
    let import = ImportConversation {
        id: None,
        user_id: UserId::parse("ana".to_owned()).unwrap(),
        dept_id: None,
        title: None,
        created_at: None,
        updated_at: None,
        metadata: None,
    };
    let mut import = memory.import_conversation(import).await.unwrap();
    let message = NewMessage::new(
        RawMessage::text(Role::User, "a question"),
        std::iter::empty(),
        || MessageId::from_uuid(memory.new_id()),
        &Limits::default(),
    );
    let message = message.unwrap();
    import
        .add(NumberedMessage { seq: 1, message })
        .await
        .unwrap();
    let another = memory.0.import_permit.acquire(ShareKey::current()).await;
    let mut finish = Box::pin(import.finish(1));
    let finished = tokio::time::timeout(Duration::from_millis(50), &mut finish).await;
    assert!(finished.is_err());
    drop(another);
    let (conversation, messages) = finish.await.unwrap();
    assert_eq!((conversation.last_seq, messages), (1, 1));
}

/// Window that records the methods that are called.
#[derive(Debug, Default)]
struct RecordingWindow {
    calls: Mutex<Vec<&'static str>>,
    /// Connection to a window that is shared with other processes; 0 if it is not shared.
    connection: AtomicU64,
    /// Whether no other process completes the invalidations.
    grants_claims: AtomicBool,
}

impl RecordingWindow {
    fn record(&self, method: &'static str) {
        self.calls.lock().unwrap().push(method);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

#[async_trait]
impl RecentWindow for RecordingWindow {
    async fn announce(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: Duration,
    ) -> Option<Announcement> {
        self.record("announce");
        NoWindow.announce(conversation, claim, limit).await
    }

    async fn publish(&self, _: Announcement, _: &UserId, _: &[Message], _: i64) {
        self.record("publish");
    }

    async fn publish_replay(&self, _announcement: Announcement, _last_seq: i64) {
        self.record("publish_replay");
    }

    async fn retire(&self, _announcement: Announcement) {
        self.record("retire");
    }

    async fn abort(&self, _announcement: Announcement) {
        self.record("abort");
    }

    async fn forget(&self, _announcement: Announcement) {
        self.record("forget");
    }

    async fn leave(&self, _announcement: Announcement) {
        self.record("leave");
    }

    async fn newest(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: u32,
        min_seq: i64,
    ) -> Lookup {
        NoWindow.newest(conversation, claim, limit, min_seq).await
    }

    async fn fill(&self, _: FillLease, _: &Window<Message>) {}

    async fn invalidate(&self, _conversation: ConversationId) -> bool {
        true
    }

    fn connection(&self) -> Option<u64> {
        match self.connection.load(Ordering::SeqCst) {
            0 => None,
            connection => Some(connection),
        }
    }

    async fn connection_changed(&self, seen: Option<u64>) {
        NoWindow.connection_changed(seen).await;
    }

    fn trust(&self, _connection: Option<u64>) {}

    async fn claim_completion(&self, _interval: Duration) -> bool {
        self.record("claim");
        self.grants_claims.load(Ordering::SeqCst)
    }

    async fn record_completion(&self, is_complete: bool, _interval: Duration) {
        self.record(if is_complete {
            "complete"
        } else {
            "incomplete"
        });
    }

    fn is_shared(&self) -> bool {
        self.connection().is_some()
    }

    fn capacity(&self) -> u32 {
        0
    }
}

/// Runs a write with an outcome, and returns the methods of the window that it called.
async fn window_calls(
    write: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    update: fn(&()) -> WindowUpdate<'_>,
) -> Vec<&'static str> {
    let window = Arc::new(RecordingWindow::default());
    let recording: Arc<dyn RecentWindow> = Arc::clone(&window) as Arc<dyn RecentWindow>;
    let memory = memory_with(recording);
    let id = ConversationId::from_uuid(memory.new_id());
    let conversation = ConversationRef { id, user_id: None };
    let writer = memory.clone();
    let written = memory.uninterrupted(async move {
        let limit = Duration::from_secs(1);
        writer
            .write_through(
                &conversation,
                limit,
                async |_| write.await,
                update,
                async |()| {},
            )
            .await
            .map_err(|error| Error::from_write(error, id, true))
    });
    let _ = written.await;
    window.take()
}

#[tokio::test]
async fn each_outcome_of_a_write_settles_its_announcement() {
    let removal: fn(&()) -> WindowUpdate<'_> = |()| WindowUpdate::Removal;
    let replay: fn(&()) -> WindowUpdate<'_> = |()| WindowUpdate::Replay { last_seq: 1 };
    let cause = || "connection lost".into();
    for (outcome, update, settled) in [
        (Ok(()), removal, "retire"),
        (Ok(()), replay, "publish_replay"),
        (Err(StoreError::NotFound), removal, "forget"),
        (
            Err(StoreError::Conflict { current_seq: 1 }),
            removal,
            "abort",
        ),
        (Err(StoreError::Unavailable(cause())), removal, "abort"),
        (Err(StoreError::Internal(cause())), removal, "abort"),
        (Err(StoreError::OutcomeUnknown(cause())), removal, "leave"),
    ] {
        let calls = window_calls(async { outcome }, update).await;
        assert_eq!(calls, ["announce", settled]);
    }
}

#[tokio::test]
async fn a_panic_settles_the_announcement_as_an_unknown_outcome() {
    let calls = window_calls(async { panic!("bug") }, |()| WindowUpdate::Removal).await;
    assert_eq!(calls, ["announce", "leave"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_without_connection_leaves_invalidations_to_another_one() {
    let window = Arc::new(RecordingWindow::default());
    window.connection.store(1, Ordering::SeqCst);
    let memory = memory_with(Arc::clone(&window) as Arc<dyn RecentWindow>);
    let completing = memory.0.writes.spawn({
        let memory = memory.clone();
        async move { memory.complete_invalidations().await }
    });
    let calls_within = async |milliseconds| {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        let calls = window.take();
        ["claim", "complete"].map(|name| calls.iter().filter(|call| **call == name).count())
    };
    // It completes them itself once on each connection to the windows.
    assert_eq!(calls_within(400).await, [0, 1]);
    assert_eq!(calls_within(10_000).await, [20, 0]);
    window.connection.store(2, Ordering::SeqCst);
    assert_eq!(calls_within(500).await, [0, 1]);
    assert_eq!(calls_within(10_000).await, [20, 0]);
    // The other process does not complete them any more.
    window.grants_claims.store(true, Ordering::SeqCst);
    assert_eq!(calls_within(10_000).await, [20, 20]);
    completing.abort();
}
