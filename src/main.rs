//! The `conversation-memory` command.

fn main() {}
