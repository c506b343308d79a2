//! Connections without calls, which occupy the slots of `MAX_CONNECTIONS`.

use std::time::Duration;

use test_support::{
    raw_http2::{LARGE_WINDOW, PING, PRIORITY, RawConnection, SETTINGS, WINDOW_UPDATE},
    sidecar::{Form, Sidecar},
};
use tokio::task::JoinSet;

use crate::turns::{Access, Turns};

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_only_answer_pings_do_not_occupy_all_slots() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONNECTIONS", "80")]).await;
    let access = Access {
        reconnects: true,
        ..Access::default()
    };
    attack(&sidecar, access, 100, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_calls_do_not_keep_connections() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONNECTIONS", "80")]).await;
    let access = Access {
        reconnects: true,
        ..Access::default()
    };
    attack(&sidecar, access, 100, |connection| {
        connection.frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
        connection.frame(SETTINGS, 0, 0, &[]);
        connection.frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
        connection.frame(PING, 0, 0, &[7; 8]);
    })
    .await;
}

/// Time after which an attacker opens a closed connection again. A new connection takes the slot of
/// another one, so that a slot lasts for about this time.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps connections open, and opens them again when the server closes them, while the unrelated caller
/// performs turns with connections of their own.
async fn attack(
    sidecar: &Sidecar,
    access: Access,
    connections: usize,
    act: fn(&mut RawConnection),
) {
    let turns = Turns::start(sidecar, access).await;
    let mut attackers = JoinSet::new();
    for _ in 0..connections {
        let address = sidecar.address;
        attackers.spawn(async move {
            loop {
                let mut connection = RawConnection::open(address, LARGE_WINDOW).await.read();
                while !connection.is_closed() {
                    act(&mut connection);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                tokio::time::sleep(RECONNECT_INTERVAL).await;
            }
        });
    }
    turns.pass(30).await;
    turns.finish(sidecar).await;
}
