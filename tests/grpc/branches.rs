//! Branches of conversations.

use conversation_memory::proto::{
    BranchConversationRequest, Consistency, GetHistoryRequest, ListBranchesRequest,
    ListMessagesRequest, Role, Source, TruncateConversationRequest,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use test_support::{
    new_id, new_user,
    requests::{
        branch_at, contents, delete, history, message, new_conversation, reason, rejected_field,
        save, save_text, seqs,
    },
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    reads_a_branch_like_a_conversation,
    branches_keep_their_messages_when_the_parent_is_deleted,
    a_branch_of_a_branch_has_all_earlier_messages,
    rejects_invalid_branches,
    lists_branches_in_pages,
    limits_the_depth_of_branches,
);

async fn branch(memory: &mut Memory, conversation: &str, at_seq: i64) -> String {
    let request = branch_at(conversation, at_seq);
    let branched = memory.branch_conversation(request).await.unwrap();
    let branched = branched.into_inner().conversation.unwrap();
    assert_eq!(branched.parent_id, conversation);
    assert_eq!(
        (branched.branched_at_seq, branched.last_seq),
        (at_seq, at_seq)
    );
    branched.id
}

/// The newest messages and their source, after a comparison with those in the store.
async fn newest(memory: &mut Memory, conversation: &str) -> (Vec<String>, Source) {
    let strong = GetHistoryRequest {
        consistency: Consistency::Strong.into(),
        ..history(conversation)
    };
    let strong = memory.get_history(strong).await.unwrap().into_inner();
    let cached = memory.get_history(history(conversation)).await.unwrap();
    let cached = cached.into_inner();
    assert_eq!(cached.messages, strong.messages);
    assert_eq!(cached.last_seq, strong.last_seq);
    for message in &cached.messages {
        assert_eq!(message.conversation_id, conversation);
    }
    let texts = contents(&cached.messages);
    let source = cached.source();
    (texts.into_iter().map(ToOwned::to_owned).collect(), source)
}

async fn conversation_of(memory: &mut Memory, user: &str, length: i64) -> String {
    let conversation = new_conversation(memory, user).await;
    let texts: Vec<_> = (1..=length).map(|seq| seq.to_string()).collect();
    for turn in texts.chunks(100) {
        let messages = turn.iter().map(|text| message(Role::User, text)).collect();
        let request = save(&conversation, messages);
        memory.save_messages(request).await.unwrap();
    }
    conversation
}

async fn reads_a_branch_like_a_conversation(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let parent = conversation_of(&mut memory, &new_user(), 8).await;
    let branch = branch(&mut memory, &parent, 5).await;
    save_text(&mut memory, &branch, "another way").await;
    let shown = ["1", "2", "3", "4", "5", "another way"];
    assert_eq!(newest(&mut memory, &branch).await.0, shown);
    // The first read has filled the recent window.
    let (again, source) = newest(&mut memory, &branch).await;
    assert_eq!(again, shown);
    assert_eq!(source, Source::Cache);
    let request = ListMessagesRequest {
        conversation_id: branch,
        newest_first: true,
        page_size: 4,
        ..ListMessagesRequest::default()
    };
    let page = memory.list_messages(request.clone()).await.unwrap();
    let page = page.into_inner();
    assert_eq!(seqs(&page.messages), [6, 5, 4, 3]);
    let request = ListMessagesRequest {
        page_token: page.next_page_token,
        ..request
    };
    let rest = memory.list_messages(request).await.unwrap().into_inner();
    assert_eq!(seqs(&rest.messages), [2, 1]);
}

async fn branches_keep_their_messages_when_the_parent_is_deleted(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let parent = conversation_of(&mut memory, &user, 400).await;
    let mut branches = Vec::new();
    for at_seq in (10..=400).step_by(15) {
        let branch = branch(&mut memory, &parent, at_seq).await;
        save_text(&mut memory, &branch, "own").await;
        let mut shown: Vec<_> = (at_seq - 4..=at_seq).map(|seq| seq.to_string()).collect();
        shown.push("own".to_owned());
        branches.push((branch, shown));
    }
    for step in ["as they are", "truncated", "deleted"] {
        if step == "truncated" {
            let request = TruncateConversationRequest {
                conversation_id: parent.clone(),
                after_seq: 7,
                ..TruncateConversationRequest::default()
            };
            let truncated = memory.truncate_conversation(request).await.unwrap();
            assert_eq!(truncated.into_inner().removed_messages, 393);
            let left = newest(&mut memory, &parent).await.0;
            assert_eq!(left, ["2", "3", "4", "5", "6", "7"]);
        } else if step == "deleted" {
            memory.delete_conversation(delete(&parent)).await.unwrap();
        }
        for (branch, shown) in &branches {
            assert_eq!(newest(&mut memory, branch).await.0, *shown, "{step}");
        }
    }
}

async fn a_branch_of_a_branch_has_all_earlier_messages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let mut conversation = conversation_of(&mut memory, &new_user(), 1).await;
    for depth in 2..=12 {
        let parent = conversation;
        conversation = branch(&mut memory, &parent, depth - 1).await;
        save_text(&mut memory, &conversation, &depth.to_string()).await;
        save_text(&mut memory, &parent, "elsewhere").await;
    }
    let request = GetHistoryRequest {
        limit: 100,
        ..history(&conversation)
    };
    let all = memory.get_history(request).await.unwrap().into_inner();
    let expected: Vec<_> = (1..=12).map(|depth| depth.to_string()).collect();
    assert_eq!(contents(&all.messages), expected);
}

async fn rejects_invalid_branches(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let parent = conversation_of(&mut memory, &user, 3).await;
    for at_seq in [-1, 0, 4, i64::MAX] {
        let request = branch_at(&parent, at_seq);
        let refused = memory.branch_conversation(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), "at_seq");
    }
    let long = BranchConversationRequest {
        title: "x".repeat(256),
        ..branch_at(&parent, 1)
    };
    let refused = memory.branch_conversation(long).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "title");
    let bad_id = branch_at("x", 1);
    let refused = memory.branch_conversation(bad_id).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "conversation_id");
    let foreign = BranchConversationRequest {
        user_id: new_user(),
        ..branch_at(&parent, 1)
    };
    let refused = memory.branch_conversation(foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(reason(&refused), "CONVERSATION_NOT_FOUND");
    let none = memory.branch_conversation(branch_at(&new_id(), 1)).await;
    assert_eq!(none.unwrap_err().message(), refused.message());
    let list = ListBranchesRequest {
        conversation_id: parent.clone(),
        ..ListBranchesRequest::default()
    };
    let listed = memory.list_branches(list.clone()).await.unwrap();
    assert!(
        listed.into_inner().conversations.is_empty(),
        "no branch was created"
    );
    for (request, field) in [
        (
            ListBranchesRequest {
                page_size: -1,
                ..list.clone()
            },
            "page_size",
        ),
        (
            ListBranchesRequest {
                page_token: "x".to_owned(),
                ..list.clone()
            },
            "page_token",
        ),
    ] {
        let refused = memory.list_branches(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    let foreign = ListBranchesRequest {
        user_id: new_user(),
        ..list
    };
    let refused = memory.list_branches(foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

async fn lists_branches_in_pages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let parent = conversation_of(&mut memory, &new_user(), 2).await;
    let mut branches = Vec::new();
    for _ in 0..5 {
        branches.push(branch(&mut memory, &parent, 1).await);
    }
    // A branch of a branch is not listed for the parent.
    branch(&mut memory, &branches[0], 1).await;
    save_text(&mut memory, &branches[1], "the latest").await;
    let mut request = ListBranchesRequest {
        conversation_id: parent,
        page_size: 2,
        ..ListBranchesRequest::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = memory.list_branches(request.clone()).await.unwrap();
        let page = page.into_inner();
        listed.extend(page.conversations.into_iter().map(|found| found.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(
        listed,
        [1, 4, 3, 2, 0].map(|at: usize| branches[at].clone())
    );
}

async fn limits_the_depth_of_branches(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let mut deepest = conversation_of(&mut memory, &new_user(), 1).await;
    for depth in 1..=100 {
        deepest = branch(&mut memory, &deepest, depth).await;
        save_text(&mut memory, &deepest, "next").await;
    }
    let request = branch_at(&deepest, 101);
    let refused = memory.branch_conversation(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), "BRANCH_TOO_DEEP");
    // A rejection is counted where it is logged.
    sidecar.wait_for_log("\"limit\":\"branch_depth\"").await;
    assert!(refused.get_error_details().retry_info().is_none());
    let (texts, _) = newest(&mut memory, &deepest).await;
    assert!(texts.iter().all(|text| text == "next"), "{texts:?}");
    let truncation = TruncateConversationRequest {
        conversation_id: deepest.clone(),
        after_seq: 40,
        ..TruncateConversationRequest::default()
    };
    let truncated = memory.truncate_conversation(truncation).await.unwrap();
    assert_eq!(truncated.into_inner().removed_messages, 61);
    memory.delete_conversation(delete(&deepest)).await.unwrap();
}
