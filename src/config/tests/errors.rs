use clap::CommandFactory as _;

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn errors_name_the_variable_the_value_and_the_valid_values() {
    for (args, expected) in [
        (
            &["--session-ttl-minutes", "0"][..],
            "invalid value \"0\" for SESSION_TTL_MINUTES: must be a number of minutes above 0 and \
             at most 527040 (a year)",
        ),
        (
            &["--session-ttl-minutes", "NaN"],
            "invalid value \"NaN\" for SESSION_TTL_MINUTES: must be a number of minutes above 0 \
             and at most 527040 (a year)",
        ),
        (
            &["--session-ttl-minutes", "soon"],
            "invalid value \"soon\" for SESSION_TTL_MINUTES: must be a number of minutes above 0 \
             and at most 527040 (a year)",
        ),
        (
            &["--drain-seconds", "-1"],
            "invalid value \"-1\" for DRAIN_SECONDS: must be a number of seconds from 0.001 to \
             31622400 (a year)",
        ),
        (
            &["--max-history-messages", "0"],
            "invalid value \"0\" for MAX_HISTORY_MESSAGES: must be an integer from 1 to 1000",
        ),
        (
            &["--max-history-messages", "1001"],
            "invalid value \"1001\" for MAX_HISTORY_MESSAGES: must be an integer from 1 to 1000",
        ),
        (
            &["--max-connections", "-1"],
            "invalid value \"-1\" for MAX_CONNECTIONS: must be an integer from 1 to 100000",
        ),
        (
            &["--max-request-bytes", "4MB"],
            "invalid value \"4MB\" for MAX_REQUEST_BYTES: must be an integer from 1 to 4294967295",
        ),
        (
            &["--max-blob-bytes", "12517377"],
            "invalid value \"12517377\" for MAX_BLOB_BYTES: must be at most 12517376, which is 64 \
             KiB less than MAX_REQUEST_BYTES. Lower it or raise MAX_REQUEST_BYTES",
        ),
        (
            &["--token-encoding", "gpt2"],
            "invalid value \"gpt2\" for TOKEN_ENCODING: must be o200k_base, cl100k_base or none",
        ),
        (
            &["--compaction-tokens", "-1"],
            "invalid value \"-1\" for COMPACTION_TOKENS: must be an integer from 0 to 1000000000",
        ),
        (
            &["--postgres-host", "x", "--postgres-port", "70000"],
            "invalid value \"70000\" for POSTGRES_PORT: must be a port from 1 to 65535",
        ),
        (
            &["--redis-host", "x", "--redis-port", "http"],
            "invalid value \"http\" for REDIS_PORT: must be a port from 1 to 65535",
        ),
        (
            &["--listen-addr", "127.0.0.1:0,here"],
            "invalid value \"here\" for LISTEN_ADDR: must be an address such as \
             127.0.0.1:50051, [::1]:50051 or unix:/run/memory.sock",
        ),
        (
            &["--ops-addr", "9464"],
            "invalid value \"9464\" for OPS_ADDR: must be an IP address and port such as \
             127.0.0.1:9464 or [::1]:9464",
        ),
        (
            &["--unix-allowed-uids", "1,root"],
            "invalid value \"root\" for UNIX_ALLOWED_UIDS: must be an integer from 0 to 4294967295",
        ),
        (
            &["--log-format", "xml"],
            "invalid value \"xml\" for LOG_FORMAT: must be auto, text or json",
        ),
        (
            &["--text-search-config", "french"],
            "invalid value \"french\" for TEXT_SEARCH_CONFIG: must be english or simple",
        ),
        (
            &["--reflection", "yes"],
            "invalid value \"yes\" for REFLECTION: must be true or false",
        ),
        (
            &["--log-level", ""],
            "invalid value \"\" for LOG_LEVEL: must be error, warn, info, debug, trace or off, or \
             filters by module such as info,sqlx=debug",
        ),
        (
            &["--otel-sdk-disabled", "perhaps"],
            "invalid value \"perhaps\" for OTEL_SDK_DISABLED: must be true or false",
        ),
        (
            &["--database-url-file", "/nonexistent"],
            "DATABASE_URL_FILE: cannot read /nonexistent: no such file or directory",
        ),
        (
            &["--tls-cert-file", "tls.crt"],
            "TLS_KEY_FILE: must be set if TLS_CERT_FILE is set",
        ),
        (
            &["--reflection", "a\nb"],
            "invalid value \"a\\nb\" for REFLECTION: must be true or false",
        ),
    ] {
        assert_eq!(error(args), expected, "{args:?}");
    }
    let error = error(&["--listen-addr", "0.0.0.0:50051"]);
    assert!(error.starts_with("invalid value \"0.0.0.0:50051\" for LISTEN_ADDR: "));
    assert_eq!(error.lines().count(), 1, "{error}");
}

/// `--insecure` takes no value on the command line, but its variable does.
#[test]
fn errors_of_flags_list_the_valid_values_of_the_variable() {
    let command = Args::command();
    let insecure = command
        .get_arguments()
        .find(|arg| arg.get_id() == "insecure");
    let parser = insecure.unwrap().get_value_parser().clone();
    let command = clap::Command::new("test").arg(
        clap::Arg::new("insecure")
            .long("insecure")
            .value_parser(parser),
    );
    let parse = |value| {
        let error = command
            .clone()
            .try_get_matches_from(["test", "--insecure", value]);
        error.map_err(|error| InvalidSetting::from_clap(&error).to_string())
    };
    assert!(parse("true").is_ok());
    assert_eq!(
        parse("yes").unwrap_err(),
        "invalid value \"yes\" for INSECURE: must be true or false"
    );
}

#[test]
fn usage_errors_keep_the_message_of_the_parser() {
    assert_eq!(
        error(&["--lisen-addr", "127.0.0.1:1"]),
        "unexpected argument '--lisen-addr' found"
    );
    assert_eq!(
        error(&["--listen-addr"]),
        "a value is required for '--listen-addr <ADDRESSES>' but none was supplied"
    );
    assert_eq!(error(&["start"]), "unrecognized subcommand 'start'");
}

#[test]
fn accepts_levels_and_filters_of_the_log() {
    for (text, filter) in [
        ("info", "info"),
        ("Warn", "Warn"),
        ("WARN", "WARN"),
        ("off", "off"),
        ("3", "3"),
        (" info ", "info"),
        ("info,sqlx=debug", "info,sqlx=debug"),
        ("info, sqlx=debug", "info,sqlx=debug"),
        ("opentelemetry-http=warn", "opentelemetry-http=warn"),
        (
            "conversation_memory::rpc=trace",
            "conversation_memory::rpc=trace",
        ),
        ("info,[call{user=ana}]=debug", "info,[call{user=ana}]=debug"),
    ] {
        let config = config(&["--log-level", text]);
        assert_eq!(config.unwrap().logs.filter, filter, "{text}");
    }
}

#[test]
fn detects_whether_errors_are_logged() {
    for (filter, includes_errors) in [
        ("info", true),
        ("error", true),
        ("off", false),
        ("0", false),
        ("sqlx=debug", false),
        ("off,conversation_memory=warn", true),
        ("info,conversation_memory=off", false),
        ("info,[call]=debug", true),
    ] {
        let config = config(&["--log-level", filter]).unwrap();
        assert_eq!(config.logs.includes_errors(), includes_errors, "{filter}");
    }
}

#[test]
fn rejects_words_that_are_not_log_levels() {
    for text in [
        "WARNING",
        "verbose",
        "information",
        "6",
        "-1",
        "",
        " ",
        ",",
        "info,",
        "info,verbose",
        "sqlx=",
        "sqlx=verbose",
        "=debug",
        "sqlx = debug",
        "trace,foo=bar=baz",
        "foo=bar=debug",
        "info;sqlx=debug",
        "conversation_memory",
        "\u{3000}é=x",
    ] {
        let error = error(&["--log-level", text]);
        assert!(
            error.contains("for LOG_LEVEL: must be error, warn, info"),
            "{text}: {error}"
        );
    }
}

#[test]
fn errors_and_debug_output_contain_no_secrets() {
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
        let error = error(&args);
        assert!(!error.contains(secret), "{error}");
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
fn rejects_urls_with_an_unencoded_password() {
    for url in [
        "postgres://u:hun/ter2@h/d",
        "postgres://u:hun#ter2@h/d",
        "postgres://u:hun?ter2@h/d",
        "postgres://u:p@ss/w#rd@h/d",
        "postgres://u:12/hunter2?x@h/d",
        "postgres://u:hun?ter=2@h/d",
    ] {
        let error = error(&["--database-url", url]);
        assert!(error.contains("percent-encoded"), "{url}: {error}");
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
