use std::{error::Error, fmt};

use sqlx::{error::DatabaseError, postgres::PgDatabaseError, sqlite::SqliteError};

use super::{StoreError, postgres, sqlite};

/// What a driver's error means for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// It lost against another and was rolled back: try again.
    Retry,
    /// A unique key is taken.
    Taken,
    /// The store cannot do it now, and has not done it.
    Unavailable,
    /// Nobody knows whether it was done.
    Lost,
    /// A bug, here or in the store.
    Internal,
}

/// An error of a driver, classified.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: ErrorKind,
    pub(super) cause: Cause,
}

/// What is kept of a driver's error: enough to find the fault by, and nothing
/// of a row or a parameter. Drivers quote both in their messages and details.
#[derive(Clone, Debug)]
pub(super) struct Cause(String);

impl Cause {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let (class, words) = match &error {
            E::Database(error) => return of_database(&**error),
            E::Io(cause) => (ErrorKind::Lost, format!("the connection broke: {cause}")),
            E::Tls(cause) => (ErrorKind::Lost, format!("TLS failed: {cause}")),
            E::WorkerCrashed => (ErrorKind::Lost, error.to_string()),
            // The text may quote what was received.
            E::Protocol(_) => (ErrorKind::Lost, "the protocol was broken".to_owned()),
            E::PoolTimedOut | E::PoolClosed | E::BeginFailed => {
                (ErrorKind::Unavailable, error.to_string())
            }
            E::Configuration(cause) => (ErrorKind::Unavailable, cause.to_string()),
            // The source may quote the value.
            E::ColumnDecode { index, .. } => (
                ErrorKind::Internal,
                format!("the stored value of column {index} cannot be read"),
            ),
            E::ColumnNotFound(_) | E::RowNotFound => (ErrorKind::Internal, error.to_string()),
            _ => (ErrorKind::Internal, "the driver failed".to_owned()),
        };
        Self::new(class, words)
    }
}

fn of_database(error: &dyn DatabaseError) -> Failure {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        postgres::failure(error)
    } else if let Some(error) = error.try_downcast_ref::<SqliteError>() {
        sqlite::failure(error)
    } else {
        Failure::new(ErrorKind::Internal, "an error of an unknown database")
    }
}

impl From<sqlx::Error> for OperationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Failure {
    pub(super) fn new(class: ErrorKind, words: impl Into<String>) -> Self {
        Self {
            class,
            cause: Cause::new(words),
        }
    }

    /// What it means when nothing was to be written.
    pub(super) fn of_read(self) -> StoreError {
        match self.class {
            ErrorKind::Retry | ErrorKind::Unavailable | ErrorKind::Lost => {
                StoreError::Unavailable(self.cause.into())
            }
            ErrorKind::Taken | ErrorKind::Internal => StoreError::Internal(self.cause.into()),
        }
    }

    /// What it means when the failed statement may have committed.
    pub(super) fn of_write(self) -> StoreError {
        match self.class {
            ErrorKind::Lost => StoreError::OutcomeUnknown(self.cause.into()),
            _ => self.of_read(),
        }
    }
}

/// Why an operation ended without its result: it was refused, or it failed.
#[derive(Debug)]
pub(super) enum OperationError {
    /// The answer is known.
    Refused(StoreError),
    /// The store failed.
    Failed(Failure),
}

impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for OperationError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl OperationError {
    pub(super) fn class(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(_) => None,
            Self::Failed(failure) => Some(failure.class),
        }
    }

    pub(super) fn of_read(self) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Failed(failure) => failure.of_read(),
        }
    }

    pub(super) fn of_write(self) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Failed(failure) => failure.of_write(),
        }
    }
}
