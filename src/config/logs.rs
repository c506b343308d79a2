use std::str::FromStr as _;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::filter::{Directive, LevelFilter, Targets};

/// Target of the events that this crate logs.
const TARGET: &str = env!("CARGO_CRATE_NAME");

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LogArgs {
    /// Format of log lines: auto is text on a terminal and JSON elsewhere.
    #[arg(long, env, global = true, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,

    /// Minimum level of log lines: error, warn, info, debug, trace or off; or filters by
    /// module such as info,sqlx=debug. No level logs the content of messages.
    #[arg(
        long,
        env,
        global = true,
        default_value = "info",
        value_parser = filter,
        value_name = "FILTER"
    )]
    log_level: String,
}

/// Format and filter of the log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Format of log lines.
    pub format: LogFormat,
    /// Filter directives, separated by commas. They are valid.
    pub filter: String,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogConfig {
    pub(super) fn from_args(args: LogArgs) -> Self {
        Self {
            format: args.log_format,
            filter: args.log_level,
        }
    }

    /// Whether errors of this program are logged.
    pub fn includes_errors(&self) -> bool {
        // `Targets` cannot parse filters by span; such a filter counts as including errors.
        Targets::from_str(&self.filter)
            .map_or(true, |targets| targets.would_enable(TARGET, &Level::ERROR))
    }
}

/// Parses filter directives more strictly than `tracing_subscriber`, for which a single word
/// that is no level, such as `WARNING` or `verbose`, is a target: it would disable every other
/// target. This also applies to a level with white space around it.
fn filter(text: &str) -> Result<String, &'static str> {
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    if directives.iter().all(|directive| is_valid(directive)) {
        Ok(directives.join(","))
    } else {
        Err(
            "must be error, warn, info, debug, trace or off, or filters by module such as \
             info,sqlx=debug",
        )
    }
}

fn is_valid(directive: &str) -> bool {
    is_level(directive)
        || directive.rsplit_once('=').is_some_and(|(scope, level)| {
            is_scope(scope) && is_level(level) && Directive::from_str(directive).is_ok()
        })
}

/// Whether a text is a module path, or a span in brackets, or both.
fn is_scope(text: &str) -> bool {
    let module = text.split('[').next().unwrap_or_default();
    let is_name = |c: char| c.is_alphanumeric() || ['_', ':', '-', '.'].contains(&c);
    !text.is_empty() && module.chars().all(is_name)
}

/// Whether a text is a level. The library would accept an empty text as well.
fn is_level(text: &str) -> bool {
    !text.is_empty() && LevelFilter::from_str(text).is_ok()
}
