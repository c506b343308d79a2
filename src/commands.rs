//! Commands that are clients of a running sidecar. They use the API and nothing else.

pub mod connection;
pub mod export;
pub mod import;
mod retries;
mod tls;

/// Error that ends a command, as one line for operators.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Whether a command did everything that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Everything was done.
    Complete,
    /// Something was rejected, and reported; everything else was done.
    Partial,
}
