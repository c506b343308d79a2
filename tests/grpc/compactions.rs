//! Compaction of conversations.

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, CompactConversationRequest, Consistency,
    ExportFormat, GetConversationRequest, GetHistoryRequest, ListConversationsRequest,
    ListMessagesRequest, Message, RedactMessagesRequest, Role, SearchMessagesRequest,
    TruncateConversationRequest,
};
use tokio::task::JoinSet;
use tonic::Code;

use test_support::{
    new_id, new_user,
    requests::{
        begin, contents, history, message, new_conversation, reason, rejected_field, save,
        save_text, seqs,
    },
    sidecar::{Form, Memory, Sidecar},
};

use crate::export::{export_of, file};

test_support::in_both_forms!(
    histories_contain_a_summary_instead_of_messages,
    everything_else_contains_the_messages,
    a_branch_inherits_the_summary,
    a_summary_is_removed_with_its_messages,
    a_retry_returns_the_first_outcome,
    rejects_invalid_compactions,
    concurrent_saves_are_not_lost,
);

pub(crate) fn compaction_of(
    conversation: &str,
    upto_seq: i64,
    summary: &str,
) -> CompactConversationRequest {
    CompactConversationRequest {
        conversation_id: conversation.to_owned(),
        upto_seq,
        summary: summary.to_owned(),
        ..CompactConversationRequest::default()
    }
}

async fn compact(memory: &mut Memory, conversation: &str, upto_seq: i64, summary: &str) {
    let request = compaction_of(conversation, upto_seq, summary);
    memory.compact_conversation(request).await.unwrap();
}

/// Reads the history from the window, which the first read fills, and from the store. All are the
/// same.
async fn read(memory: &mut Memory, conversation: &str) -> Vec<Message> {
    let mut histories = Vec::new();
    for consistency in [
        Consistency::Cached,
        Consistency::Cached,
        Consistency::Strong,
    ] {
        let request = GetHistoryRequest {
            consistency: consistency.into(),
            limit: 100,
            ..history(conversation)
        };
        let read = memory.get_history(request).await.unwrap().into_inner();
        assert!(!read.older_omitted);
        histories.push(read.messages);
    }
    assert_eq!(histories[0], histories[2]);
    assert_eq!(histories[1], histories[2]);
    histories.remove(0)
}

/// Saves messages 1 to `length`, with their numbers as texts.
async fn numbered(memory: &mut Memory, user: &str, length: i64) -> String {
    let conversation = new_conversation(memory, user).await;
    let texts: Vec<_> = (1..=length).map(|seq| seq.to_string()).collect();
    let messages = texts.iter().map(|text| message(Role::User, text)).collect();
    let saved = memory.save_messages(save(&conversation, messages)).await;
    saved.unwrap();
    conversation
}

async fn histories_contain_a_summary_instead_of_messages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let mut instructions = message(Role::System, "Be brief.");
    instructions.pinned = true;
    let mut messages = vec![instructions];
    messages.extend((2..=6).map(|seq| message(Role::User, &seq.to_string())));
    let saved = memory.save_messages(save(&conversation, messages)).await;
    saved.unwrap();
    assert_eq!(read(&mut memory, &conversation).await.len(), 6);

    let mut request = compaction_of(&conversation, 4, "What was said.");
    request.token_count = Some(42);
    let compacted = memory.compact_conversation(request).await.unwrap();
    assert_eq!(compacted.into_inner().last_seq, 6);
    let messages = read(&mut memory, &conversation).await;
    assert_eq!(
        contents(&messages),
        ["Be brief.", "What was said.", "5", "6"]
    );
    assert_eq!(seqs(&messages), [1, 0, 5, 6]);
    let summary = &messages[1];
    assert!(summary.is_summary && messages.iter().filter(|m| m.is_summary).count() == 1);
    assert_eq!(
        (summary.role(), summary.token_count),
        (Role::System, Some(42))
    );
    assert!(!summary.id.is_empty() && summary.created_at.is_some());

    // A turn begins with the same messages, and the next one follows them.
    let turn = BeginTurnRequest {
        conversation_id: conversation.clone(),
        ..begin(&user)
    };
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    assert_eq!(begun.messages, messages);
    save_text(&mut memory, &conversation, "7").await;
    let texts = ["Be brief.", "What was said.", "5", "6", "7"];
    assert_eq!(contents(&read(&mut memory, &conversation).await), texts);

    // A later compaction replaces the summary, and the tokens of one without a count are counted.
    compact(&mut memory, &conversation, 7, "All of it.").await;
    let messages = read(&mut memory, &conversation).await;
    assert_eq!(contents(&messages), ["Be brief.", "All of it."]);
    assert!(messages[1].token_count.unwrap() > 0);
    compact(&mut memory, &conversation, 0, "").await;
    assert_eq!(read(&mut memory, &conversation).await.len(), 7);
}

async fn everything_else_contains_the_messages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = numbered(&mut memory, &user, 5).await;
    let later = numbered(&mut memory, &user, 1).await;
    let list = ListMessagesRequest {
        conversation_id: conversation.clone(),
        ..ListMessagesRequest::default()
    };
    let get = GetConversationRequest {
        conversation_id: conversation.clone(),
        ..GetConversationRequest::default()
    };
    let search = SearchMessagesRequest {
        user_id: user.clone(),
        query: "2".to_owned(),
        ..SearchMessagesRequest::default()
    };
    let export = export_of(&conversation, ExportFormat::Jsonl);
    let mut found = Vec::new();
    for upto_seq in [0, 4] {
        if upto_seq > 0 {
            compact(&mut memory, &conversation, upto_seq, "summary").await;
        }
        let listed = memory.list_messages(list.clone()).await.unwrap();
        let read = memory.get_conversation(get.clone()).await.unwrap();
        let mut read = read.into_inner();
        let compacted = &mut read.conversation.as_mut().unwrap().compacted_upto_seq;
        assert_eq!(*compacted, upto_seq);
        *compacted = 0;
        let hits = memory.search_messages(search.clone()).await.unwrap();
        let exported = file(&mut memory, export.clone()).await;
        assert!(!exported.contains("summary"));
        found.push((listed.into_inner(), read, hits.into_inner(), exported));
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(seqs(&found[0].0.messages), [1, 2, 3, 4, 5]);
    assert_eq!(found[0].2.hits.len(), 1);
    // A compaction is no activity.
    let request = ListConversationsRequest {
        user_id: user,
        ..ListConversationsRequest::default()
    };
    let listed = memory
        .list_conversations(request)
        .await
        .unwrap()
        .into_inner();
    let ids: Vec<_> = listed.conversations.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, [&later, &conversation]);
}

async fn branch(memory: &mut Memory, conversation: &str, at_seq: i64) -> String {
    let request = BranchConversationRequest {
        conversation_id: conversation.to_owned(),
        at_seq,
        ..BranchConversationRequest::default()
    };
    let branched = memory.branch_conversation(request).await.unwrap();
    branched.into_inner().conversation.unwrap().id
}

async fn a_branch_inherits_the_summary(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let parent = numbered(&mut memory, &new_user(), 4).await;
    compact(&mut memory, &parent, 2, "summary").await;
    let later = branch(&mut memory, &parent, 3).await;
    let earlier = branch(&mut memory, &parent, 1).await;
    assert_eq!(contents(&read(&mut memory, &later).await), ["summary", "3"]);
    assert_eq!(contents(&read(&mut memory, &earlier).await), ["1"]);
    compact(&mut memory, &later, 3, "another").await;
    assert_eq!(contents(&read(&mut memory, &later).await), ["another"]);
    let of_parent = ["summary", "3", "4"];
    assert_eq!(contents(&read(&mut memory, &parent).await), of_parent);
}

async fn a_summary_is_removed_with_its_messages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = numbered(&mut memory, &new_user(), 4).await;
    for (after_seq, expected) in [(3, &["summary", "3"][..]), (2, &["summary"]), (1, &["1"])] {
        if after_seq == 3 {
            compact(&mut memory, &conversation, 2, "summary").await;
        }
        let request = TruncateConversationRequest {
            conversation_id: conversation.clone(),
            after_seq,
            ..TruncateConversationRequest::default()
        };
        memory.truncate_conversation(request).await.unwrap();
        assert_eq!(contents(&read(&mut memory, &conversation).await), expected);
    }
    save_text(&mut memory, &conversation, "5").await;
    compact(&mut memory, &conversation, 1, "summary").await;
    for (seq, expected) in [(5, &["summary", ""][..]), (1, &["", ""])] {
        let request = RedactMessagesRequest {
            conversation_id: conversation.clone(),
            seqs: vec![seq],
            ..RedactMessagesRequest::default()
        };
        memory.redact_messages(request).await.unwrap();
        assert_eq!(contents(&read(&mut memory, &conversation).await), expected);
    }
}

async fn a_retry_returns_the_first_outcome(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = numbered(&mut memory, &new_user(), 3).await;
    let mut first = compaction_of(&conversation, 2, "first");
    first.request_id = "key".to_owned();
    first.expected_last_seq = Some(3);
    memory.compact_conversation(first.clone()).await.unwrap();
    save_text(&mut memory, &conversation, "4").await;
    compact(&mut memory, &conversation, 3, "second").await;
    let again = memory.compact_conversation(first.clone()).await.unwrap();
    assert_eq!(again.into_inner().last_seq, 3);
    let texts = ["second", "4"];
    assert_eq!(contents(&read(&mut memory, &conversation).await), texts);

    for other in [
        CompactConversationRequest {
            upto_seq: 1,
            ..first.clone()
        },
        CompactConversationRequest {
            summary: "other".to_owned(),
            ..first.clone()
        },
    ] {
        let refused = memory.compact_conversation(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    }
    let mut late = first;
    late.request_id = "another key".to_owned();
    let refused = memory.compact_conversation(late).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert_eq!(reason(&refused), "SEQ_MISMATCH");
    assert_eq!(contents(&read(&mut memory, &conversation).await), texts);
}

async fn rejects_invalid_compactions(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = numbered(&mut memory, &new_user(), 2).await;
    let valid = compaction_of(&conversation, 1, "summary");
    let with = |change: fn(&mut CompactConversationRequest)| {
        let mut request = valid.clone();
        change(&mut request);
        request
    };
    for (request, field) in [
        (with(|request| request.upto_seq = -1), "upto_seq"),
        (with(|request| request.upto_seq = 3), "upto_seq"),
        (with(|request| request.upto_seq = i64::MAX), "upto_seq"),
        (with(|request| request.summary.clear()), "summary"),
        (with(|request| request.upto_seq = 0), "summary"),
        (with(|request| request.summary.push('\0')), "summary"),
        (
            with(|request| request.summary = "x".repeat((1 << 20) + 1)),
            "summary",
        ),
        (
            with(|request| request.token_count = Some(-1)),
            "token_count",
        ),
        (
            with(|request| request.expected_last_seq = Some(-1)),
            "expected_last_seq",
        ),
        (
            with(|request| request.request_id = "x".repeat(129)),
            "request_id",
        ),
        (
            with(|request| request.conversation_id.clear()),
            "conversation_id",
        ),
    ] {
        let refused = memory.compact_conversation(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    for request in [
        with(|request| request.conversation_id = new_id()),
        with(|request| request.user_id = new_user()),
    ] {
        let refused = memory.compact_conversation(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(reason(&refused), "CONVERSATION_NOT_FOUND");
    }
    assert_eq!(
        contents(&read(&mut memory, &conversation).await),
        ["1", "2"]
    );
}

async fn concurrent_saves_are_not_lost(form: Form) {
    let sidecars = Sidecar::start_all(&form).await;
    let mut memory = sidecars[0].memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut tasks = JoinSet::new();
    for writer in 0..2 {
        let sidecar = &sidecars[writer % sidecars.len()];
        let (mut memory, conversation) = (sidecar.memory(), conversation.clone());
        tasks.spawn(async move {
            for _ in 0..25 {
                let saved = save_text(&mut memory, &conversation, "x").await;
                // Each read has all acknowledged messages, itself or in its summary.
                let request = GetHistoryRequest {
                    limit: 1000,
                    ..history(&conversation)
                };
                let read = memory.get_history(request).await.unwrap().into_inner();
                assert!(read.last_seq >= saved.last_seq);
                let seqs = seqs(&read.messages);
                let upto = match &read.messages[..] {
                    [first, ..] if first.is_summary => first.content.parse().unwrap(),
                    _ => 0,
                };
                let expected = (upto + 1..=read.last_seq).collect::<Vec<i64>>();
                assert_eq!(seqs[usize::from(upto > 0)..], expected);
            }
        });
    }
    for round in 0..15 {
        let sidecar = &sidecars[round % sidecars.len()];
        let mut memory = sidecar.memory();
        let read = memory.get_history(history(&conversation)).await.unwrap();
        let last_seq = read.into_inner().last_seq;
        if last_seq > 0 {
            compact(&mut memory, &conversation, last_seq, &last_seq.to_string()).await;
        }
    }
    tasks.join_all().await;
    let request = ListMessagesRequest {
        conversation_id: conversation,
        page_size: 1000,
        ..ListMessagesRequest::default()
    };
    let listed = memory.list_messages(request).await.unwrap().into_inner();
    assert_eq!(seqs(&listed.messages), (1..=50).collect::<Vec<_>>());
}
