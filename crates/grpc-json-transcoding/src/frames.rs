//! The frames of gRPC: a frame consists of a flag, a length and a message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tonic::{Code, Status, body::Body};

use crate::service::internal;

const HEADER: usize = 5;

/// Frames a message, which is given in parts.
pub(crate) fn frame(parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut framed = BytesMut::with_capacity(HEADER + length);
    put_header(&mut framed, length);
    for part in parts {
        framed.put_slice(part);
    }
    framed.freeze()
}

/// Writes the header of a message of `length` bytes.
pub(crate) fn put_header(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// Messages of a gRPC response, in order.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Body,
    buffer: BytesMut,
    has_ended: bool,
}

impl Messages {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            has_ended: false,
        }
    }

    /// Reads the next message; `None` after the last one of a successful call. It buffers at
    /// most one message and the rest of the frame that completed it.
    ///
    /// # Errors
    /// Fails if the call failed or the response ended without a status.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.buffered() {
                return Ok(Some(message));
            }
            if self.has_ended {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else {
                return Err(internal());
            };
            match frame?.into_data() {
                Ok(data) => self.buffer.put(data),
                Err(other) => {
                    let trailers = other.into_trailers().unwrap_or_default();
                    self.has_ended = true;
                    match Status::from_header_map(&trailers) {
                        Some(status) if status.code() == Code::Ok => {}
                        Some(status) => return Err(status),
                        None => return Err(internal()),
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
