//! Creates every gRPC status of this package, so that one file decides on codes, texts and
//! details. `clippy.toml` disallows the constructors elsewhere.

#![expect(
    clippy::disallowed_methods,
    reason = "this module is the one that creates statuses"
)]

use std::{collections::HashMap, time::Duration};

use grpc_json_transcoding::OBJECT_WEIGHT;
pub(crate) use grpc_json_transcoding::code_name;
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::field::FieldViolation;
use crate::{
    access::{AccessDenied, RateExceeded, RefusedHost, RefusedOrigin},
    domain::{FieldError, InvalidValue, SizeLimit},
    memory::{Error, Resource},
    proto::decode_limits::{Counted, DecodeRejection},
    rejections::Limit,
    store::ReusedKey,
    transport::RequestFailure,
};

/// Domain of every `ErrorInfo`.
pub(crate) const DOMAIN: &str = "conversation-memory";

/// What a caller can do about a request that is too large.
const SPLIT_REQUEST: &str = "split the request, or raise MAX_REQUEST_BYTES";

/// Delay before a retry, sent to callers in `RetryInfo`.
const RETRY_DELAY: Duration = Duration::from_millis(500);

impl From<FieldViolation> for Status {
    fn from(violation: FieldViolation) -> Self {
        let error = FieldError::from(violation);
        if let Some(limit) = error.reason.exceeded() {
            Limit::from(limit).record_rejection();
        }
        let message = format!("{} {}", error.path, error.reason);
        let details =
            ErrorDetails::with_bad_request_violation(error.path, error.reason.to_string());
        Self::with_error_details(Code::InvalidArgument, message, details)
    }
}

impl From<SizeLimit> for Limit {
    fn from(limit: SizeLimit) -> Self {
        match limit {
            SizeLimit::Content => Self::ContentBytes,
            SizeLimit::Metadata => Self::MetadataBytes,
            SizeLimit::Blob => Self::BlobBytes,
            SizeLimit::Request => Self::RequestBytes,
        }
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
                FieldViolation::new(field, reason).into()
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
                too_many_elements(format!(
                    "{field} exceeds the limit of {max} {counted} per request"
                ))
            }
            DecodeRejection::Malformed { cause } => Self::invalid_argument(cause),
            DecodeRejection::SecondRequest => {
                Self::invalid_argument("this method takes one request, and the call has another")
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
            Error::NotFound(Resource::Message(id, seq)) => not_found(
                "message",
                format!("{id}/{seq}"),
                "MESSAGE_NOT_FOUND",
                "no such message",
            ),
            Error::NotFound(Resource::Checkpoint(id)) => not_found(
                "checkpoint",
                id.to_string(),
                "CHECKPOINT_NOT_FOUND",
                "the thread has no such checkpoint",
            ),
            Error::NotFound(Resource::Blob(id, seq, part)) => not_found(
                "blob",
                format!("{id}/{seq}/{part}"),
                "BLOB_NOT_FOUND",
                "no such message, or its part is not a blob",
            ),
            Error::SeqMismatch { current_seq } => with_reason(
                Code::Aborted,
                "SEQ_MISMATCH",
                &format!("the conversation ends at {current_seq}, not at expected_last_seq"),
                &[("current_seq", current_seq.to_string())],
            ),
            Error::MinSeqNotReached { last_seq } => with_reason(
                Code::FailedPrecondition,
                "MIN_SEQ_NOT_REACHED",
                &format!("the conversation ends at {last_seq}, before min_seq"),
                &[("last_seq", last_seq.to_string())],
            ),
            Error::BeyondEnd { field, last_seq } => {
                let reason =
                    InvalidValue::new(format!("must be at most {last_seq}, the last message"));
                FieldViolation::new(field, reason).into()
            }
            // Without RetryInfo: the same request fails again.
            Error::BranchTooDeep { max } => branch_too_deep(max),
            Error::FamilyTooLarge {
                conversations,
                messages,
            } => family_too_large(conversations, messages),
            Error::BaseVersionMissing
            | Error::ContentMissing
            | Error::CheckpointTooLarge
            | Error::TooManyWrites { .. }
            | Error::HasCheckpoints => checkpoint_rejected(&error),
            Error::SearchTooExpensive => search_too_expensive(),
            Error::TooManySearches => busy(
                Limit::Searches,
                "too many concurrent searches: search less often, or restrict searches",
            ),
            Error::TooManySaves => busy(
                Limit::WaitingSaves,
                "too many saves wait for the store: save less at once",
            ),
            Error::TooManyReads => {
                Limit::Reads.record_rejection();
                unavailable("too many reads from the store at once: read less at once")
            }
            Error::TooManyResponseBytes { max } => too_many_response_bytes(max),
            Error::TooManyTransfers => busy(
                Limit::Transfers,
                "too many exports and imports at once: wait for one of them to end",
            ),
            Error::Reused(id) => reused(id),
            Error::Unavailable(_) => unavailable("the store or session tier is unavailable"),
            // Without RetryInfo: the disk stays full until somebody makes room.
            Error::StoreFull(_) => with_reason(
                Code::ResourceExhausted,
                "STORE_FULL",
                "the disk of the store is full: nothing was written",
                &[],
            ),
            Error::Overloaded => busy(Limit::Writes, "too many concurrent writes"),
            Error::OutcomeUnknown { retry_is_safe, .. } => outcome_unknown(retry_is_safe),
            Error::Internal(_) => internal(),
        }
    }
}

/// Status of an internal error. It discloses nothing about the cause.
pub(crate) fn internal() -> Status {
    Status::internal("internal error")
}

/// Status of a call before the store has been prepared.
pub(crate) fn starting() -> Status {
    unavailable("the server is starting: the store is not ready")
}

/// Status of a call whose deadline has passed.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("deadline exceeded")
}

/// Status of a call whose caller is rejected.
pub(crate) fn access_denied(denied: AccessDenied) -> Status {
    match denied {
        AccessDenied::Unauthenticated => {
            Status::unauthenticated("a valid bearer token is required")
        }
        AccessDenied::Forbidden => {
            Status::permission_denied("the calling process is not on the list of allowed processes")
        }
    }
}

/// Status of a call of a method for operators by another caller.
pub(crate) fn operators_only() -> Status {
    Status::permission_denied("only operators may call this method: add the caller to OPERATORS")
}

/// Status of a call that has reached the limit on the duration of calls, not a deadline that its
/// caller has set.
pub(crate) fn call_time_exceeded() -> Status {
    Limit::CallTime.record_rejection();
    deadline_exceeded()
}

/// Status of a request for a host that is not allowed. The caller counts and logs it.
pub(crate) fn host_not_allowed(refused: &RefusedHost) -> Status {
    Status::permission_denied(format!(
        "{refused}: use localhost or a loopback address, or add the host to ALLOWED_HOSTS"
    ))
}

/// Status of a request that a page of another origin has sent. The caller counts and logs it.
pub(crate) fn origin_not_allowed(refused: &RefusedOrigin) -> Status {
    Status::permission_denied(format!(
        "{refused}: add the origin to CORS_ALLOWED_ORIGINS if its pages may call"
    ))
}

/// Status of a call beyond the limit on concurrent calls.
pub(crate) fn too_many_calls(max: usize) -> Status {
    busy(
        Limit::ConcurrentCalls,
        &format!(
            "too many concurrent calls (limit {max}): make fewer at once, or raise MAX_CONCURRENT_CALLS"
        ),
    )
}

/// Status of a health check or a call of reflection beyond the limit on them.
pub(crate) fn too_many_probes(limit: Limit, max: usize) -> Status {
    busy(
        limit,
        &format!("too many concurrent health checks or calls of reflection (limit {max})"),
    )
}

/// Status of a request that is larger than the limit. It has no `RetryInfo`, because the same
/// request fails again.
pub(crate) fn request_too_large(max: usize) -> Status {
    Limit::RequestBytes.record_rejection();
    Status::resource_exhausted(format!(
        "the request has more than {max} bytes: {SPLIT_REQUEST}"
    ))
}

/// Status of a request with more JSON values than the limit.
pub(crate) fn too_many_values(max: usize) -> Status {
    too_many_elements(format!(
        "the body has more than {max} values, where an object counts as {OBJECT_WEIGHT}"
    ))
}

/// Status of a request with too many values or elements. Without `RetryInfo`: the same request
/// fails again.
fn too_many_elements(excess: String) -> Status {
    Limit::RequestElements.record_rejection();
    Status::resource_exhausted(excess + ": split the request")
}

/// Status of a branch that would be too deep. Without `RetryInfo`: the same request fails again.
fn branch_too_deep(max: i64) -> Status {
    Limit::BranchDepth.record_rejection();
    with_reason(
        Code::FailedPrecondition,
        "BRANCH_TOO_DEEP",
        &format!(
            "the branch would be more than {max} branches deep: branch at an earlier message, or \
             import an export of the conversation and branch that"
        ),
        &[("max_depth", max.to_string())],
    )
}

/// Status of a transfer of too much at once. Without `RetryInfo`: the same request fails again.
fn family_too_large(conversations: u32, messages: u32) -> Status {
    with_reason(
        Code::FailedPrecondition,
        "FAMILY_TOO_LARGE",
        &format!(
            "the conversation and its branches are more than {conversations} conversations or {messages} \
             messages: import an export of the conversation for the new owner instead"
        ),
        &[
            ("max_conversations", conversations.to_string()),
            ("max_messages", messages.to_string()),
        ],
    )
}

/// Status of a search that took too long. Without `RetryInfo`: the same request fails again.
fn search_too_expensive() -> Status {
    Limit::SearchTime.record_rejection();
    with_reason(
        Code::ResourceExhausted,
        "SEARCH_TOO_EXPENSIVE",
        "the search exceeded its limits: restrict it to a conversation or a longer namespace, or search \
         for fewer and more specific words",
        &[],
    )
}

/// Status of a call whose request is not received completely.
pub(crate) fn request_failed(failure: RequestFailure) -> Status {
    match failure {
        RequestFailure::TooManyBytes { max } => busy(
            Limit::PendingRequestBytes,
            &format!(
                "the requests in progress exceed their limit of {max} bytes: send fewer or smaller \
                 ones at once, or raise MAX_PENDING_REQUEST_BYTES"
            ),
        ),
        RequestFailure::Stalled { limit } => {
            let seconds = limit.as_secs();
            Status::deadline_exceeded(format!(
                "the request is incomplete, and no more of it has arrived for {seconds} s: send it \
                 without pauses"
            ))
        }
        RequestFailure::Displaced => busy(
            Limit::ConcurrentCalls,
            "the request was incomplete, and the server has no capacity to wait for it: send it \
             without pauses",
        ),
    }
}

/// Status of a call whose response does not fit into the bytes of all responses.
pub(crate) fn too_many_response_bytes(max: usize) -> Status {
    busy(
        Limit::PendingResponseBytes,
        &format!(
            "the responses that callers have not read exceed their limit of {max} bytes: read \
             them sooner, request less, or raise MAX_PENDING_RESPONSE_BYTES"
        ),
    )
}

/// Status of a write whose response does not fit into the bytes of all responses.
pub(crate) fn response_of_write_not_sent() -> Status {
    Limit::PendingResponseBytes.record_rejection();
    with_reason(
        Code::Unknown,
        "COMMIT_OUTCOME_UNKNOWN",
        "the request was executed, but the responses that callers have not read exceed their limit: \
         read the conversation before repeating the request",
        &[],
    )
}

/// Status of a call beyond the rate of its caller.
pub(crate) fn rate_limit_exceeded(exceeded: &RateExceeded) -> Status {
    let message = format!(
        "rate limit exceeded ({} calls/s): call less often, or raise MAX_CALLER_RATE",
        exceeded.calls_per_second
    );
    busy_for(Limit::CallerRate, exceeded.retry_after, &message)
}

/// Replaces the codes that tonic's decoder chooses for requests that it cannot decode, and for
/// which it has no setting.
///
/// A request that is too large is `OUT_OF_RANGE`; other implementations, and the retry rules of
/// clients, expect `RESOURCE_EXHAUSTED`. This package never chooses `OUT_OF_RANGE` itself. `size_limit` has
/// rejected such a request.
/// A request that is incomplete, missing or cannot be decompressed is `INTERNAL`, although the
/// caller caused it. This package chooses `INTERNAL` only in [`internal`].
/// If the caller resets its request, the code depends on that of the reset, and can be `INTERNAL`,
/// `UNKNOWN` or `UNAVAILABLE`. The caller, which does not receive it, has cancelled the call.
///
/// Returns whether the decoder has rejected the request.
pub(crate) fn replace_decoder_codes(headers: &mut HeaderMap, size_limit: Limit) -> bool {
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        return false;
    };
    let replacement = match Code::from_bytes(code.as_bytes()) {
        _ if has_reset_message(headers) => Code::Cancelled,
        Code::OutOfRange => {
            if size_limit == Limit::RequestBytes {
                add_advice(headers);
            }
            size_limit.record_rejection();
            Code::ResourceExhausted
        }
        Code::Internal if !has_internal_message(headers) => Code::InvalidArgument,
        _ => return false,
    };
    headers.insert(Status::GRPC_STATUS, (replacement as i32).into());
    true
}

/// Adds to the decoder's message for a request that is too large what the caller can do.
fn add_advice(headers: &mut HeaderMap) {
    let message = headers.get(Status::GRPC_MESSAGE);
    let message = message.map_or(&b""[..], HeaderValue::as_bytes);
    let advice = SPLIT_REQUEST.replace(' ', "%20");
    let message = [message, b":%20", advice.as_bytes()].concat();
    if let Ok(message) = HeaderValue::from_bytes(&message) {
        headers.insert(Status::GRPC_MESSAGE, message);
    }
}

/// Whether the message is that of tonic for a request that was reset, as it is encoded in a
/// header.
fn has_reset_message(headers: &HeaderMap) -> bool {
    let message = headers.get(Status::GRPC_MESSAGE);
    message.is_some_and(|message| message.as_bytes().starts_with(b"h2%20protocol%20error"))
}

/// Whether the message is that of [`internal`], as it is encoded in a header.
fn has_internal_message(headers: &HeaderMap) -> bool {
    let message = headers.get(Status::GRPC_MESSAGE);
    message.is_some_and(|message| message == "internal%20error")
}

/// Status of a temporary failure, after which the same request can succeed.
fn unavailable(message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// Status of a request for which the server has no capacity within `limit`.
fn busy(limit: Limit, message: &str) -> Status {
    busy_for(limit, RETRY_DELAY, message)
}

fn busy_for(limit: Limit, retry_delay: Duration, message: &str) -> Status {
    limit.record_rejection();
    let details = ErrorDetails::with_retry_info(Some(retry_delay));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

fn with_reason(code: Code, reason: &str, message: &str, metadata: &[(&str, String)]) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// Status of a call that concerns checkpoints. Without `RetryInfo`: the same request fails again.
fn checkpoint_rejected(error: &Error) -> Status {
    match error {
        Error::BaseVersionMissing => with_reason(
            Code::FailedPrecondition,
            "BASE_VERSION_MISSING",
            "the base_version of a list is not stored or has fewer items, or the value of a stored \
             channel is not stored: send all items and values",
            &[],
        ),
        Error::ContentMissing => with_reason(
            Code::FailedPrecondition,
            "CONTENT_MISSING",
            "data is not stored that the request refers to by its digest: send the data",
            &[],
        ),
        Error::CheckpointTooLarge => with_reason(
            Code::ResourceExhausted,
            "CHECKPOINT_TOO_LARGE",
            "the checkpoint has too many small values for one response: store fewer items",
            &[],
        ),
        Error::TooManyWrites { max } => with_reason(
            Code::ResourceExhausted,
            "TOO_MANY_WRITES",
            &format!("the checkpoint has the writes of {max} calls: store more writes in a call"),
            &[("max_calls", max.to_string())],
        ),
        Error::HasCheckpoints => with_reason(
            Code::FailedPrecondition,
            "CONVERSATION_HAS_CHECKPOINTS",
            "the messages are contained in checkpoints, too: remove them in the graph, or delete \
             the conversation",
            &[],
        ),
        _ => internal(),
    }
}

fn not_found(kind: &str, name: String, reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::with_resource_info(kind, name, "", message);
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(Code::NotFound, message, details)
}

fn reused(id: ReusedKey) -> Status {
    let (reason, message) = match id {
        ReusedKey::ConversationId => (
            "CONVERSATION_ID_REUSED",
            "conversation_id is in use by another conversation",
        ),
        ReusedKey::MessageId => (
            "MESSAGE_ID_REUSED",
            "the id of a message is in use by another message of the conversation",
        ),
        ReusedKey::RequestId => (
            "REQUEST_ID_REUSED",
            "request_id was used before by a request with different content",
        ),
    };
    with_reason(Code::AlreadyExists, reason, message, &[])
}

fn outcome_unknown(retry_is_safe: bool) -> Status {
    let reason = "COMMIT_OUTCOME_UNKNOWN";
    if !retry_is_safe {
        return with_reason(
            Code::Unknown,
            reason,
            "the connection was lost during the commit: read the conversation before repeating the request",
            &[],
        );
    }
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(
        Code::Unavailable,
        "the connection was lost during the commit: repeat the request unchanged",
        details,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(status: Status) -> Code {
        let before = status.code();
        let mut headers = status.into_http::<()>().into_parts().0.headers;
        let is_rejected = replace_decoder_codes(&mut headers, Limit::RequestBytes);
        let code = Status::from_header_map(&headers).unwrap().code();
        assert_eq!(is_rejected, code != before);
        code
    }

    #[test]
    fn only_the_codes_of_the_decoder_are_replaced() {
        assert_eq!(replaced(internal()), Code::Internal);
        assert_eq!(replaced(Status::internal("any")), Code::InvalidArgument);
        assert_eq!(replaced(Status::out_of_range("")), Code::ResourceExhausted);
        assert_eq!(replaced(unavailable("")), Code::Unavailable);
        for status in [Status::unknown, Status::internal, Status::unavailable] {
            let reset = status("h2 protocol error: stream error".to_owned());
            assert_eq!(replaced(reset), Code::Cancelled);
        }
        let mut none = HeaderMap::new();
        assert!(!replace_decoder_codes(&mut none, Limit::RequestBytes));
        assert!(none.is_empty());
    }
}
