//! Errors of the databases, classified where they occur and mapped to [`StoreError`] where an
//! operation ends.

use std::{error::Error, fmt};

use sqlx::{error::DatabaseError, postgres::PgDatabaseError, sqlite::SqliteError};

use super::{ReusedKey, StoreError, postgres, sqlite};

/// Kind of a database error. It determines whether the operation is retried and which
/// [`StoreError`] the caller receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// The statement conflicted with another transaction and was rolled back. A
    /// retry can succeed.
    Retryable,
    /// A unique key is already in use.
    UniqueViolation,
    /// The database cannot execute the statement now, and has not executed it.
    Unavailable,
    /// The statement exceeded its time limit. It has written nothing.
    TimeLimit,
    /// The session does not accept writes. The server can do so by now, because a session keeps
    /// the settings with which it began.
    ReadOnly,
    /// The wait for a statement ended before its response. The statement is not committed, but its
    /// connection cannot be used.
    Interrupted,
    /// The disk is full. The statement is not executed.
    Full,
    /// The disk rejected a write before the commit, for a reason that the database does not report.
    WriteFailed,
    /// The disk rejected a write of the commit, for a reason that the database does not report.
    CommitWriteFailed,
    /// The connection or the commit failed in a way that leaves unknown whether
    /// the statement took effect.
    ConnectionLost,
    /// A defect of this program, of the database or of its data.
    Internal,
}

/// Error of a database, of its driver or of its data, classified.
#[derive(Clone, Debug)]
pub(super) struct BackendError {
    pub(super) kind: ErrorKind,
    pub(super) cause: Cause,
}

/// Cause of an error for the log. It contains no value of a row or a parameter, although
/// drivers quote both in their messages and details.
#[derive(Clone, Debug)]
pub(super) struct Cause(String);

impl Cause {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

impl From<sqlx::Error> for BackendError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let (kind, text) = match &error {
            E::Database(error) => return classify(&**error),
            E::Io(cause) => (
                ErrorKind::ConnectionLost,
                format!("the connection was lost: {cause}"),
            ),
            E::Tls(cause) => (ErrorKind::ConnectionLost, format!("TLS failed: {cause}")),
            E::WorkerCrashed => (ErrorKind::ConnectionLost, error.to_string()),
            // The text can quote what was received.
            E::Protocol(_) => (
                ErrorKind::ConnectionLost,
                "the server violated the protocol".to_owned(),
            ),
            E::PoolTimedOut | E::PoolClosed | E::BeginFailed => {
                (ErrorKind::Unavailable, error.to_string())
            }
            E::Configuration(cause) => (ErrorKind::Unavailable, cause.to_string()),
            // The source can quote the value.
            E::ColumnDecode { index, .. } => (
                ErrorKind::Internal,
                format!("the stored value of column {index} cannot be decoded"),
            ),
            E::ColumnNotFound(_) | E::RowNotFound => (ErrorKind::Internal, error.to_string()),
            _ => (ErrorKind::Internal, "the database driver failed".to_owned()),
        };
        Self::new(kind, text)
    }
}

fn classify(error: &dyn DatabaseError) -> BackendError {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        postgres::classify(error)
    } else if let Some(error) = error.try_downcast_ref::<SqliteError>() {
        sqlite::classify(error)
    } else {
        BackendError::new(ErrorKind::Internal, "unknown kind of database")
    }
}

impl BackendError {
    pub(super) fn new(kind: ErrorKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: Cause::new(cause),
        }
    }

    /// Reclassifies [`ErrorKind::ConnectionLost`] where nothing has been executed.
    pub(super) fn replace_connection_lost(self, kind: ErrorKind) -> Self {
        match self.kind {
            ErrorKind::ConnectionLost => Self { kind, ..self },
            _ => self,
        }
    }

    /// Maps the error of an operation that writes nothing.
    pub(super) fn into_read_error(self) -> StoreError {
        match self.kind {
            ErrorKind::Retryable
            | ErrorKind::Unavailable
            | ErrorKind::TimeLimit
            | ErrorKind::ReadOnly
            | ErrorKind::Interrupted
            | ErrorKind::WriteFailed
            | ErrorKind::CommitWriteFailed
            | ErrorKind::ConnectionLost => StoreError::Unavailable(self.cause.into()),
            ErrorKind::Full => StoreError::Full(self.cause.into()),
            ErrorKind::UniqueViolation | ErrorKind::Internal => {
                StoreError::Internal(self.cause.into())
            }
        }
    }

    /// Maps the error of an operation whose last statement may have been committed.
    pub(super) fn into_write_error(self) -> StoreError {
        match self.kind {
            ErrorKind::ConnectionLost | ErrorKind::CommitWriteFailed => {
                StoreError::OutcomeUnknown(self.cause.into())
            }
            _ => self.into_read_error(),
        }
    }
}

/// Error of a store operation, before it is mapped to [`StoreError`].
#[derive(Debug)]
pub(super) enum OperationError {
    /// Outcome that the contract of [`Store`](super::Store) defines, which is not mapped any
    /// further.
    Store(StoreError),
    /// Error of the database, which is mapped by [`Self::into_read_error`] or
    /// [`Self::into_write_error`], or retried.
    Backend(BackendError),
}

impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BackendError> for OperationError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<sqlx::Error> for OperationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Backend(error.into())
    }
}

impl OperationError {
    /// Kind of the database error; `None` for an outcome that the contract defines.
    pub(super) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Store(_) => None,
            Self::Backend(error) => Some(error.kind),
        }
    }

    /// Cause for the log.
    pub(super) fn into_cause(self) -> Cause {
        match self {
            Self::Store(error) => Cause::new(error.to_string()),
            Self::Backend(error) => error.cause,
        }
    }

    /// Reclassifies the error of a statement that preceded the COMMIT of its transaction, or of a
    /// transaction that preceded the one that makes an operation visible: a lost connection has a
    /// known outcome then, because the database rolls back uncommitted changes.
    pub(super) fn before_commit(self) -> Self {
        match self.replace_connection_lost(ErrorKind::Unavailable) {
            Self::Backend(error) if error.kind == ErrorKind::CommitWriteFailed => {
                Self::Backend(BackendError {
                    kind: ErrorKind::WriteFailed,
                    ..error
                })
            }
            other => other,
        }
    }

    /// Reclassifies [`ErrorKind::ConnectionLost`] where the statement has written
    /// nothing.
    pub(super) fn replace_connection_lost(self, kind: ErrorKind) -> Self {
        match self {
            Self::Backend(error) if error.kind == ErrorKind::ConnectionLost => {
                Self::Backend(BackendError { kind, ..error })
            }
            other => other,
        }
    }

    /// Replaces the violation of a unique key, which is `key` in this statement.
    pub(super) fn of_reused(self, key: ReusedKey) -> Self {
        if self.kind() == Some(ErrorKind::UniqueViolation) {
            return StoreError::AlreadyExists(key).into();
        }
        self
    }

    /// Replaces the error of a search that exceeded its time limit.
    pub(super) fn of_search(self) -> Self {
        if self.kind() == Some(ErrorKind::TimeLimit) {
            return StoreError::SearchTooExpensive.into();
        }
        self
    }

    /// Maps the error of an operation that writes nothing.
    pub(super) fn into_read_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Backend(error) => error.into_read_error(),
        }
    }

    /// Maps the error of an operation whose last statement may have been committed.
    pub(super) fn into_write_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Backend(error) => error.into_write_error(),
        }
    }
}
