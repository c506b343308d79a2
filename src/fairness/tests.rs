use std::pin::pin;

use futures_util::{FutureExt as _, future::BoxFuture};

use super::*;

fn key(name: &str) -> ShareKey {
    ShareKey::new(name)
}

/// Acquires permits one at a time until none is available.
fn exhaust(semaphore: &FairSemaphore, name: &str) -> Vec<Permits> {
    std::iter::from_fn(|| semaphore.try_acquire(key(name), 1)).collect()
}

fn wait(semaphore: &FairSemaphore, name: &str) -> BoxFuture<'static, Permits> {
    let (semaphore, key) = (semaphore.clone(), key(name));
    let mut wait = async move { semaphore.acquire(key).await }.boxed();
    assert!((&mut wait).now_or_never().is_none(), "{name} must wait");
    wait
}

#[test]
fn one_caller_cannot_acquire_the_reserved_permits() {
    let semaphore = FairSemaphore::new(100);
    let first = exhaust(&semaphore, "a");
    assert_eq!(first.len(), 75);
    let second = exhaust(&semaphore, "b");
    // Of the three shares, one is kept for another caller.
    assert_eq!(second.len(), 25);
    drop((first, second));
    assert_eq!(semaphore.used(), 0);
    assert!(semaphore.0.state().callers.is_empty());
}

#[test]
fn many_callers_leave_a_permit_to_each() {
    let semaphore = FairSemaphore::new(100);
    let mut held = Vec::new();
    for number in 0..99 {
        let name = number.to_string();
        held.push(
            semaphore
                .try_acquire(key(&name), 1)
                .expect("a permit is free"),
        );
    }
    assert!(semaphore.try_acquire(key("0"), 1).is_none());
    assert!(semaphore.try_acquire(key("new"), 1).is_some());
}

#[test]
fn a_semaphore_of_one_permit_has_no_reserve() {
    let semaphore = FairSemaphore::new(1);
    let held = semaphore.try_acquire(key("a"), 1);
    assert!(held.is_some() && semaphore.try_acquire(key("b"), 1).is_none());
}

#[test]
fn amounts_are_bounded_by_the_limit() {
    let semaphore = FairSemaphore::new(100);
    assert!(semaphore.try_acquire(key("a"), 101).is_none());
    assert!(semaphore.try_acquire(key("a"), usize::MAX).is_none());
    let held = semaphore.acquire_beyond_limit(key("a"), 500);
    assert!(semaphore.try_acquire(key("b"), 1).is_none());
    drop(held);
    assert!(semaphore.try_acquire(key("b"), 1).is_some());
}

#[tokio::test]
async fn grants_the_next_permit_to_the_caller_that_holds_the_fewest() {
    let semaphore = FairSemaphore::with_reserve(2, 0);
    let mut held = exhaust(&semaphore, "a");
    let mut more = wait(&semaphore, "a");
    let mut other = wait(&semaphore, "b");
    held.pop();
    assert!((&mut more).now_or_never().is_none());
    let granted = (&mut other)
        .now_or_never()
        .expect("the permit is granted to b");
    held.pop();
    assert!((&mut more).now_or_never().is_some());
    drop(granted);
}

#[tokio::test]
async fn grants_permits_in_the_order_of_the_waits_of_equal_callers() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let held = semaphore.try_acquire(key("a"), 1);
    let mut waits: Vec<_> = ["b", "c", "d"].map(|name| wait(&semaphore, name)).into();
    drop(held);
    while !waits.is_empty() {
        let mut first = waits.remove(0);
        for later in &mut waits {
            assert!(later.now_or_never().is_none());
        }
        assert!((&mut first).now_or_never().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns_however_many_waits_each_has() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let held = semaphore.try_acquire(key("a"), 1);
    let mut many: Vec<_> = (0..5).map(|_| wait(&semaphore, "a")).collect();
    drop(held);
    let first = (&mut many[0])
        .now_or_never()
        .expect("no other caller waits");
    let mut one = wait(&semaphore, "b");
    drop(first);
    let granted = (&mut one).now_or_never().expect("it is b's turn");
    let mut next = wait(&semaphore, "b");
    drop(granted);
    let granted = (&mut many[1]).now_or_never().expect("it is a's turn");
    drop(granted);
    assert!((&mut next).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_short_uses_does_not_wait_for_several_long_ones() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let long = Duration::from_millis(20);
    let mut holder = semaphore.acquire(key("0")).await;
    let mut waits: VecDeque<_> = ["1", "2", "3"]
        .map(|name| (name, wait(&semaphore, name)))
        .into();
    let mut name = "0";
    for _ in 0..10 {
        // Each waits again as soon as it has returned its permit.
        tokio::time::advance(long).await;
        drop(holder);
        let again = (name, wait(&semaphore, name));
        let (next, granted) = waits.pop_front().unwrap();
        (name, holder) = (next, granted.now_or_never().expect("it is its turn"));
        waits.push_back(again);
    }
    for _ in 0..2 {
        let short = wait(&semaphore, "short");
        tokio::time::advance(long).await;
        drop(holder);
        let again = (name, wait(&semaphore, name));
        let granted = short.now_or_never().expect("it is its turn");
        tokio::time::advance(Duration::from_millis(1)).await;
        drop(granted);
        let (next, granted) = waits.pop_front().unwrap();
        (name, holder) = (next, granted.now_or_never().expect("it is its turn"));
        waits.push_back(again);
    }
    drop((holder, waits));
    assert!(semaphore.0.state().callers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_does_not_wait_for_several_long_uses_after_earlier_batches() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let mut held = ("0", semaphore.acquire(key("0")).await);
    let mut waits = vec![("1", wait(&semaphore, "1")), ("2", wait(&semaphore, "2"))];
    for round in 0..40 {
        let mut batch = pin!(semaphore.acquire(ShareKey::BATCH));
        // At first, no caller has used more than the others.
        let has_batch = round >= 3;
        if has_batch {
            assert!(batch.as_mut().now_or_never().is_none(), "it must wait");
        }
        tokio::time::advance(Duration::from_millis(20)).await;
        let (name, holder) = held;
        drop(holder);
        waits.push((name, wait(&semaphore, name)));
        if has_batch {
            let granted = batch.now_or_never().expect("it is the batch's turn");
            tokio::time::advance(Duration::from_millis(8)).await;
            drop(granted);
        }
        let granted = waits.iter_mut().enumerate().find_map(|(at, (_, wait))| {
            let permits = wait.now_or_never()?;
            Some((at, permits))
        });
        let (at, permits) = granted.expect("one of them is granted the permit");
        held = (waits.remove(at).0, permits);
    }
}

#[tokio::test(start_paused = true)]
async fn new_callers_do_not_keep_a_caller_waiting_forever() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let mut holder = semaphore.acquire(key("earlier")).await;
    tokio::time::advance(MAX_CHARGE).await;
    let mut earlier = wait(&semaphore, "earlier");
    let mut new = 0;
    while (&mut earlier).now_or_never().is_none() {
        new += 1;
        assert!(new < 1_000, "the earlier caller must be granted a permit");
        let next = wait(&semaphore, &new.to_string());
        drop(holder);
        let Some(granted) = next.now_or_never() else {
            return;
        };
        holder = granted;
        tokio::time::advance(Duration::from_millis(5)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn charges_of_many_callers_are_forgotten() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let mut held = semaphore.acquire(key("first")).await;
    for number in 0..3 * MAX_REMEMBERED {
        let next = wait(&semaphore, &number.to_string());
        drop(held);
        held = next.await;
    }
    assert!(semaphore.0.state().callers.len() <= MAX_REMEMBERED + 2);
}

#[tokio::test]
async fn a_dropped_wait_acquires_nothing() {
    let semaphore = FairSemaphore::with_reserve(1, 0);
    let held = semaphore.try_acquire(key("a"), 1);
    for _ in 0..100 {
        drop(wait(&semaphore, "b"));
    }
    assert!(semaphore.0.state().callers[&key("b")].waiting.len() <= 2);
    let mut last = wait(&semaphore, "c");
    drop(held);
    let granted = (&mut last).now_or_never().expect("the permit is free");
    drop(granted);
    // A permit that was granted and not received is returned.
    let held = semaphore.try_acquire(key("a"), 1);
    let unreceived = wait(&semaphore, "b");
    drop(held);
    assert_eq!(semaphore.used(), 1);
    drop(unreceived);
    assert_eq!(semaphore.used(), 0);
    assert!(semaphore.0.state().callers.is_empty());
}

#[tokio::test]
async fn a_task_works_for_the_caller_of_its_scope() {
    let outside = ShareKey::current();
    let inside = key("a").scope(async { ShareKey::current() }).await;
    assert_eq!((outside, inside), (ShareKey::BACKGROUND, key("a")));
}
