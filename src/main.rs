//! The `conversation-memory` command.

use std::process::ExitCode;

use conversation_memory::{app, config::Config};

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
