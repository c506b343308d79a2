//! Uploads: files that become a stream of requests.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::encoding::{WireType, encode_key, encode_varint, string};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Status, body::Body};

use crate::{
    frames,
    rule::{is_http_body, is_single_message},
    service::unreadable_body,
    template::FieldPath,
};

/// Maximum number of bytes of the file in one message.
const PIECE_BYTES: usize = 256 << 10;

/// Maximum number of bytes of a rejected file that are read and discarded.
const MAX_DRAIN_BYTES: usize = 128 << 20;
/// Time without data after which a rejected file is no longer read.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time for which a rejected file is read.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Numbers of the fields of `google.api.HttpBody`.
const CONTENT_TYPE: u32 = 1;
const DATA: u32 = 2;

/// Fields of the requests of an upload.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    /// The field that contains a piece of the file.
    file: FieldDescriptor,
    /// The field of the first request, which precedes the file.
    options: Option<FieldDescriptor>,
}

impl Upload {
    /// Reads the fields of a request whose HTTP body is its field `body`.
    ///
    /// # Errors
    /// Fails if the request has other fields than the crate's documentation allows.
    pub(crate) fn of(request: &MessageDescriptor, body: &str) -> Result<Self, &'static str> {
        let file = request.get_field_by_name(body).filter(is_http_body);
        let file = file.ok_or("the body of a stream is not a google.api.HttpBody")?;
        let mut others = request.fields().filter(|field| *field != file);
        match (others.next(), others.next()) {
            (None, _) => Ok(Self {
                file,
                options: None,
            }),
            (Some(field), None) if is_single_message(&field) => Ok(Self {
                file,
                options: Some(field),
            }),
            _ => Err("the request of an upload has fields other than its body and one message"),
        }
    }

    /// Message whose fields are the parameters of the query.
    pub(crate) fn options(&self) -> Option<MessageDescriptor> {
        match self.options.as_ref()?.kind() {
            Kind::Message(options) => Some(options),
            _ => None,
        }
    }

    /// Field of the request that a parameter of the query sets.
    pub(crate) fn parameter(&self, name: &str) -> Option<FieldPath> {
        let FieldPath(mut path) = FieldPath::find(&self.options()?, name)?;
        path.insert(0, self.options.clone()?);
        Some(FieldPath(path))
    }

    /// First request, without any option; `None` if the request has no field for options.
    pub(crate) fn first_request(&self) -> Option<Bytes> {
        let mut message = BytesMut::new();
        let options = self.options.as_ref()?;
        encode_key(options.number(), WireType::LengthDelimited, &mut message);
        encode_varint(0, &mut message);
        Some(message.freeze())
    }

    /// Framed requests with the file, in pieces as they arrive. The first one has the file's
    /// content type.
    pub(crate) fn requests(
        &self,
        body: &UploadBody,
        content_type: Option<&HeaderValue>,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + use<> {
        let file = self.file.number();
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let mut content_type = content_type.map(ToOwned::to_owned);
        let data = body.clone().data().map_err(unreadable_body);
        data.map_ok(move |data| {
            let mut content_type = content_type.take();
            let requests = split(data).flat_map(move |piece| {
                let content_type = content_type.take().unwrap_or_default();
                [head(file, &content_type, piece.len()), piece]
            });
            stream::iter(requests.map(Ok))
        })
        .try_flatten()
        .map_ok(Frame::data)
    }
}

/// Body of an upload, which may be rejected before it has been read.
#[derive(Clone, Debug)]
pub(crate) struct UploadBody(Arc<Mutex<Body>>);

impl UploadBody {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Reads the rest of this body after the body of a response has been sent. Many HTTP/1
    /// clients read a response only after they have sent the whole request: they would not
    /// receive a rejection that closes the connection earlier. The bytes and the time of reading
    /// are limited.
    pub(crate) fn drain_after(self, response: Body) -> Body {
        let drain = stream::once(async move {
            let mut data = pin!(self.data());
            let drained = async {
                let mut left = MAX_DRAIN_BYTES;
                while let Ok(Some(Ok(data))) = timeout(DRAIN_IDLE_TIMEOUT, data.next()).await
                    && left > data.len()
                {
                    left -= data.len();
                }
            };
            // A client that is slower does not receive the response.
            let _ = timeout(DRAIN_TIMEOUT, drained).await;
            Ok(Frame::data(Bytes::new()))
        });
        let response = response.into_data_stream().map_ok(Frame::data);
        Body::new(StreamBody::new(response.chain(drain)))
    }

    fn data(self) -> impl Stream<Item = Result<Bytes, Status>> + Send {
        stream::unfold(self, async |Self(body)| {
            let data = loop {
                match body.lock().await.frame().await? {
                    Ok(frame) if frame.is_trailers() => {}
                    Ok(frame) => break Ok(frame.into_data().unwrap_or_default()),
                    Err(error) => break Err(error),
                }
            };
            Some((data, Self(body)))
        })
    }
}

/// Splits data into pieces that fit a message.
fn split(mut data: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let piece = data.split_to(data.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some(piece)
    })
}

/// Bytes of a framed request that precede the piece of the file.
fn head(file: u32, content_type: &str, piece: usize) -> Bytes {
    let mut body = BytesMut::new();
    if !content_type.is_empty() {
        string::encode(CONTENT_TYPE, &content_type.to_owned(), &mut body);
    }
    encode_key(DATA, WireType::LengthDelimited, &mut body);
    encode_varint(piece as u64, &mut body);
    let mut field = BytesMut::new();
    encode_key(file, WireType::LengthDelimited, &mut field);
    encode_varint((body.len() + piece) as u64, &mut field);
    let mut head = BytesMut::new();
    frames::put_header(&mut head, field.len() + body.len() + piece);
    head.extend_from_slice(&field);
    head.extend_from_slice(&body);
    head.freeze()
}
