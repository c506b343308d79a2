//! Conversion of gRPC responses to HTTP responses.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prost::Message as _;
use prost_reflect::FieldDescriptor;
use tonic::{Code, Status, body::Body};

use crate::{error, frames::Messages, http_body::HttpBody, json, rule::Route, service::internal};

/// Headers of every response: it belongs to its caller, and is of the type that it declares.
const HEADERS: [(header::HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
];

/// A response with a JSON body.
pub(crate) fn json(body: impl Into<Bytes>) -> Response<Body> {
    let content_type = HeaderValue::from_static("application/json");
    with_headers(content_type, Body::new(Full::new(body.into())))
}

fn with_headers(content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.insert(header::CONTENT_TYPE, content_type);
    response
}

/// Renders the gRPC response of a route's method.
pub(crate) async fn render(route: &Route, response: Response<Body>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let mut messages = Messages::new(body);
    let rendered = match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => match &route.response_body {
            Some(file) => download(file, &head.headers, messages).await,
            None => message(route, &mut messages).await,
        },
    };
    rendered.unwrap_or_else(|status| error::render(&status, None))
}

async fn message(route: &Route, messages: &mut Messages) -> Result<Response<Body>, Status> {
    let message = messages.next().await?.ok_or_else(internal)?;
    // The status of the call is in the trailers, after the message.
    while messages.next().await?.is_some() {}
    let method = &route.method;
    let rendered = json::encode(&method.output(), &message).map_err(|error| {
        tracing::error!(
            rpc.method = method.full_name(),
            error = %error,
            "the response cannot be rendered as JSON"
        );
        internal()
    })?;
    Ok(json(rendered))
}

/// Starts a download with the first message. An error before that message becomes an error
/// response. A later error aborts the body, which HTTP reports to the caller.
async fn download(
    file: &FieldDescriptor,
    metadata: &HeaderMap,
    mut messages: Messages,
) -> Result<Response<Body>, Status> {
    let number = file.number();
    let first = messages.next().await?.unwrap_or_default();
    let HttpBody { content_type, data } = piece(number, &first)?;
    let pieces = stream::unfold(Some((Some(data), messages, number)), async |state| {
        let (first, mut messages, number) = state?;
        let data = match first {
            Some(data) => Ok(Some(data)),
            None => match messages.next().await {
                Ok(Some(message)) => piece(number, &message).map(|piece| Some(piece.data)),
                Ok(None) => Ok(None),
                Err(status) => Err(status),
            },
        };
        match data {
            Ok(data) => Some((Ok(Frame::data(data?)), Some((None, messages, number)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    let binary = HeaderValue::from_static("application/octet-stream");
    let content_type = content_type
        .parse()
        .ok()
        .filter(|it: &HeaderValue| !it.is_empty());
    let body = Body::new(StreamBody::new(pieces));
    let mut response = with_headers(content_type.unwrap_or(binary), body);
    if let Some(disposition) = metadata.get(header::CONTENT_DISPOSITION) {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, disposition.clone());
    }
    Ok(response)
}

/// Reads a piece of a file from field `number` of a message, without copying it.
fn piece(number: u32, message: &Bytes) -> Result<HttpBody, Status> {
    let body = protobuf_wire::last_value(message, number).map_err(|_| internal())?;
    HttpBody::decode(body.unwrap_or_default()).map_err(|_| internal())
}

#[cfg(test)]
mod tests;
