use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::unpublished::Unpublished;
use crate::instrumentation;

/// Why a window was dropped. The scripts say these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Messages were truncated, or the conversation deleted.
    Removed,
    /// A write was not announced, or its announcement had gone.
    Unannounced,
    /// Messages were published that don't follow the window's last one.
    Gap,
    /// A write turned out to have been committed before, unseen by the window.
    BehindReplay,
    /// It ended before the message that a reader had to see.
    Stale,
    /// An announced write came to no end within its time.
    Abandoned,
    /// It made no sense: garbage, or another version's.
    Unreadable,
    /// It would have become larger than a window may be.
    TooLarge,
    /// It could not be told of a commit in time.
    Unpublished,
    /// The store does not know the conversation, or not as the caller's.
    UnknownConversation,
    /// Redis has reached its memory limit.
    OutOfMemory,
}

impl Reason {
    const ALL: [Self; 11] = [
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
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Unannounced => "unannounced",
            Self::Gap => "gap",
            Self::BehindReplay => "behind_replay",
            Self::Stale => "stale",
            Self::Abandoned => "abandoned",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Unpublished => "unpublished",
            Self::UnknownConversation => "unknown_conversation",
            Self::OutOfMemory => "out_of_memory",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

/// What came of filling a window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fill {
    Filled,
    /// The lease had ended, or a write was announced.
    Refused,
    /// The messages take more room than a window may.
    TooLarge,
    OutOfMemory,
    /// Redis was not reached.
    Error,
}

impl Fill {
    fn word(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::OutOfMemory => "out_of_memory",
            Self::Error => "error",
        }
    }
}

/// What operators are told of the windows.
#[derive(Debug)]
pub(super) struct Instruments {
    fills: Counter<u64>,
    drops: Counter<u64>,
}

impl Instruments {
    /// Makes the instruments. The gauge shows `unpublished` for as long as there
    /// is another owner of it.
    pub(super) fn new(unpublished: &Arc<Unpublished>) -> Self {
        let meter = instrumentation::meter();
        observe_unpublished(&meter, unpublished);
        Self {
            fills: meter
                .u64_counter("conversation_memory.recent_window.fills")
                .with_unit("{fill}")
                .with_description("Attempts to fill a window from the store, by outcome.")
                .build(),
            drops: meter
                .u64_counter("conversation_memory.recent_window.drops")
                .with_unit("{window}")
                .with_description("Windows that were dropped, by reason.")
                .build(),
        }
    }

    pub(super) fn filled(&self, fill: Fill) {
        self.fills.add(1, &[KeyValue::new("outcome", fill.word())]);
    }

    pub(super) fn dropped(&self, reason: Reason) {
        self.drops.add(1, &[KeyValue::new("reason", reason.word())]);
    }
}

fn observe_unpublished(meter: &Meter, unpublished: &Arc<Unpublished>) {
    let unpublished = Arc::downgrade(unpublished);
    meter
        .u64_observable_gauge("conversation_memory.recent_window.unpublished")
        .with_unit("{conversation}")
        .with_description(
            "Conversations that this process reads from the store only, until it can drop \
             their windows.",
        )
        .with_callback(move |observer| {
            if let Some(unpublished) = unpublished.upgrade() {
                observer.observe(unpublished.len() as u64, &[]);
            }
        })
        .build();
}
