use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tonic::{Response, Status};

use crate::{
    memory::BlobData,
    proto::{GetBlobResponse, HttpBody},
};

/// Maximum number of bytes of the data in one message, as of an export.
const PIECE_BYTES: usize = 256 << 10;

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<GetBlobResponse, Status>> + Send>>;

/// Responds with the data of a blob, in pieces. The first one has the media type.
pub(super) fn respond(blob: BlobData) -> Response<Pieces> {
    let BlobData {
        mut mime_type,
        mut data,
    } = blob;
    let pieces = std::iter::from_fn(move || {
        let piece: Bytes = data.split_to(data.len().min(PIECE_BYTES));
        (!piece.is_empty()).then(|| {
            Ok(GetBlobResponse {
                file: Some(HttpBody {
                    content_type: std::mem::take(&mut mime_type),
                    data: piece,
                    extensions: Vec::new(),
                }),
            })
        })
    });
    let mut response: Response<Pieces> = Response::new(Box::pin(stream::iter(pieces)));
    // A browser must not display data of callers as a page of this server.
    let metadata = response.metadata_mut();
    metadata.insert(
        "content-disposition",
        tonic::metadata::MetadataValue::from_static("attachment"),
    );
    response
}
