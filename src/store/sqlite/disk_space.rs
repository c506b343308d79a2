//! Detection of a disk without room for the store.
//!
//! SQLite reports a full disk, but not why the operating system rejected a write otherwise: the
//! quota of the user or the maximum size of a file can be exceeded.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use crate::store::{
    StoreError,
    operation_error::{BackendError, ErrorKind, OperationError},
};

/// Number of bytes that a store with room can grow by.
const ROOM: usize = 64 * 1024;

/// Maps the error of an operation as [`write_error`] does.
pub(super) async fn write_outcome<T>(
    outcome: Result<T, OperationError>,
    file: &Path,
) -> Result<T, StoreError> {
    match outcome {
        Ok(value) => Ok(value),
        Err(error) => Err(write_error(error, file).await),
    }
}

/// Maps the error of an operation whose COMMIT may have been executed, on a store in `file`. A write
/// that was rejected because there is no room for it is not committed.
async fn write_error(error: OperationError, file: &Path) -> StoreError {
    match error {
        OperationError::Backend(error)
            if matches!(
                error.kind,
                ErrorKind::WriteFailed | ErrorKind::CommitWriteFailed
            ) =>
        {
            let file = file.to_owned();
            let is_exhausted = spawn_blocking(move || is_exhausted(&file)).await;
            if is_exhausted.unwrap_or(false) {
                let kind = ErrorKind::Full;
                BackendError { kind, ..error }.into_write_error()
            } else {
                error.into_write_error()
            }
        }
        error => error.into_write_error(),
    }
}

/// Kind of an error of the operating system that prevented a write.
pub(super) fn kind(error: &io::Error) -> ErrorKind {
    if is_without_room(error) {
        ErrorKind::Full
    } else {
        ErrorKind::Unavailable
    }
}

fn is_without_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Returns whether a file beside the store cannot become as large as the files of the store and
/// [`ROOM`] more. The part before that is not written and needs no room.
fn is_exhausted(file: &Path) -> bool {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let size = size(file).max(size(&with_suffix(file, "-wal")));
    let probe = with_suffix(file, "-room");
    let grown = grow(&probe, size);
    // A probe that cannot be removed is overwritten by the next one.
    let _ = std::fs::remove_file(&probe);
    grown.is_err_and(|error| is_without_room(&error))
}

fn grow(probe: &Path, size: u64) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(probe)?;
    file.seek(SeekFrom::Start(size))?;
    file.write_all(&vec![1; ROOM])?;
    file.sync_all()
}

/// Path of a file beside the store.
pub(super) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_with_room_is_not_exhausted_and_keeps_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.db");
        std::fs::write(&file, "content").unwrap();
        assert!(!is_exhausted(&file));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // A folder that does not exist is another failure.
        assert!(!is_exhausted(&folder.path().join("none/memory.db")));
    }
}
