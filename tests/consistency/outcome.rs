//! Classification of responses and errors into outcomes.

use conversation_memory::proto::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::history::{Outcome, Row, Shown, Token};

/// Outcome of a failed write.
pub(crate) fn of_failed_write<T>(status: &Status) -> Outcome<T> {
    let details = status.get_error_details();
    let is_unknown = reason(status) == "COMMIT_OUTCOME_UNKNOWN";
    match status.code() {
        Code::NotFound => Outcome::NotFound,
        Code::Aborted | Code::FailedPrecondition | Code::InvalidArgument | Code::AlreadyExists => {
            Outcome::NotPerformed
        }
        // Without RetryInfo the status comes from the client, whose connection failed.
        Code::Unavailable | Code::ResourceExhausted
            if details.retry_info().is_some() && !is_unknown =>
        {
            Outcome::NotPerformed
        }
        _ => Outcome::Unknown,
    }
}

/// Outcome of a failed read.
pub(crate) fn of_failed_read(status: &Status) -> Shown {
    match (status.code(), reason(status).as_str()) {
        (Code::NotFound, "CONVERSATION_NOT_FOUND") => Shown::NotFound,
        (Code::FailedPrecondition, "MIN_SEQ_NOT_REACHED") => {
            let details = status.get_error_details();
            let info = details.error_info().expect("ErrorInfo");
            Shown::EndsAt(info.metadata["last_seq"].parse().unwrap())
        }
        _ => Shown::Failed,
    }
}

/// Whether an error is none that faults may cause.
pub(crate) fn is_unexpected(status: &Status) -> bool {
    match status.code() {
        // The text distinguishes it from errors of the client's connection.
        Code::Internal => status.message() == "internal error",
        Code::InvalidArgument | Code::AlreadyExists => true,
        Code::NotFound => reason(status) != "CONVERSATION_NOT_FOUND",
        _ => false,
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info();
    info.map_or_else(String::new, |info| info.reason.clone())
}

/// The messages of a response, in ascending order if they are.
pub(crate) fn rows(messages: &[Message]) -> Vec<Row> {
    messages
        .iter()
        .map(|message| Row {
            seq: message.seq,
            token: Token::parse(&message.content),
        })
        .collect()
}
