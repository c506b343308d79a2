//! Reload of small files, such as tokens and certificates, when their contents change.
//!
//! Contents are compared once per second instead of modification times. This detects files
//! that are written in place, renamed, or reached through symbolic links that are replaced,
//! as Kubernetes does with mounted Secrets.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{log_throttle::LogThrottle, os_error, small_file};

/// Interval between two comparisons.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The value that was parsed from files when they were last valid. Clones share it.
#[derive(Debug)]
pub struct Reloaded<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Reloaded<T> {
    /// Returns the most recent valid value.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

/// Error of files that cannot be read or parsed. The text names the setting and does not quote
/// the files.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {cause}")]
pub struct ReloadError {
    setting: &'static str,
    cause: String,
}

/// Parses the contents of the files, which are in the order of their paths.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// Detects changes of files and parses them again, while [`run`](Self::run) is polled.
pub struct FileWatcher<T> {
    setting: &'static str,
    paths: Arc<[PathBuf]>,
    parse: Parse<T>,
    last_read: LastRead,
    has_failed: bool,
    failure_log: LogThrottle,
    current: watch::Sender<Arc<T>>,
}

/// Result of the last read, to detect a change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LastRead {
    /// Digest of the contents, valid or not.
    Contents([u8; 32]),
    /// Error text.
    Failed(String),
}

/// Read of all files in progress.
type Reading = JoinHandle<Result<Vec<Vec<u8>>, String>>;

impl<T> fmt::Debug for FileWatcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatcher")
            .field("setting", &self.setting)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// Loads the files that a setting names, and returns their value with the watcher that
/// keeps it up to date.
///
/// # Errors
/// Returns an error if a file cannot be read within its time limit, is no regular file or
/// larger than 1 MiB, or is invalid.
pub fn load<T>(
    setting: &'static str,
    paths: Vec<PathBuf>,
    parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
) -> Result<(Reloaded<T>, FileWatcher<T>), ReloadError> {
    let failed = |cause| ReloadError { setting, cause };
    let contents = read_all(&paths, small_file::read_within_limit).map_err(failed)?;
    let current = watch::Sender::new(Arc::new(parse(&contents).map_err(failed)?));
    let watcher = FileWatcher {
        setting,
        paths: paths.into(),
        parse: Box::new(parse),
        last_read: LastRead::Contents(digest(&contents)),
        has_failed: false,
        failure_log: LogThrottle::default(),
        current,
    };
    Ok((Reloaded(watcher.current.subscribe()), watcher))
}

impl<T> FileWatcher<T> {
    /// Checks the files forever. Files that cannot be read or parsed leave the value
    /// unchanged. This is logged, and repeated each minute: the change may have been meant
    /// to revoke a permission that is still granted.
    ///
    /// # Cancel safety
    /// Dropping the future stops the checks; the last value stays available.
    pub async fn run(mut self) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reading = None;
        loop {
            ticks.tick().await;
            self.check(&mut reading).await;
        }
    }

    /// Reads the files once. `reading` is a read that has not ended: a file system that does not
    /// respond blocks one thread, and not one for each check.
    async fn check(&mut self, reading: &mut Option<Reading>) {
        let read = reading.get_or_insert_with(|| {
            let paths = Arc::clone(&self.paths);
            spawn_blocking(move || read_all(&paths, small_file::read))
        });
        match timeout(small_file::TIME_LIMIT, read).await {
            Ok(read) => {
                *reading = None;
                // An error means that the read has panicked, which is logged.
                if let Ok(contents) = read {
                    self.update(contents);
                }
            }
            Err(_) => self.update(Err(small_file::not_responding().to_string())),
        }
    }

    /// Replaces the value if the contents changed and are valid. Logs a change, and a
    /// lasting failure once per minute.
    fn update(&mut self, contents: Result<Vec<Vec<u8>>, String>) {
        let read = match &contents {
            Ok(contents) => LastRead::Contents(digest(contents)),
            Err(cause) => LastRead::Failed(cause.clone()),
        };
        if self.last_read != read {
            self.last_read = read;
            self.failure_log = LogThrottle::default();
        } else if !self.has_failed {
            return;
        }
        if !self.failure_log.should_log() {
            return;
        }
        let setting = self.setting;
        let parsed = contents.and_then(|contents| (self.parse)(&contents));
        self.has_failed = parsed.is_err();
        match parsed {
            Ok(value) => {
                self.current.send_replace(Arc::new(value));
                tracing::info!(setting, "reloaded");
            }
            Err(cause) => {
                tracing::error!(setting, cause, "reload failed; keeping the previous value");
            }
        }
    }
}

fn read_all(
    paths: &[PathBuf],
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, String> {
    let read = |path: &PathBuf| {
        read(path).map_err(|error| {
            let cause = os_error::describe(&error);
            format!("cannot read {}: {cause}", path.display())
        })
    };
    paths.iter().map(read).collect()
}

fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for content in contents {
        digest.update((content.len() as u64).to_be_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn invalid_contents_are_reported_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "valid").unwrap();
        let parsed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&parsed);
        let parse = move |contents: &[Vec<u8>]| {
            counter.fetch_add(1, Ordering::Relaxed);
            let is_valid = contents[0].starts_with(b"valid");
            is_valid.then_some(()).ok_or_else(|| "invalid".to_owned())
        };
        let (_reloaded, mut watcher) = load("FILE", vec![file], parse).unwrap();
        let mut parses_of = |contents: &[u8]| {
            let before = parsed.load(Ordering::Relaxed);
            watcher.update(Ok(vec![contents.to_vec()]));
            parsed.load(Ordering::Relaxed) - before
        };
        assert_eq!(parses_of(b"valid"), 0);
        assert_eq!(parses_of(b"1"), 1);
        assert_eq!(parses_of(b"1"), 0);
        assert_eq!(parses_of(b"2"), 1, "a change is reported at once");
        advance(Duration::from_secs(59)).await;
        assert_eq!(parses_of(b"2"), 0);
        advance(Duration::from_secs(1)).await;
        assert_eq!(parses_of(b"2"), 1);
        assert_eq!(parses_of(b"valid again"), 1);
        advance(Duration::from_mins(2)).await;
        assert_eq!(parses_of(b"valid again"), 0);
    }
}
