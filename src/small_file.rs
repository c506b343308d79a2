//! Reads small files, such as tokens, certificates and passwords. A file that blocks, that never
//! ends or that is no regular file is an error, because it must neither delay the start nor stop
//! the reload of other values.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

/// Upper bound on the size of a file.
const MAX_BYTES: u64 = 1 << 20;

/// Time within which a file is read. Only a file system that does not respond takes longer.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Reads a file of at most 1 MiB. It blocks as long as the file system does not respond.
///
/// # Errors
/// Fails if the path, after symbolic links, is no regular file, if the file is larger, or if it
/// cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened, because opening a device can have an effect.
    check(&fs::metadata(path)?)?;
    // The file may have been replaced: a FIFO would block without O_NONBLOCK, and a terminal
    // would become that of this process without O_NOCTTY.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    check(&file.metadata()?)?;
    read_all(file)
}

/// Reads a file like [`read`], and for at most [`TIME_LIMIT`].
///
/// # Errors
/// Fails like [`read`], or if the file system does not respond.
pub(crate) fn read_within_limit(path: &Path) -> io::Result<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let path = path.to_owned();
    thread::spawn(move || {
        // An error means that the limit has passed.
        let _ = sender.send(read(&path));
    });
    receiver
        .recv_timeout(TIME_LIMIT)
        .unwrap_or_else(|_| Err(not_responding()))
}

/// Error of a file that was not read within [`TIME_LIMIT`].
pub(crate) fn not_responding() -> io::Error {
    let limit = TIME_LIMIT.as_secs();
    let text = format!("the file system has not responded for {limit} s");
    io::Error::new(ErrorKind::TimedOut, text)
}

fn check(metadata: &fs::Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(too_large());
    }
    Ok(())
}

fn read_all(file: File) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    // The size of some files is not known before they are read.
    let mut file = file.take(MAX_BYTES + 1);
    if file.read_to_end(&mut contents)? as u64 > MAX_BYTES {
        return Err(too_large());
    }
    Ok(contents)
}

fn too_large() -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, "larger than 1 MiB")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    fn error_of(path: &Path) -> String {
        let error = read(path).expect_err("the file must be rejected");
        assert_eq!(
            read_within_limit(path).unwrap_err().to_string(),
            error.to_string()
        );
        error.to_string()
    }

    #[test]
    fn reads_regular_files_of_at_most_one_mebibyte() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink(&file, &link).unwrap();
        for length in [0, 1, 1 << 20] {
            fs::write(&file, vec![b'x'; length]).unwrap();
            assert_eq!(read(&file).unwrap().len(), length);
            assert_eq!(read_within_limit(&link).unwrap().len(), length);
        }
        for length in [(1 << 20) + 1, 1 << 40] {
            File::create(&file).unwrap().set_len(length).unwrap();
            assert_eq!(error_of(&link), "larger than 1 MiB");
        }
    }

    #[test]
    fn rejects_files_that_block_or_never_end() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for special in [
            fifo.as_path(),
            &socket,
            folder.path(),
            Path::new("/dev/zero"),
            Path::new("/dev/null"),
            Path::new("/dev/tty"),
        ] {
            assert_eq!(error_of(special), "not a regular file", "{special:?}");
            let link = folder.path().join("link");
            symlink(special, &link).unwrap();
            assert_eq!(error_of(&link), "not a regular file", "{special:?}");
            fs::remove_file(&link).unwrap();
        }
        let missing = read(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
