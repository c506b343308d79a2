//! Errors in the form that Google's APIs have them.

use std::sync::LazyLock;

use http::{HeaderValue, Response, StatusCode, header};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;

use super::json;
use crate::rpc::status;

/// The messages of `google.rpc`, which details are.
static STATUS: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).ok()?;
    pool.get_message_by_name("google.rpc.Status")
});

pub(super) fn no_such_path() -> Response<Body> {
    render(&Status::not_found("there is nothing at this path"), None)
}

/// A path that is there, for other methods.
pub(super) fn other_methods(allowed: &str) -> Response<Body> {
    let status = Status::unimplemented(format!("the methods of this path are {allowed}"));
    let mut response = render(&status, Some(StatusCode::METHOD_NOT_ALLOWED));
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// A status as JSON, under the HTTP status that belongs to its code or another one.
pub(super) fn render(status: &Status, http: Option<StatusCode>) -> Response<Body> {
    let http = http.unwrap_or_else(|| http_status(status));
    let mut error = serde_json::json!({
        "code": http.as_u16(),
        "message": status.message(),
        "status": status::code_name(status.code()),
    });
    if let Some(details) = details(status.details()) {
        error["details"] = details;
    }
    let body = serde_json::json!({ "error": error });
    let mut response = super::json_response(body.to_string());
    *response.status_mut() = http;
    if status.code() == Code::Unauthenticated {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The details of a `google.rpc.Status`, as a list.
fn details(status: &[u8]) -> Option<serde_json::Value> {
    let mut out = Vec::new();
    json::write(STATUS.as_ref()?, status, &mut out).ok()?;
    let mut rendered: serde_json::Value = serde_json::from_slice(&out).ok()?;
    rendered.get_mut("details").map(serde_json::Value::take)
}

/// The HTTP status of a code, as `google.rpc.Code` has it. What is exhausted by one
/// request alone is no matter of trying again: the request is too large.
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
            // The caller closed the request; it has no name in HTTP.
            StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
        }
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}
