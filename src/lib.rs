//! A sidecar that remembers conversations for an agent service.
//!
//! docs/ARCHITECTURE.md is the map; the modules below stand in reading order.

pub mod domain;
pub mod store;

pub mod recent;
pub mod redis;
pub mod sessions;

pub mod proto;
