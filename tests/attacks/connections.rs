//! Connections that occupy the slots of `MAX_CONNECTIONS`.

use std::time::Duration;

use test_support::{
    raw_http2::{
        DATA, LARGE_WINDOW, PING, PRIORITY, RawConnection, SETTINGS, WINDOW_UPDATE, announced,
    },
    requests::history,
    sidecar::{Form, Sidecar},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    tokens::{GREEDY, MODEST, TokensFile},
    turns::{Access, Turns},
};

const GET_HISTORY: &str = "/conversation_memory.v1.ConversationMemory/GetHistory";

/// What an attacker does every half second, with the number of times that it has done so before.
type Act = fn(&mut RawConnection, usize);

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_only_answer_pings_do_not_occupy_all_slots() {
    attack_without_token(100, |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_calls_do_not_keep_connections() {
    attack_without_token(100, |connection, _| {
        connection.frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
        connection.frame(SETTINGS, 0, 0, &[]);
        connection.frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
        connection.frame(PING, 0, 0, &[7; 8]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_calls_do_not_keep_connections() {
    // The default limit is 900 connections.
    attack_with_tokens(&[], 1000, |connection, round| {
        if round % 8 == 0 {
            tiny_call(connection, None);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_caller_do_not_occupy_all_slots() {
    attack_with_tokens(&[FEW], 100, |connection, round| {
        if round == 0 {
            tiny_call(connection, Some(GREEDY));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_caller_with_calls_do_not_occupy_all_slots() {
    attack_with_tokens(&[FEW], 100, |connection, _| {
        tiny_call(connection, Some(GREEDY));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_caller_with_half_sent_calls_do_not_occupy_all_slots() {
    attack_with_tokens(&[FEW], 100, |connection, round| {
        if round == 0 {
            tiny_call(connection, Some(GREEDY));
        }
        let stream = connection.begin_call(GET_HISTORY, Some(GREEDY));
        connection.frame(DATA, 0, stream, &announced(100));
    })
    .await;
}

/// A limit that the attackers exceed.
const FEW: (&str, &str) = ("MAX_CONNECTIONS", "80");

fn tiny_call(connection: &mut RawConnection, token: Option<&str>) {
    let unknown = history(&Uuid::nil().to_string());
    connection.call(GET_HISTORY, token, &unknown);
}

async fn attack_without_token(connections: usize, act: Act) {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[FEW]).await;
    attack(&sidecar, None, connections, act).await;
}

async fn attack_with_tokens(limits: &[(&str, &str)], connections: usize, act: Act) {
    let form = Form::embedded();
    let tokens = TokensFile::new();
    let mut settings = limits.to_vec();
    settings.push(tokens.setting());
    let sidecar = Sidecar::start_with(&form, &settings).await;
    attack(&sidecar, Some(MODEST), connections, act).await;
}

/// Time after which an attacker opens a closed connection again. A new connection takes the slot of
/// another one, so that a slot lasts for about this time.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps connections open, and opens them again when the server closes them, while the unrelated caller
/// performs turns with connections of their own.
async fn attack(sidecar: &Sidecar, token: Option<&'static str>, connections: usize, act: Act) {
    let access = Access {
        token,
        reconnects: true,
    };
    let turns = Turns::start(sidecar, access).await;
    let mut attackers = JoinSet::new();
    for _ in 0..connections {
        let address = sidecar.address;
        attackers.spawn(async move {
            loop {
                let mut connection = RawConnection::open(address, LARGE_WINDOW).await.read();
                let mut round = 0;
                while !connection.is_closed() {
                    act(&mut connection, round);
                    round += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                tokio::time::sleep(RECONNECT_INTERVAL).await;
            }
        });
    }
    turns.pass(20).await;
    turns.finish(sidecar).await;
}
