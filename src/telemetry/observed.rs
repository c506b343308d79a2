//! The three traits, observed: each call on the store is a span and a duration,
//! each look into the window an outcome, and each says which conversation the
//! call that is being served is about. Whatever implements the traits need not
//! know of it.

mod recent;
mod sessions;
mod store;

pub use self::{
    recent::ObservedRecent,
    sessions::ObservedSessions,
    store::{Database, ObservedStore},
};
