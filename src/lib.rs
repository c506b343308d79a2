//! Conversation memory for agent services: a gRPC and REST sidecar that stores conversations
//! durably and keeps sessions and recent messages in Redis.
//!
//! docs/ARCHITECTURE.md contains the module map, the glossary and a walk-through of each
//! request. The modules below are listed in reading order.

pub mod app;
pub mod call;
pub mod commands;
pub mod config;
pub mod fairness;
pub mod instrumentation;
mod jitter;
pub mod log_throttle;
mod os_error;
pub mod patience;
pub mod rejections;
pub mod shutdown;
mod small_file;
pub mod telemetry;

pub use ::{archive, domain, text_analysis, tokens};
pub mod memory;
pub mod rpc;

pub mod access;
pub mod authorities;
pub mod reload;
pub mod transport;

pub mod recent;
pub mod sessions;
pub mod store;

pub mod redis;

pub mod proto;
