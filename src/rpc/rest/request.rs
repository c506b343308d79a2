use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryFutureExt as _, stream};
use http::{HeaderValue, Method, Request, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use percent_encoding::percent_decode_str;
use prost_reflect::{FieldDescriptor, MethodDescriptor};
use tonic::{Status, body::Body};

use super::{
    contract::{RequestBody, Route},
    frames,
    json::{Encoder, Refusal},
    template::FieldPath,
    upload::Sent,
};
use crate::{domain::InvalidValue, rpc::field::FieldError};

/// How many times the limit a body may have and be read, though not kept.
const BEARABLE: usize = 4;

/// Headers that speak of the body that was, or of the connection.
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

/// Whether a request's body is of a kind that the route takes. A body without a type
/// is refused too: a page on another site could send one.
pub(super) fn takes(route: &Route, request: &Request<Body>) -> Result<(), Status> {
    if matches!(route.body, RequestBody::Nothing) {
        return Ok(());
    }
    let headers = request.headers();
    let types = route.body_types();
    let is_taken = match headers.get(header::CONTENT_TYPE) {
        Some(value) => value.to_str().is_ok_and(|kind| is_one_of(kind, &types)),
        None => request.body().is_end_stream(),
    };
    if !is_taken {
        let types = types.join(" or ");
        return Err(Status::invalid_argument(format!(
            "the body must have the content type {types}"
        )));
    }
    let plain = HeaderValue::from_static("identity");
    if *headers.get(header::CONTENT_ENCODING).unwrap_or(&plain) != plain {
        return Err(Status::invalid_argument("the body must not be compressed"));
    }
    Ok(())
}

fn is_one_of(content_type: &str, types: &[String]) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    types.iter().any(|taken| kind.eq_ignore_ascii_case(taken))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// The gRPC call that a request asks for. Its body is read when the service reads it,
/// so that the deadline and the limit on calls hold for that as well, and what is
/// wrong with it is the call's own refusal. With it a file that is being sent.
pub(super) fn into_call(
    route: &Route,
    captures: &[&str],
    request: Request<Body>,
    max: usize,
) -> (Request<Body>, Option<Sent>) {
    let fields = fields_of(route, captures, request.uri().query());
    let (mut head, body) = request.into_parts();
    head.method = Method::POST;
    head.uri = route.rpc.clone();
    head.version = Version::HTTP_2;
    for name in REPLACED {
        head.headers.remove(name);
    }
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers.insert(header::CONTENT_TYPE, grpc);
    let form = Form {
        method: route.method.clone(),
        body: route.body.clone(),
        needs_body: route.needs_body(),
        max,
    };
    let mut sent = None;
    let body = if let RequestBody::File(upload) = &route.body {
        let sent = sent.insert(Sent::new(body));
        let first = fields.and_then(|given| form.encode(&given, &upload.beginning()));
        let first = stream::iter([first.map(Frame::data)]);
        Body::new(StreamBody::new(first.chain(upload.messages(sent))))
    } else {
        let message = async move { form.message(fields?, body).await };
        let frames = stream::once(message.map_ok(Frame::data));
        Body::new(StreamBody::new(frames))
    };
    (Request::from_parts(head, body), sent)
}

/// What is made of a request's body.
struct Form {
    method: MethodDescriptor,
    body: RequestBody,
    needs_body: bool,
    max: usize,
}

/// A field of the request and what the path or the query says of it.
type Given = (FieldPath, String);

impl Form {
    async fn message(self, given: Vec<Given>, body: Body) -> Result<Bytes, Status> {
        let json = self.read(body).await?;
        self.encode(&given, &json)
    }

    /// A message of what the body says, then of what is given beside it.
    fn encode(&self, given: &[Given], body: &Bytes) -> Result<Bytes, Status> {
        let mut encoder = Encoder::new(self.max);
        let encoded = self
            .encode_body(&mut encoder, body)
            // Last, so that the path holds.
            .and_then(|()| {
                given
                    .iter()
                    .try_for_each(|(path, text)| encoder.text(&path.0, text))
            });
        match encoded {
            Ok(()) => Ok(frames::frame(&encoder.finish())),
            Err(Refusal::Field(error)) => Err(error.into()),
            Err(Refusal::TooLarge) => Err(self.too_large()),
        }
    }

    fn encode_body(&self, encoder: &mut Encoder, json: &[u8]) -> Result<(), Refusal> {
        let refuse = |reason| {
            Err(Refusal::Field(FieldError::new(
                "body",
                InvalidValue::new(reason),
            )))
        };
        match &self.body {
            _ if json.is_empty() && !self.needs_body => Ok(()),
            _ if json.is_empty() => refuse("is required, if only {}"),
            RequestBody::File(_) => {
                encoder.protobuf(json);
                Ok(())
            }
            RequestBody::Nothing => refuse("must be empty: this call takes none"),
            RequestBody::Rest => encoder.message(&self.method.input(), json),
            RequestBody::Field(field) => encoder.field(field, json),
        }
    }

    async fn read(&self, mut body: Body) -> Result<Bytes, Status> {
        // A caller over HTTP/1 that is still sending would not hear the refusal, so a
        // body that is a little too large is read to its end.
        let bearable = self.max.saturating_mul(BEARABLE);
        if body.size_hint().lower() > bearable as u64 {
            return Err(self.too_large());
        }
        let (mut read, mut length) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| super::cut_off())?;
            if let Ok(data) = frame.into_data() {
                length += data.len();
                if length <= self.max {
                    read.put(data);
                } else if length > bearable {
                    break;
                }
            }
        }
        if length > self.max {
            return Err(self.too_large());
        }
        Ok(read.freeze())
    }

    fn too_large(&self) -> Status {
        Status::resource_exhausted(format!("the request has more than {} bytes", self.max))
    }
}

/// What the query and then the path say, by field.
fn fields_of(route: &Route, captures: &[&str], query: Option<&str>) -> Result<Vec<Given>, Status> {
    let mut given: Vec<Given> = Vec::new();
    for part in query.unwrap_or_default().split('&') {
        if part.is_empty() {
            continue;
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decoded("query", &name.replace('+', " "))?;
        let path = parameter(route, &name).ok_or_else(|| {
            FieldError::new(
                name.clone(),
                InvalidValue::new("is no parameter of this call"),
            )
        })?;
        let is_list = path.0.last().is_some_and(FieldDescriptor::is_list);
        if !is_list && given.iter().any(|(other, _)| *other == path) {
            return Err(FieldError::new(name, InvalidValue::new("is given twice")).into());
        }
        let value = decoded(&path.name(), &value.replace('+', " "))?;
        given.push((path, value));
    }
    for (path, value) in route.template.variables().zip(captures) {
        given.push((path.clone(), decoded(&path.name(), value)?));
    }
    Ok(given)
}

fn decoded(path: &str, text: &str) -> Result<String, Status> {
    let decoded = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
    decoded.map_err(|_| FieldError::new(path, InvalidValue::new("must be UTF-8")).into())
}

/// The field that a query's parameter means: none that the path or the body gives.
fn parameter(route: &Route, name: &str) -> Option<FieldPath> {
    if let RequestBody::File(upload) = &route.body {
        return upload.parameter(name);
    }
    let path = FieldPath::find(&route.method.input(), name)?;
    is_parameter(route, &path).then_some(path)
}

/// Whether a field can be given in the query.
pub(super) fn is_parameter(route: &Route, path: &FieldPath) -> bool {
    let in_body = match &route.body {
        RequestBody::Nothing => false,
        RequestBody::Rest | RequestBody::File(_) => true,
        RequestBody::Field(field) => path.0.first() == Some(field),
    };
    !in_body && route.template.variables().all(|variable| variable != path)
}
