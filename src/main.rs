//! The `conversation-memory` command.

use std::process::ExitCode;

use conversation_memory::{app, config::Config};
use mimalloc::MiMalloc;

/// Takes less CPU than the allocator of the C library, and returns the memory of a peak.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exit status for an invalid command line or setting, as is common for commands.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => {
            // The format of the log is one of the settings, so this cannot be a log line.
            eprintln!("conversation-memory: {error}");
            return ExitCode::from(USAGE);
        }
    };
    app::run(config)
}
