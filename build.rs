//! Compiles the contract with protox, so that protoc is not required.

use std::path::PathBuf;

use tonic_prost_build::Config;

const FILES: [&str; 3] = [
    "conversation_memory/v1/resources.proto",
    "conversation_memory/v1/session_service.proto",
    "conversation_memory/v1/conversation_memory.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    let mut config = Config::new();
    // The derived Debug of a request would write the text of messages to the log.
    // src/proto.rs has an implementation without it.
    config.skip_debug([
        ".conversation_memory.v1.BlobPart",
        ".conversation_memory.v1.CompactConversationRequest",
        ".conversation_memory.v1.FilePart",
        ".conversation_memory.v1.GenericPart",
        ".conversation_memory.v1.Message",
        ".conversation_memory.v1.ReasoningPart",
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
    ]);
    // The codec finds the limits of a request by the name of its type.
    config.enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::proto::codec::LimitedCodec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
