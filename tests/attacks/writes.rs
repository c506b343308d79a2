//! Writes that cost much: large imports, and deep branches.

use bytes::Bytes;
use conversation_memory::proto::{
    ExportFormat, TruncateConversationRequest, import_conversation_request::Options,
};
use futures_util::stream;
use test_support::{
    new_user,
    requests::{delete, import, nest, new_conversation},
    sidecar::{Form, Sidecar},
};

use crate::turns::{Access, Turns};

/// Number of messages of a large file.
const MESSAGES: usize = 20_000;
/// Depth of nested branches.
const DEPTH: i64 = 100;

test_support::in_both_forms!(
    a_large_import_does_not_block_turns,
    removals_of_deep_branches_do_not_block_turns,
);

async fn a_large_import_does_not_block_turns(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut memory = sidecar.memory();
    let options = Options {
        user_id: new_user(),
        format: ExportFormat::Jsonl.into(),
        ..Options::default()
    };
    let head = "{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\n";
    let line = "{\"role\":\"user\",\"content\":\"What is our vacation policy?\"}\n";
    let pieces = vec![Bytes::from(line.repeat(1000)); MESSAGES / 1000];
    let file = [Bytes::from(head)].into_iter().chain(pieces);
    let requests = stream::iter(import(options, file));
    let imported = memory.import_conversation(requests).await.unwrap();
    let imported = imported.into_inner().imported_messages;
    assert_eq!(imported, i64::try_from(MESSAGES).unwrap());
    turns.finish(&sidecar).await;
}

async fn removals_of_deep_branches_do_not_block_turns(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut memory = sidecar.memory();
    let root = new_conversation(&mut memory, &new_user()).await;
    let mut deepest = root.clone();
    for depth in 1..=DEPTH {
        let Ok(branch) = nest(&mut memory, &deepest, depth).await else {
            // The depth is limited.
            break;
        };
        deepest = branch;
    }
    let truncate = TruncateConversationRequest {
        conversation_id: deepest.clone(),
        after_seq: 1,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(truncate).await.unwrap();
    for id in [deepest, root] {
        memory.delete_conversation(delete(&id)).await.unwrap();
    }
    turns.finish(&sidecar).await;
}
