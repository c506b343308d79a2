//! Files that are read again when they change.
//!
//! Their contents are compared, once a second, and not their times: that is right for
//! files that are written in place, renamed or reached through links that are swapped,
//! as Kubernetes does. They are small.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::log_throttle::LogThrottle;

/// How soon a change is seen.
const EVERY: Duration = Duration::from_secs(1);

/// The most bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

/// What files said when they were last of use. Clones share it.
#[derive(Debug)]
pub struct Watched<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Watched<T> {
    /// What they say.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

/// Files of no use, in one line that says which setting named them and quotes nothing of
/// them.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct ReloadError {
    setting: &'static str,
    why: String,
}

/// Makes something of the files' contents, or says why it cannot; in the order of their
/// paths.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// Looks at files again and again, once it [runs](Self::run).
pub struct Watcher<T> {
    setting: &'static str,
    paths: Arc<[PathBuf]>,
    parse: Parse<T>,
    seen: Seen,
    is_stale: bool,
    failure_log: LogThrottle,
    current: watch::Sender<Arc<T>>,
}

/// What was last found, of use or not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Contents([u8; 32]),
    Nothing(String),
}

impl<T> fmt::Debug for Watcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("setting", &self.setting)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// Reads the files that a setting names, for the first time.
pub fn read<T>(
    setting: &'static str,
    paths: Vec<PathBuf>,
    parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
) -> Result<(Watched<T>, Watcher<T>), ReloadError> {
    let unusable = |why| ReloadError { setting, why };
    let contents = read_all(&paths).map_err(unusable)?;
    let current = watch::Sender::new(Arc::new(parse(&contents).map_err(unusable)?));
    let watcher = Watcher {
        setting,
        paths: paths.into(),
        parse: Box::new(parse),
        seen: Seen::Contents(digest(&contents)),
        is_stale: false,
        failure_log: LogThrottle::default(),
        current,
    };
    Ok((Watched(watcher.current.subscribe()), watcher))
}

impl<T> Watcher<T> {
    /// Looks, for ever. What is of no use changes nothing and is logged, again each
    /// minute: a right that was to be taken away may still be there.
    pub async fn run(mut self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let paths = Arc::clone(&self.paths);
            // A file can be on a disk that does not answer.
            let Ok(contents) = spawn_blocking(move || read_all(&paths)).await else {
                continue;
            };
            self.take(contents);
        }
    }

    fn take(&mut self, contents: Result<Vec<Vec<u8>>, String>) {
        let found = match &contents {
            Ok(contents) => Seen::Contents(digest(contents)),
            Err(why) => Seen::Nothing(why.clone()),
        };
        if self.seen != found {
            self.seen = found;
            self.failure_log = LogThrottle::default();
        } else if !self.is_stale {
            return;
        }
        // Contents that stay invalid are parsed and logged again once a minute.
        if !self.failure_log.should_log() {
            return;
        }
        let setting = self.setting;
        let parsed = contents.and_then(|contents| (self.parse)(&contents));
        self.is_stale = parsed.is_err();
        match parsed {
            Ok(new) => {
                self.current.send_replace(Arc::new(new));
                tracing::info!(setting, "read again");
            }
            Err(why) => tracing::error!(setting, why, "of no use: the one before stays in force"),
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let read = |path: &PathBuf| {
        read_one(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

fn read_one(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    let mut file = fs::File::open(path)?.take(MAX_BYTES + 1);
    if file.read_to_end(&mut contents)? as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(contents)
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        let (_watched, mut watcher) = read("FILE", vec![file], parse).unwrap();
        let mut parses_of = |contents: &[u8]| {
            let before = parsed.load(Ordering::Relaxed);
            watcher.take(Ok(vec![contents.to_vec()]));
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
