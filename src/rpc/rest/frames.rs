//! Messages as gRPC frames them: a flag, a length, the message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};

const HEADER: usize = 5;

/// Frames a message.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEADER + message.len());
    put_header(&mut framed, message.len());
    framed.put_slice(message);
    framed.freeze()
}

/// Writes what stands in front of a message of this length.
pub(super) fn put_header(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// The messages of an answer, one after the other.
#[derive(Debug)]
pub(super) struct Messages {
    body: Body,
    buffer: BytesMut,
    has_ended: bool,
}

impl Messages {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            has_ended: false,
        }
    }

    /// The next message; None after the last one, if the call went well. It holds no
    /// more than one message and what came with its last piece.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.buffered() {
                return Ok(Some(message));
            }
            if self.has_ended {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else {
                // Without its status it was cut off.
                return Err(crate::rpc::status::internal());
            };
            match frame?.into_data() {
                Ok(data) => self.buffer.put(data),
                Err(other) => {
                    let trailers = other.into_trailers().unwrap_or_default();
                    self.has_ended = true;
                    match Status::from_header_map(&trailers) {
                        Some(status) if status.code() == tonic::Code::Ok => {}
                        Some(status) => return Err(status),
                        None => return Err(crate::rpc::status::internal()),
                    }
                }
            }
        }
    }

    fn buffered(&mut self) -> Option<Bytes> {
        let header: &[u8; HEADER] = self.buffer.first_chunk()?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let length = usize::try_from(length).ok()?;
        if self.buffer.len() < HEADER + length {
            return None;
        }
        self.buffer.advance(HEADER);
        Some(self.buffer.split_to(length).freeze())
    }
}
