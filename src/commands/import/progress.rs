//! Progress of an import: a bar on a terminal, and lines elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::report::Counts;

/// Time between two changes of the bar.
const REFRESH: Duration = Duration::from_millis(100);

/// Conversations between two lines.
const LINE_INTERVAL: u64 = 1000;

/// Width of the bar in characters.
const WIDTH: u64 = 30;

/// Progress on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    length: Option<u64>,
    read: Arc<AtomicU64>,
    shown: Mutex<Option<Instant>>,
}

impl Progress {
    /// `length` is the number of bytes that will be read, if it is known.
    pub(super) fn new(length: Option<u64>) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            length: length.filter(|length| *length > 0),
            read: Arc::default(),
            shown: Mutex::default(),
        }
    }

    /// Counter of the bytes that have been read.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// Shows the progress, unless it was shown a moment ago. It is decoration: errors of the output
    /// do not matter.
    pub(super) fn show(&self, counts: &Counts) {
        if !self.is_terminal {
            if counts.conversations().is_multiple_of(LINE_INTERVAL) {
                let _ = writeln!(io::stderr(), "{}{counts}", self.percent());
            }
            return;
        }
        let Ok(mut shown) = self.shown.lock() else {
            return;
        };
        if shown.is_some_and(|shown| shown.elapsed() < REFRESH) {
            return;
        }
        *shown = Some(Instant::now());
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{}{}{counts}",
            self.bar(),
            self.percent()
        );
    }

    /// Removes the bar, so that a line can be written.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn fraction(&self, of: u64) -> Option<u64> {
        let length = self.length?;
        let read = self.read.load(Ordering::Relaxed).min(length);
        // Zip files are not counted, because their compressed size says little.
        (read > 0).then(|| {
            u64::try_from(u128::from(read) * u128::from(of) / u128::from(length)).unwrap_or(of)
        })
    }

    fn percent(&self) -> String {
        self.fraction(100)
            .map_or_else(String::new, |percent| format!("{percent} %: "))
    }

    fn bar(&self) -> String {
        let Some(filled) = self.fraction(WIDTH) else {
            return String::new();
        };
        let part =
            |character: &str, count: u64| character.repeat(usize::try_from(count).unwrap_or(0));
        format!("[{}{}] ", part("#", filled), part(" ", WIDTH - filled))
    }
}
