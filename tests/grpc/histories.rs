//! Histories that model APIs accept, within limits on messages and tokens.

use conversation_memory::proto::{
    CompactConversationRequest, Consistency, CreateConversationRequest, GetHistoryRequest,
    GetHistoryResponse, Message, Role, TruncateConversationRequest,
};

use test_support::{
    new_user,
    requests::{
        begin, contents, history, message, new_conversation, save, seqs, tool_call, tool_result,
    },
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    groups_are_returned_whole_or_not_at_all,
    an_open_call_is_only_returned_at_the_end,
    plain_messages_are_counted_as_before,
    token_budget_omits_the_oldest_messages,
    start_on_user_omits_what_precedes_the_first_question,
    pinned_messages_are_in_every_history,
    a_pinned_message_between_those_of_a_group_keeps_its_place,
    large_messages_fit_the_responses_of_clients,
    a_result_whose_call_is_out_of_reach_does_not_empty_a_history,
    a_turn_without_a_save_leaves_no_entry_in_the_list,
    compaction_is_due_above_the_configured_tokens,
);

fn user(text: &str) -> Message {
    message(Role::User, text)
}

fn answer(text: &str) -> Message {
    message(Role::Assistant, text)
}

/// Turns with one tool call each: four messages.
fn turns(numbers: std::ops::RangeInclusive<i32>) -> Vec<Message> {
    let turn = |n: i32| {
        let id = format!("call_{n}");
        [
            user(&format!("question {n}")),
            tool_call(&[&id]),
            tool_result(&id, "sunny"),
            answer(&format!("answer {n}")),
        ]
    };
    numbers.flat_map(turn).collect()
}

async fn saved(memory: &mut Memory, messages: Vec<Message>) -> String {
    let conversation = new_conversation(memory, &new_user()).await;
    memory
        .save_messages(save(&conversation, messages))
        .await
        .unwrap();
    conversation
}

/// Reads a history from the window, which the first read fills, and from the store.
async fn read(memory: &mut Memory, request: GetHistoryRequest) -> GetHistoryResponse {
    let mut read = Vec::new();
    for consistency in [
        Consistency::Cached,
        Consistency::Cached,
        Consistency::Strong,
    ] {
        let mut request = request.clone();
        request.set_consistency(consistency);
        let mut response = memory.get_history(request).await.unwrap().into_inner();
        response.source = 0;
        read.push(response);
    }
    let last = read.pop().unwrap();
    assert!(
        read.iter().all(|cached| *cached == last),
        "{read:?} {last:?}"
    );
    last
}

async fn read_seqs(memory: &mut Memory, conversation: &str, limit: i32) -> Vec<i64> {
    let request = GetHistoryRequest {
        limit,
        ..history(conversation)
    };
    seqs(&read(memory, request).await.messages)
}

async fn groups_are_returned_whole_or_not_at_all(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = saved(&mut memory, turns(1..=3)).await;
    // The sixth message from the end is the result of a call that is the seventh.
    assert_eq!(
        read_seqs(&mut memory, &conversation, 0).await,
        [8, 9, 10, 11, 12]
    );
    assert_eq!(
        read_seqs(&mut memory, &conversation, 7).await,
        [6, 7, 8, 9, 10, 11, 12]
    );
    assert_eq!(read_seqs(&mut memory, &conversation, 3).await, [10, 11, 12]);
    assert_eq!(read_seqs(&mut memory, &conversation, 2).await, [12]);
    let all: Vec<i64> = (1..=12).collect();
    assert_eq!(read_seqs(&mut memory, &conversation, 50).await, all);

    // Parallel calls whose results exceed the limit by themselves.
    let ids: Vec<String> = (0..20).map(|n| format!("parallel_{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut messages = vec![user("question"), tool_call(&ids)];
    messages.extend(ids.iter().rev().map(|id| tool_result(id, "sunny")));
    let conversation = saved(&mut memory, messages).await;
    let group: Vec<i64> = (2..=22).collect();
    assert_eq!(read_seqs(&mut memory, &conversation, 0).await, group);
    assert_eq!(read_seqs(&mut memory, &conversation, 1).await, group);
}

async fn an_open_call_is_only_returned_at_the_end(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let open = vec![
        user("question"),
        tool_call(&["a", "b"]),
        tool_result("a", "x"),
    ];
    let conversation = saved(&mut memory, open).await;
    assert_eq!(read_seqs(&mut memory, &conversation, 0).await, [1, 2, 3]);
    assert_eq!(read_seqs(&mut memory, &conversation, 1).await, [2, 3]);
    // The user goes on without the result.
    let goes_on = save(&conversation, vec![user("never mind"), answer("fine")]);
    memory.save_messages(goes_on).await.unwrap();
    assert_eq!(read_seqs(&mut memory, &conversation, 0).await, [1, 4, 5]);
    let late = save(
        &conversation,
        vec![tool_result("b", "late"), answer("also")],
    );
    memory.save_messages(late).await.unwrap();
    assert_eq!(
        read_seqs(&mut memory, &conversation, 0).await,
        [2, 3, 4, 5, 6, 7]
    );
    assert_eq!(read_seqs(&mut memory, &conversation, 4).await, [4, 5, 7]);
    let orphan = vec![tool_result("unknown", "x"), user("question")];
    let conversation = saved(&mut memory, orphan).await;
    assert_eq!(read_seqs(&mut memory, &conversation, 0).await, [2]);
}

async fn plain_messages_are_counted_as_before(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let plain = (1..=20).map(|n| user(&n.to_string())).collect();
    let conversation = saved(&mut memory, plain).await;
    let last_6: Vec<i64> = (15..=20).collect();
    assert_eq!(read_seqs(&mut memory, &conversation, 0).await, last_6);
    let mut request = history(&conversation);
    assert!(read(&mut memory, request.clone()).await.older_omitted);
    request.limit = 20;
    assert!(!read(&mut memory, request).await.older_omitted);
}

async fn token_budget_omits_the_oldest_messages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let mut messages = turns(1..=3);
    for message in &mut messages {
        message.token_count = Some(10);
    }
    let conversation = saved(&mut memory, messages).await;
    for (max_tokens, limit, expected) in [
        (50, 0, vec![8, 9, 10, 11, 12]),
        (50, 3, vec![10, 11, 12]),
        (30, 50, vec![10, 11, 12]),
        (29, 50, vec![12]),
        (10, 50, vec![12]),
        // The newest message is included even if it exceeds the budget.
        (1, 50, vec![12]),
        (0, 50, (1..=12).collect()),
    ] {
        let request = GetHistoryRequest {
            max_tokens,
            limit,
            ..history(&conversation)
        };
        let read = read(&mut memory, request).await;
        assert_eq!(seqs(&read.messages), expected, "{max_tokens} {limit}");
        assert_eq!(
            read.token_count,
            10 * i64::try_from(expected.len()).unwrap()
        );
        assert_eq!(read.older_omitted, expected.len() < 12);
    }
}

async fn start_on_user_omits_what_precedes_the_first_question(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = saved(&mut memory, turns(1..=3)).await;
    for (limit, expected) in [
        (0, vec![9, 10, 11, 12]),
        (3, vec![]),
        (9, vec![5, 6, 7, 8, 9, 10, 11, 12]),
    ] {
        let request = GetHistoryRequest {
            limit,
            start_on_user: true,
            ..history(&conversation)
        };
        assert_eq!(seqs(&read(&mut memory, request).await.messages), expected);
    }
}

async fn pinned_messages_are_in_every_history(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user_id = new_user();
    let mut turn = begin(&user_id);
    let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
    let conversation = begun.conversation.unwrap().id;
    turn.conversation_id.clone_from(&conversation);
    let pinned = |text: &str| Message {
        pinned: true,
        token_count: Some(10),
        ..message(Role::System, text)
    };
    let plain = |from: i32| {
        (from..from + 5).map(|n| Message {
            token_count: Some(10),
            ..user(&n.to_string())
        })
    };
    for pin in ["be brief", "the user is Ana"] {
        let mut messages = vec![pinned(pin)];
        messages.extend(plain(1));
        memory
            .save_messages(save(&conversation, messages))
            .await
            .unwrap();
    }
    let request = |limit, max_tokens| GetHistoryRequest {
        limit,
        max_tokens,
        ..history(&conversation)
    };
    // Both pins are before the limit; the second one is among the newest six.
    for (limit, max_tokens, expected) in [
        (2, 0, vec![1, 7, 11, 12]),
        (6, 0, vec![1, 7, 8, 9, 10, 11, 12]),
        (50, 0, (1..=12).collect()),
        (50, 40, vec![1, 7, 11, 12]),
        (50, 39, vec![7, 11, 12]),
        (50, 19, vec![12]),
    ] {
        let read = read(&mut memory, request(limit, max_tokens)).await;
        assert_eq!(seqs(&read.messages), expected, "{limit} {max_tokens}");
        assert_eq!(
            read.token_count,
            10 * i64::try_from(expected.len()).unwrap()
        );
    }
    turn.limit = 1;
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    assert_eq!(
        contents(&begun.messages),
        ["be brief", "the user is Ana", "5"]
    );
    assert!(begun.older_omitted);
}

async fn a_pinned_message_between_those_of_a_group_keeps_its_place(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let pinned = Message {
        pinned: true,
        ..user("be brief")
    };
    let messages = vec![
        user("question"),
        tool_call(&["a"]),
        pinned,
        tool_result("a", "x"),
    ];
    let conversation = saved(&mut memory, messages).await;
    assert_eq!(read_seqs(&mut memory, &conversation, 2).await, [2, 3, 4]);
}

/// Clients reject responses of more than 4 MiB unless they are configured otherwise.
async fn large_messages_fit_the_responses_of_clients(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let large = "x".repeat(1 << 20);
    let messages = vec![user(&large); 5];
    let response = memory.save_messages(save(&conversation, messages)).await;
    let response = response.unwrap().into_inner();
    assert_eq!(response.last_seq, 5);
    let sizes = response.messages.iter().map(|saved| saved.content.len());
    assert_eq!(sizes.collect::<Vec<_>>(), [1 << 20, 1 << 20, 1 << 20, 0, 0]);
    assert!(response.messages.iter().all(|saved| !saved.id.is_empty()));

    let pinned = Message {
        pinned: true,
        ..user(&large)
    };
    let result = tool_result("a", &"y".repeat(700_000));
    let messages = vec![pinned, user("question"), tool_call(&["a"]), result];
    memory
        .save_messages(save(&conversation, messages))
        .await
        .unwrap();
    let compaction = CompactConversationRequest {
        conversation_id: conversation.clone(),
        upto_seq: 5,
        summary: large,
        ..CompactConversationRequest::default()
    };
    memory.compact_conversation(compaction).await.unwrap();
    // The pinned message does not fit beside the summary and the newest group.
    assert_eq!(read_seqs(&mut memory, &conversation, 2).await, [0, 8, 9]);
}

async fn a_result_whose_call_is_out_of_reach_does_not_empty_a_history(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let first: Vec<_> = (0..100).map(|_| user("text")).collect();
    let conversation = saved(&mut memory, first.clone()).await;
    for _ in 0..10 {
        let request = save(&conversation, first.clone());
        memory.save_messages(request).await.unwrap();
    }
    let last = vec![tool_result("missing", "sunny"), user("removed")];
    let request = save(&conversation, last);
    memory.save_messages(request).await.unwrap();
    // This drops the window, so that the next read has a lease to fill it.
    let request = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: 1_101,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(request).await.unwrap();
    for consistency in [Consistency::Unspecified, Consistency::Strong] {
        let mut request = history(&conversation);
        request.set_consistency(consistency);
        let read = memory.get_history(request).await.unwrap().into_inner();
        assert_eq!(seqs(&read.messages), [1095, 1096, 1097, 1098, 1099, 1100]);
        assert!(read.older_omitted);
    }
}

async fn a_turn_without_a_save_leaves_no_entry_in_the_list(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user_id = new_user();
    let listed = async |memory: &mut Memory| -> Vec<String> {
        let request = conversation_memory::proto::ListConversationsRequest {
            user_id: user_id.clone(),
            ..Default::default()
        };
        let page = memory
            .list_conversations(request)
            .await
            .unwrap()
            .into_inner();
        page.conversations
            .into_iter()
            .map(|found| found.id)
            .collect()
    };
    let begun = memory
        .begin_turn(begin(&user_id))
        .await
        .unwrap()
        .into_inner();
    let conversation = begun.conversation.unwrap().id;
    assert!(listed(&mut memory).await.is_empty());
    let created = memory
        .create_conversation(CreateConversationRequest {
            user_id: user_id.clone(),
            ..CreateConversationRequest::default()
        })
        .await;
    let created = created.unwrap().into_inner().conversation.unwrap().id;
    assert_eq!(listed(&mut memory).await, std::slice::from_ref(&created));
    memory
        .save_messages(save(&conversation, vec![user("hello")]))
        .await
        .unwrap();
    assert_eq!(listed(&mut memory).await, [conversation, created]);
}

async fn compaction_is_due_above_the_configured_tokens(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("COMPACTION_TOKENS", "100")]).await;
    let mut memory = sidecar.memory();
    let user_id = new_user();
    let mut turn = begin(&user_id);
    let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
    assert!(!begun.compaction_due);
    turn.conversation_id = begun.conversation.unwrap().id;
    for (tokens, is_due) in [(100, false), (1, true), (0, true)] {
        let message = Message {
            token_count: Some(tokens),
            ..user("hello")
        };
        let request = save(&turn.conversation_id, vec![message]);
        let saved = memory.save_messages(request).await.unwrap().into_inner();
        assert_eq!(saved.compaction_due, is_due);
        let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
        assert_eq!(begun.compaction_due, is_due);
        let read = read(&mut memory, history(&turn.conversation_id)).await;
        assert_eq!(read.compaction_due, is_due);
    }
}
