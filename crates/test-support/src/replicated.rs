//! `PostgreSQL` server with a standby, whose commits wait until the standby has applied them, so that
//! reads from either show the same.

use std::{sync::OnceLock, thread};

use crate::postgres_server::PostgresServer;

/// Addresses of the two servers.
#[derive(Clone, Debug)]
pub struct Replicated {
    pub primary: String,
    pub standby: String,
}

/// Returns the servers that all tests of this process share. They end with the process.
pub fn shared() -> &'static Replicated {
    static SERVERS: OnceLock<Replicated> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // The servers end with the thread that started them.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let servers = runtime.block_on(start());
            let (primary, standby) = &servers;
            let addresses = Replicated {
                primary: primary.url(),
                standby: standby.url(),
            };
            sender.send(addresses).unwrap();
            loop {
                thread::park();
            }
        });
        receiver.recv().unwrap()
    })
}

async fn start() -> (PostgresServer, PostgresServer) {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    for statement in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "ALTER SYSTEM SET synchronous_commit = 'remote_apply'",
        "SELECT pg_reload_conf()",
    ] {
        primary.execute(statement).await;
    }
    (primary, standby)
}
