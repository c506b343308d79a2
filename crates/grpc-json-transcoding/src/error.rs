//! Errors in the format of AIP-193, which Google's APIs use.

use std::sync::LazyLock;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use prost_reflect::{DescriptorPool, DynamicMessage, prost::Message as _};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

use crate::response;

/// The messages of `google.rpc`, which are the details of a status.
static DETAILS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).ok());

/// Field of a request that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldViolation {
    /// Path of the field, with the names of the proto file: `messages[1].content`.
    pub(crate) field: String,
    /// Rule that the value violates, without the value: "must be a string".
    pub(crate) reason: String,
}

impl FieldViolation {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl From<FieldViolation> for Status {
    fn from(violation: FieldViolation) -> Self {
        let FieldViolation { field, reason } = violation;
        let message = format!("{field} {reason}");
        let details = ErrorDetails::with_bad_request_violation(field, reason);
        Self::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// Response to a request for a path that does not exist.
pub(crate) fn unknown_path() -> Response<Body> {
    render(&Status::not_found("this path does not exist"), None)
}

/// Response to a request for a path that exists only for the methods in `allowed`.
pub(crate) fn method_not_allowed(allowed: &str) -> Response<Body> {
    let status = Status::unimplemented(format!("this path supports only {allowed}"));
    let mut response = render(&status, Some(StatusCode::METHOD_NOT_ALLOWED));
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Response to a request for the path of a gRPC service that is not a gRPC call.
pub(crate) fn not_grpc(request: &Request<Body>) -> Response<Body> {
    if request.version() < Version::HTTP_2 {
        let status = Status::unimplemented("this path is served by gRPC only, which needs HTTP/2");
        return render(&status, Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
    }
    if request.method() != Method::POST {
        return method_not_allowed("POST");
    }
    let status = Status::invalid_argument(
        "this path is served by gRPC only: the content type must be application/grpc",
    );
    render(&status, Some(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// Renders a status as JSON. The HTTP status is `http`, or the one that the code maps to.
pub fn render(status: &Status, http: Option<StatusCode>) -> Response<Body> {
    let http = http.unwrap_or_else(|| http_status(status));
    let mut error = serde_json::json!({
        "code": http.as_u16(),
        "message": status.message(),
        "status": code_name(status.code()),
    });
    let details = details(status.details());
    if !details.is_empty() {
        error["details"] = details.into();
    }
    let body = serde_json::json!({ "error": error });
    let mut response = response::json(body.to_string());
    *response.status_mut() = http;
    // Rounded up, because a retry after a shorter time fails again.
    if let Some(delay) = status
        .get_details_retry_info()
        .and_then(|it| it.retry_delay)
    {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    if status.code() == Code::Unauthenticated {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Renders the details of an encoded `google.rpc.Status`.
fn details(status: &[u8]) -> Vec<serde_json::Value> {
    let status = pb::Status::decode(status).unwrap_or_default();
    let details = status.details.into_iter();
    details
        .map(|detail| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let message = DETAILS.as_ref().and_then(|it| it.get_message_by_name(name));
            let decoded = message
                .and_then(|message| DynamicMessage::decode(message, &*detail.value).ok())
                .and_then(|message| serde_json::to_value(message).ok());
            // Only the type of an unknown message can be rendered.
            let mut rendered = decoded.unwrap_or_else(|| serde_json::json!({}));
            rendered["@type"] = detail.type_url.into();
            rendered
        })
        .collect()
}

/// Maps a code to an HTTP status as `google.rpc.Code` documents it. `RESOURCE_EXHAUSTED`
/// without `RetryInfo` is a property of the request, which is too large.
fn http_status(status: &Status) -> StatusCode {
    match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted if status.get_details_retry_info().is_none() => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => {
            // "Client closed request", which has no name in the registry.
            StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
        }
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Name of a code in `google.rpc.Code`, such as `NOT_FOUND`.
pub fn code_name(code: Code) -> &'static str {
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
