//! Black-box tests of the real binary over gRPC, embedded and with PostgreSQL and Redis.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod branches;
mod budgets;
mod checkpoint_crashes;
mod checkpoints;
mod commands;
mod compactions;
mod conversations;
mod export;
mod histories;
mod hostile;
mod import;
mod import_command;
mod inspect_window;
mod invalid_items;
mod isolation;
mod items;
mod parts;
mod redactions;
mod search;
mod server;
mod sessions;
mod titles;
mod turns;
mod undecodable;
mod unread_writes;
