//! Titles that were derived from a message are removed with it.

use conversation_memory::proto::{
    BranchConversationRequest, Conversation, ExportFormat, GetConversationRequest,
    ListBranchesRequest, ListConversationsRequest, RedactMessagesRequest, Role,
    SearchMessagesRequest, TruncateConversationRequest,
};

use crate::export::{export_of, file};
use test_support::{
    new_user,
    requests::{begin, message, new_conversation, save},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    a_derived_title_is_removed_with_its_message,
    a_branch_keeps_a_title_as_long_as_its_message,
);

const SECRET: &str = "my password is hunter2";

/// Returns the titles of a conversation in every response that has one.
async fn titles(memory: &mut Memory, user: &str, conversation: &str) -> Vec<String> {
    let request = GetConversationRequest {
        conversation_id: conversation.to_owned(),
        ..GetConversationRequest::default()
    };
    let found = memory.get_conversation(request).await.unwrap().into_inner();
    let parent = found.conversation.unwrap();
    let mut titles = vec![parent.title.clone()];
    let request = ListConversationsRequest {
        user_id: user.to_owned(),
        ..ListConversationsRequest::default()
    };
    let listed = memory
        .list_conversations(request)
        .await
        .unwrap()
        .into_inner();
    let is_meant = |listed: &Conversation| listed.id == conversation;
    titles.extend(
        listed
            .conversations
            .into_iter()
            .filter(is_meant)
            .map(|c| c.title),
    );
    if !parent.parent_id.is_empty() {
        let request = ListBranchesRequest {
            conversation_id: parent.parent_id,
            ..ListBranchesRequest::default()
        };
        let listed = memory.list_branches(request).await.unwrap().into_inner();
        titles.extend(
            listed
                .conversations
                .into_iter()
                .filter(is_meant)
                .map(|c| c.title),
        );
    }
    let request = SearchMessagesRequest {
        user_id: user.to_owned(),
        conversation_id: conversation.to_owned(),
        query: "anything or password".to_owned(),
        ..SearchMessagesRequest::default()
    };
    let found = memory.search_messages(request).await.unwrap().into_inner();
    titles.extend(found.hits.into_iter().map(|hit| hit.conversation_title));
    let mut request = begin(user);
    request.conversation_id = conversation.to_owned();
    let begun = memory.begin_turn(request).await.unwrap().into_inner();
    titles.push(begun.conversation.unwrap().title);
    let file = file(memory, export_of(conversation, ExportFormat::Json)).await;
    if file.contains(SECRET) {
        titles.push(SECRET.to_owned());
    }
    titles
}

async fn save_secret(memory: &mut Memory, user: &str) -> String {
    let conversation = new_conversation(memory, user).await;
    let turn = vec![
        message(Role::System, "Be brief."),
        message(Role::User, SECRET),
        message(Role::Assistant, "anything else?"),
    ];
    memory
        .save_messages(save(&conversation, turn))
        .await
        .unwrap();
    conversation
}

async fn truncate(memory: &mut Memory, conversation: &str, after_seq: i64) {
    let request = TruncateConversationRequest {
        conversation_id: conversation.to_owned(),
        after_seq,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(request).await.unwrap();
}

fn assert_has_secret(titles: &[String], has_secret: bool) {
    let found = titles.iter().any(|title| title == SECRET);
    assert_eq!(found, has_secret, "{titles:?}");
}

async fn a_derived_title_is_removed_with_its_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    for after_seq in [0, 1] {
        let conversation = save_secret(&mut memory, &user).await;
        assert_has_secret(&titles(&mut memory, &user, &conversation).await, true);
        truncate(&mut memory, &conversation, after_seq).await;
        assert_has_secret(&titles(&mut memory, &user, &conversation).await, false);
        let turn = vec![message(Role::User, "anything")];
        memory
            .save_messages(save(&conversation, turn))
            .await
            .unwrap();
        let titles = titles(&mut memory, &user, &conversation).await;
        assert_has_secret(&titles, false);
        assert_eq!(titles[0], "anything");
    }
    let conversation = save_secret(&mut memory, &user).await;
    truncate(&mut memory, &conversation, 2).await;
    assert_has_secret(&titles(&mut memory, &user, &conversation).await, true);
    let request = RedactMessagesRequest {
        conversation_id: conversation.clone(),
        seqs: vec![2],
        ..RedactMessagesRequest::default()
    };
    memory.redact_messages(request).await.unwrap();
    assert_has_secret(&titles(&mut memory, &user, &conversation).await, false);
}

async fn a_branch_keeps_a_title_as_long_as_its_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let parent = save_secret(&mut memory, &user).await;
    let mut branches = Vec::new();
    for at_seq in [1, 2, 3] {
        let branch = memory
            .branch_conversation(BranchConversationRequest {
                conversation_id: parent.clone(),
                at_seq,
                ..BranchConversationRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        branches.push(branch.conversation.unwrap().id);
    }
    truncate(&mut memory, &parent, 0).await;
    assert_has_secret(&titles(&mut memory, &user, &parent).await, false);
    assert_has_secret(&titles(&mut memory, &user, &branches[0]).await, false);
    assert_has_secret(&titles(&mut memory, &user, &branches[1]).await, true);
    truncate(&mut memory, &branches[1], 1).await;
    assert_has_secret(&titles(&mut memory, &user, &branches[1]).await, false);
    let request = RedactMessagesRequest {
        conversation_id: branches[2].clone(),
        seqs: vec![2],
        ..RedactMessagesRequest::default()
    };
    memory.redact_messages(request).await.unwrap();
    for branch in &branches {
        assert_has_secret(&titles(&mut memory, &user, branch).await, false);
    }
}
