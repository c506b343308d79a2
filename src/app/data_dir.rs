//! The lock on `DATA_DIR`, which belongs to one sidecar at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::Failure;
use crate::os_error;

/// Name of the file that is locked. It is not the database, whose locks belong to SQLite.
const LOCK_FILE: &str = "sidecar.lock";

/// Time to wait for the end of another sidecar: a restarted container can overlap its predecessor.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Lock on the folder of the embedded store. The kernel releases it when the process ends, however
/// it ends.
#[derive(Debug)]
pub(super) struct DataDirLock {
    /// `None` if the folder cannot be locked.
    #[expect(dead_code, reason = "closing the file releases the lock")]
    file: Option<File>,
}

impl DataDirLock {
    /// Locks `folder`, which exists. Waits a short time for a sidecar that ends.
    ///
    /// A folder that this process cannot create a file in, or whose file system has no locks, is
    /// used without one, which is logged: reads may work there.
    ///
    /// # Errors
    /// Fails if another process has the lock.
    ///
    /// # Cancel safety
    /// Dropping the future locks nothing.
    pub(super) async fn acquire(folder: &Path) -> Result<Self, Failure> {
        let path = absolute(&folder.join(LOCK_FILE));
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) => return Ok(Self::unsupported(&path, &error)),
        };
        let deadline = Instant::now() + MAX_WAIT;
        let mut has_waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file: Some(file) }),
                Err(TryLockError::Error(error)) => return Ok(Self::unsupported(&path, &error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(in_use(folder).into());
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if !has_waited {
                tracing::info!(
                    file = %path.display(),
                    "DATA_DIR is in use by another process: waiting for its end"
                );
                has_waited = true;
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    fn unsupported(path: &Path, error: &io::Error) -> Self {
        let error = os_error::describe(error);
        tracing::warn!(
            file = %path.display(),
            error,
            "cannot lock DATA_DIR: make sure that no other sidecar uses it"
        );
        Self { file: None }
    }
}

/// Opens the file, and creates it if it does not exist, with access for its owner only. A file
/// that cannot be written, for example of a read-only file system, can be locked as well.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .or_else(|error| File::open(path).map_err(|_| error))
}

fn in_use(folder: &Path) -> String {
    format!(
        "DATA_DIR: {} is in use by another sidecar: stop it, or set another folder; several \
         sidecars can share conversations in PostgreSQL (DATABASE_URL)",
        absolute(folder).display()
    )
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_lock_is_refused_until_the_first_one_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDirLock::acquire(folder.path()).await.unwrap();
        let refused = DataDirLock::acquire(folder.path()).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(folder.path().to_str().unwrap()), "{text}");
        let release = async {
            sleep(MAX_WAIT / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(DataDirLock::acquire(folder.path()), release);
        second.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_in_which_the_file_cannot_be_created_is_used_without_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(LOCK_FILE)).unwrap();
        // A directory cannot be opened for writing, but it can be read and locked.
        let _first = DataDirLock::acquire(folder.path()).await.unwrap();
        DataDirLock::acquire(folder.path()).await.unwrap_err();
        let missing = folder.path().join("missing");
        let _without = DataDirLock::acquire(&missing).await.unwrap();
        DataDirLock::acquire(&missing).await.unwrap();
    }
}
