//! Responses that are not read: flow-control windows that are closed or opened slowly, and sockets
//! that their clients do not read.

use std::time::Duration;

use conversation_memory::proto::{
    ExportConversationRequest, ExportFormat, GetHistoryRequest, ListMessagesRequest, Role,
};
use futures_util::future::{join_all, select_all};
use test_support::{
    new_user,
    raw_http2::{LARGE_WINDOW, NO_WINDOW, RawConnection, WINDOW_UPDATE},
    requests::{history, message, new_conversation, save},
    sidecar::{Form, Sidecar},
};

use crate::turns::{Access, Turns};

const GET_HISTORY: &str = "/conversation_memory.v1.ConversationMemory/GetHistory";
const LIST_MESSAGES: &str = "/conversation_memory.v1.ConversationMemory/ListMessages";
const EXPORT: &str = "/conversation_memory.v1.ConversationMemory/ExportConversation";

/// Calls of each of four connections, which together could hold all concurrent calls.
const CALLS: usize = 256;

/// Deadline of all calls, short enough for a test.
const SETTINGS: [(&str, &str); 1] = [("MAX_CALL_SECONDS", "4")];

test_support::in_both_forms!(
    calls_with_closed_windows_end_at_their_deadline,
    connections_whose_sockets_are_not_read_are_closed,
    unread_responses_of_many_connections_do_not_exhaust_memory,
    unread_exports_do_not_block_other_exports,
);

/// Creates a conversation whose histories are as large as a response can be.
async fn large_conversation(sidecar: &Sidecar) -> String {
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    for _ in 0..3 {
        let text = "x".repeat((1 << 20) - 1024);
        let request = save(&id, vec![message(Role::User, &text)]);
        memory.save_messages(request).await.unwrap();
    }
    // Further reads come from the window, if there is one.
    memory.get_history(history(&id)).await.unwrap();
    id
}

fn get_history(id: &str) -> GetHistoryRequest {
    GetHistoryRequest {
        limit: 10,
        ..history(id)
    }
}

async fn calls_with_closed_windows_end_at_their_deadline(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SETTINGS).await;
    let id = large_conversation(&sidecar).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    // Closed windows of the streams; of the connection, after 64 KiB; and windows that are opened by
    // one byte at a time.
    let attacks = [
        (NO_WINDOW, false),
        (NO_WINDOW, false),
        (LARGE_WINDOW, false),
        (NO_WINDOW, true),
    ];
    let attacks = attacks.map(|(window, is_opened)| leave_unread(&sidecar, &id, window, is_opened));
    join_all(attacks).await;
    turns.finish(&sidecar).await;
}

/// Makes calls whose responses are not read, until they have ended.
async fn leave_unread(sidecar: &Sidecar, id: &str, stream_window: u32, is_opened: bool) {
    let mut connection = RawConnection::open(sidecar.address, stream_window)
        .await
        .read();
    let list = ListMessagesRequest {
        conversation_id: id.to_owned(),
        ..ListMessagesRequest::default()
    };
    let streams: Vec<_> = (0..CALLS)
        .map(|call| match call % 2 {
            0 => connection.call(GET_HISTORY, None, &get_history(id)),
            _ => connection.call(LIST_MESSAGES, None, &list),
        })
        .collect();
    let opening = async {
        loop {
            for stream in streams.iter().filter(|_| is_opened) {
                connection.frame(WINDOW_UPDATE, 0, *stream, &1_u32.to_be_bytes());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = opening => {}
        () = connection.ends(CALLS) => {}
    }
}

async fn unread_responses_of_many_connections_do_not_exhaust_memory(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SETTINGS).await;
    let id = large_conversation(&sidecar).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut connections = Vec::new();
    for _ in 0..100 {
        let mut connection = RawConnection::open(sidecar.address, NO_WINDOW).await.read();
        for _ in 0..4 {
            connection.call(GET_HISTORY, None, &get_history(&id));
        }
        connections.push(connection);
    }
    for connection in &connections {
        connection.ends(4).await;
    }
    turns.finish(&sidecar).await;
}

async fn connections_whose_sockets_are_not_read_are_closed(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SETTINGS).await;
    let id = large_conversation(&sidecar).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut connections = Vec::new();
    for _ in 0..10 {
        let mut connection = RawConnection::open(sidecar.address, LARGE_WINDOW).await;
        connection.frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        for _ in 0..32 {
            connection.call(GET_HISTORY, None, &get_history(&id));
        }
        connections.push(connection);
    }
    // Its other connections may have nothing to send.
    select_all(
        connections
            .iter()
            .map(|connection| Box::pin(connection.closes())),
    )
    .await;
    turns.finish(&sidecar).await;
}

async fn unread_exports_do_not_block_other_exports(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("MAX_CALL_SECONDS", "20")]).await;
    let id = large_conversation(&sidecar).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let export = ExportConversationRequest {
        conversation_id: id.clone(),
        format: ExportFormat::Jsonl.into(),
        ..ExportConversationRequest::default()
    };
    let mut connections = Vec::new();
    for _ in 0..12 {
        let mut connection = RawConnection::open(sidecar.address, NO_WINDOW).await.read();
        connection.call(EXPORT, None, &export);
        connections.push(connection);
    }
    turns.pass(5).await;
    let mut memory = sidecar.memory();
    let other = new_conversation(&mut memory, &new_user()).await;
    test_support::eventually("another caller can export", async || {
        let export = ExportConversationRequest {
            conversation_id: other.clone(),
            ..export.clone()
        };
        let Ok(exported) = memory.export_conversation(export).await else {
            return false;
        };
        let mut pieces = exported.into_inner();
        let mut size = 0;
        while let Ok(Some(piece)) = pieces.message().await {
            size += piece.file.unwrap().data.len();
        }
        size > 0
    })
    .await;
    turns.finish(&sidecar).await;
}
