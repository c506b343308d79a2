use super::*;

fn urls(args: &[&str]) -> (Option<String>, Option<String>) {
    let TelemetryConfig {
        traces, metrics, ..
    } = config(args).unwrap().telemetry;
    (
        traces.map(|export| export.url),
        metrics.map(|export| export.url),
    )
}

#[test]
fn traces_are_exported_to_the_configured_destination() {
    const KEY: [&str; 2] = ["--langsmith-api-key", "k"];
    const COLLECTOR: [&str; 2] = ["--otel-exporter-otlp-endpoint", "http://c:4318/"];
    let langsmith = "https://api.smith.langchain.com/otel/v1/traces";
    let traces = |args: &[&[&str]]| urls(&args.concat()).0;
    assert_eq!(traces(&[]), None);
    assert_eq!(traces(&[&["--langsmith-project", "p"]]), None);
    assert_eq!(traces(&[&KEY]).unwrap(), langsmith);
    assert_eq!(traces(&[&KEY, &["--langsmith-tracing", "false"]]), None);
    let own = ["--langsmith-endpoint", "https://smith.example/api/"];
    assert_eq!(
        traces(&[&KEY, &own]).unwrap(),
        "https://smith.example/api/otel/v1/traces"
    );
    assert_eq!(traces(&[&COLLECTOR]).unwrap(), "http://c:4318/v1/traces");
    assert_eq!(
        traces(&[&KEY, &COLLECTOR]).unwrap(),
        "http://c:4318/v1/traces"
    );
    let exact = [
        "--otel-exporter-otlp-traces-endpoint",
        "https://t.example/in",
    ];
    assert_eq!(
        traces(&[&COLLECTOR, &exact]).unwrap(),
        "https://t.example/in"
    );
    let otlp = ["--otel-traces-exporter", "otlp"];
    assert_eq!(traces(&[&otlp]).unwrap(), "http://localhost:4318/v1/traces");
    assert_eq!(traces(&[&otlp, &KEY]).unwrap(), langsmith);
    for off in [
        ["--otel-traces-exporter", "none"],
        ["--otel-sdk-disabled", "TRUE"],
    ] {
        assert_eq!(traces(&[&KEY, &COLLECTOR, &off]), None, "{off:?}");
    }
}

#[test]
fn a_missing_langsmith_key_is_detected_if_no_traces_are_exported() {
    const TRACING: [&str; 2] = ["--langsmith-tracing", "true"];
    let lacks_key = |args: &[&[&str]]| {
        let config = config(&args.concat()).unwrap();
        config.telemetry.langsmith_unused == Some(LangSmithUnused::MissingKey)
    };
    assert!(lacks_key(&[&TRACING]));
    assert!(lacks_key(&[&TRACING, &["--langsmith-api-key", ""]]));
    assert!(!lacks_key(&[]));
    for other in [
        &["--langsmith-api-key", "k"][..],
        &["--otel-exporter-otlp-endpoint", "http://c:4318"],
        &["--otel-traces-exporter", "none"],
        &["--otel-traces-exporter", "otlp"],
        &["--otel-sdk-disabled", "true"],
    ] {
        assert!(!lacks_key(&[&TRACING, other]), "{other:?}");
    }
    assert!(!lacks_key(&[&["--langsmith-tracing", "false"]]));
}

#[test]
fn metrics_are_pushed_only_if_configured() {
    let collector = ["--otel-exporter-otlp-endpoint", "http://c:4318"];
    let pushed = |args: &[&[&str]]| urls(&args.concat()).1;
    assert_eq!(pushed(&[&collector]), None);
    let otlp = ["--otel-metrics-exporter", "otlp"];
    assert_eq!(
        pushed(&[&collector, &otlp]).unwrap(),
        "http://c:4318/v1/metrics"
    );
    assert_eq!(
        pushed(&[&otlp]).unwrap(),
        "http://localhost:4318/v1/metrics"
    );
    let exact = ["--otel-exporter-otlp-metrics-endpoint", "http://m/in"];
    assert_eq!(pushed(&[&exact]).unwrap(), "http://m/in");
    assert_eq!(
        pushed(&[&exact, &["--otel-metrics-exporter", "none"]]),
        None
    );
}

#[test]
fn content_is_captured_only_if_configured() {
    let captures = |value| {
        let flag = "--otel-instrumentation-genai-capture-message-content";
        config(&[flag, value]).unwrap().telemetry.captures_content
    };
    assert!(!config(&[]).unwrap().telemetry.captures_content);
    assert!(captures("true") && captures("SPAN_ONLY"));
    assert!(!captures("false") && !captures("EVENT_ONLY") && !captures(""));
}

#[test]
fn rejects_invalid_export_settings() {
    let endpoint = "--otel-exporter-otlp-endpoint";
    for (args, name) in [
        (
            &[endpoint, "collector:4318"][..],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (&[endpoint, "http://"], "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            &[endpoint, "http://u:hunter2@c"],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (
            &[
                endpoint,
                "http://c:4317",
                "--otel-exporter-otlp-protocol",
                "grpc",
            ],
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
        (
            &["--otel-traces-exporter", "zipkin"],
            "OTEL_TRACES_EXPORTER",
        ),
        (
            &["--otel-metrics-exporter", "statsd"],
            "OTEL_METRICS_EXPORTER",
        ),
        (&["--otel-sdk-disabled", "perhaps"], "OTEL_SDK_DISABLED"),
        (
            &[endpoint, "http://c/?key=hunter2"],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (
            &[endpoint, "http://c", "--otel-traces-sampler", "bogus"],
            "OTEL_TRACES_SAMPLER",
        ),
        (&["--langsmith-api-key", "k\n"], "LANGSMITH_API_KEY"),
        (
            &["--langsmith-api-key-file", "/nonexistent"],
            "LANGSMITH_API_KEY_FILE",
        ),
    ] {
        let error = error(args);
        assert!(error.contains(name), "{args:?}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let shown = format!("{:?}", config(&["--langsmith-api-key", "hunter2"]).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn supports_the_samplers_of_the_specification() {
    let sampling = |args: &[&str]| {
        let endpoint = ["--otel-exporter-otlp-endpoint", "http://c"];
        config(&[&endpoint, args].concat())
            .unwrap()
            .telemetry
            .sampling
    };
    let is = |ratio, follows_parent| Sampling {
        ratio,
        follows_parent,
    };
    let flag = "--otel-traces-sampler";
    assert_eq!(sampling(&[]), is(1.0, true));
    assert_eq!(sampling(&[flag, "always_off"]), is(0.0, false));
    assert_eq!(sampling(&[flag, "parentbased_always_off"]), is(0.0, true));
    let ratio = [flag, "parentbased_traceidratio"];
    assert_eq!(sampling(&ratio), is(1.0, true));
    let a_tenth = [&ratio[..], &["--otel-traces-sampler-arg", "0.1"]].concat();
    assert_eq!(sampling(&a_tenth), is(0.1, true));
    for bad in ["0,1", "2", "-1", "NaN"] {
        let endpoint = ["--otel-exporter-otlp-endpoint", "http://c"];
        let arg = format!("--otel-traces-sampler-arg={bad}");
        let error = error(&[&endpoint, &ratio[..], &[&arg]].concat());
        assert!(error.contains("OTEL_TRACES_SAMPLER_ARG"), "{error}");
    }
}
