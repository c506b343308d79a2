//! The contract, as generated from `proto/conversation_memory/v1`.

#![expect(
    missing_debug_implementations,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; the comments are in the proto files"
)]

tonic::include_proto!("conversation_memory.v1");

/// The contract and all it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
