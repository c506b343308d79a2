use tokio::time::advance;

use super::*;

fn open(connections: &OpenConnections) -> Option<ConnectionPermit> {
    connections.try_acquire(SocketKind::Tcp)
}

fn open_trusted(connections: &OpenConnections) -> ConnectionPermit {
    let permit = open(connections).expect("the limit is not reached");
    permit.state.trust();
    permit
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
    let trusted: Vec<_> = (0..100).map(|_| open_trusted(&connections)).collect();
    assert!(!trusted.iter().any(is_closed));
    drop(untrusted);
    assert_eq!(connections.all().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn connections_in_use_are_not_replaced() {
    let connections = OpenConnections::new(2);
    let held = [open_trusted(&connections), open_trusted(&connections)];
    assert!(open(&connections).is_none());
    advance(MIN_INACTIVITY).await;
    assert!(open(&connections).is_some());
    assert!(is_closed(&held[0]) && !is_closed(&held[1]));
}

#[tokio::test(start_paused = true)]
async fn unix_sockets_have_a_limit_of_their_own() {
    let connections = OpenConnections::new(1);
    let tcp = open_trusted(&connections);
    assert!(open(&connections).is_none());
    let unix = connections.try_acquire(SocketKind::Unix).unwrap();
    assert!(!is_closed(&tcp) && !is_closed(&unix));
    drop(tcp);
    assert!(open(&connections).is_some());
}
