//! Logs: text on a terminal, JSON elsewhere, and no message text in either.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::LogFormat;

/// A log filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "LOG_LEVEL must be a level such as info, or filters such as info,conversation_memory=debug"
)]
pub struct BadFilter;

/// Libraries that say at `info` what is of no use to an operator. A filter that
/// names them is followed.
const QUIET: &str = "sqlx=error,fred=error,hyper=warn,h2=warn,tower=warn,tonic=warn";

/// Begins to log, to standard error.
pub fn init(format: LogFormat, filter: &str) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|_| BadFilter)?;
    let text = match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = if text {
        layer
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .boxed()
    } else {
        layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed()
    };
    Registry::default()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|_| BadFilter)?;
    log_panics();
    Ok(())
}

/// Logs where a panic happened. What it says is left out: a failed slice quotes
/// the text that it was to cut.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(
            panic.location = location.as_deref().unwrap_or("unknown"),
            "panicked"
        );
    }));
}
