//! Conversion of HTTP requests to gRPC requests.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryFutureExt as _, stream};
use http::{HeaderValue, Method, Request, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use percent_encoding::percent_decode_str;
use prost_reflect::{FieldDescriptor, MethodDescriptor};
use tonic::{Status, body::Body};

use crate::{
    Limits,
    error::FieldViolation,
    frames,
    json::{self, Parameters},
    rule::{RequestBody, Route},
    service::unreadable_body,
    template::FieldPath,
    upload::UploadBody,
};

/// A body that is too large is read up to this multiple of the size limit.
const DRAIN_FACTOR: usize = 4;

/// Headers that describe the HTTP body or the connection.
const REPLACED: [header::HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::EXPECT,
    header::HeaderName::from_static("grpc-encoding"),
    header::HeaderName::from_static("grpc-accept-encoding"),
];

/// Rejects a body of a type that the route does not accept. A body without a type is rejected
/// as well, since a page of another site can make a browser send it without asking the server.
///
/// # Errors
/// Fails if the body has an unsupported content type or encoding.
pub(crate) fn check_content_type(route: &Route, request: &Request<Body>) -> Result<(), Status> {
    if matches!(route.body, RequestBody::None) {
        return Ok(());
    }
    let headers = request.headers();
    let types = route.request_types();
    let is_accepted = match headers.get(header::CONTENT_TYPE) {
        Some(value) => value.to_str().is_ok_and(|value| is_one_of(value, &types)),
        None => request.body().is_end_stream(),
    };
    if !is_accepted {
        let types = types.join(" or ");
        return Err(Status::invalid_argument(format!(
            "the content type of the body must be {types}"
        )));
    }
    let identity = HeaderValue::from_static("identity");
    if *headers.get(header::CONTENT_ENCODING).unwrap_or(&identity) != identity {
        return Err(Status::invalid_argument("the body must not be compressed"));
    }
    Ok(())
}

/// Media types that a browser sends to another site without asking it.
const SIMPLE_TYPES: [&str; 3] = [
    "text/plain",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
];

fn is_one_of(content_type: &str, types: &[String]) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let is = |other: &str| media_type.eq_ignore_ascii_case(other);
    let is_accepted = match types {
        [] => !SIMPLE_TYPES.into_iter().any(is),
        types => types.iter().any(|other| is(other)),
    };
    is_accepted
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// Converts a request to the gRPC call of a route, and returns the body of an upload with it.
/// The HTTP body is read when the service reads the body of the call: the deadline and the
/// limit on calls apply to that too, and an error in it is the status of the call.
pub(crate) fn into_call(
    route: &Route,
    captures: &[&str],
    request: Request<Body>,
    limits: Limits,
) -> (Request<Body>, Option<UploadBody>) {
    let parameters = parameters_of(route, captures, request.uri().query());
    let (mut head, body) = request.into_parts();
    let content_type = head.headers.remove(header::CONTENT_TYPE);
    head.method = Method::POST;
    head.uri = route.grpc_path.clone();
    head.version = Version::HTTP_2;
    for name in REPLACED {
        head.headers.remove(name);
    }
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers.insert(header::CONTENT_TYPE, grpc);
    let encoder = RequestEncoder {
        method: route.method.clone(),
        body: route.body.clone(),
        requires_body: route.requires_body(),
        limits,
    };
    let mut file = None;
    let body = if let RequestBody::File(upload) = &route.body {
        let file = file.insert(UploadBody::new(body));
        let first = parameters.map_err(Status::from).and_then(|parameters| {
            let first = upload.first_request();
            let first = first.map(|first| encoder.encode_parameters(&parameters, &first));
            first.transpose()
        });
        let first = first.transpose().map(|first| first.map(Frame::data));
        let requests = upload.requests(file, content_type.as_ref());
        Body::new(StreamBody::new(stream::iter(first).chain(requests)))
    } else {
        let message = async move { encoder.encode(parameters?, body).await };
        let frames = stream::once(message.map_ok(Frame::data));
        Body::new(StreamBody::new(frames))
    };
    (Request::from_parts(head, body), file)
}

/// Converts the body and the parameters of a request to a message.
struct RequestEncoder {
    method: MethodDescriptor,
    body: RequestBody,
    requires_body: bool,
    limits: Limits,
}

impl RequestEncoder {
    async fn encode(self, parameters: Parameters, body: Body) -> Result<Bytes, Status> {
        let json = self.read(body).await?;
        let message = self.decode_body(&json)?;
        drop(json);
        self.encode_parameters(&parameters, &message)
    }

    /// Appends the parameters to an encoded message, and frames it. Fields that are encoded
    /// last take precedence: those of the path over those of the body.
    fn encode_parameters(&self, parameters: &Parameters, message: &[u8]) -> Result<Bytes, Status> {
        let parameters = parameters.encode(&self.method.input())?;
        if message.len() + parameters.len() > self.limits.max_bytes {
            return Err(self.too_large());
        }
        Ok(frames::frame(&[message, &parameters]))
    }

    /// Converts a JSON body to an encoded message.
    fn decode_body(&self, json: &[u8]) -> Result<Vec<u8>, Status> {
        let reject = |reason| Err(FieldViolation::new("body", reason).into());
        let request = self.method.input();
        match &self.body {
            _ if json.is_empty() && !self.requires_body => Ok(Vec::new()),
            _ if json.is_empty() => reject("is required, even if it is only {}"),
            RequestBody::None => reject("must be empty: this method takes none"),
            RequestBody::Message => json::decode(&request, None, json, &self.limits),
            RequestBody::Field(field) => json::decode(&request, Some(field), json, &self.limits),
            RequestBody::File(_) => reject("must be a file"),
        }
    }

    /// Reads a body.
    async fn read(&self, mut body: Body) -> Result<Bytes, Status> {
        // An HTTP/1 client that is still sending would not receive the rejection. Therefore a
        // body that is somewhat too large is read to its end.
        let max = self.limits.max_bytes;
        let max_drained = max.saturating_mul(DRAIN_FACTOR);
        if body.size_hint().lower() > max_drained as u64 {
            return Err(self.too_large());
        }
        let (mut read, mut length) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(unreadable_body)?;
            if let Ok(data) = frame.into_data() {
                length += data.len();
                if length <= max {
                    read.put(data);
                } else if length > max_drained {
                    break;
                }
            }
        }
        if length > max {
            return Err(self.too_large());
        }
        Ok(read.freeze())
    }

    fn too_large(&self) -> Status {
        (self.limits.too_large)(self.limits.max_bytes)
    }
}

/// Reads the parameters of the query, then those of the path.
fn parameters_of(
    route: &Route,
    captures: &[&str],
    query: Option<&str>,
) -> Result<Parameters, FieldViolation> {
    let mut parameters = Parameters::default();
    let mut seen: Vec<FieldPath> = Vec::new();
    for part in query.unwrap_or_default().split('&') {
        if part.is_empty() {
            continue;
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decode("query", &name.replace('+', " "))?;
        let path = find_parameter(route, &name).ok_or_else(|| {
            FieldViolation::new(name.clone(), "is not a parameter of this method")
        })?;
        let is_list = path.0.last().is_some_and(FieldDescriptor::is_list);
        if !is_list && seen.contains(&path) {
            return Err(FieldViolation::new(name, "is set more than once"));
        }
        parameters.set(&path, decode(&path.name(), &value.replace('+', " "))?);
        seen.push(path);
    }
    for (path, value) in route.template.variables().zip(captures) {
        parameters.set(path, decode(&path.name(), value)?);
    }
    Ok(parameters)
}

fn decode(field: &str, text: &str) -> Result<String, FieldViolation> {
    let decoded = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
    decoded.map_err(|_| FieldViolation::new(field, "must be UTF-8"))
}

/// Field that a parameter of the query sets; `None` for fields that the path or the body sets.
fn find_parameter(route: &Route, name: &str) -> Option<FieldPath> {
    if let RequestBody::File(upload) = &route.body {
        return upload.parameter(name);
    }
    let path = FieldPath::find(&route.method.input(), name)?;
    route.has_parameter(&path).then_some(path)
}
