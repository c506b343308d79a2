#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]
#![allow(rustdoc::bare_urls, reason = "these comments are the text of --help")]

use std::path::PathBuf;

use crate::config::Secret;

/// Traces and metrics: the settings that are read here. The rest of
/// OpenTelemetry's variables are read by its own library.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Traces and metrics")]
pub struct TelemetryArgs {
    /// Export traces to LangSmith, with this key.
    #[arg(long, env, global = true, hide_env_values = true, value_name = "KEY")]
    pub(super) langsmith_api_key: Option<Secret>,

    /// A file that holds LANGSMITH_API_KEY.
    #[arg(long, env, global = true, value_name = "FILE")]
    pub(super) langsmith_api_key_file: Option<PathBuf>,

    /// LangSmith's project [default: LangSmith's own]
    #[arg(long, env, global = true, value_name = "NAME")]
    pub(super) langsmith_project: Option<String>,

    /// LangSmith's address [default: https://api.smith.langchain.com]
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) langsmith_endpoint: Option<String>,

    /// With false, LANGSMITH_API_KEY exports nothing.
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) langsmith_tracing: Option<String>,

    /// Export traces to a collector, over HTTP with protobuf. Wins over LANGSMITH_*.
    /// These variables of OpenTelemetry's are followed as well: OTEL_SERVICE_NAME,
    /// OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_SPAN_*_LIMIT,
    /// OTEL_METRIC_EXPORT_INTERVAL, OTEL_EXPORTER_OTLP_HEADERS and _COMPRESSION, the
    /// last two also for traces or metrics alone.
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) otel_exporter_otlp_endpoint: Option<String>,

    /// The same for traces alone, taken as it is: http://collector:4318/v1/traces
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) otel_exporter_otlp_traces_endpoint: Option<String>,

    /// The same for metrics alone; switches their push on.
    #[arg(long, env, global = true, value_name = "URL")]
    pub(super) otel_exporter_otlp_metrics_endpoint: Option<String>,

    /// How to speak to the collector: http/protobuf is what there is.
    #[arg(long, env, global = true, value_name = "PROTOCOL")]
    pub(super) otel_exporter_otlp_protocol: Option<String>,

    /// The same for traces alone.
    #[arg(long, env, global = true, value_name = "PROTOCOL")]
    pub(super) otel_exporter_otlp_traces_protocol: Option<String>,

    /// The same for metrics alone.
    #[arg(long, env, global = true, value_name = "PROTOCOL")]
    pub(super) otel_exporter_otlp_metrics_protocol: Option<String>,

    /// A file of certificates, in PEM, to trust the collector by, beside the
    /// public ones.
    #[arg(long, env, global = true, value_name = "FILE")]
    pub(super) otel_exporter_otlp_certificate: Option<PathBuf>,

    /// How long an export may take, in milliseconds [default: 10000]
    #[arg(long, env, global = true, value_name = "MILLISECONDS")]
    pub(super) otel_exporter_otlp_timeout: Option<u64>,

    /// With none, no traces are exported, whatever else is set.
    #[arg(long, env, global = true, value_name = "otlp|none")]
    pub(super) otel_traces_exporter: Option<String>,

    /// With otlp, metrics are pushed as well. They can always be scraped from
    /// /metrics on OPS_ADDR.
    #[arg(long, env, global = true, value_name = "otlp|prometheus|none")]
    pub(super) otel_metrics_exporter: Option<String>,

    /// The caller's traceparent and langsmith-trace are followed if tracecontext is
    /// among these [default: tracecontext]
    #[arg(long, env, global = true, value_name = "LIST")]
    pub(super) otel_propagators: Option<String>,

    /// Which calls are traced [default: parentbased_always_on]
    #[arg(long, env, global = true, value_name = "SAMPLER")]
    pub(super) otel_traces_sampler: Option<String>,

    /// The share of them, for the samplers that end with traceidratio [default: 1]
    #[arg(long, env, global = true, value_name = "0-1")]
    pub(super) otel_traces_sampler_arg: Option<String>,

    /// With true, nothing is exported.
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) otel_sdk_disabled: Option<String>,

    /// With true, traces show what was said in input.value and output.value.
    #[arg(long, env, global = true, value_name = "BOOL")]
    pub(super) otel_instrumentation_genai_capture_message_content: Option<String>,
}
