use http::Response;
use prost_reflect::MethodDescriptor;
use tonic::{Code, Status, body::Body};

use super::{
    download, error,
    frames::Messages,
    json::{self, Malformed},
};

/// Makes HTTP of a gRPC answer.
pub(super) async fn render(method: &MethodDescriptor, response: Response<Body>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let mut messages = Messages::new(body);
    let rendered = match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ if method.is_server_streaming() => download::begin(method, messages).await,
        _ => document(method, &mut messages).await,
    };
    rendered.unwrap_or_else(|status| error::render(&status, None))
}

async fn document(
    method: &MethodDescriptor,
    messages: &mut Messages,
) -> Result<Response<Body>, Status> {
    let Some(message) = messages.next().await? else {
        return Err(crate::rpc::status::internal());
    };
    // It is OK only when its trailers say so.
    while messages.next().await?.is_some() {}
    let mut json = Vec::with_capacity(message.len() * 5 / 4);
    json::write(&method.output(), &message, &mut json).map_err(|Malformed| {
        tracing::error!(
            rpc.method = method.full_name(),
            "an answer cannot be written as JSON"
        );
        crate::rpc::status::internal()
    })?;
    Ok(super::json_response(json))
}
