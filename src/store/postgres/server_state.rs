//! What the connections of a pool have observed of the server.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};

/// Minimum time between two renewals of the connections. A server that stays read-only does not
/// cause a new connection for each write.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Time after the identity changed within which a new connection can still belong to the former
/// server: its check was answered before.
const CHANGE_MARGIN: Duration = Duration::from_millis(100);

/// Time for which a server on an older timeline is rejected after a connection to the current one
/// was opened. Later it is accepted, because a database can be restored from a backup.
const FORMER_SERVER_REJECTION: Duration = Duration::from_secs(30);

/// Time after which a less precise measurement of the server's clock replaces a precise one.
const CLOCK_LIFETIME: Duration = Duration::from_mins(1);

/// Identity of a server's history. After a failover to a standby, or a restoration, the database
/// has another one, and can lack what was committed before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HistoryIdentity {
    /// Identifier of the database cluster; empty if the role may not read it.
    pub(super) system: String,
    /// Timeline of the write-ahead log, eight hexadecimal digits; empty if the server does not
    /// report it.
    pub(super) timeline: String,
    /// When the server was started. The files of a stopped server can be replaced by older ones
    /// without a new timeline.
    pub(super) started: String,
}

impl fmt::Display for HistoryIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.system, self.timeline, self.started)
    }
}

impl HistoryIdentity {
    fn is_older_than(&self, other: &Self) -> bool {
        self.system == other.system && self.timeline < other.timeline
    }
}

/// State of the server as the connections of a pool observe it. Everything that ends the use of
/// older connections is recorded here.
#[derive(Debug, Default)]
pub(super) struct ServerState(Mutex<Observations>);

#[derive(Debug, Default)]
struct Observations {
    /// Time at which a connection was last lost. The cause, a restart for example, affects all
    /// connections: those that have been idle since then are tested before they are used.
    lost: Option<Instant>,
    identity: Option<HistoryIdentity>,
    /// Text of `identity`, which every call on a recent window passes on.
    history: Option<Bytes>,
    /// Time at which a connection last reported `identity`.
    identified: Option<Instant>,
    /// Connections that were opened before this are closed instead of used.
    usable_since: Option<Instant>,
    /// Time at which a read-only connection last caused a renewal.
    renewed: Option<Instant>,
    clock: Option<ClockReading>,
    is_crowded: bool,
}

/// Reading of the server's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    /// When the query was sent.
    pub(super) sent: Instant,
    /// When its response was received.
    pub(super) received: Instant,
    /// Time of the server in between.
    pub(super) time: DateTime<Utc>,
}

impl ClockReading {
    fn round_trip(&self) -> Duration {
        self.received.duration_since(self.sent)
    }
}

impl ServerState {
    /// Records that a connection was lost now.
    pub(super) fn record_loss(&self) {
        self.observations().lost = Some(Instant::now());
    }

    /// Returns whether a connection was lost within `duration`.
    pub(super) fn has_lost_connection_within(&self, duration: Duration) -> bool {
        let lost = self.observations().lost;
        lost.is_some_and(|lost| lost.elapsed() <= duration)
    }

    /// Records the identity that a new connection reports. If it is another one than before, all
    /// older connections are closed instead of used. Returns `false` if the connection must not be
    /// used, because it leads to a former server.
    pub(super) fn identify(&self, identity: HistoryIdentity) -> bool {
        let now = Instant::now();
        let mut observations = self.observations();
        if let Some(current) = &observations.identity
            && *current != identity
        {
            let is_current_in_use = observations
                .identified
                .is_some_and(|at| now.duration_since(at) < FORMER_SERVER_REJECTION);
            if identity.is_older_than(current) && is_current_in_use {
                return false;
            }
            observations.usable_since = Some(now + CHANGE_MARGIN);
        }
        observations.history = Some(identity.to_string().into());
        observations.identity = Some(identity);
        observations.identified = Some(now);
        true
    }

    /// Identity of the server's history as one text without spaces; `None` before the first
    /// connection.
    pub(super) fn history(&self) -> Option<Bytes> {
        self.observations().history.clone()
    }

    /// Identifier of the database cluster; empty if it is not known.
    pub(super) fn system(&self) -> String {
        let observations = self.observations();
        let identity = observations.identity.as_ref();
        identity.map_or_else(String::new, |identity| identity.system.clone())
    }

    /// Timeline of the write-ahead log, if the server reports it.
    pub(super) fn timeline(&self) -> Option<i32> {
        let observations = self.observations();
        let identity = observations.identity.as_ref()?;
        i32::from_str_radix(&identity.timeline, 16).ok()
    }

    /// Returns whether the server that a connection last reported was started at this time.
    pub(super) fn has_started_at(&self, started: &str) -> bool {
        let observations = self.observations();
        let identity = observations.identity.as_ref();
        identity.is_some_and(|identity| identity.started == started)
    }

    /// Returns whether a connection of this age may be used.
    pub(super) fn is_usable(&self, age: Duration) -> bool {
        let usable_since = self.observations().usable_since;
        usable_since.is_none_or(|since| match Instant::now().checked_sub(age) {
            Some(opened) => opened >= since,
            None => false,
        })
    }

    /// Ends the use of all present connections, which lead to another server than the next ones.
    pub(super) fn retire_connections(&self) {
        self.observations().usable_since = Some(Instant::now());
    }

    /// Ends the use of all connections after one of them, in use since `since` at least, turned
    /// out to be read-only. Returns whether a retry uses a newer connection.
    pub(super) fn renew_connections(&self, since: Instant) -> bool {
        let now = Instant::now();
        let mut observations = self.observations();
        if observations.usable_since.is_some_and(|at| at > since) {
            return true;
        }
        let renewed = observations.renewed;
        if renewed.is_some_and(|at| now.duration_since(at) < RENEWAL_INTERVAL) {
            return false;
        }
        observations.renewed = Some(now);
        observations.usable_since = observations.usable_since.max(Some(now));
        true
    }

    /// Records whether the server has many connections, of all its clients.
    pub(super) fn record_crowding(&self, is_crowded: bool) {
        self.observations().is_crowded = is_crowded;
    }

    /// Returns whether the server had many connections when it was last asked.
    pub(super) fn is_crowded(&self) -> bool {
        self.observations().is_crowded
    }

    /// Records a reading of the server's clock.
    pub(super) fn record_clock(&self, reading: ClockReading) {
        let mut observations = self.observations();
        let replaces = observations.clock.is_none_or(|last| {
            let is_recent = reading.received.duration_since(last.received) < CLOCK_LIFETIME;
            !is_recent || reading.round_trip() <= last.round_trip().saturating_mul(2)
        });
        if replaces {
            observations.clock = Some(reading);
        }
    }

    /// Returns the time that the server's clock shows at `at`, as far as it is known.
    pub(super) fn server_time(&self, at: Instant) -> Option<DateTime<Utc>> {
        let reading = self.observations().clock?;
        let middle = reading.sent + reading.round_trip() / 2;
        match at.checked_duration_since(middle) {
            Some(later) => reading.time.checked_add_signed(to_delta(later)?),
            None => reading
                .time
                .checked_sub_signed(to_delta(middle.duration_since(at))?),
        }
    }

    fn observations(&self) -> MutexGuard<'_, Observations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_delta(duration: Duration) -> Option<chrono::TimeDelta> {
    chrono::TimeDelta::from_std(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(state: &ServerState) -> Option<String> {
        let history = state.history()?;
        Some(String::from_utf8(history.to_vec()).unwrap())
    }

    fn identity(system: &str, timeline: &str) -> HistoryIdentity {
        HistoryIdentity {
            system: system.to_owned(),
            timeline: timeline.to_owned(),
            started: "1".to_owned(),
        }
    }

    #[test]
    fn another_history_ends_the_use_of_older_connections() {
        for other in [identity("1", "0000000B"), identity("2", "0000000A")] {
            let state = ServerState::default();
            assert!(state.identify(identity("1", "0000000A")));
            assert!(state.identify(identity("1", "0000000A")));
            assert!(state.is_usable(Duration::ZERO));
            assert_eq!(history(&state).as_deref(), Some("1:0000000A:1"));
            assert!(state.identify(other.clone()));
            assert!(!state.is_usable(Duration::ZERO));
            assert_ne!(history(&state).as_deref(), Some("1:0000000A:1"));
        }
    }

    #[test]
    fn former_server_is_rejected_while_the_current_one_is_in_use() {
        let state = ServerState::default();
        assert!(state.identify(identity("1", "0000000B")));
        assert!(!state.identify(identity("1", "0000000A")));
        assert_eq!(history(&state).as_deref(), Some("1:0000000B:1"));
        assert!(state.is_usable(Duration::ZERO));
    }

    #[test]
    fn server_without_a_reported_history_is_usable() {
        let state = ServerState::default();
        assert_eq!(history(&state), None);
        assert!(state.identify(HistoryIdentity::default()));
        assert_eq!(history(&state).as_deref(), Some("::"));
        assert!(state.is_usable(Duration::ZERO));
    }

    #[test]
    fn lasting_read_only_state_renews_connections_once_per_interval() {
        let state = ServerState::default();
        let since = Instant::now();
        assert!(state.renew_connections(since));
        // Other calls used connections from before the renewal.
        assert!(state.renew_connections(since));
        assert!(!state.is_usable(Duration::from_secs(1)));
        // This connection is newer, and is read-only nevertheless.
        assert!(!state.renew_connections(Instant::now()));
    }

    #[test]
    fn time_of_the_server_follows_the_monotonic_clock() {
        let state = ServerState::default();
        let sent = Instant::now();
        assert_eq!(state.server_time(sent), None);
        let time = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let received = sent + Duration::from_secs(2);
        state.record_clock(ClockReading {
            sent,
            received,
            time,
        });
        let middle = sent + Duration::from_secs(1);
        assert_eq!(state.server_time(middle), Some(time));
        let second = chrono::TimeDelta::seconds(1);
        assert_eq!(state.server_time(received), Some(time + second));
        assert_eq!(state.server_time(sent), Some(time - second));
    }
}
