//! More sidecars than PostgreSQL has connections.

use conversation_memory::proto::{CreateConversationRequest, Role};
use futures_util::future::join_all;
use sqlx::query_scalar;
use test_support::{
    eventually, new_id, new_user,
    requests::{message, save},
    rounds,
    sidecar::Sidecar,
};

use crate::{Servers, assert_retry_later};

const CONNECTIONS: &str = "ALTER SYSTEM SET max_connections = 30";

#[tokio::test(flavor = "multi_thread")]
async fn idle_sidecars_leave_connections_for_each_other() {
    let mut servers = Servers::start().await;
    servers.postgres.execute(CONNECTIONS).await;
    servers.postgres.stop();
    servers.postgres.run().await;
    let form = servers.form();
    // The tables of the encoding would take memory in each process.
    let settings = [("TOKEN_ENCODING", "none")];
    let sidecars = rounds("IDLE_SIDECARS", 60);
    let mut sidecars: Vec<_> = (0..sidecars)
        .map(|_| Sidecar::launch(&form, &settings))
        .collect();
    for sidecar in &mut sidecars {
        sidecar.serving().await;
    }
    for _ in 0..2 {
        join_all(sidecars.iter().map(save_turn)).await;
    }
}

/// Others use most connections, but not all, for a long time.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sidecar_keeps_its_connection_while_there_is_place() {
    const OTHERS: usize = 16;
    let mut servers = Servers::start().await;
    servers.postgres.execute(CONNECTIONS).await;
    servers.postgres.stop();
    servers.postgres.run().await;
    let others = join_all((0..OTHERS).map(|_| servers.postgres.connect())).await;
    let sidecar = Sidecar::start(&servers.form()).await;
    save_turn(&sidecar).await;
    let mut observer = servers.postgres.connect().await;
    eventually("a connection is kept", async || {
        let kept = query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
             WHERE application_name = 'conversation-memory' \
                AND backend_start < clock_timestamp() - interval '3 seconds')",
        );
        kept.fetch_one(&mut observer).await.unwrap()
    })
    .await;
    drop(others);
}

/// Saves a turn. A server that has no place for another connection makes a call wait, or fail with
/// nothing written.
async fn save_turn(sidecar: &Sidecar) {
    let mut memory = sidecar.memory();
    let create = CreateConversationRequest {
        user_id: new_user(),
        conversation_id: new_id(),
        ..CreateConversationRequest::default()
    };
    eventually("a conversation is created", async || {
        let created = memory.create_conversation(create.clone()).await;
        created.inspect_err(assert_retry_later).is_ok()
    })
    .await;
    let turn = vec![message(Role::User, "saved")];
    let mut turn = save(&create.conversation_id, turn);
    turn.request_id = "turn".to_owned();
    eventually("a turn is saved", async || {
        let saved = memory.save_messages(turn.clone()).await;
        saved.inspect_err(assert_retry_later).is_ok()
    })
    .await;
}
