//! Poolers between the store and PostgreSQL.

use std::sync::atomic::{AtomicU8, Ordering};

use sqlx::Error;

/// Pooler such as PgBouncer through which PostgreSQL is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Detected when the store is prepared. A pooler that is found is used as one in transaction mode,
    /// which is correct in both modes.
    #[default]
    Detect,
    /// Pooler that assigns a server to each connection.
    Session,
    /// Pooler that assigns a server to each transaction.
    Transaction,
}

/// How the settings of the store reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettingsMode {
    /// With the startup message of a connection.
    Startup,
    /// With a statement on a new connection.
    Session,
    /// With the statement that begins each transaction.
    Transaction,
}

/// Mode that the connections of a store share, and that a detected pooler changes.
#[derive(Debug)]
pub(super) struct SharedMode {
    mode: AtomicU8,
    is_detected: bool,
}

impl SharedMode {
    pub(super) fn new(pooler: Pooler) -> Self {
        let mode = match pooler {
            Pooler::Detect => SettingsMode::Startup,
            Pooler::Session => SettingsMode::Session,
            Pooler::Transaction => SettingsMode::Transaction,
        };
        Self {
            mode: AtomicU8::new(mode as u8),
            is_detected: pooler == Pooler::Detect,
        }
    }

    pub(super) fn get(&self) -> SettingsMode {
        match self.mode.load(Ordering::Relaxed) {
            mode if mode == SettingsMode::Startup as u8 => SettingsMode::Startup,
            mode if mode == SettingsMode::Session as u8 => SettingsMode::Session,
            _ => SettingsMode::Transaction,
        }
    }

    /// Records that PostgreSQL is reached through a pooler. Returns `false` if that was known.
    pub(super) fn record_pooler(&self) -> bool {
        let detects = self.is_detected && self.get() == SettingsMode::Startup;
        if detects {
            self.mode
                .store(SettingsMode::Transaction as u8, Ordering::Relaxed);
        }
        detects
    }
}

/// Whether a pooler has rejected the startup message. PostgreSQL itself accepts its parameters.
pub(super) fn rejects_parameters(error: &Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().starts_with(UNSUPPORTED_PARAMETER))
}

/// Beginning of the message with which PgBouncer rejects a parameter of the startup message.
pub(super) const UNSUPPORTED_PARAMETER: &str = "unsupported startup parameter";
