#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]
#![allow(rustdoc::bare_urls, reason = "these comments are the text of --help")]

use std::path::PathBuf;

use crate::config::Secret;

/// The settings of traces and metrics that this program reads. The library of OpenTelemetry
/// reads its other variables.
///
/// They are parsed only where they are used, because the settings of a disabled exporter are
/// not validated.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Traces and metrics")]
pub(in crate::config) struct TelemetryArgs {
    /// API key of LangSmith. Enables the export of traces to LangSmith.
    #[arg(long, env, global = true, hide_env_values = true, value_name = "KEY")]
    pub(super) langsmith_api_key: Option<Secret>,

    /// File that contains LANGSMITH_API_KEY.
    #[arg(long, env, global = true, value_name = "FILE")]
    pub(super) langsmith_api_key_file: Option<PathBuf>,

    /// Project in LangSmith. If unset, LangSmith selects its default project.
    #[arg(long, env, global = true, value_name = "NAME")]
    pub(super) langsmith_project: Option<String>,

    /// Whether the baggage of a caller (langsmith-project) may name another project for its spans.
    /// Callers can then write to every project that the key can write to. [default: false]
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) langsmith_project_from_caller: Option<String>,

    /// URL of LangSmith. [default: https://api.smith.langchain.com]
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) langsmith_endpoint: Option<String>,

    /// Whether LANGSMITH_API_KEY enables the export of traces. [default: true]
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) langsmith_tracing: Option<String>,

    /// URL of a collector. Enables the export of traces over OTLP (HTTP with protobuf) and takes
    /// precedence over LANGSMITH_*. These variables of OpenTelemetry are supported as well:
    /// OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_SPAN_*_LIMIT,
    /// OTEL_METRIC_EXPORT_INTERVAL, OTEL_EXPORTER_OTLP_HEADERS and _COMPRESSION, the last two
    /// also for traces or metrics only.
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) otel_exporter_otlp_endpoint: Option<String>,

    /// Complete URL for traces only, such as http://collector:4318/v1/traces.
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) otel_exporter_otlp_traces_endpoint: Option<String>,

    /// Complete URL for metrics only. Enables the push of metrics.
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) otel_exporter_otlp_metrics_endpoint: Option<String>,

    /// Protocol of the collector. Only http/protobuf is supported. [default: http/protobuf]
    #[arg(long, env, global = true, value_name = "PROTOCOL")]
    pub(super) otel_exporter_otlp_protocol: Option<String>,

    /// Protocol for traces only. [default: http/protobuf]
    #[arg(long, env, global = true, value_name = "PROTOCOL")]
    pub(super) otel_exporter_otlp_traces_protocol: Option<String>,

    /// Protocol for metrics only. [default: http/protobuf]
    #[arg(long, env, global = true, value_name = "PROTOCOL")]
    pub(super) otel_exporter_otlp_metrics_protocol: Option<String>,

    /// CA certificates in PEM that are trusted for the collector, in addition to the public
    /// ones.
    #[arg(long, env, global = true, value_name = "FILE")]
    pub(super) otel_exporter_otlp_certificate: Option<PathBuf>,

    /// Time limit of one export. [default: 10000]
    #[arg(long, env, global = true, value_name = "MILLISECONDS")]
    pub(super) otel_exporter_otlp_timeout: Option<String>,

    /// Exporter of traces: none disables their export regardless of other settings; otlp without an
    /// endpoint exports to http://localhost:4318.
    #[arg(long, env, global = true, value_name = "otlp|none")]
    pub(super) otel_traces_exporter: Option<String>,

    /// Exporter of metrics: otlp pushes them. They can be scraped from /metrics on OPS_ADDR in
    /// every case. [default: prometheus]
    #[arg(long, env, global = true, value_name = "otlp|prometheus|none")]
    pub(super) otel_metrics_exporter: Option<String>,

    /// Formats of the trace context. The caller's traceparent and langsmith-trace are used if
    /// tracecontext is in the list. [default: tracecontext]
    #[arg(long, env, global = true, value_name = "LIST")]
    pub(super) otel_propagators: Option<String>,

    /// Sampler: always_on, always_off or traceidratio, optionally with the prefix parentbased_.
    /// [default: parentbased_always_on]
    #[arg(long, env, global = true, value_name = "SAMPLER")]
    pub(super) otel_traces_sampler: Option<String>,

    /// Fraction of calls that are traced, for the traceidratio samplers. [default: 1]
    #[arg(long, env, global = true, value_name = "0-1")]
    pub(super) otel_traces_sampler_arg: Option<String>,

    /// Disable the export of traces and metrics. [default: false]
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) otel_sdk_disabled: Option<String>,

    /// Include the content of messages in traces, as input.value and output.value.
    /// [default: false]
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) otel_instrumentation_genai_capture_message_content: Option<String>,
}
