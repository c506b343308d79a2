//! Messages and services generated from `proto/conversation_memory/v1`.

use std::sync::LazyLock;

use prost_reflect::{DescriptorError, DescriptorPool, MessageDescriptor};

pub(crate) mod codec;
pub(crate) mod decode_limits;
mod history_response;
mod messages;
pub(crate) mod structs;

mod generated {
    #![expect(
        clippy::clone_on_ref_ptr,
        clippy::allow_attributes_without_reason,
        clippy::all,
        clippy::pedantic,
        unreachable_pub,
        reason = "generated code; the comments are in the proto files"
    )]

    pub mod conversation_memory {
        pub mod v1 {
            tonic::include_proto!("conversation_memory.v1");
            // The servers respond with types that contain encoded messages.
            tonic::include_proto!("servers/conversation_memory.v1");
        }
    }

    pub mod google {
        #[expect(
            missing_docs,
            reason = "Google's comments are left out; httpbody.proto has them"
        )]
        #[allow(dead_code, reason = "the types of the annotations are not used")]
        pub mod api {
            tonic::include_proto!("google.api");
        }
    }
}

pub(crate) use self::messages::timestamp;
pub use self::{
    generated::{conversation_memory::v1::*, google::api::HttpBody},
    history_response::{HasMessages, HistoryResponse},
};

/// Response of `GetHistory` as the server sends it.
pub type EncodedGetHistoryResponse = HistoryResponse<GetHistoryResponse>;
/// Response of `BeginTurn` as the server sends it.
pub type EncodedBeginTurnResponse = HistoryResponse<BeginTurnResponse>;

/// Encoded descriptors of the contract and of its imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptors of the contract, decoded once.
pub(crate) static POOL: LazyLock<Result<DescriptorPool, DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS));

/// Returns the descriptor of a message of the contract.
pub(crate) fn message_descriptor(name: &str) -> Option<MessageDescriptor> {
    let pool = POOL.as_ref().ok()?;
    pool.get_message_by_name(&format!("conversation_memory.v1.{name}"))
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("seq", &self.seq)
            .field("role", &self.role)
            .field("content.len", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Implements Debug without the values of fields that have content of messages.
macro_rules! opaque_debug {
    ($($name:ident)+) => {
        $(
            impl std::fmt::Debug for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($name)).finish_non_exhaustive()
                }
            }
        )+
    };
}

opaque_debug! {
    BlobPart
    Checkpoint
    CheckpointPiece
    GetContentsResponse
    ListCheckpointsRequest
    PutContentsRequest
    CompactConversationRequest
    DeleteItemRequest
    FilePart
    GenericPart
    GetItemRequest
    Item
    PutItemRequest
    ReasoningPart
    SearchItemsRequest
    TextPart
    ToolCallPart
    ToolCallResponsePart
    UriPart
}

impl std::fmt::Debug for checkpoint_piece::Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Piece")
    }
}

impl std::fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpBody")
            .field("content_type", &self.content_type)
            .field("data.len", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RetrievedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetrievedContext")
            .field("content.len", &self.content.len())
            .finish_non_exhaustive()
    }
}
