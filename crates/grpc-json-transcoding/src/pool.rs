use prost_reflect::{DescriptorError, DescriptorPool, prost::Message as _};
use prost_types::FileDescriptorProto;

const STRUCT_FILE: &str = "google/protobuf/struct.proto";

/// Copies a pool and removes the fields of the message types for arbitrary JSON.
///
/// A `DynamicMessage` needs about 700 bytes for each value in a `google.protobuf.Struct`, but
/// the value has only a few bytes in JSON and when encoded. Without fields, the content of these
/// messages is kept encoded, as unknown fields are. Prost-reflect reads and writes
/// their JSON through `prost_types::Struct` and its siblings, which is not affected.
pub(crate) fn with_opaque_json(pool: &DescriptorPool) -> Result<DescriptorPool, DescriptorError> {
    let mut copy = DescriptorPool::new();
    for file in pool.files() {
        if file.name() != STRUCT_FILE {
            copy.decode_file_descriptor_proto(file.encode_to_vec().as_slice())?;
            continue;
        }
        let mut file: FileDescriptorProto = file.file_descriptor_proto().clone();
        file.source_code_info = None;
        for message in &mut file.message_type {
            message.field.clear();
            message.oneof_decl.clear();
            message.nested_type.clear();
        }
        copy.decode_file_descriptor_proto(file.encode_to_vec().as_slice())?;
    }
    Ok(copy)
}
