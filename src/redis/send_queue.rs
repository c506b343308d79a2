//! Sends the calls of concurrent tasks with few writes to the socket.
//!
//! The library writes to the socket once for each command, unless other commands already wait to be
//! written. Calls are therefore not sent by their own tasks, but by one that runs after all tasks
//! that are ready. Nothing is waited for: if no other task is ready, a call is sent at once.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{sync::Notify, task::yield_now};
use tokio_util::task::AbortOnDropHandle;

/// Number of waiting calls that are sent before all other tasks have run.
const MAX_WAITING: usize = 16;

/// Queue of the calls on one connection.
pub(super) struct SendQueue {
    waiting: Arc<Waiting>,
    _sender: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Waiting {
    calls: Mutex<Vec<Arc<dyn QueuedCall>>>,
    added: Notify,
}

/// Call of a caller that waits for the result. The first poll of its future sends it.
trait QueuedCall: Send + Sync {
    fn send(&self);
}

struct Slot<T>(Mutex<SlotState<T>>);

struct SlotState<T> {
    call: Pin<Box<dyn Future<Output = T> + Send>>,
    caller: Waker,
    is_sent: bool,
    /// Result of a call that failed when it was sent.
    result: Option<T>,
}

impl SendQueue {
    pub(super) fn new() -> Self {
        let waiting = Arc::<Waiting>::default();
        let sending = Arc::clone(&waiting);
        #[expect(
            clippy::disallowed_methods,
            reason = "the task ends with the connection, and has no work of its own"
        )]
        let sender = tokio::spawn(async move {
            loop {
                sending.added.notified().await;
                // The tasks that are ready add their calls.
                yield_now().await;
                sending.send_all();
            }
        });
        Self {
            waiting,
            _sender: AbortOnDropHandle::new(sender),
        }
    }

    /// Sends a call, whose future does so when it is first polled, and returns its result.
    ///
    /// # Cancel safety
    ///
    /// A call may be sent although the future was dropped.
    pub(super) fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        let mut call: Option<Pin<Box<dyn Future<Output = T> + Send>>> = Some(Box::pin(call));
        let mut slot: Option<Arc<Slot<T>>> = None;
        std::future::poll_fn(move |context| {
            if let Some(slot) = &slot {
                return slot.poll(context);
            }
            if let Some(call) = call.take() {
                let added = Arc::new(Slot(Mutex::new(SlotState {
                    call,
                    caller: context.waker().clone(),
                    is_sent: false,
                    result: None,
                })));
                self.waiting.add(Arc::clone(&added) as Arc<dyn QueuedCall>);
                slot = Some(added);
            }
            Poll::Pending
        })
    }
}

impl Waiting {
    fn add(&self, call: Arc<dyn QueuedCall>) {
        let length = {
            let mut calls = self.lock();
            calls.push(call);
            calls.len()
        };
        if length == 1 {
            self.added.notify_one();
        } else if length >= MAX_WAITING {
            self.send_all();
        }
    }

    fn send_all(&self) {
        let calls = mem::take(&mut *self.lock());
        for call in calls {
            call.send();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<dyn QueuedCall>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slot<T> {
    fn poll(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        if state.is_sent {
            return state.call.as_mut().poll(context);
        }
        state.caller.clone_from(context.waker());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, SlotState<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> QueuedCall for Slot<T> {
    fn send(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.is_sent = true;
        let mut context = Context::from_waker(&state.caller);
        if let Poll::Ready(result) = state.call.as_mut().poll(&mut context) {
            state.result = Some(result);
            state.caller.wake_by_ref();
        }
    }
}

impl fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendQueue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::future::join_all;
    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[tokio::test]
    async fn calls_of_ready_tasks_are_sent_together() {
        let queue = SendQueue::new();
        let sent = Arc::new(AtomicUsize::new(0));
        let calls = (0..MAX_WAITING - 1).map(|index| {
            let sent = Arc::clone(&sent);
            queue.call(async move {
                sent.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
                // All calls were sent before any of them was continued.
                (index, sent.load(Ordering::Relaxed))
            })
        });
        let results = join_all(calls).await;
        let expected = (0..MAX_WAITING - 1).map(|index| (index, MAX_WAITING - 1));
        assert!(results.into_iter().eq(expected));
    }

    #[tokio::test]
    async fn results_reach_their_callers() {
        let queue = SendQueue::new();
        assert_eq!(queue.call(ready(7)).await, 7);
        let (reply, replied) = oneshot::channel();
        let call = queue.call(async { replied.await.ok() });
        let answer = async {
            yield_now().await;
            reply.send(8).ok()
        };
        let (result, _) = tokio::join!(call, answer);
        assert_eq!(result, Some(8));
        let many = (0..10 * MAX_WAITING).map(|index| queue.call(ready(index)));
        assert_eq!(
            join_all(many).await,
            (0..10 * MAX_WAITING).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn a_dropped_call_does_not_keep_others_from_being_sent() {
        let queue = SendQueue::new();
        let abandoned = queue.call(std::future::pending::<()>());
        assert!(timeout(Duration::ZERO, abandoned).await.is_err());
        assert_eq!(queue.call(ready(7)).await, 7);
    }
}
