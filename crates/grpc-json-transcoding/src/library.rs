//! Contract for unit tests.

use std::{collections::BTreeMap, sync::Arc};

use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic::Status;

use crate::{Config, Limits, pool::with_opaque_json};

pub(crate) const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_values: 10_000,
    max_depth: 64,
    too_large: |max| Status::resource_exhausted(format!("more than {max} bytes")),
    too_many_values: |max| Status::resource_exhausted(format!("more than {max} values")),
};

/// The compiled contract.
pub(crate) fn pool() -> DescriptorPool {
    let root = env!("CARGO_MANIFEST_DIR");
    let folders = [format!("{root}/tests/proto"), format!("{root}/../../proto")];
    let mut compiler = protox::Compiler::new(folders).unwrap();
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("library/v1/library.proto").unwrap();
    let set = compiler.encode_file_descriptor_set();
    DescriptorPool::decode(set.as_slice()).unwrap()
}

/// A message type of the contract, from the pool that the crate creates.
pub(crate) fn message(name: &str) -> MessageDescriptor {
    let pool = with_opaque_json(&pool()).unwrap();
    pool.get_message_by_name(&format!("library.v1.{name}"))
        .unwrap()
}

pub(crate) fn config() -> Config {
    let types = |types: &[&str]| types.iter().map(ToString::to_string).collect();
    Config {
        limits: LIMITS,
        optional_body: Some("library.v1.optional_body".to_owned()),
        media_types: BTreeMap::from([(
            "library.v1.Library.ReadBook".to_owned(),
            types(&["text/plain", "application/epub+zip"]),
        )]),
        authorize: Arc::new(|_| Ok(())),
        openapi: None,
    }
}
