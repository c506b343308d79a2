//! The gRPC services: each method parses its request, runs a use case and renders the
//! response. REST calls are translated to gRPC before they reach the services. The module does not depend on SQL
//! or Redis.

pub mod admit;
mod api;
mod blob;
mod checkpoint_service;
mod conversation_memory;
mod convert;
mod export;
mod field;
pub mod guard;
mod import;
mod listener;
mod method;
pub mod observe;
mod page_token;
pub mod rest;
mod session_service;
mod status;
mod store_service;
mod use_case;
pub mod web;

pub use self::{
    api::Api,
    listener::{CallLayers, ServerLimits, serve, serve_probes},
};
use tonic::{codec::CompressionEncoding, service::Routes};
use tonic_health::pb::health_server::{Health, HealthServer};

use self::{
    checkpoint_service::CheckpointService,
    conversation_memory::ConversationMemory,
    convert::{CheckpointParser, OwnerScope, Parser, items::ItemParser},
    session_service::SessionService,
    store_service::StoreService,
};
use crate::{
    domain::Limits,
    memory::Memory,
    proto::{
        DESCRIPTORS, checkpoint_service_server::CheckpointServiceServer,
        conversation_memory_server::ConversationMemoryServer,
        session_service_server::SessionServiceServer, store_service_server::StoreServiceServer,
    },
};

/// Services whose health is reported, in addition to the empty name.
pub const SERVICE_NAMES: [&str; 4] = [
    "conversation_memory.v1.CheckpointService",
    "conversation_memory.v1.ConversationMemory",
    "conversation_memory.v1.SessionService",
    "conversation_memory.v1.StoreService",
];

/// Limits and switches that the services share.
#[derive(Clone, Copy, Debug)]
pub struct ServiceConfig {
    /// Limits on the size of requests and their parts.
    pub limits: Limits,
    /// Limit on a request, in bytes.
    pub max_request_bytes: usize,
    /// Whether a request for a conversation or a session must have a `user_id`.
    pub require_user_id: bool,
    /// Whether reflection describes the services.
    pub reflection: bool,
}

/// The services, with health and reflection.
///
/// # Errors
/// Fails if the descriptors cannot be registered for reflection.
pub fn api<H: Health>(
    memory: &Memory,
    config: ServiceConfig,
    health: HealthServer<H>,
) -> Result<Api, tonic_reflection::server::Error> {
    let owner_scope = OwnerScope {
        is_required: config.require_user_id,
    };
    let parser = Parser {
        limits: config.limits,
        max_request_bytes: config.max_request_bytes,
        memory: memory.clone(),
        owner_scope,
    };
    let conversations = ConversationMemoryServer::new(ConversationMemory {
        memory: memory.clone(),
        parser: parser.clone(),
    })
    .accept_compressed(CompressionEncoding::Gzip)
    .max_decoding_message_size(config.max_request_bytes);
    let sessions = SessionServiceServer::new(SessionService {
        memory: memory.clone(),
        owner_scope,
    })
    .accept_compressed(CompressionEncoding::Gzip)
    .max_decoding_message_size(config.max_request_bytes);
    let items = StoreServiceServer::new(StoreService {
        memory: memory.clone(),
        parser: ItemParser {
            max_value_bytes: config.limits.content_bytes,
        },
    })
    .accept_compressed(CompressionEncoding::Gzip)
    .max_decoding_message_size(config.max_request_bytes);
    let checkpoints = CheckpointServiceServer::new(CheckpointService {
        memory: memory.clone(),
        parser: CheckpointParser { messages: parser },
    })
    .accept_compressed(CompressionEncoding::Gzip)
    .max_decoding_message_size(config.max_request_bytes);
    let mut others = Routes::builder();
    others.add_service(health);
    if config.reflection {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        others
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
    }
    Ok(Api::new(
        conversations,
        sessions,
        items,
        checkpoints,
        others.routes(),
    ))
}
