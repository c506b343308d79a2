use opentelemetry::{KeyValue, metrics::Counter};

use crate::instrumentation;

/// Reason why a window was dropped. The scripts use the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    /// Messages were truncated, or the conversation deleted.
    Removed,
    /// The window belongs to another history of Redis or of the store.
    OtherEpoch,
    /// The window has other messages under the numbers that were published.
    Diverged,
    /// A write was not announced, or its announcement no longer existed.
    Unannounced,
    /// Published messages did not follow the last message of the window.
    Gap,
    /// A write was a replay of one that the window does not contain.
    BehindReplay,
    /// The window ended before the reader's `min_seq`.
    Stale,
    /// An announced write did not end before its deadline.
    Abandoned,
    /// The content was invalid or of another version.
    Unreadable,
    /// The window has fewer slots than the sidecars store messages.
    Outgrown,
    /// The window would have exceeded the upper bound on its size.
    TooLarge,
    /// A commit could not be published.
    Unpublished,
    /// The conversation does not exist or belongs to another user.
    UnknownConversation,
    /// Redis has reached its memory limit.
    OutOfMemory,
    /// Windows in the process needed the space, and this one was not used for the longest time.
    Evicted,
}

impl DropReason {
    const ALL: [Self; 15] = [
        Self::Outgrown,
        Self::OtherEpoch,
        Self::Diverged,
        Self::Removed,
        Self::Unannounced,
        Self::Gap,
        Self::BehindReplay,
        Self::Stale,
        Self::Abandoned,
        Self::Unreadable,
        Self::TooLarge,
        Self::Unpublished,
        Self::UnknownConversation,
        Self::OutOfMemory,
        Self::Evicted,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OtherEpoch => "other_epoch",
            Self::Diverged => "diverged",
            Self::Removed => "removed",
            Self::Unannounced => "unannounced",
            Self::Gap => "gap",
            Self::BehindReplay => "behind_replay",
            Self::Stale => "stale",
            Self::Abandoned => "abandoned",
            Self::Unreadable => "unreadable",
            Self::Outgrown => "outgrown",
            Self::TooLarge => "too_large",
            Self::Unpublished => "unpublished",
            Self::UnknownConversation => "unknown_conversation",
            Self::OutOfMemory => "out_of_memory",
            Self::Evicted => "evicted",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Outcome of filling a window.
#[derive(Clone, Copy, Debug)]
pub(super) enum FillOutcome {
    Filled,
    /// The lease had expired, or a write was announced.
    Refused,
    /// The messages exceed the upper bound on the size of a window.
    TooLarge,
    OutOfMemory,
    /// The call on Redis failed.
    Error,
}

impl FillOutcome {
    const ALL: [Self; 5] = [
        Self::Filled,
        Self::Refused,
        Self::TooLarge,
        Self::OutOfMemory,
        Self::Error,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::OutOfMemory => "out_of_memory",
            Self::Error => "error",
        }
    }
}

/// Instruments of the recent window.
#[derive(Debug)]
pub(super) struct WindowInstruments {
    fills: Counter<u64>,
    drops: Counter<u64>,
}

impl WindowInstruments {
    /// Creates the counters of windows, with a zero for each value of their attributes.
    pub(super) fn new() -> Self {
        let meter = instrumentation::meter();
        let instruments = Self {
            fills: meter
                .u64_counter("conversation_memory.recent_window.fills")
                .with_unit("{fill}")
                .with_description("Attempts to fill a window from the store, by outcome.")
                .build(),
            drops: meter
                .u64_counter("conversation_memory.recent_window.drops")
                .with_unit("{window}")
                .with_description("Windows dropped, by reason.")
                .build(),
        };
        instruments.export_zeros();
        instruments
    }

    fn export_zeros(&self) {
        for outcome in FillOutcome::ALL {
            let outcome = KeyValue::new("outcome", outcome.name());
            instrumentation::export_zero(&self.fills, &[outcome]);
        }
        for reason in DropReason::ALL {
            let reason = KeyValue::new("reason", reason.name());
            instrumentation::export_zero(&self.drops, &[reason]);
        }
    }

    pub(super) fn count_fill(&self, outcome: FillOutcome) {
        self.fills
            .add(1, &[KeyValue::new("outcome", outcome.name())]);
    }

    pub(super) fn count_drop(&self, reason: DropReason) {
        self.drops.add(1, &[KeyValue::new("reason", reason.name())]);
    }
}
