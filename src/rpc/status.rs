//! The one place that chooses status codes.

use std::{collections::HashMap, time::Duration};

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::field::FieldError;
use crate::{
    access::AccessDenied,
    domain::InvalidValue,
    memory::{Error, Resource},
    proto::decode_limits::{Counted, DecodeRejection},
    store::Reused,
};

/// The domain of every `ErrorInfo`.
pub(crate) const DOMAIN: &str = "conversation-memory";

/// How long a caller waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl From<FieldError> for Status {
    fn from(error: FieldError) -> Self {
        let message = format!("{} {}", error.path, error.reason);
        let details =
            ErrorDetails::with_bad_request_violation(error.path, error.reason.to_string());
        Self::with_error_details(Code::InvalidArgument, message, details)
    }
}

impl From<DecodeRejection> for Status {
    fn from(rejection: DecodeRejection) -> Self {
        match rejection {
            DecodeRejection::TooDeep { field, nested, max } => {
                let reason = InvalidValue::new(match nested {
                    Counted::Values => format!("must be at most {max} levels deep"),
                    Counted::Elements => format!("must not nest more than {max} messages"),
                });
                FieldError::new(field, reason).into()
            }
            DecodeRejection::TooManyElements {
                field,
                counted,
                max,
            } => {
                let counted = match counted {
                    Counted::Values => "JSON values",
                    Counted::Elements => "elements",
                };
                // Without RetryInfo: the same request fails again.
                Self::resource_exhausted(format!(
                    "{field} exceeds the limit of {max} {counted} per request"
                ))
            }
            DecodeRejection::LimitsUnknown => internal(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(Resource::Conversation(id)) => not_found(
                "conversation",
                id.to_string(),
                "CONVERSATION_NOT_FOUND",
                "no such conversation",
            ),
            Error::NotFound(Resource::Session(id)) => not_found(
                "session",
                id.to_string(),
                "SESSION_EXPIRED_OR_UNKNOWN",
                "no such session, or it has expired",
            ),
            Error::SeqMismatch { current_seq } => because(
                Code::Aborted,
                "SEQ_MISMATCH",
                &format!("the conversation ends at {current_seq}, not at expected_last_seq"),
                &[("current_seq", current_seq.to_string())],
            ),
            Error::MinSeqNotReached { last_seq } => because(
                Code::FailedPrecondition,
                "MIN_SEQ_NOT_REACHED",
                &format!("the conversation ends at {last_seq}, before min_seq"),
                &[("last_seq", last_seq.to_string())],
            ),
            // The one number that a caller names and only the store can judge.
            Error::BeyondEnd { last_seq } => {
                let reason =
                    InvalidValue::new(format!("must be at most {last_seq}, the last message"));
                FieldError::new("at_seq", reason).into()
            }
            Error::Reused(what) => reused(what),
            Error::Unavailable(_) => unavailable("the store or session tier is unavailable"),
            Error::Overloaded => exhausted("too many writes at once"),
            Error::OutcomeUnknown { retry_is_safe, .. } => outcome_unknown(retry_is_safe),
            Error::Internal(_) => internal(),
        }
    }
}

/// A code as gRPC writes it.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a caller hears of a bug: nothing of it.
pub(crate) fn internal() -> Status {
    Status::internal("internal error")
}

/// A failure that passes.
pub(crate) fn unavailable(message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// A call before the store has been prepared.
pub(crate) fn starting() -> Status {
    unavailable("starting: the store is not ready")
}

/// A call whose deadline has passed.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline passed")
}

/// A caller who may not call, whatever it asks for.
pub(crate) fn refused(refusal: AccessDenied) -> Status {
    match refusal {
        AccessDenied::Unauthenticated => {
            Status::unauthenticated("a valid bearer token is required")
        }
        AccessDenied::Forbidden => Status::permission_denied("this process may not call"),
    }
}

/// Too much at once.
pub(crate) fn exhausted(message: &str) -> Status {
    exhausted_for(RETRY_AFTER, message)
}

/// Replaces the code of a request that is too large. Tonic's decoder, which has no setting
/// for it, chooses `OUT_OF_RANGE`; other implementations, and the retry rules of clients,
/// expect `RESOURCE_EXHAUSTED`. This server never chooses `OUT_OF_RANGE` itself.
pub(crate) fn replace_out_of_range(headers: &mut HeaderMap) {
    let code = headers.get(Status::GRPC_STATUS);
    if code.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::OutOfRange) {
        let code = (Code::ResourceExhausted as i32).into();
        headers.insert(Status::GRPC_STATUS, code);
    }
}

/// A call beyond the limit on concurrent calls.
pub(crate) fn too_many_calls() -> Status {
    exhausted("too many calls at once")
}

/// Too many calls of this caller's.
pub(crate) fn too_often(wait: Duration) -> Status {
    exhausted_for(wait, "this caller calls too often")
}

fn exhausted_for(wait: Duration, message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(wait));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

fn because(code: Code, reason: &str, message: &str, metadata: &[(&str, String)]) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

fn not_found(kind: &str, name: String, reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::with_resource_info(kind, name, "", message);
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(Code::NotFound, message, details)
}

fn reused(what: Reused) -> Status {
    let (reason, message) = match what {
        Reused::ConversationId => (
            "CONVERSATION_ID_REUSED",
            "conversation_id is in use by another conversation",
        ),
        Reused::MessageId => (
            "MESSAGE_ID_REUSED",
            "a message's id is in use by another message",
        ),
        Reused::RequestId => (
            "REQUEST_ID_REUSED",
            "request_id was used before by a request that said something else",
        ),
    };
    because(Code::AlreadyExists, reason, message, &[])
}

fn outcome_unknown(retry_is_safe: bool) -> Status {
    let reason = "COMMIT_OUTCOME_UNKNOWN";
    if !retry_is_safe {
        return because(
            Code::Unknown,
            reason,
            "the connection was lost during the commit: read before you repeat the request",
            &[],
        );
    }
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(
        Code::Unavailable,
        "the connection was lost during the commit: repeat the request as it is",
        details,
    )
}
