//! Attacks by writes without a pause.

use bytes::Bytes;
use conversation_memory::proto::{
    ExportFormat, Role, TruncateConversationRequest, import_conversation_request::Options,
};
use futures_util::stream;
use test_support::{
    new_user,
    requests::{begin, create_session, delete, import, message, nest, new_conversation, save},
    sidecar::{Memory, Sidecar},
};
use tokio::task::JoinSet;

use super::Attackers;

/// Number of callers that create sessions.
const CREATING: usize = 8;
/// Number of callers that import.
const IMPORTING: usize = 4;
/// Number of messages of an imported file.
const MESSAGES: usize = 20_000;
/// Number of callers that branch.
const BRANCHING: usize = 4;
/// Maximum depth of branches.
const DEPTH: usize = 100;

/// Performs turns without a pause.
pub(super) fn overload(attackers: &mut Attackers, sidecar: &Sidecar) {
    let memory = attackers.memory(sidecar);
    for _ in 0..64 {
        let (mut memory, user) = (memory.clone(), new_user());
        attackers.spawn(async move {
            loop {
                // Rejected calls are repeated, too.
                let Ok(begun) = memory.begin_turn(begin(&user)).await else {
                    continue;
                };
                let id = begun.into_inner().conversation.unwrap_or_default().id;
                let request = save(&id, vec![message(Role::User, "a question")]);
                let _ = memory.save_messages(request).await;
            }
        });
    }
}

/// Creates sessions of a user concurrently.
pub(super) async fn create_sessions(sidecar: &Sidecar, user: &str, number: usize) {
    let mut callers = JoinSet::new();
    for _ in 0..CREATING {
        let (mut client, request) = (sidecar.sessions(), create_session(user));
        callers.spawn(async move {
            let mut created = 0;
            while created < number / CREATING {
                // Rejected calls are repeated.
                let outcome = client.create_session(request.clone()).await;
                created += usize::from(outcome.is_ok());
            }
        });
    }
    callers.join_all().await;
}

/// Creates sessions of a user without a pause.
pub(super) fn keep_creating_sessions(attackers: &mut Attackers, sidecar: &Sidecar) {
    let request = create_session(&new_user());
    for _ in 0..CREATING {
        let (mut client, request) = (attackers.sessions(sidecar), request.clone());
        attackers.spawn(async move {
            loop {
                // Rejected calls are repeated, too.
                let _ = client.create_session(request.clone()).await;
            }
        });
    }
}

/// Imports large files of a user without a pause.
pub(super) fn import_files(attackers: &mut Attackers, sidecar: &Sidecar) {
    let text = "A sentence as people write them to an assistant. ".repeat(4);
    let line = format!("{{\"role\":\"user\",\"content\":\"{text}\"}}\n");
    let head = "{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\n";
    let mut pieces = vec![Bytes::from(head)];
    pieces.resize(1 + MESSAGES / 500, Bytes::from(line.repeat(500)));
    let options = Options {
        user_id: new_user(),
        format: ExportFormat::Jsonl.into(),
        ..Options::default()
    };
    for _ in 0..IMPORTING {
        let mut memory = attackers.memory(sidecar);
        let requests = import(options.clone(), pieces.clone());
        attackers.spawn(async move {
            loop {
                // Rejected imports are repeated, too.
                let _ = memory
                    .import_conversation(stream::iter(requests.clone()))
                    .await;
            }
        });
    }
}

/// Creates nested branches up to their maximum depth, truncates the deepest one and deletes all of
/// them, again and again.
pub(super) async fn nest_branches(attackers: &mut Attackers, sidecar: &Sidecar) {
    let mut started = JoinSet::new();
    for caller in 0..BRANCHING {
        let mut memory = attackers.memory(sidecar);
        started.spawn(async move {
            // At any time, some callers create branches and others remove them.
            let mut ids = vec![new_conversation(&mut memory, &new_user()).await];
            extend(&mut memory, &mut ids, DEPTH * (caller + 1) / BRANCHING).await;
            (memory, ids)
        });
    }
    for (mut memory, mut ids) in started.join_all().await {
        attackers.spawn(async move {
            loop {
                extend(&mut memory, &mut ids, DEPTH).await;
                let truncate = TruncateConversationRequest {
                    conversation_id: ids[ids.len() - 1].clone(),
                    after_seq: 1,
                    ..TruncateConversationRequest::default()
                };
                // Rejected calls are not repeated, because the next round creates other branches.
                let _ = memory.truncate_conversation(truncate).await;
                for id in ids.drain(..) {
                    let _ = memory.delete_conversation(delete(&id)).await;
                }
                ids.push(new_conversation(&mut memory, &new_user()).await);
            }
        });
    }
}

/// Adds nested branches until their number is `depth`.
async fn extend(memory: &mut Memory, ids: &mut Vec<String>, depth: usize) {
    while ids.len() <= depth {
        let at_seq = i64::try_from(ids.len()).unwrap();
        // Rejected calls are repeated.
        if let Ok(branch) = nest(memory, &ids[ids.len() - 1], at_seq).await {
            ids.push(branch);
        }
    }
}
