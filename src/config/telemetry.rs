mod args;

use std::{path::PathBuf, time::Duration};

pub use self::args::TelemetryArgs;
use super::{BadSetting, Secret, given};

/// Where LangSmith is unless it is said.
const LANGSMITH: &str = "https://api.smith.langchain.com";
/// Where a collector is unless it is said, as OpenTelemetry has it.
const COLLECTOR: &str = "http://localhost:4318";
const LANGSMITH_KEY: &str = "LANGSMITH_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of traces and metrics.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Where traces go; None for nowhere.
    pub traces: Option<Export>,
    /// Which calls are traced.
    pub sampling: Sampling,
    /// Where metrics are pushed to; None for nowhere.
    pub metrics: Option<Export>,
    /// Why traces are not exported to LangSmith although it is configured; None if
    /// they are, or if it is not configured.
    pub langsmith_unused: Option<LangSmithUnused>,
    /// Whether the caller's trace is followed.
    pub follows_caller: bool,
    /// Whether spans show what was said.
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

/// Which calls are traced.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// The share of them, 0 to 1.
    pub ratio: f64,
    /// Whether a caller that traces decides instead.
    pub follows_parent: bool,
}

/// A place that takes OTLP over HTTP.
#[derive(Clone, Debug)]
pub struct Export {
    /// The whole URL. It holds no secret.
    pub url: String,
    /// The headers of this destination, in place of those that the environment gives
    /// for a collector; empty for a collector.
    pub headers: Vec<(&'static str, Secret)>,
    /// A file of certificates to trust.
    pub certificates: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Which setting chose it, for the first lines of the log.
    pub because: &'static str,
}

impl TelemetryConfig {
    pub(super) fn from_args(args: &TelemetryArgs) -> Result<Self, BadSetting> {
        let disabled = args.otel_sdk_disabled.as_deref();
        // What is off need not be right: it may be meant for another program.
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
        let goes_to_langsmith = traces
            .as_ref()
            .is_some_and(|export| export.because == LANGSMITH_KEY);
        let names_langsmith = args
            .langsmith_api_key
            .as_ref()
            .is_some_and(|key| !key.expose().is_empty())
            || args
                .langsmith_api_key_file
                .as_ref()
                .is_some_and(|file| !file.as_os_str().is_empty());
        let langsmith_unused = if goes_to_langsmith {
            None
        } else if names_langsmith {
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
            follows_caller: given(args.otel_propagators.as_deref())
                .is_none_or(|list| list.split(',').any(|name| name.trim() == "tracecontext")),
            captures_content: captures_content(
                args.otel_instrumentation_genai_capture_message_content
                    .as_deref(),
            )?,
        })
    }
}

impl TelemetryArgs {
    fn traces(&self) -> Result<Option<Export>, BadSetting> {
        let exporter = given(self.otel_traces_exporter.as_deref());
        match exporter {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => {
                return Err(BadSetting::new(
                    "OTEL_TRACES_EXPORTER",
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

    /// Metrics are pushed only when it is said, because what takes traces need
    /// not take metrics.
    fn metrics(&self) -> Result<Option<Export>, BadSetting> {
        let own = (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            &self.otel_exporter_otlp_metrics_endpoint,
        );
        match given(self.otel_metrics_exporter.as_deref()) {
            None if given(own.1.as_deref()).is_none() => return Ok(None),
            None | Some("otlp" | "otlp,prometheus" | "prometheus,otlp") => {}
            Some("none" | "prometheus") => return Ok(None),
            Some(_) => {
                return Err(BadSetting::new(
                    "OTEL_METRICS_EXPORTER",
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

    /// The collector that OTEL_* names for a signal.
    fn collector(
        &self,
        own: (&'static str, &Option<String>),
        own_protocol: (&'static str, &Option<String>),
        path: &str,
    ) -> Result<Option<Export>, BadSetting> {
        const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (name, url) = if let Some(url) = given(own.1.as_deref()) {
            (own.0, url.to_owned())
        } else if let Some(base) = given(self.otel_exporter_otlp_endpoint.as_deref()) {
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
            .find_map(|(name, value)| Some((name, given(value.as_deref())?)));
        if let Some((name, value)) = protocol
            && value != "http/protobuf"
        {
            return Err(BadSetting::new(
                name,
                "must be http/protobuf, which collectors take on port 4318",
            ));
        }
        self.export(url, name).map(Some)
    }

    /// Whether traces would be exported to LangSmith if there were a key.
    fn expects_langsmith_key(&self) -> Result<bool, BadSetting> {
        if given(self.otel_traces_exporter.as_deref()) == Some("none") {
            return Ok(false);
        }
        flag(
            self.langsmith_tracing.as_deref(),
            "LANGSMITH_TRACING",
            false,
        )
    }

    fn langsmith(&self) -> Result<Option<Export>, BadSetting> {
        let key = Secret::given(
            self.langsmith_api_key.as_ref(),
            self.langsmith_api_key_file.as_deref(),
            LANGSMITH_KEY,
        )?;
        let is_on = flag(self.langsmith_tracing.as_deref(), "LANGSMITH_TRACING", true)?;
        let Some(key) = key.filter(|_| is_on) else {
            return Ok(None);
        };
        check_header(&key, LANGSMITH_KEY)?;
        let base = given(self.langsmith_endpoint.as_deref()).unwrap_or(LANGSMITH);
        check_url(base, "LANGSMITH_ENDPOINT")?;
        let url = format!("{}/otel/v1/traces", base.trim_end_matches('/'));
        let mut export = self.export(url, LANGSMITH_KEY)?;
        export.headers.push(("x-api-key", key));
        if let Some(project) = given(self.langsmith_project.as_deref()) {
            let project = Secret::from(project);
            check_header(&project, "LANGSMITH_PROJECT")?;
            export.headers.push(("Langsmith-Project", project));
        }
        Ok(Some(export))
    }

    /// The library takes what it cannot read for "everything".
    fn sampling(&self) -> Result<Sampling, BadSetting> {
        const DEFAULT: &str = "parentbased_always_on";
        let name = given(self.otel_traces_sampler.as_deref()).unwrap_or(DEFAULT);
        let own = name.strip_prefix("parentbased_");
        let ratio = match own.unwrap_or(name) {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.ratio()?,
            _ => {
                return Err(BadSetting::new(
                    "OTEL_TRACES_SAMPLER",
                    "must be always_on, always_off, traceidratio, or one of them after parentbased_",
                ));
            }
        };
        Ok(Sampling {
            ratio,
            follows_parent: own.is_some(),
        })
    }

    fn ratio(&self) -> Result<f64, BadSetting> {
        let Some(text) = given(self.otel_traces_sampler_arg.as_deref()) else {
            return Ok(1.0);
        };
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| {
            BadSetting::new("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1")
        })
    }

    fn export(&self, url: String, because: &'static str) -> Result<Export, BadSetting> {
        let timeout = match self.otel_exporter_otlp_timeout {
            None => TIMEOUT,
            Some(0) => {
                return Err(BadSetting::new(
                    "OTEL_EXPORTER_OTLP_TIMEOUT",
                    "must be above 0",
                ));
            }
            Some(millis) => Duration::from_millis(millis),
        };
        Ok(Export {
            url,
            headers: Vec::new(),
            certificates: self.otel_exporter_otlp_certificate.clone(),
            timeout,
            because,
        })
    }
}

fn check_url(url: &str, name: &str) -> Result<(), BadSetting> {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or("");
    if host.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(BadSetting::new(
            name,
            "must be a URL such as http://host:4318",
        ));
    }
    // It is shown in the log.
    if host.contains('@') || url.contains(['?', '#']) {
        return Err(BadSetting::new(
            name,
            "must not hold a user, a password or a query: use OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    Ok(())
}

fn check_header(value: &Secret, name: &str) -> Result<(), BadSetting> {
    let is_fit = value
        .expose()
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte));
    if is_fit {
        Ok(())
    } else {
        Err(BadSetting::new(
            name,
            "must be printable ASCII, as it is sent in a header",
        ))
    }
}

fn flag(text: Option<&str>, name: &str, default: bool) -> Result<bool, BadSetting> {
    match given(text).map(str::to_ascii_lowercase).as_deref() {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(BadSetting::new(name, "must be true or false")),
    }
}

/// OpenTelemetry's libraries know true and false, and newer ones where the
/// content goes.
fn captures_content(text: Option<&str>) -> Result<bool, BadSetting> {
    const NAME: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    match given(text).map(str::to_ascii_lowercase).as_deref() {
        Some("span_only" | "span_and_event") => Ok(true),
        Some("event_only" | "no_content") => Ok(false),
        text => flag(text, NAME, false),
    }
}
