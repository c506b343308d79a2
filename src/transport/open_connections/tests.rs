use tokio::time::{Instant, advance};

use super::*;
use crate::transport::{byte_budgets::ByteBudgets, exchange::Exchange};

fn open(connections: &OpenConnections) -> Option<ConnectionPermit> {
    connections.try_acquire(SocketKind::Tcp)
}

fn open_trusted(connections: &OpenConnections) -> ConnectionPermit {
    let permit = open(connections).expect("the limit is not reached");
    permit.state.trust(ShareKey::ANONYMOUS);
    permit
}

fn open_of(connections: &OpenConnections, caller: &str) -> ConnectionPermit {
    let permit = open(connections).expect("a connection can be replaced");
    permit.state.trust(ShareKey::new(caller));
    permit
}

fn begin(permit: &ConnectionPermit) -> Exchange {
    let budgets = Arc::new(ByteBudgets::new(1, 1, 1));
    Exchange::begin(&permit.state, &budgets, Instant::now())
}

fn is_closed(permit: &ConnectionPermit) -> bool {
    permit.state.closed.is_cancelled()
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_replaces_the_longest_inactive_one_without_an_accepted_call() {
    let connections = OpenConnections::new(4);
    let trusted = open_trusted(&connections);
    let mut untrusted = Vec::new();
    for _ in 0..3 {
        advance(Duration::from_secs(20)).await;
        untrusted.push(open(&connections).unwrap());
    }
    let new = open(&connections).unwrap();
    assert!(is_closed(&untrusted[0]) && !is_closed(&untrusted[1]));
    assert!(!is_closed(&trusted) && !is_closed(&new));
}

#[tokio::test(start_paused = true)]
async fn a_quarter_is_reserved_for_connections_with_an_accepted_call() {
    let connections = OpenConnections::new(100);
    let untrusted: Vec<_> = (0..500).map_while(|_| open(&connections)).collect();
    assert_eq!(untrusted.len(), 500);
    let open_ones = untrusted.iter().filter(|permit| !is_closed(permit));
    assert_eq!(open_ones.count(), 75);
    // A connection becomes trusted by its first call, and keeps its place then.
    let trusted: Vec<_> = (0..75).map(|_| open_trusted(&connections)).collect();
    let more: Vec<_> = (0..500).map_while(|_| open(&connections)).collect();
    assert!(more.len() == 500 && !trusted.iter().any(is_closed));
    drop((untrusted, more));
    assert_eq!(connections.all().len(), 75);
}

#[tokio::test(start_paused = true)]
async fn connections_in_use_are_not_replaced() {
    let connections = OpenConnections::new(2);
    let held = [open_trusted(&connections), open_trusted(&connections)];
    let exchanges = held.each_ref().map(begin);
    advance(MIN_INACTIVITY).await;
    assert!(open(&connections).is_none());
    drop(exchanges);
    assert!(open(&connections).is_some());
    assert!(is_closed(&held[0]) && !is_closed(&held[1]));
}

#[tokio::test(start_paused = true)]
async fn connections_of_callers_within_their_share_are_replaced_only_after_some_time() {
    let connections = OpenConnections::new(2);
    let held = ["a", "b"].map(|name| open_of(&connections, name));
    assert!(open(&connections).is_none());
    advance(MIN_INACTIVITY).await;
    assert!(open(&connections).is_some());
    assert!(is_closed(&held[0]) && !is_closed(&held[1]));
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_most_connections_loses_the_longest_inactive_one_to_others() {
    let connections = OpenConnections::new(100);
    let modest: Vec<_> = (0..20).map(|_| open_of(&connections, "b")).collect();
    let greedy: Vec<_> = (0..80).map(|_| open_of(&connections, "a")).collect();
    // A call that has ended, however short ago, keeps no connection; one in progress does.
    let in_progress = begin(&greedy[0]);
    advance(Duration::from_millis(1)).await;
    drop(begin(&greedy[1]));
    let other = open_of(&connections, "c");
    assert!(is_closed(&greedy[2]) && !is_closed(&greedy[1]) && !is_closed(&greedy[0]));
    let more: Vec<_> = (0..500).map(|_| open_of(&connections, "a")).collect();
    let open_ones = greedy.iter().chain(&more).filter(|it| !is_closed(it));
    assert_eq!(open_ones.count(), 79);
    assert!(!modest.iter().any(is_closed) && !is_closed(&other));
    drop(in_progress);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_not_sent_keep_no_connection() {
    let connections = OpenConnections::new(4);
    let held: Vec<_> = (0..4).map(|_| open_of(&connections, "a")).collect();
    let _exchanges: Vec<_> = held.iter().map(begin).collect();
    assert!(open(&connections).is_none());
    for permit in &held {
        permit.state.add_awaited();
    }
    assert!(open(&connections).is_some() && is_closed(&held[0]));
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_all_connections_leaves_time_for_a_first_call() {
    let connections = OpenConnections::new(100);
    let _greedy: Vec<_> = (0..100).map(|_| open_of(&connections, "a")).collect();
    let new = open(&connections).unwrap();
    // The greedy caller opens its connections again.
    let reopened: Vec<_> = (0..24).map(|_| open(&connections)).collect();
    assert!(!is_closed(&new));
    new.state.trust(ShareKey::new("b"));
    let more: Vec<_> = (0..500).map(|_| open_of(&connections, "a")).collect();
    assert!(!is_closed(&new));
    drop((reopened, more));
}

#[tokio::test(start_paused = true)]
async fn unix_sockets_have_a_limit_of_their_own() {
    let connections = OpenConnections::new(1);
    let tcp = open_trusted(&connections);
    let _in_use = begin(&tcp);
    assert!(open(&connections).is_none());
    let unix = connections.try_acquire(SocketKind::Unix).unwrap();
    assert!(!is_closed(&tcp) && !is_closed(&unix));
    drop(tcp);
    assert!(open(&connections).is_some());
}
