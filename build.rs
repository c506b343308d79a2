//! Compiles the contract with protox, so that protoc is not required.

use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tonic_prost_build::Config;

const FILES: [&str; 5] = [
    "conversation_memory/v1/checkpoint_service.proto",
    "conversation_memory/v1/resources.proto",
    "conversation_memory/v1/session_service.proto",
    "conversation_memory/v1/conversation_memory.proto",
    "conversation_memory/v1/store_service.proto",
];

/// Codec of clients and servers.
const CODEC: &str = "crate::proto::codec::LimitedCodec";

/// Encodes the descriptors with the comments of the contract. The comments of Google's files and the
/// positions of elements without a comment are left out: the program keeps descriptors in memory.
fn descriptors(compiler: &protox::Compiler) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let set = DescriptorPool::global()
        .get_message_by_name("google.protobuf.FileDescriptorSet")
        .ok_or("prost-reflect contains descriptor.proto")?;
    // A dynamic message keeps the annotations, which are unknown to the generated types.
    let encoded = compiler.encode_file_descriptor_set();
    let mut set = DynamicMessage::decode(set, &encoded[..])?;
    let files = set
        .get_field_by_name_mut("file")
        .and_then(Value::as_list_mut);
    for file in files
        .into_iter()
        .flatten()
        .filter_map(Value::as_message_mut)
    {
        let name = file.get_field_by_name("name");
        let is_google =
            name.is_some_and(|name| name.as_str().is_some_and(|n| n.starts_with("google/")));
        if is_google {
            file.clear_field_by_name("source_code_info");
            continue;
        }
        let info = file.get_field_by_name_mut("source_code_info");
        let info = info.and_then(Value::as_message_mut);
        let locations = info.and_then(|info| info.get_field_by_name_mut("location"));
        if let Some(locations) = locations.and_then(Value::as_list_mut) {
            locations.retain(|location| {
                let location = location.as_message();
                location.is_some_and(|location| location.has_field_by_name("leading_comments"))
            });
        }
    }
    Ok(set.encode_to_vec())
}

/// Generates the traits of the services, with responses whose histories are encoded already.
fn generate_servers(
    out: &Path,
    compiler: &protox::Compiler,
) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(out)?;
    let mut config = Config::new();
    config
        .extern_path(".conversation_memory.v1", "crate::proto")
        .extern_path(".google.api", "crate::proto");
    for response in ["GetHistoryResponse", "BeginTurnResponse"] {
        config.extern_path(
            format!(".conversation_memory.v1.{response}"),
            format!("crate::proto::Encoded{response}"),
        );
    }
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(out)
        .codec_path(CODEC)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors(&compiler)?)?;
    let mut config = Config::new();
    // The derived Debug of a request would write the text of messages to the log.
    // src/proto.rs has an implementation without it.
    config.skip_debug([
        ".conversation_memory.v1.BlobPart",
        ".conversation_memory.v1.Checkpoint",
        ".conversation_memory.v1.CheckpointPiece",
        ".conversation_memory.v1.CheckpointPiece.piece",
        ".conversation_memory.v1.GetContentsResponse",
        ".conversation_memory.v1.ListCheckpointsRequest",
        ".conversation_memory.v1.PutContentsRequest",
        ".conversation_memory.v1.CompactConversationRequest",
        ".conversation_memory.v1.DeleteItemRequest",
        ".conversation_memory.v1.FilePart",
        ".conversation_memory.v1.GenericPart",
        ".conversation_memory.v1.GetItemRequest",
        ".conversation_memory.v1.Item",
        ".conversation_memory.v1.Message",
        ".conversation_memory.v1.PutItemRequest",
        ".conversation_memory.v1.ReasoningPart",
        ".conversation_memory.v1.SearchItemsRequest",
        ".conversation_memory.v1.TextPart",
        ".conversation_memory.v1.ToolCallPart",
        ".conversation_memory.v1.ToolCallResponsePart",
        ".conversation_memory.v1.UriPart",
        ".conversation_memory.v1.RetrievedContext",
        ".google.api.HttpBody",
    ]);
    // Google's comments use a link syntax that rustdoc rejects.
    config.disable_comments([".google.api"]);
    // A piece of a file, or the data of a blob, is not copied out of the message that it arrived in.
    config.bytes([
        ".google.api.HttpBody.data",
        ".conversation_memory.v1.BlobPart.data",
        ".conversation_memory.v1.CheckpointPiece",
        ".conversation_memory.v1.GetContentsResponse.contents",
        ".conversation_memory.v1.PutContentsRequest.contents",
    ]);
    // The codec finds the limits of a request by the name of its type.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        .codec_path(CODEC)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    generate_servers(&out.join("servers"), &compiler)
}
