//! Files that are sent: what a stream of requests is made of over REST.
//!
//! The request of an RPC that takes a stream is a file. Its message has a field
//! `bytes data` for the pieces, whose option `media_types` says what files are
//! taken, and one other, a message, which comes first: its fields are the query's.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use tokio::{sync::Mutex, time::timeout};
use tonic::{Status, body::Body};

use super::{download::media_types, frames, template::FieldPath};

/// How many bytes of the file a message has at most.
const PIECE: usize = 256 << 10;

/// How much of a refused file is taken, how long the next piece of it is waited for,
/// and all of them.
const BEARABLE: usize = 128 << 20;
const PATIENCE: Duration = Duration::from_secs(1);
const HEARING: Duration = Duration::from_secs(10);

/// The two fields of such a request.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    options: FieldDescriptor,
    data: FieldDescriptor,
}

impl Upload {
    /// The fields of a method's request, if its body is a file.
    pub(super) fn of(method: &MethodDescriptor, body: &str) -> Result<Self, &'static str> {
        let request = method.input();
        let data = request.get_field_by_name(body);
        let data = data.filter(|field| field.kind() == Kind::Bytes && !field.is_list());
        let data = data.ok_or("takes a stream whose body is no field of bytes")?;
        if media_types(&request).is_empty() {
            return Err("takes a file without media_types");
        }
        let mut others = request.fields().filter(|field| *field != data);
        match (others.next(), others.next()) {
            (Some(options), None) if matches!(options.kind(), Kind::Message(_)) => {
                Ok(Self { options, data })
            }
            _ => Err("takes a file with more beside it than one message"),
        }
    }

    /// What comes before the file.
    pub(super) fn options(&self) -> Option<MessageDescriptor> {
        match self.options.kind() {
            Kind::Message(options) => Some(options),
            _ => None,
        }
    }

    /// The field that a parameter of the query means.
    pub(super) fn parameter(&self, name: &str) -> Option<FieldPath> {
        let FieldPath(mut path) = FieldPath::find(&self.options()?, name)?;
        path.insert(0, self.options.clone());
        Some(FieldPath(path))
    }

    /// The first message, as far as its being there goes.
    pub(super) fn beginning(&self) -> Bytes {
        let mut message = BytesMut::new();
        encode_key(
            self.options.number(),
            WireType::LengthDelimited,
            &mut message,
        );
        encode_varint(0, &mut message);
        message.freeze()
    }

    /// The file as messages, in pieces as they come.
    pub(super) fn messages(
        &self,
        sent: &Sent,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + use<> {
        let number = self.data.number();
        sent.clone()
            .pieces()
            .map_err(|_| super::cut_off())
            .map_ok(move |data| {
                let messages = cut(data).flat_map(move |piece| [head(number, piece.len()), piece]);
                stream::iter(messages.map(Ok))
            })
            .try_flatten()
            .map_ok(Frame::data)
    }
}

/// A file that is being sent, and may be refused before its end.
#[derive(Clone, Debug)]
pub(super) struct Sent(Arc<Mutex<Body>>);

impl Sent {
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Lets the caller hear an answer that did not wait for the file. Over HTTP/1
    /// many listen only when they have sent all: what is not too much is still
    /// taken from them, and thrown away.
    pub(super) fn hear_out(self, answer: Body) -> Body {
        let rest = stream::once(async move {
            let mut pieces = pin!(self.pieces());
            let drained = async {
                let mut left = BEARABLE;
                while let Ok(Some(Ok(piece))) = timeout(PATIENCE, pieces.next()).await
                    && left > piece.len()
                {
                    left -= piece.len();
                }
            };
            // Whoever needs longer does not hear it.
            let _ = timeout(HEARING, drained).await;
            Bytes::new()
        });
        let rest = rest.map(|nothing| Ok(Frame::data(nothing)));
        let answer = answer.into_data_stream().map_ok(Frame::data);
        Body::new(StreamBody::new(answer.chain(rest)))
    }

    fn pieces(self) -> impl Stream<Item = Result<Bytes, Status>> + Send {
        stream::unfold(self, async |Self(body)| {
            let frame = loop {
                match body.lock().await.frame().await? {
                    Ok(frame) if frame.is_trailers() => {}
                    Ok(frame) => break Ok(frame.into_data().unwrap_or_default()),
                    Err(error) => break Err(error),
                }
            };
            Some((frame, Self(body)))
        })
    }
}

/// Cuts data into pieces that a message may have.
fn cut(mut data: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let piece = data.split_to(data.len().min(PIECE));
        (!piece.is_empty()).then_some(piece)
    })
}

/// What makes a piece that follows it a message.
fn head(number: u32, piece: usize) -> Bytes {
    let mut field = BytesMut::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(piece as u64, &mut field);
    let mut head = BytesMut::new();
    frames::put_header(&mut head, field.len() + piece);
    head.extend_from_slice(&field);
    head.freeze()
}
