//! Choice of the exchange that ends early when others need what it holds.
//!
//! A peer can let any number of requests and responses wait without work of its own: it does not send
//! the rest of the request, or does not read the response. What such an exchange holds is therefore
//! taken from it when the server has no capacity for another call.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use super::{connection_state::ConnectionState, exchange::Exchange};
use crate::fairness::ShareKey;

/// Time for which the only exchange of a caller must have waited. Every exchange waits for a moment.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// Ends one of the exchanges of all connections that wait for their peer and that `may_be_displaced`:
/// the oldest of the caller with most of them. Returns false if there is none.
pub(super) fn displace_one(
    connection: &ConnectionState,
    may_be_displaced: impl Fn(&Exchange) -> bool,
) -> bool {
    let mut candidates: Vec<_> = connection
        .all_connections()
        .iter()
        .flat_map(|it| it.open_exchanges())
        .filter(|it| it.waits_for_peer() && may_be_displaced(it))
        .collect();
    let mut counts = HashMap::<ShareKey, usize>::new();
    for candidate in &candidates {
        *counts.entry(candidate.key()).or_default() += 1;
    }
    let Some(most) = counts.values().max().copied() else {
        return false;
    };
    let has_most = |it: &Exchange| counts.get(&it.key()) == Some(&most);
    candidates.retain(|it| has_most(it) && (most > 1 || it.waits_for() >= MIN_WAIT));
    let oldest = candidates.iter().min_by_key(|it| Reverse(it.waits_for()));
    oldest.is_some_and(Exchange::displace)
}
