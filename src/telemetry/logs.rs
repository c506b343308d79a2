//! Logs: text on a terminal, JSON elsewhere. Neither contains message content.

use std::{
    fmt,
    io::{self, IsTerminal as _},
};

use tracing::{Event, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, dynamic_filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields, format,
        format::{JsonFields, Writer},
    },
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::span_events::SpanEvents;
use crate::{call, config::LogFormat, log_throttle::LogThrottle};

/// Error for an invalid log filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "LOG_LEVEL is not a valid filter: use error, warn, info, debug or trace, or directives such as \
     info,conversation_memory=debug"
)]
pub struct InvalidLogFilter;

/// Default levels of libraries whose log lines at `info` are not useful to an operator. The
/// configured filter takes precedence.
const LIBRARY_LEVELS: &str = "sqlx=error,sqlx_core::pool=off,fred=error,hyper=warn,h2=warn,tower=warn,tonic=warn,\
                     reqwest=warn,rustls=warn,opentelemetry=warn,opentelemetry_sdk=warn,\
                     opentelemetry-otlp=error,opentelemetry-http=warn";

/// Installs the subscriber, which logs to standard error and, if spans are exported, adds the lines
/// of a call to its spans.
pub(super) fn init(
    format: LogFormat,
    filter: &str,
    exports_spans: bool,
) -> Result<(), InvalidLogFilter> {
    let filter =
        EnvFilter::try_new(format!("{LIBRARY_LEVELS},{filter}")).map_err(|_| InvalidLogFilter)?;
    // Separately for each event: exporters log an unreachable collector for every batch.
    let exporters = LogThrottle::new();
    // The formatter adds the fields of the call to a line. Spans of libraries are not used.
    let lines = dynamic_filter_fn(move |metadata: &Metadata<'_>, _: &Context<'_, Registry>| {
        metadata.is_event()
            && (!is_from_exporter(metadata) || exporters.admit_location(metadata.name()).is_some())
    })
    .with_max_level_hint(LevelFilter::TRACE);
    Registry::default()
        .with(lines_to_stderr(format).with_filter(filter.and(lines)))
        .with(exports_spans.then(SpanEvents::layer))
        .try_init()
        .map_err(|_| InvalidLogFilter)?;
    log_panics();
    Ok(())
}

fn lines_to_stderr(log_format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let is_terminal = io::stderr().is_terminal();
    let is_text = match log_format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if is_text {
        let text = format().with_ansi(is_terminal).with_target(false);
        layer
            .with_ansi(is_terminal)
            .event_format(TextFormat(text))
            .boxed()
    } else {
        let json = format()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        layer
            .fmt_fields(JsonFields::new())
            .event_format(JsonFormat(json))
            .boxed()
    }
}

/// Formats lines as text, with the fields of the call at the end.
struct TextFormat<F>(F);

/// Formats lines as JSON, with the fields of the call at the beginning.
struct JsonFormat<F>(F);

impl<S, N, F> FormatEvent<S, N> for TextFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end_matches('\n'))?;
        for (name, value) in call_fields() {
            write!(writer, " {name}={value}")?;
        }
        writer.write_char('\n')
    }
}

impl<S, N, F> FormatEvent<S, N> for JsonFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        let Some(members) = line.strip_prefix('{') else {
            return writer.write_str(&line);
        };
        writer.write_char('{')?;
        for (name, value) in call_fields() {
            write!(writer, "\"{name}\":\"{value}\",")?;
        }
        writer.write_str(members)
    }
}

/// Fields that relate a line to its call: trace, conversation, method and caller.
/// None of the values needs escaping.
fn call_fields() -> impl Iterator<Item = (&'static str, String)> {
    let call = call::log_context();
    let ids = call.span.map(|(trace, span)| {
        [
            ("trace_id", trace.to_string()),
            ("span_id", span.to_string()),
        ]
    });
    ids.into_iter()
        .flatten()
        .chain(
            call.conversation
                .map(|id| ("conversation_id", id.to_string())),
        )
        .chain(call.method.map(|name| ("rpc.method", name.to_string())))
        .chain(call.caller.map(|name| ("caller", name.to_string())))
}

fn is_from_exporter(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("opentelemetry")
}

/// Logs the location of a panic without its message, because the message can quote content:
/// that of a failed slice, for example, quotes the text.
fn log_panics() {
    static LOG: LogThrottle = LogThrottle::new();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let location = location.as_deref().unwrap_or("unknown");
        if let Some(suppressed) = LOG.admit_location(location) {
            let suppressed = suppressed.count();
            tracing::error!(panic.location = location, suppressed, "panicked");
        }
    }));
}
