//! A sidecar that remembers conversations for an agent service.
//!
//! docs/ARCHITECTURE.md is the map; the modules below stand in reading order.

pub mod app;
pub mod config;
pub mod instrumentation;
pub mod log_throttle;
pub mod shutdown;
pub mod telemetry;

pub mod archive;
pub mod domain;
pub mod memory;
pub mod rpc;

pub mod access;
pub mod authorities;
pub mod transport;
pub mod watched;

pub mod recent;
pub mod sessions;
pub mod store;

pub mod redis;

pub mod proto;
