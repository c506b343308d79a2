//! Configuration of `grpc-json-transcoding`, which serves this contract over HTTP with JSON.

use std::{collections::BTreeMap, sync::Arc};

use grpc_json_transcoding::{Config, Limits, OpenApiInfo, TranscodingLayer};

use super::{admit, export, status};
use crate::{archive::Format, proto::POOL};

/// Maximum number of values in a request. Without this limit, the conversion of one request could
/// need gigabytes of memory; with it, the conversion needs about 60 MiB.
const MAX_VALUES: usize = 200_000;

/// Maximum depth of lists and objects in a request. It is higher than the limit for metadata, so
/// that the error for metadata that is slightly too deep names the limit for metadata.
const MAX_DEPTH: usize = 100;

/// Creates the layer that serves the contract over HTTP with JSON.
///
/// The OpenAPI document is served if `serves_openapi` is set. It declares that calls need a token
/// if `requires_token` is set.
///
/// # Errors
/// Fails if the HTTP rules of the contract are invalid, which is a bug.
pub fn layer(
    max_request_bytes: usize,
    serves_openapi: bool,
    requires_token: bool,
) -> Result<TranscodingLayer, Box<dyn std::error::Error + Send + Sync>> {
    let pool = POOL.as_ref().map_err(ToString::to_string)?;
    let config = Config {
        limits: Limits {
            max_bytes: max_request_bytes,
            max_values: MAX_VALUES,
            max_depth: MAX_DEPTH,
            too_large: status::request_too_large,
            too_many_values: status::too_many_values,
        },
        optional_body: Some("conversation_memory.v1.optional_body".to_owned()),
        media_types: media_types(),
        authorize: Arc::new(|request| admit::check(request).map(drop)),
        openapi: serves_openapi.then(|| OpenApiInfo {
            title: env!("CARGO_PKG_NAME").to_owned(),
            description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            license: env!("CARGO_PKG_LICENSE").to_owned(),
            requires_token,
        }),
    };
    Ok(TranscodingLayer::new(pool, config)?)
}

/// Media types of the files that the contract's methods read and write.
fn media_types() -> BTreeMap<String, Vec<String>> {
    let method = |name: &str| format!("conversation_memory.v1.ConversationMemory.{name}");
    let types = |formats: &[Format]| {
        let types = formats.iter().map(|format| export::content_type(*format));
        // Parameters, such as the charset, are not part of a media type.
        let types = types.filter_map(|value| value.split(';').next());
        types.map(ToOwned::to_owned).collect()
    };
    [
        (
            method("ExportConversation"),
            types(&[
                Format::Json,
                Format::JsonLines,
                Format::Csv,
                Format::Markdown,
            ]),
        ),
        (
            method("ImportConversation"),
            types(&[Format::Json, Format::JsonLines]),
        ),
    ]
    .into()
}
