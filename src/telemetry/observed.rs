//! Decorators of the three storage traits. They create a span and a duration for
//! each call on the store, count the outcomes of window lookups, and set the
//! conversation of the call that is being served, so that implementations of the
//! traits need no telemetry.

mod availability;
mod checkpoints;
mod import;
mod items;
mod recent;
mod sessions;
mod store;

pub use self::{
    recent::ObservedRecent,
    sessions::ObservedSessions,
    store::{DatabaseAttributes, ObservedStore},
};
