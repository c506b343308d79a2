//! Destinations of traces, headers of the exports, and settings that disable them.

use std::{io::Read as _, process::Output};

use tokio::process::Command;

use crate::observed::{ObservedSidecar, stop};
use test_support::{
    completes, eventually, new_user,
    otlp_sink::{OtlpSink, Sent},
    requests::{begin, save, turn},
    sidecar::{Form, Sidecar, command},
};

const KEY: &str = "lsv2-secret-key";

#[tokio::test]
async fn exports_to_langsmith_with_its_own_variables() {
    let sink = OtlpSink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    for (name, value) in [
        ("LANGSMITH_API_KEY", KEY),
        ("LANGSMITH_API_KEY_FILE", file.to_str().unwrap()),
    ] {
        let before = sink.sent().len();
        let settings = [
            (name, value),
            ("LANGSMITH_PROJECT", "vacation"),
            ("LANGSMITH_ENDPOINT", &sink.url()),
            // Headers of another destination, which must not be sent.
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20theirs,x-api-key=theirs",
            ),
        ];
        let log = run_with(&settings).await;
        let sent = sink.sent().split_off(before);
        assert!(!sent.is_empty(), "{name}: {log:#?}");
        for sent in sent {
            assert_eq!(
                (sent.method.as_str(), sent.path.as_str()),
                ("POST", "/otel/v1/traces")
            );
            assert_eq!(sent.header("x-api-key"), KEY);
            assert_eq!(sent.header("langsmith-project"), "vacation");
            assert_eq!(sent.header("authorization"), "");
            assert_eq!(sent.header("content-type"), "application/x-protobuf");
        }
        for span in sink.spans() {
            assert!(!span.text("langsmith.metadata.thread_id").is_empty());
        }
        assert!(!log.iter().any(|line| line.contains(KEY)), "{log:#?}");
    }
}

#[tokio::test]
async fn langsmith_tracing_without_a_key_logs_a_warning() {
    let warns = |log: Vec<String>| {
        log.iter()
            .any(|line| line.contains("WARN") && line.contains("set LANGSMITH_API_KEY"))
    };
    assert!(warns(run_with(&[("LANGSMITH_TRACING", "true")]).await));
    assert!(!warns(run_with(&[("LANGSMITH_TRACING", "false")]).await));
}

#[tokio::test]
async fn exports_to_the_collector_in_the_standard_variables() {
    let sink = OtlpSink::start().await;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/", sink.url())),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            format!("{}/v1/traces", sink.url()),
        ),
    ] {
        let before = sink.sent().len();
        run_with(&[(name, &value)]).await;
        let sent = sink.sent().split_off(before);
        assert!(!sent.is_empty(), "{name}={value}");
        for sent in sent {
            assert_eq!(
                (sent.method.as_str(), sent.path.as_str()),
                ("POST", "/v1/traces")
            );
            assert_eq!(langsmith_headers(&sent), ["", ""]);
        }
    }
}

#[tokio::test]
async fn otel_settings_take_precedence_over_langsmith() {
    let (collector, langsmith) = tokio::join!(OtlpSink::start(), OtlpSink::start());
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("LANGSMITH_API_KEY", KEY.to_owned()),
        ("LANGSMITH_PROJECT", "vacation".to_owned()),
        ("LANGSMITH_ENDPOINT", langsmith.url()),
    ];
    let settings = settings
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let log = run_with(&settings).await;
    assert!(collector.count("/v1/traces") > 0);
    for sent in collector.sent() {
        assert_eq!(langsmith_headers(&sent), ["", ""]);
    }
    assert!(langsmith.sent().is_empty());
    let names_both = |line: &&String| line.contains("OTEL_") && line.contains("LANGSMITH_");
    assert_eq!(log.iter().filter(names_both).count(), 1, "{log:#?}");
}

#[tokio::test]
async fn disabled_exports_send_nothing() {
    let sink = OtlpSink::start().await;
    let url = sink.url();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let langsmith = [("LANGSMITH_API_KEY", KEY), ("LANGSMITH_ENDPOINT", &url)];
    let cases: [&[(&str, &str)]; 5] = [
        &[endpoint, ("OTEL_SDK_DISABLED", "true")],
        &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        &[endpoint, ("OTEL_TRACES_SAMPLER", "always_off")],
        &[langsmith[0], langsmith[1], ("LANGSMITH_TRACING", "false")],
        &[langsmith[0], langsmith[1], ("OTEL_SDK_DISABLED", "true")],
    ];
    for settings in cases {
        run_with(settings).await;
        assert_eq!(sink.spans().len(), 0, "{settings:?}");
        assert_eq!(sink.sent().len(), 0, "{settings:?}");
    }
}

#[tokio::test]
async fn without_settings_there_is_no_exporter() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start(&form).await;
    call(&sidecar).await;
    assert_eq!(exporter_threads(&sidecar), 0);
    stop(&mut sidecar).await;
    // The same check finds the thread of an exporter.
    let observed = ObservedSidecar::start(Form::embedded()).await;
    eventually("the exporter's thread is found", async || {
        exporter_threads(&observed.sidecar) > 0
    })
    .await;
    observed.stop().await;
}

/// Number of exporter threads of a sidecar.
fn exporter_threads(sidecar: &Sidecar) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", sidecar.id())).unwrap();
    let names = threads.filter_map(|thread| {
        let mut name = String::new();
        let file = std::fs::File::open(thread.unwrap().path().join("comm"));
        file.ok()?.read_to_string(&mut name).ok()?;
        Some(name)
    });
    names
        .filter(|name| name.starts_with("OpenTelemetry"))
        .count()
}

#[tokio::test]
async fn the_resource_follows_the_environment() {
    let exported = export_with(&[]).await;
    for span in exported.spans {
        assert_eq!(span.resource["service.name"], "conversation-memory");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
    }
    let exported = export_with(&[
        ("OTEL_SERVICE_NAME", "memory of hr"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=ignored,service.version=7,k8s.pod.name=agent-7",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-tenant=blue,authorization=Bearer%20t",
        ),
    ])
    .await;
    for span in exported.spans {
        assert_eq!(span.resource["service.name"], "memory of hr");
        assert_eq!(span.resource["service.version"], "7");
        assert_eq!(span.resource["k8s.pod.name"], "agent-7");
    }
    for sent in exported.sent {
        assert_eq!(sent.header("x-tenant"), "blue");
        assert_eq!(sent.header("authorization"), "Bearer t");
    }
}

#[tokio::test]
async fn bodies_are_compressed_on_request() {
    let exported = export_with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).await;
    for sent in exported.sent {
        assert_eq!(sent.header("content-encoding"), "gzip");
    }
}

#[tokio::test]
async fn unsupported_settings_are_rejected_at_startup() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"),
    ] {
        let output = run_rejected(name, value).await;
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{name}={value}");
        assert!(message.contains(name), "{message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
}

async fn run_rejected(name: &str, value: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::from(command());
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .env("DATA_DIR", folder.path())
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("OPS_ADDR", "127.0.0.1:0")
        .env(name, value)
        .kill_on_drop(true);
    completes(&format!("{name}={value} is rejected"), command.output())
        .await
        .unwrap()
}

/// Starts a sidecar with settings, calls it, and returns what it exported.
async fn export_with(settings: &[(&str, &str)]) -> crate::observed::ExportedTelemetry {
    let observed = ObservedSidecar::start_with(Form::embedded(), settings).await;
    call(&observed.sidecar).await;
    let exported = observed.stop().await;
    assert!(!exported.spans.is_empty(), "{settings:?}");
    exported
}

/// Starts a sidecar with settings, calls it, stops it, and returns its log.
async fn run_with(settings: &[(&str, &str)]) -> Vec<String> {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, settings).await;
    call(&sidecar).await;
    stop(&mut sidecar).await;
    sidecar.log()
}

async fn call(sidecar: &Sidecar) {
    let mut memory = sidecar.memory();
    let begun = memory.begin_turn(begin(&new_user())).await.unwrap();
    let conversation = begun.into_inner().conversation.unwrap().id;
    let request = save(&conversation, turn("one", "two"));
    memory.save_messages(request).await.unwrap();
}

fn langsmith_headers(sent: &Sent) -> [&str; 2] {
    ["x-api-key", "langsmith-project"].map(|name| sent.header(name))
}
