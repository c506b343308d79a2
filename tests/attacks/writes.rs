//! Writes that cost much: large imports, and deep branches.

use bytes::Bytes;
use conversation_memory::proto::{
    BranchConversationRequest, DeleteConversationRequest, ExportFormat, HttpBody,
    ImportConversationRequest, Role, TruncateConversationRequest,
    import_conversation_request::{Options, Part},
};
use futures_util::stream;
use test_support::{
    new_user,
    requests::{message, new_conversation, save},
    sidecar::{Form, Memory, Sidecar},
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
    let mut pieces = vec![Part::Options(options), file(head.to_owned())];
    for _ in 0..MESSAGES / 1000 {
        pieces.push(file(line.repeat(1000)));
    }
    let pieces = pieces
        .into_iter()
        .map(|part| ImportConversationRequest { part: Some(part) });
    let imported = memory
        .import_conversation(stream::iter(pieces))
        .await
        .unwrap();
    let imported = imported.into_inner().imported_messages;
    assert_eq!(imported, i64::try_from(MESSAGES).unwrap());
    turns.finish(&sidecar).await;
}

fn file(text: String) -> Part {
    Part::File(HttpBody {
        data: Bytes::from(text),
        ..HttpBody::default()
    })
}

async fn removals_of_deep_branches_do_not_block_turns(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut memory = sidecar.memory();
    let root = new_conversation(&mut memory, &new_user()).await;
    let mut deepest = root.clone();
    for depth in 1..=DEPTH {
        let text = vec![message(Role::User, "deeper")];
        memory.save_messages(save(&deepest, text)).await.unwrap();
        let branch = BranchConversationRequest {
            conversation_id: deepest.clone(),
            at_seq: depth,
            ..BranchConversationRequest::default()
        };
        let Ok(branched) = memory.branch_conversation(branch).await else {
            // The depth is limited.
            break;
        };
        deepest = branched.into_inner().conversation.unwrap().id;
    }
    let truncate = TruncateConversationRequest {
        conversation_id: deepest.clone(),
        after_seq: 1,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(truncate).await.unwrap();
    for id in [deepest, root] {
        delete(&mut memory, id).await;
    }
    turns.finish(&sidecar).await;
}

async fn delete(memory: &mut Memory, id: String) {
    let delete = DeleteConversationRequest {
        conversation_id: id,
        ..DeleteConversationRequest::default()
    };
    memory.delete_conversation(delete).await.unwrap();
}
