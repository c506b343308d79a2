use clap::Parser as _;

use super::*;

fn config(args: &[&str]) -> Result<Config, BadSetting> {
    let args = ["conversation-memory"].iter().chain(args);
    Config::from_args(Args::try_parse_from(args).map_err(|error| first_line(&error))?)
}

fn refusal(args: &[&str]) -> String {
    config(args).expect_err("was taken").to_string()
}

#[test]
fn nothing_configured_is_embedded() {
    let config = config(&[]).unwrap();
    assert!(matches!(config.store, StoreConfig::Embedded { .. }));
    assert!(config.redis.is_none());
    assert_eq!(config.server.listen[0].to_string(), "127.0.0.1:50051");
    assert_eq!(config.session_ttl, Duration::from_mins(30));
    assert_eq!(config.max_history_messages, 6);
}

#[test]
fn any_word_of_postgres_or_redis_configures_it() {
    for flag in [
        "--postgres-host",
        "--postgres-db",
        "--postgres-user",
        "--postgres-password",
    ] {
        let config = config(&[flag, "x"]).unwrap();
        assert!(
            matches!(config.store, StoreConfig::Postgres { .. }),
            "{flag}"
        );
    }
    assert!(config(&["--redis-host", "x"]).unwrap().redis.is_some());
    assert!(
        config(&["--redis-url", "redis://x"])
            .unwrap()
            .redis
            .is_some()
    );
}

#[test]
fn what_kubernetes_injects_configures_nothing() {
    let config = config(&[
        "--postgres-port",
        "tcp://10.0.0.11:5432",
        "--redis-port",
        "tcp://10.0.0.11:6379",
        "--postgres-host",
        "",
        "--redis-password",
        "",
    ])
    .unwrap();
    assert!(matches!(config.store, StoreConfig::Embedded { .. }));
    assert!(config.redis.is_none());
}

#[test]
fn a_bad_setting_is_one_line_that_names_it() {
    for (args, name) in [
        (&["--session-ttl-minutes", "0"][..], "SESSION_TTL_MINUTES"),
        (&["--session-ttl-minutes", "NaN"], "SESSION_TTL_MINUTES"),
        (&["--session-ttl-minutes", "soon"], "--session-ttl-minutes"),
        (&["--max-history-messages", "0"], "MAX_HISTORY_MESSAGES"),
        (&["--max-history-messages", "1001"], "MAX_HISTORY_MESSAGES"),
        (
            &["--postgres-host", "x", "--postgres-port", "70000"],
            "POSTGRES_PORT",
        ),
        (&["--redis-host", "x", "--redis-port", "http"], "REDIS_PORT"),
        (&["--listen-addr", "0.0.0.0:50051"], "LISTEN_ADDR"),
        (&["--listen-addr", "here"], "--listen-addr"),
        (
            &["--database-url-file", "/nonexistent"],
            "DATABASE_URL_FILE",
        ),
        (&["--log-format", "xml"], "--log-format"),
        (&["--drain-seconds", "-1"], "DRAIN_SECONDS"),
    ] {
        let refusal = refusal(args);
        assert!(refusal.contains(name), "{args:?}: {refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let secret = "hunter2";
    for args in [
        ["--database-url", "mysql://u:hunter2@h/d"],
        ["--database-url", "postgres://u:hunter2@h:port/d"],
        ["--redis-url", "http://:hunter2@h"],
        ["--redis-url", "redis://u:hunter2/x@h"],
        ["--database-url", "postgres://u:hun/ter2@h/d"],
        ["--database-url", "postgres://u:hunter2#x@h/d"],
        ["--database-url", "postgres://u:hunter2?x@h/d"],
    ] {
        let refusal = refusal(&args);
        assert!(!refusal.contains(secret), "{refusal}");
    }
    let args = [
        "--postgres-host",
        "h",
        "--postgres-password",
        secret,
        "--redis-password",
        secret,
    ];
    let shown = format!("{:?}", config(&args).unwrap());
    assert!(!shown.contains(secret), "{shown}");
}

#[test]
fn a_password_that_ends_the_url_too_early_is_refused() {
    for url in [
        "postgres://u:hun/ter2@h/d",
        "postgres://u:hun#ter2@h/d",
        "postgres://u:hun?ter2@h/d",
        "postgres://u:p@ss/w#rd@h/d",
        "postgres://u:12/hunter2?x@h/d",
        "postgres://u:hun?ter=2@h/d",
    ] {
        let refusal = refusal(&["--database-url", url]);
        assert!(refusal.contains("percent-encoded"), "{url}: {refusal}");
    }
    for url in [
        "postgres://u:hun%2Fter%402@h:5432/d",
        "postgres://u:p@ss@h/d?sslmode=require",
        "postgres://u:hunter2@h/d?application_name=a@b",
        "postgres://h:5432/d?user=u@h",
        "postgres:///d?host=/run&user=u@h",
        "postgres://[::1]:5432/d?user=u@h",
    ] {
        assert!(config(&["--database-url", url]).is_ok(), "{url}");
    }
}

#[test]
fn an_authority_of_redis_needs_tls_and_a_certificate() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().to_str().unwrap();
    for url in ["redis://h", "rediss://h"] {
        let refusal = refusal(&["--redis-url", url, "--redis-ca-file", file]);
        assert!(refusal.contains("REDIS_CA_FILE"), "{url}: {refusal}");
    }
}

#[test]
fn a_secret_file_loses_its_last_line_break() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let secret = Secret::given(None, Some(file.path()), "X")
        .unwrap()
        .unwrap();
    assert_eq!(secret.expose(), "hunter2");
    std::fs::write(file.path(), "\n").unwrap();
    let refusal = Secret::given(None, Some(file.path()), "X").expect_err("was taken");
    assert_eq!(refusal.to_string(), "X_FILE names an empty file");
}

#[test]
fn loopback_is_not_asked_about() {
    assert!(config(&["--listen-addr", "[::1]:0"]).is_ok());
    assert!(config(&["--listen-addr", "0.0.0.0:0", "--insecure"]).is_ok());
}

fn urls(args: &[&str]) -> (Option<String>, Option<String>) {
    let TelemetryConfig {
        traces, metrics, ..
    } = config(args).unwrap().telemetry;
    (traces.map(|to| to.url), metrics.map(|to| to.url))
}

#[test]
fn traces_go_where_they_are_told() {
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
fn a_missing_langsmith_key_is_detected_where_traces_go_nowhere() {
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
fn metrics_are_pushed_when_it_is_said() {
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
fn content_is_captured_by_name_only() {
    let captures = |value| {
        let flag = "--otel-instrumentation-genai-capture-message-content";
        config(&[flag, value]).unwrap().telemetry.captures_content
    };
    assert!(!config(&[]).unwrap().telemetry.captures_content);
    assert!(captures("true") && captures("SPAN_ONLY"));
    assert!(!captures("false") && !captures("EVENT_ONLY") && !captures(""));
}

#[test]
fn an_export_that_cannot_be_is_refused() {
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
        let refusal = refusal(args);
        assert!(refusal.contains(name), "{args:?}: {refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
    let shown = format!("{:?}", config(&["--langsmith-api-key", "hunter2"]).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn samplers_are_those_of_the_specification() {
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
        let refusal = refusal(&[&endpoint, &ratio[..], &[&arg]].concat());
        assert!(refusal.contains("OTEL_TRACES_SAMPLER_ARG"), "{refusal}");
    }
}
