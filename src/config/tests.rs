mod documentation;
mod errors;
mod telemetry;

use std::time::Duration;

use clap::Parser as _;

use super::*;
use crate::tokens::TokenEncoding;

fn config(args: &[&str]) -> Result<Config, InvalidSetting> {
    let args = ["conversation-memory"].iter().chain(args);
    Config::from_args(
        Args::try_parse_from(args).map_err(|error| InvalidSetting::from_clap(&error))?,
    )
}

fn error(args: &[&str]) -> String {
    config(args).expect_err("accepted").to_string()
}

#[test]
fn defaults_are_an_embedded_store_and_sessions_in_memory() {
    let config = config(&[]).unwrap();
    assert!(matches!(
        config.store.backend,
        StoreBackend::Embedded { .. }
    ));
    assert!(config.redis.is_none());
    assert_eq!(config.server.listen[0].to_string(), "127.0.0.1:50051");
    assert_eq!(config.conversations.session_ttl, Duration::from_mins(30));
    assert_eq!(config.conversations.history_messages, 6);
}

#[test]
fn binary_data_leaves_room_in_a_request() {
    let blob_bytes = |args: &[&str]| config(args).unwrap().limits.content.blob_bytes;
    assert_eq!(blob_bytes(&[]), 8 << 20);
    assert_eq!(blob_bytes(&["--max-blob-bytes", "12517376"]), 12_517_376);
    assert_eq!(blob_bytes(&["--max-blob-bytes", "0"]), 0);
    // A limit on requests that was set before binary data was supported remains valid.
    assert_eq!(blob_bytes(&["--max-request-bytes", "65537"]), 1);
    assert_eq!(blob_bytes(&["--max-request-bytes", "1"]), 0);
}

#[test]
fn tokens_are_counted_as_configured() {
    let conversations = |args: &[&str]| config(args).unwrap().conversations;
    let default = conversations(&[]);
    assert_eq!(default.token_encoding, TokenEncoding::O200kBase);
    assert_eq!(default.compaction_tokens, 0);
    let args = ["--token-encoding", "none", "--compaction-tokens", "5"];
    let config = conversations(&args);
    assert_eq!(config.token_encoding, TokenEncoding::None);
    assert_eq!(config.compaction_tokens, 5);
}

#[test]
fn poolers_and_migrations_are_configured() {
    let postgres = |args: &[&str]| match config(args).unwrap().store.backend {
        StoreBackend::Postgres(postgres) => postgres,
        StoreBackend::Embedded { .. } => panic!("embedded"),
    };
    let url = "--database-url=postgres://pooler/memory";
    let default = postgres(&[url]);
    assert_eq!(default.pooler, PoolerMode::Auto);
    assert!(default.migration_options.is_none());
    let migration = "--migration-database-url=postgres://server/memory";
    let args = [url, "--postgres-pooler=transaction", migration];
    let pooled = postgres(&args);
    assert_eq!(pooled.pooler, PoolerMode::Transaction);
    let options = pooled.migration_options.unwrap();
    assert_eq!(options.get_host(), "server");
    let wrong = error(&[url, "--migration-database-url=server"]);
    assert!(wrong.contains("MIGRATION_DATABASE_URL"), "{wrong}");
    let alone = error(&[migration]);
    assert!(alone.contains("together with DATABASE_URL"), "{alone}");
}

#[test]
fn replicas_are_configured() {
    let replica = |args: &[&str]| match config(args).unwrap().store.backend {
        StoreBackend::Postgres(postgres) => postgres.replica,
        StoreBackend::Embedded { .. } => panic!("embedded"),
    };
    let url = "--database-url=postgres://server/memory";
    assert!(replica(&[url]).is_none());
    let read_url = "--database-read-url=postgres://one,two/memory?target_session_attrs=standby";
    let read = replica(&[url, read_url]).unwrap();
    assert_eq!(read.options.get_host(), "one");
    assert_eq!(read.further.len(), 1);
    assert_eq!(read.max_lag, Duration::from_secs(1));
    let read = replica(&[url, read_url, "--database-read-max-lag=0.25"]).unwrap();
    assert_eq!(read.max_lag, Duration::from_millis(250));
    for (args, named) in [
        (&[read_url][..], "together with DATABASE_URL"),
        (
            &[url, "--database-read-url=sqlite:memory.db"],
            "must begin with postgres://",
        ),
        (
            &[
                url,
                "--database-read-url=postgres://host/db?target_session_attrs=read-write",
            ],
            "prefer-standby",
        ),
        (&[url, read_url, "--database-read-max-lag=0"], "0.1 to 60"),
        (
            &[url, "--database-read-max-lag=2"],
            "DATABASE_READ_MAX_LAG: must be set together with DATABASE_READ_URL",
        ),
        (
            &["--database-read-max-lag=2"],
            "DATABASE_READ_MAX_LAG: must be set together with DATABASE_READ_URL",
        ),
    ] {
        let error = error(args);
        assert!(error.contains("DATABASE_READ_"), "{error}");
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn parameters_of_the_database_url_are_checked() {
    let with = |parameters: &str| {
        config(&[
            "--database-url",
            &format!("postgres://host/db?{parameters}"),
        ])
    };
    for accepted in [
        "",
        "sslmode=verify-full&application_name=x",
        "target_session_attrs=read-write&connect_timeout=5",
        "options=-c%20search_path%3Dx&options[lock_timeout]=5s",
    ] {
        with(accepted).unwrap();
    }
    for (rejected, named) in [
        ("sslmode=verify", "verify-full"),
        ("ssl_mode=require", "ssl_mode"),
        ("sslmode=require&sslrootcert=%2Fmissing.pem", "/missing.pem"),
        ("sslcert=/missing.pem", "sslcert"),
        ("target_session_attrs=standby", "read-write"),
        ("x", "\"x\""),
    ] {
        let error = with(rejected).expect_err(rejected).to_string();
        assert!(
            error.starts_with("DATABASE_URL: ") && error.contains(named),
            "{error}"
        );
    }
}

fn servers(arguments: &[&str]) -> Vec<(String, u16)> {
    let StoreBackend::Postgres(postgres) = config(arguments).unwrap().store.backend else {
        panic!("PostgreSQL is not used");
    };
    let all = std::iter::once(&*postgres.options).chain(&postgres.further);
    all.map(|it| (it.get_host().to_owned(), it.get_port()))
        .collect()
}

#[test]
fn several_servers_of_postgresql_are_accepted() {
    let two = [("a".to_owned(), 5433), ("b".to_owned(), 5432)];
    let url = "postgres://user:p%2Cw@a:5433,b/db?target_session_attrs=read-write";
    assert_eq!(servers(&["--database-url", url]), two);
    let three = servers(&["--postgres-host", "a,b,c", "--postgres-port", "7"]);
    assert_eq!(three, ["a", "b", "c"].map(|host| (host.to_owned(), 7)));
    let one = servers(&["--database-url", "postgres://[::1]:5433/db"]);
    assert_eq!(one.len(), 1);
    for (arguments, named) in [
        (
            ["--database-url", "postgres://a,,b/db"],
            "DATABASE_URL: names an empty host",
        ),
        (["--database-url", "postgres://a,b:x/db"], "DATABASE_URL"),
        (
            ["--database-url", "postgres://c/db?host=a,b"],
            "host1:5432,host2:5432",
        ),
        (
            ["--postgres-host", "a,"],
            "POSTGRES_HOST: names an empty host",
        ),
        (
            ["--postgres-host", "a:5433,b"],
            "POSTGRES_HOST: must not contain a port",
        ),
    ] {
        let error = config(&arguments).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
    let migration = [
        "--database-url",
        "postgres://a/db",
        "--migration-database-url",
        "postgres://a,b/db",
    ];
    let error = config(&migration).expect_err("two hosts").to_string();
    assert!(error.contains("MIGRATION_DATABASE_URL"), "{error}");
}

#[test]
fn settings_that_the_database_url_contains_are_rejected_beside_it() {
    let url = ["--database-url", "postgres://host/db"];
    for flag in [
        "--postgres-host",
        "--postgres-db",
        "--postgres-user",
        "--postgres-password",
    ] {
        let error = error(&[&url[..], &[flag, "x"]].concat());
        assert!(error.contains("DATABASE_URL"), "{error}");
        config(&[&url[..], &[flag, ""]].concat()).unwrap();
    }
    // Kubernetes sets the port for a Service of this name.
    let port = ["--postgres-port", "tcp://10.0.0.1:5432"];
    config(&[&url[..], &port].concat()).unwrap();
}

#[test]
fn any_setting_of_postgres_or_redis_selects_it() {
    for flag in [
        "--postgres-host",
        "--postgres-db",
        "--postgres-user",
        "--postgres-password",
    ] {
        let config = config(&[flag, "x"]).unwrap();
        assert!(
            matches!(config.store.backend, StoreBackend::Postgres { .. }),
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
fn variables_injected_by_kubernetes_select_no_server() {
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
    assert!(matches!(
        config.store.backend,
        StoreBackend::Embedded { .. }
    ));
    assert!(config.redis.is_none());
}

#[test]
fn redis_ca_file_requires_tls_and_a_certificate() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().to_str().unwrap();
    for url in ["redis://h", "rediss://h"] {
        let error = error(&["--redis-url", url, "--redis-ca-file", file]);
        assert!(error.contains("REDIS_CA_FILE"), "{url}: {error}");
    }
}

#[test]
fn strips_the_final_line_break_of_secret_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let secret = Secret::from_value_or_file(None, Some(file.path()), "X")
        .unwrap()
        .unwrap();
    assert_eq!(secret.expose(), "hunter2");
    std::fs::write(file.path(), "\n").unwrap();
    let error = Secret::from_value_or_file(None, Some(file.path()), "X").expect_err("accepted");
    let expected = format!("X_FILE: {} is empty", file.path().display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn only_non_loopback_addresses_require_authentication() {
    assert!(config(&["--listen-addr", "[::1]:0"]).is_ok());
    assert!(config(&["--listen-addr", "0.0.0.0:0", "--insecure"]).is_ok());
}

#[test]
fn a_missing_redis_url_file_means_no_redis_and_other_files_are_required() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("REDIS_URL");
    let file = path.to_str().unwrap();
    let args = ["--redis-url-file", file];
    let missing = config(&args).unwrap();
    assert!(missing.redis.is_none());
    assert_eq!(missing.missing_redis_url_file.as_deref(), Some(&*path));
    // Other settings of Redis still apply.
    let other = config(&["--redis-url-file", file, "--redis-host", "x"]).unwrap();
    assert!(other.redis.is_some());
    let url = config(&["--redis-url-file", file, "--redis-url", "redis://x"]).unwrap();
    assert!(url.redis.is_some() && url.missing_redis_url_file.is_none());

    std::fs::write(&path, "redis://h:6379\n").unwrap();
    let present = config(&args).unwrap();
    assert!(present.redis.is_some() && present.missing_redis_url_file.is_none());
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(error(&args), format!("REDIS_URL_FILE: {file} is empty"));
    let below_a_file = format!("{file}/REDIS_URL");
    assert!(error(&["--redis-url-file", &below_a_file]).contains("REDIS_URL_FILE: cannot read"));
    assert!(error(&["--redis-password-file", "/nonexistent"]).contains("REDIS_PASSWORD_FILE"));
}
