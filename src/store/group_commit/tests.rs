#![expect(clippy::disallowed_methods, reason = "the tests wait for their tasks")]

use std::{
    error::Error as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::Semaphore,
    task::{JoinHandle, yield_now},
    time::sleep,
};
use uuid::Uuid;

use super::*;
use crate::{
    domain::{ConversationRef, Limits, MessageId, NewMessage, RawMessage, Role, UserId},
    store::Invalidation,
};

const LIMITS: GroupLimits = GroupLimits {
    batches: 1,
    saves: 4,
    bytes: 10_000,
    waiting: 100,
    wait: Duration::from_millis(900),
};

/// Writer whose batches and single saves each wait for a permit of `gate`.
struct TestWriter {
    gate: Semaphore,
    sessions: Semaphore,
    written: Mutex<Vec<Vec<u128>>>,
    /// For which callers a session was begun.
    begun_for: Mutex<Vec<ShareKey>>,
    /// Saves in progress, and the maximum of that number.
    in_progress: AtomicUsize,
    most_in_progress: AtomicUsize,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Saves,
    /// Leaves the saves of batches to their callers.
    LeavesToCallers {
        after_loss: bool,
    },
    /// Rejects the save to this conversation.
    Rejects(u128),
    /// Panics in the batch with the save to this conversation.
    Panics(u128),
    HasNoSession,
}

impl TestWriter {
    async fn write(&self, saves: Vec<u128>) {
        let in_progress = self.in_progress.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_progress
            .fetch_max(in_progress, Ordering::Relaxed);
        self.written.lock().unwrap().push(saves);
        self.gate.acquire().await.unwrap().forget();
        self.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SaveWriter for Arc<TestWriter> {
    type Session = ();

    async fn begin(&self) -> Result<(), BackendError> {
        self.begun_for.lock().unwrap().push(ShareKey::current());
        if self.behaviour == Behaviour::HasNoSession {
            sleep(LIMITS.wait / 2).await;
            return Err(BackendError::new(ErrorKind::Unavailable, "no session"));
        }
        self.sessions.acquire().await.unwrap().forget();
        Ok(())
    }

    async fn write_batch(&self, (): (), saves: &[GroupedSave<'_>]) -> Vec<GroupOutcome> {
        self.write(saves.iter().map(|save| number(save.append)).collect())
            .await;
        if let Behaviour::Panics(conversation) = self.behaviour {
            let is_found = saves.iter().any(|save| number(save.append) == conversation);
            assert!(!is_found, "text of a save");
        }
        let outcome = |save: &GroupedSave<'_>| match self.behaviour {
            Behaviour::LeavesToCallers { after_loss } => GroupOutcome::Single { after_loss },
            Behaviour::Rejects(rejected) if rejected == number(save.append) => {
                GroupOutcome::Ended(Err(StoreError::NotFound.into()))
            }
            _ => GroupOutcome::Ended(Ok(saved(save.append.messages.len()))),
        };
        saves.iter().map(outcome).collect()
    }

    async fn write_single(
        &self,
        save: &Append,
        attempt: SingleAttempt,
    ) -> Result<Appended, OperationError> {
        self.write(vec![number(save)]).await;
        let first = if attempt.after_loss { 1_000 } else { 500 };
        Ok(saved(first))
    }
}

fn saved(first_seq: usize) -> Appended {
    Appended::Saved {
        owner: UserId::parse("user").unwrap(),
        first_seq: i64::try_from(first_seq).unwrap(),
        uncompacted_tokens: 0,
    }
}

fn number(append: &Append) -> u128 {
    append.conversation.id.as_uuid().as_u128()
}

/// Save to the conversation with a number.
fn save(conversation: u128, content: &str) -> Append {
    let message = NewMessage::new(
        RawMessage::text(Role::User, content),
        std::iter::empty(),
        || MessageId::from_uuid(Uuid::from_u128(1)),
        &Limits::default(),
    );
    Append {
        conversation: ConversationRef {
            id: ConversationId::from_uuid(Uuid::from_u128(conversation)),
            user_id: None,
        },
        messages: vec![message.unwrap()],
        request: None,
        expected_last_seq: None,
        session_id: None,
        title: None,
        invalidation: Invalidation::Never,
        at: chrono::DateTime::default(),
    }
}

struct Fixture {
    commit: Arc<GroupCommit<Arc<TestWriter>>>,
    writer: Arc<TestWriter>,
}

type Call = JoinHandle<Result<Appended, OperationError>>;

impl Fixture {
    fn new(behaviour: Behaviour, limits: GroupLimits) -> Self {
        let writer = Arc::new(TestWriter {
            gate: Semaphore::new(0),
            sessions: Semaphore::new(1_000),
            written: Mutex::default(),
            begun_for: Mutex::default(),
            in_progress: AtomicUsize::new(0),
            most_in_progress: AtomicUsize::new(0),
            behaviour,
        });
        Self {
            commit: Arc::new(GroupCommit::new(Arc::clone(&writer), limits)),
            writer,
        }
    }

    /// Calls `append` for a caller, and returns when the save waits or is being written.
    async fn call(&self, caller: u8, append: Append) -> Call {
        let commit = Arc::clone(&self.commit);
        let call = async move { commit.append(&append).await };
        let call = tokio::spawn(ShareKey::new(caller).scope(call));
        settle().await;
        call
    }

    /// Saves to each of these conversations.
    async fn calls(&self, conversations: impl IntoIterator<Item = u128>) -> Vec<Call> {
        let mut calls = Vec::new();
        for conversation in conversations {
            calls.push(self.call(0, save(conversation, "text")).await);
        }
        calls
    }

    /// Ends the next writes.
    async fn finish(&self, writes: usize) {
        self.writer.gate.add_permits(writes);
        settle().await;
    }

    /// Conversations that were written so far, batch by batch.
    fn written(&self) -> Vec<Vec<u128>> {
        self.writer.written.lock().unwrap().clone()
    }
}

/// Runs all tasks until they wait.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

async fn first_seqs(calls: Vec<Call>) -> Vec<i64> {
    let mut seqs = Vec::new();
    for call in calls {
        match call.await.unwrap().unwrap() {
            Appended::Saved { first_seq, .. } => seqs.push(first_seq),
            Appended::Replayed { .. } => panic!("replayed"),
        }
    }
    seqs
}

/// Kind and cause of the error of a call.
async fn failure(call: Call) -> (ErrorKind, String) {
    match call.await.unwrap().unwrap_err() {
        OperationError::Backend(error) => (error.kind, error.cause.to_string()),
        OperationError::Store(error) => panic!("{error:?} {:?}", error.source()),
    }
}

#[tokio::test]
async fn save_to_an_idle_store_is_written_at_once_and_later_ones_together() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let calls = fixture.calls(1..=4).await;
    assert_eq!(fixture.written(), [vec![1]]);
    fixture.finish(1).await;
    assert_eq!(fixture.written(), [vec![1], vec![2, 3, 4]]);
    fixture.finish(1).await;
    assert_eq!(first_seqs(calls).await, [1; 4]);
    // The store is idle again.
    let calls = fixture.calls([5]).await;
    fixture.finish(1).await;
    assert_eq!(first_seqs(calls).await, [1]);
}

#[tokio::test]
async fn no_batch_waits_for_a_session_with_the_share_of_one_caller() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let calls = fixture.calls(1..=3).await;
    fixture.finish(2).await;
    assert_eq!(first_seqs(calls).await, [1; 3]);
    let begun_for = fixture.writer.begun_for.lock().unwrap();
    assert_eq!(*begun_for, [ShareKey::BATCH; 2]);
}

#[tokio::test]
async fn batch_contains_a_conversation_once_and_its_saves_keep_their_order() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let calls = fixture.calls([1, 1, 2, 2, 3, 1]).await;
    fixture.finish(4).await;
    let written = [vec![1], vec![1, 2, 3], vec![2, 1]];
    assert_eq!(fixture.written(), written);
    assert_eq!(first_seqs(calls).await.len(), 6);
}

#[tokio::test]
async fn batches_in_progress_have_no_conversation_in_common() {
    let limits = GroupLimits {
        batches: 2,
        ..LIMITS
    };
    let fixture = Fixture::new(Behaviour::Saves, limits);
    let calls = fixture.calls([1, 2, 1, 2, 3]).await;
    assert_eq!(fixture.written(), [vec![1], vec![2]]);
    // The first one ends: its conversation and the third one can be written.
    fixture.finish(1).await;
    assert_eq!(fixture.written(), [vec![1], vec![2], vec![1, 3]]);
    fixture.finish(1).await;
    assert_eq!(fixture.written()[3], [2]);
    fixture.finish(2).await;
    assert_eq!(first_seqs(calls).await.len(), 5);
    let most = fixture.writer.most_in_progress.load(Ordering::Relaxed);
    assert_eq!(most, 2);
}

#[tokio::test]
async fn save_to_a_conversation_that_is_being_written_waits_although_a_batch_may_start() {
    let limits = GroupLimits {
        batches: 2,
        ..LIMITS
    };
    let fixture = Fixture::new(Behaviour::Saves, limits);
    let calls = fixture.calls([1, 1]).await;
    assert_eq!(fixture.written(), [[1]]);
    let other = fixture.calls([2]).await;
    assert_eq!(fixture.written(), [[1], [2]]);
    fixture.finish(3).await;
    assert_eq!(fixture.written(), [[1], [2], [1]]);
    assert_eq!(
        first_seqs(calls).await.len() + first_seqs(other).await.len(),
        3
    );
}

#[tokio::test]
async fn number_and_size_of_the_saves_of_a_batch_are_limited() {
    let limits = GroupLimits {
        bytes: 100,
        ..LIMITS
    };
    let fixture = Fixture::new(Behaviour::Saves, limits);
    let mut calls = fixture.calls(1..=6).await;
    for conversation in 7..=9 {
        calls.push(fixture.call(0, save(conversation, &"x".repeat(60))).await);
    }
    fixture.finish(6).await;
    let written = [vec![1], vec![2, 3, 4, 5], vec![6, 7], vec![8], vec![9]];
    assert_eq!(fixture.written(), written);
    assert_eq!(first_seqs(calls).await.len(), 9);
}

#[tokio::test]
async fn save_above_the_size_of_a_batch_does_not_wait() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let mut calls = fixture.calls([1, 2]).await;
    let text = "x".repeat(LIMITS.bytes + 1);
    calls.push(fixture.call(0, save(3, &text)).await);
    assert_eq!(fixture.written(), [[1], [3]]);
    fixture.finish(3).await;
    assert_eq!(first_seqs(calls).await.len(), 3);
}

#[tokio::test]
async fn caller_with_many_saves_does_not_delay_others() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let mut calls = fixture.calls(1..=20).await;
    calls.push(fixture.call(1, save(100, "text")).await);
    calls.push(fixture.call(2, save(200, "text")).await);
    fixture.finish(1).await;
    assert_eq!(fixture.written()[1], [2, 3, 100, 200]);
    fixture.finish(10).await;
    assert_eq!(first_seqs(calls).await.len(), 22);
}

#[tokio::test]
async fn rejected_save_does_not_affect_the_others_of_its_batch() {
    let fixture = Fixture::new(Behaviour::Rejects(3), LIMITS);
    let mut calls = fixture.calls(1..=4).await;
    fixture.finish(2).await;
    let rejected = calls.remove(2).await.unwrap().unwrap_err();
    assert!(matches!(
        rejected,
        OperationError::Store(StoreError::NotFound)
    ));
    assert_eq!(first_seqs(calls).await, [1; 3]);
}

#[tokio::test]
async fn save_that_a_batch_could_not_write_is_written_by_its_call() {
    for (after_loss, first_seq) in [(false, 500), (true, 1_000)] {
        let fixture = Fixture::new(Behaviour::LeavesToCallers { after_loss }, LIMITS);
        let calls = fixture.calls(1..=3).await;
        fixture.finish(5).await;
        assert_eq!(
            fixture.written(),
            [vec![1], vec![1], vec![2, 3], vec![2], vec![3]]
        );
        assert_eq!(first_seqs(calls).await, [first_seq; 3]);
    }
}

#[tokio::test]
async fn save_whose_caller_stops_waiting_in_the_queue_is_not_written() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let mut calls = fixture.calls(1..=4).await;
    calls.remove(2).abort();
    fixture.finish(2).await;
    assert_eq!(fixture.written(), [vec![1], vec![2, 4]]);
    assert_eq!(first_seqs(calls).await.len(), 3);
}

#[tokio::test]
async fn batch_is_written_although_its_callers_stop_waiting() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let mut calls = fixture.calls(1..=4).await;
    fixture.finish(1).await;
    calls.remove(2).abort();
    calls.remove(1).abort();
    settle().await;
    calls.extend(fixture.calls([5]).await);
    fixture.finish(2).await;
    assert_eq!(fixture.written(), [vec![1], vec![2, 3, 4], vec![5]]);
    assert_eq!(first_seqs(calls).await, [1; 3]);
}

#[tokio::test]
async fn cancelled_save_of_an_idle_store_does_not_stop_the_queue() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let mut calls = fixture.calls([1, 1, 2]).await;
    calls.remove(0).abort();
    settle().await;
    assert_eq!(fixture.written(), [vec![1], vec![1, 2]]);
    fixture.finish(1).await;
    assert_eq!(first_seqs(calls).await, [1, 1]);
}

#[tokio::test]
async fn saves_that_arrive_while_a_session_is_awaited_join_the_batch() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    fixture.writer.sessions.forget_permits(999);
    let mut calls = fixture.calls([1, 2]).await;
    fixture.finish(1).await;
    calls.extend(fixture.calls([3]).await);
    fixture.writer.sessions.add_permits(1);
    fixture.finish(1).await;
    assert_eq!(fixture.written(), [vec![1], vec![2, 3]]);
    assert_eq!(first_seqs(calls).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn save_that_waits_for_too_long_is_rejected_and_not_written() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let mut calls = fixture.calls([1, 2]).await;
    let (kind, cause) = failure(calls.pop().unwrap()).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(cause.contains("timed out"), "{cause}");
    calls.extend(fixture.calls([3]).await);
    fixture.finish(2).await;
    assert_eq!(fixture.written(), [[1], [3]]);
    assert_eq!(first_seqs(calls).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn save_that_is_being_written_is_waited_for_beyond_the_limit_on_waits() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let calls = fixture.calls([1, 2]).await;
    fixture.finish(1).await;
    sleep(LIMITS.wait * 3).await;
    fixture.finish(1).await;
    assert_eq!(first_seqs(calls).await, [1; 2]);
}

#[tokio::test(start_paused = true)]
async fn saves_without_a_session_fail_with_its_error_after_their_own_wait() {
    let fixture = Fixture::new(Behaviour::HasNoSession, LIMITS);
    let calls = fixture.calls([1, 2]).await;
    sleep(LIMITS.wait * 2 / 3).await;
    let later = fixture.call(0, save(3, "text")).await;
    for call in calls {
        let failed = (ErrorKind::Unavailable, "no session".to_owned());
        assert_eq!(failure(call).await, failed);
    }
    assert!(!later.is_finished());
    let started = Instant::now();
    assert_eq!(failure(later).await.1, "no session");
    assert!(started.elapsed() <= LIMITS.wait);
    assert_eq!(fixture.written(), [[0; 0]; 0]);
}

#[tokio::test]
async fn number_of_waiting_saves_is_limited() {
    let limits = GroupLimits {
        waiting: 2,
        ..LIMITS
    };
    let fixture = Fixture::new(Behaviour::Saves, limits);
    let mut calls = fixture.calls(1..=4).await;
    let rejected = calls.pop().unwrap().await.unwrap();
    assert!(matches!(
        rejected,
        Err(OperationError::Store(StoreError::TooManySaves))
    ));
    fixture.finish(2).await;
    assert_eq!(first_seqs(calls).await.len(), 3);
}

#[tokio::test]
async fn outcomes_of_a_batch_that_panics_are_unknown_and_the_queue_continues() {
    let fixture = Fixture::new(Behaviour::Panics(2), LIMITS);
    let mut calls = fixture.calls([1, 2, 3]).await;
    fixture.finish(1).await;
    let last = fixture.calls([4]).await;
    fixture.finish(2).await;
    assert_eq!(fixture.written(), [vec![1], vec![2, 3], vec![4]]);
    assert_eq!(first_seqs(last).await, [1]);
    assert_eq!(first_seqs(vec![calls.remove(0)]).await, [1]);
    for call in calls {
        let (kind, cause) = failure(call).await;
        assert_eq!(kind, ErrorKind::ConnectionLost);
        assert!(!cause.contains("text"), "{cause}");
    }
}

#[tokio::test]
async fn closing_waits_for_batches_in_progress() {
    let fixture = Fixture::new(Behaviour::Saves, LIMITS);
    let calls = fixture.calls([1, 2]).await;
    fixture.finish(1).await;
    let commit = Arc::clone(&fixture.commit);
    let closing = tokio::spawn(async move { commit.close().await });
    settle().await;
    assert!(!closing.is_finished());
    fixture.finish(1).await;
    closing.await.unwrap();
    assert_eq!(first_seqs(calls).await.len(), 2);
}
