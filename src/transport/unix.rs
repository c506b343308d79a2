use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixSocket};

/// Mode of the socket's file: its owner and its group may connect.
const MODE: u32 = 0o660;

/// Number of connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The longest path of a Unix socket on Linux, in bytes.
const MAX_PATH_BYTES: usize = 107;

/// Binds a listener to a path. It replaces a socket at which no process listens any more.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        let text = format!("the path of a Unix socket must have at most {MAX_PATH_BYTES} bytes");
        return Err(io::Error::new(ErrorKind::InvalidFilename, text));
    }
    remove_stale_socket(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::at(path)?;
    // Before the socket listens, so that no process connects through a wider mode.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok((socket.listen(BACKLOG)?, file))
}

/// Removes a socket that a stopped process has left behind.
///
/// # Errors
/// Fails if the path has a socket that is in use, or a file that is not a socket. Neither is
/// removed.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "the file is not a socket",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens on the socket",
        )),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// The file of a socket, which is removed on drop unless another file has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file.
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            id: id(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|found| found == self.id) {
            // An error has no consequence: the next start removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}
