mod args;

use std::{path::PathBuf, time::Duration};

pub(super) use self::args::TelemetryArgs;
use super::{
    InvalidSetting, Secret,
    parse::{integer, non_empty, non_empty_path},
};

/// Default endpoint of LangSmith.
const LANGSMITH: &str = "https://api.smith.langchain.com";
/// Default endpoint of a collector, as OpenTelemetry specifies it.
const COLLECTOR: &str = "http://localhost:4318";
const LANGSMITH_KEY: &str = "LANGSMITH_API_KEY";
/// Default time limit of an export, as OpenTelemetry specifies it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Export of traces and metrics.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Destination of traces; `None` exports no traces.
    pub traces: Option<Export>,
    /// Selection of the calls that are traced.
    pub sampling: Sampling,
    /// Destination of pushed metrics; `None` pushes no metrics.
    pub metrics: Option<Export>,
    /// Reason why traces are not exported to LangSmith although it is configured; `None` if
    /// they are, or if it is not configured.
    pub langsmith_unused: Option<LangSmithUnused>,
    /// Whether the span of a call becomes a child of the caller's span.
    pub follows_caller: bool,
    /// Whether a caller may choose the project of its spans in LangSmith.
    pub allows_caller_project: bool,
    /// Whether spans contain the content of messages.
    pub captures_content: bool,
}

/// Reason why traces are not exported to LangSmith although it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LangSmithUnused {
    /// There is a key, and another setting takes precedence.
    Overridden,
    /// `LANGSMITH_TRACING` is true, and there is no key.
    MissingKey,
}

/// Selection of the calls that are traced.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Fraction of calls that are traced, 0 to 1.
    pub ratio: f64,
    /// Whether the sampling decision of a caller that traces takes precedence.
    pub follows_parent: bool,
}

/// Destination that accepts OTLP over HTTP.
#[derive(Clone, Debug)]
pub struct Export {
    /// Complete URL, which contains no secret.
    pub url: String,
    /// Headers of this destination, which replace those that the environment defines for a
    /// collector; empty for a collector.
    pub headers: Vec<(&'static str, Secret)>,
    /// File of CA certificates to trust in addition to the public ones.
    pub certificates: Option<PathBuf>,
    /// Time limit of one export request.
    pub timeout: Duration,
    /// Name of the setting that selected this destination, for the log.
    pub selected_by: &'static str,
}

impl TelemetryConfig {
    pub(super) fn from_args(args: &TelemetryArgs) -> Result<Self, InvalidSetting> {
        let disabled = args.otel_sdk_disabled.as_deref();
        // The settings of a disabled exporter are not validated: they may be meant for
        // another program.
        let is_disabled = flag(disabled, "OTEL_SDK_DISABLED", false)?;
        let [traces, metrics] = if is_disabled {
            [None, None]
        } else {
            [args.traces()?, args.metrics()?]
        };
        let sampling = match &traces {
            Some(_) => args.sampling()?,
            None => Sampling::default(),
        };
        let uses_langsmith = traces
            .as_ref()
            .is_some_and(|export| export.selected_by == LANGSMITH_KEY);
        let langsmith_unused = if uses_langsmith {
            None
        } else if args.has_langsmith_key() {
            Some(LangSmithUnused::Overridden)
        } else if !is_disabled && traces.is_none() && args.expects_langsmith_key()? {
            Some(LangSmithUnused::MissingKey)
        } else {
            None
        };
        Ok(Self {
            traces,
            sampling,
            metrics,
            langsmith_unused,
            follows_caller: non_empty(args.otel_propagators.as_deref())
                .is_none_or(|list| list.split(',').any(|name| name.trim() == "tracecontext")),
            allows_caller_project: flag(
                args.langsmith_project_from_caller.as_deref(),
                "LANGSMITH_PROJECT_FROM_CALLER",
                false,
            )?,
            captures_content: captures_content(
                args.otel_instrumentation_genai_capture_message_content
                    .as_deref(),
            )?,
        })
    }
}

impl TelemetryArgs {
    fn traces(&self) -> Result<Option<Export>, InvalidSetting> {
        let exporter = non_empty(self.otel_traces_exporter.as_deref());
        match exporter {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return Err(InvalidSetting::value(
                    "OTEL_TRACES_EXPORTER",
                    other,
                    "must be otlp or none",
                ));
            }
        }
        if let Some(export) = self.collector(
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                &self.otel_exporter_otlp_traces_endpoint,
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                &self.otel_exporter_otlp_traces_protocol,
            ),
            "v1/traces",
        )? {
            return Ok(Some(export));
        }
        if let Some(export) = self.langsmith()? {
            return Ok(Some(export));
        }
        exporter
            .map(|_| self.export(format!("{COLLECTOR}/v1/traces"), "OTEL_TRACES_EXPORTER"))
            .transpose()
    }

    /// Metrics are pushed only if this is configured explicitly, because a destination of
    /// traces may not accept metrics.
    fn metrics(&self) -> Result<Option<Export>, InvalidSetting> {
        let own = (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            &self.otel_exporter_otlp_metrics_endpoint,
        );
        match non_empty(self.otel_metrics_exporter.as_deref()) {
            None if non_empty(own.1.as_deref()).is_none() => return Ok(None),
            None | Some("otlp" | "otlp,prometheus" | "prometheus,otlp") => {}
            Some("none" | "prometheus") => return Ok(None),
            Some(other) => {
                return Err(InvalidSetting::value(
                    "OTEL_METRICS_EXPORTER",
                    other,
                    "must be otlp, prometheus or none",
                ));
            }
        }
        let protocol = (
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
            &self.otel_exporter_otlp_metrics_protocol,
        );
        match self.collector(own, protocol, "v1/metrics")? {
            Some(export) => Ok(Some(export)),
            None => self
                .export(format!("{COLLECTOR}/v1/metrics"), "OTEL_METRICS_EXPORTER")
                .map(Some),
        }
    }

    /// Returns the collector that `OTEL_*` configures for traces or metrics: by the setting of
    /// the signal, or by the setting for both.
    fn collector(
        &self,
        own: (&'static str, &Option<String>),
        own_protocol: (&'static str, &Option<String>),
        path: &str,
    ) -> Result<Option<Export>, InvalidSetting> {
        const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (name, url) = if let Some(url) = non_empty(own.1.as_deref()) {
            (own.0, url.to_owned())
        } else if let Some(base) = non_empty(self.otel_exporter_otlp_endpoint.as_deref()) {
            (GENERAL, format!("{}/{path}", base.trim_end_matches('/')))
        } else {
            return Ok(None);
        };
        check_url(&url, name)?;
        let general = (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            &self.otel_exporter_otlp_protocol,
        );
        let protocol = [own_protocol, general]
            .into_iter()
            .find_map(|(name, value)| Some((name, non_empty(value.as_deref())?)));
        if let Some((name, value)) = protocol
            && value != "http/protobuf"
        {
            return Err(InvalidSetting::value(
                name,
                value,
                "must be http/protobuf, which collectors accept on port 4318",
            ));
        }
        self.export(url, name).map(Some)
    }

    fn has_langsmith_key(&self) -> bool {
        let key = self.langsmith_api_key.as_ref();
        let file = self.langsmith_api_key_file.as_deref();
        key.is_some_and(|key| !key.expose().is_empty()) || non_empty_path(file).is_some()
    }

    /// Whether traces would be exported to LangSmith if there were a key.
    fn expects_langsmith_key(&self) -> Result<bool, InvalidSetting> {
        if non_empty(self.otel_traces_exporter.as_deref()) == Some("none") {
            return Ok(false);
        }
        flag(
            self.langsmith_tracing.as_deref(),
            "LANGSMITH_TRACING",
            false,
        )
    }

    fn langsmith(&self) -> Result<Option<Export>, InvalidSetting> {
        let key = Secret::from_value_or_file(
            self.langsmith_api_key.as_ref(),
            self.langsmith_api_key_file.as_deref(),
            LANGSMITH_KEY,
        )?;
        let is_on = flag(self.langsmith_tracing.as_deref(), "LANGSMITH_TRACING", true)?;
        let Some(key) = key.filter(|_| is_on) else {
            return Ok(None);
        };
        check_header(&key, LANGSMITH_KEY)?;
        let base = non_empty(self.langsmith_endpoint.as_deref()).unwrap_or(LANGSMITH);
        check_url(base, "LANGSMITH_ENDPOINT")?;
        let url = format!("{}/otel/v1/traces", base.trim_end_matches('/'));
        let mut export = self.export(url, LANGSMITH_KEY)?;
        export.headers.push(("x-api-key", key));
        if let Some(project) = non_empty(self.langsmith_project.as_deref()) {
            let project = Secret::from(project);
            check_header(&project, "LANGSMITH_PROJECT")?;
            export.headers.push(("Langsmith-Project", project));
        }
        Ok(Some(export))
    }

    /// Parses the sampler here, because the library samples everything if the value is invalid.
    fn sampling(&self) -> Result<Sampling, InvalidSetting> {
        const DEFAULT: &str = "parentbased_always_on";
        let name = non_empty(self.otel_traces_sampler.as_deref()).unwrap_or(DEFAULT);
        let own = name.strip_prefix("parentbased_");
        let ratio = match own.unwrap_or(name) {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.ratio()?,
            _ => {
                return Err(InvalidSetting::value(
                    "OTEL_TRACES_SAMPLER",
                    name,
                    "must be always_on, always_off or traceidratio, each optionally with the \
                     prefix parentbased_",
                ));
            }
        };
        Ok(Sampling {
            ratio,
            follows_parent: own.is_some(),
        })
    }

    fn ratio(&self) -> Result<f64, InvalidSetting> {
        let Some(text) = non_empty(self.otel_traces_sampler_arg.as_deref()) else {
            return Ok(1.0);
        };
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| {
            InvalidSetting::value(
                "OTEL_TRACES_SAMPLER_ARG",
                text,
                "must be a number from 0 to 1",
            )
        })
    }

    fn export(&self, url: String, selected_by: &'static str) -> Result<Export, InvalidSetting> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
        let timeout = match non_empty(self.otel_exporter_otlp_timeout.as_deref()) {
            None => TIMEOUT,
            Some(text) => integer(1..=3_600_000_u64)(text)
                .map(Duration::from_millis)
                .map_err(|expected| InvalidSetting::value(NAME, text, expected))?,
        };
        Ok(Export {
            url,
            headers: Vec::new(),
            certificates: self.otel_exporter_otlp_certificate.clone(),
            timeout,
            selected_by,
        })
    }
}

fn check_url(url: &str, name: &str) -> Result<(), InvalidSetting> {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or("");
    if host.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(InvalidSetting::secret(
            name,
            "must be a URL such as http://host:4318",
        ));
    }
    // The URL is logged.
    if host.contains('@') || url.contains(['?', '#']) {
        return Err(InvalidSetting::secret(
            name,
            "must not contain a user, a password or a query; use OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    Ok(())
}

fn check_header(value: &Secret, name: &str) -> Result<(), InvalidSetting> {
    let is_valid = value
        .expose()
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte));
    if is_valid {
        Ok(())
    } else {
        Err(InvalidSetting::secret(
            name,
            "must be printable ASCII, because it is sent in a header",
        ))
    }
}

/// Parses a boolean as OpenTelemetry and LangSmith do, in either case.
fn flag(text: Option<&str>, name: &str, default: bool) -> Result<bool, InvalidSetting> {
    match non_empty(text).map(str::to_ascii_lowercase).as_deref() {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(InvalidSetting::value(
            name,
            text.unwrap_or_default(),
            "must be true or false",
        )),
    }
}

/// Parses the setting of content capture. Libraries of OpenTelemetry accept true and false;
/// newer ones accept the kinds of telemetry that contain the content.
fn captures_content(text: Option<&str>) -> Result<bool, InvalidSetting> {
    const NAME: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    match non_empty(text).map(str::to_ascii_lowercase).as_deref() {
        Some("span_only" | "span_and_event") => Ok(true),
        Some("event_only" | "no_content") => Ok(false),
        _ => flag(text, NAME, false),
    }
}
