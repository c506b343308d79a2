//! The `conversation-memory` command: arguments, the application, an exit code.

use std::process::ExitCode;

use conversation_memory::{app, config::Config};

fn main() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("conversation-memory: {error}");
            return ExitCode::from(2);
        }
    };
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conversation-memory: {error}");
            ExitCode::FAILURE
        }
    }
}
