//! Wrong settings that a sidecar notices when it connects: one line names the setting or the server, and
//! the cause. `tests/access/startup.rs` contains those that it notices before.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use test_support::{
    pgbouncer,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    required_variable,
    sentinel_group::SentinelGroup,
    sidecar::{Form, Sidecar},
};

/// URL at which no Redis listens.
const NO_REDIS: &str = "redis://127.0.0.1:1";

/// Storage and settings of a sidecar, and the texts of the line that it has to log.
pub(crate) type Case<'a> = (Form, Vec<(&'a str, &'a str)>, &'a [&'a str]);

/// Starts all sidecars, and waits until each has logged a line that contains the texts of its case.
pub(crate) async fn expect_lines(cases: Vec<Case<'_>>) {
    let mut started = Vec::new();
    for (form, settings, expected) in cases {
        started.push((Sidecar::launch(&form, &settings), form, expected));
    }
    for (mut sidecar, _form, expected) in started {
        let line = sidecar.wait_for_log(expected[0]).await;
        for text in expected {
            assert!(line.contains(text), "{text}: {line}");
        }
        let log = sidecar.log().concat();
        assert!(!log.contains("hunter2"), "{log}");
    }
}

/// Sidecar that cannot use its PostgreSQL.
fn with_postgres(database_url: &str) -> Form {
    Form::Servers {
        database_url: database_url.to_owned(),
        redis_url: NO_REDIS.to_owned(),
    }
}

/// Sidecar that cannot use its Redis.
fn with_redis(redis_url: &str) -> Form {
    Form::Servers {
        database_url: required_variable("TEST_DATABASE_URL"),
        redis_url: redis_url.to_owned(),
    }
}

#[tokio::test]
async fn wrong_settings_of_postgres_are_named() {
    let postgres = PostgresServer::start().await;
    for statement in [
        "CREATE ROLE app LOGIN PASSWORD 'right'",
        "CREATE ROLE reader LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "CREATE DATABASE pooled TEMPLATE template0",
    ] {
        postgres.execute(statement).await;
    }
    postgres.require_password("app").await;
    let standby = postgres.start_standby().await;
    let port = postgres.port();
    let pooler = pgbouncer::started(port);
    let old = fake_postgres("13.14", "130014");
    let of = |user: &str, rest: &str| format!("postgres://{user}@127.0.0.1:{port}/{rest}");
    let cases = [
        (
            of("app:hunter2", "postgres"),
            &["password authentication failed", "DATABASE_URL", "28P01"][..],
        ),
        (
            of("nobody", "postgres"),
            &["role \\\"nobody\\\" does not exist", "DATABASE_URL"],
        ),
        (
            of("postgres", "nowhere"),
            &["database \\\"nowhere\\\" does not exist", "DATABASE_URL"],
        ),
        (
            of("reader", "postgres"),
            &["permission denied for schema public", "DATABASE_URL"],
        ),
        (
            of("postgres", "postgres?sslmode=require"),
            &["TLS", "DATABASE_URL"],
        ),
        (standby.url(), &["standby", "DATABASE_URL"]),
        (
            "postgres://u@host.invalid/db".to_owned(),
            &["failed to lookup address", "DATABASE_URL"],
        ),
        (
            "postgres://u@127.0.0.1:1/db".to_owned(),
            &["Connection refused", "DATABASE_URL"],
        ),
        (
            format!("postgres://u@{old}/db"),
            &["PostgreSQL 13.14 is not supported: version 14"],
        ),
        (
            format!("postgres://postgres@127.0.0.1:{pooler}/pooled"),
            &["set MIGRATION_DATABASE_URL"],
        ),
    ];
    let mut cases: Vec<_> = cases
        .iter()
        .map(|(url, expected)| (with_postgres(url), Vec::new(), *expected))
        .collect();
    cases.push((
        Form::embedded(),
        vec![("POSTGRES_DB", "memory"), ("POSTGRES_PORT", "1")],
        &["Connection refused", "POSTGRES_HOST"],
    ));
    expect_lines(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_replicas_are_named() {
    let postgres = PostgresServer::start().await;
    for statement in [
        "CREATE ROLE app LOGIN PASSWORD 'right'",
        "CREATE ROLE reader LOGIN",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "CREATE DATABASE elsewhere",
    ] {
        postgres.execute(statement).await;
    }
    postgres.require_password("app").await;
    let standby = postgres.start_standby().await;
    let other = PostgresServer::start().await;
    let foreign = other.start_standby().await;
    let port = standby.port();
    let cases = [
        (postgres.url(), &["the server is no standby"][..]),
        (foreign.url(), &["its system identifier is another one"]),
        (
            format!("postgres://postgres@127.0.0.1:{port}/elsewhere"),
            &["another database than DATABASE_URL"],
        ),
        (
            format!("postgres://app:hunter2@127.0.0.1:{port}/postgres"),
            &["password authentication failed", "28P01"],
        ),
        (
            format!("postgres://reader@127.0.0.1:{port}/postgres"),
            &["it needs USAGE of their schema"],
        ),
        (
            "postgres://u@host.invalid/db".to_owned(),
            &["failed to lookup address"],
        ),
        (
            "postgres://u@127.0.0.1:1/db".to_owned(),
            &["Connection refused"],
        ),
    ];
    let cases = cases.iter().map(|(url, expected)| {
        let settings = vec![("DATABASE_READ_URL", url.as_str())];
        (with_postgres(&postgres.url()), settings, *expected)
    });
    for (form, settings, expected) in cases {
        let mut sidecar = Sidecar::start_with(&form, &settings).await;
        let line = sidecar.wait_for_log(expected[0]).await;
        for text in ["the replica is not used", "DATABASE_READ_URL"]
            .iter()
            .chain(expected)
        {
            assert!(line.contains(text), "{text}: {line}");
        }
        assert!(!sidecar.log().concat().contains("hunter2"));
    }
}

#[tokio::test]
async fn wrong_settings_of_redis_are_named() {
    let group = SentinelGroup::start(1, "1").await;
    let single = group.main.port();
    let node = RedisServer::start(&["--cluster-enabled", "yes"]).await;
    let sentinel = group.sentinels[0].port();
    let cases = [
        (
            format!("redis://127.0.0.1:{single}/99"),
            &["no database of this number", "REDIS_URL"][..],
        ),
        (
            format!("rediss://127.0.0.1:{single}/0"),
            &["Redis is unavailable", "TLS"],
        ),
        (
            format!("redis-cluster://127.0.0.1:{single}"),
            &["not a node of a cluster", "REDIS_URL"],
        ),
        (
            format!("redis-cluster://127.0.0.1:{}", node.port()),
            &["the cluster is down"],
        ),
        (
            format!("redis-sentinel://127.0.0.1:{single}?sentinelServiceName=main"),
            &["is no sentinel", "REDIS_URL"],
        ),
        (
            format!("redis-sentinel://127.0.0.1:{sentinel}?sentinelServiceName=other"),
            &["do not know a master of this name"],
        ),
        (
            format!("redis://127.0.0.1:{sentinel}/0"),
            &["is a sentinel", "redis-sentinel://"],
        ),
        (
            format!("redis://127.0.0.1:{sentinel}"),
            &["is a sentinel", "redis-sentinel://"],
        ),
        (group.replica.url(), &["is a replica"]),
        (
            "redis://host.invalid:6379/0".to_owned(),
            &["failed to lookup address", "host.invalid:6379"],
        ),
        (NO_REDIS.to_owned(), &["Connection refused", "127.0.0.1:1"]),
    ];
    let cases = cases.iter();
    let cases = cases.map(|(url, expected)| (with_redis(url), Vec::new(), *expected));
    expect_lines(cases.collect()).await;
}

#[tokio::test]
async fn misspelled_and_empty_variables_and_unusable_files_are_named() {
    let newer = Form::embedded();
    let Form::Embedded(folder) = &newer else {
        panic!("the form has a folder");
    };
    Sidecar::start(&newer).await.kill().await;
    let file = folder.path().join("conversations.db");
    let file = SqliteConnectOptions::new().filename(file).connect().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'from the future', true, x'00', 0)",
    )
    .execute(&mut file.unwrap())
    .await
    .unwrap();
    let damaged = Form::embedded();
    let Form::Embedded(folder) = &damaged else {
        panic!("the form has a folder");
    };
    std::fs::write(folder.path().join("conversations.db"), vec![7; 20_000]).unwrap();
    let misspelled = vec![("REDIS_ULR", NO_REDIS)];
    let empty = vec![("POSTGRES_HOST", ""), ("REDIS_URL", "")];
    expect_lines(vec![
        (damaged, Vec::new(), &["file is damaged", "DATA_DIR"]),
        (
            Form::embedded(),
            empty,
            &["without a value", "POSTGRES_HOST, REDIS_URL"],
        ),
        (
            newer,
            Vec::new(),
            &["newer than this program supports", "DATA_DIR"],
        ),
        (
            Form::embedded(),
            misspelled,
            &["REDIS_ULR is not a setting", "REDIS_URL"],
        ),
    ])
    .await;
}

/// Starts a server of PostgreSQL's protocol that reports a version.
fn fake_postgres(version: &'static str, number: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // The client ends the connection.
            thread::spawn(move || serve(stream, version, number));
        }
    });
    address
}

fn serve(mut stream: TcpStream, version: &str, number: &str) -> std::io::Result<()> {
    const SSL_REQUEST: [u8; 4] = [4, 210, 22, 47];
    while read_packet(&mut stream)?.starts_with(&SSL_REQUEST) {
        stream.write_all(b"N")?;
    }
    let ready = packet(b'Z', b"I");
    stream.write_all(&[packet(b'R', &[0; 4]), ready.clone()].concat())?;
    let mut kind = [0];
    loop {
        stream.read_exact(&mut kind)?;
        read_packet(&mut stream)?;
        if kind == *b"Q" {
            let columns = [column("number", 23), column("version", 25)].concat();
            let values = [value(number), value(version)].concat();
            let rows = [
                packet(b'T', &[&[0, 2], &columns[..]].concat()),
                packet(b'D', &[&[0, 2], &values[..]].concat()),
                packet(b'C', b"SELECT 1\0"),
                ready.clone(),
            ];
            stream.write_all(&rows.concat())?;
        }
    }
}

/// Reads the length of a packet, and returns its content.
fn read_packet(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut content = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut content)?;
    Ok(content)
}

fn packet(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], content].concat()
}

/// Description of a column whose values are texts.
fn column(name: &str, kind: u8) -> Vec<u8> {
    let properties = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, kind, 255, 255, 255, 255, 255, 255, 0, 0,
    ];
    [name.as_bytes(), &[0], &properties].concat()
}

fn value(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}
