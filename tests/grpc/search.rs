//! Searches over gRPC.

use conversation_memory::proto::{
    CreateConversationRequest, DeleteConversationRequest, Role, SearchMessagesRequest,
    search_messages_response::Hit,
};
use prost_types::Timestamp;
use tonic::Code;

use test_support::{
    new_id, new_user,
    requests::{history, message, new_conversation, reason, rejected_field, save, save_text, seqs},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    finds_messages_by_their_content,
    pages_of_hits_are_complete_and_fit_clients,
    queries_without_hits_are_corrected,
    rejects_invalid_searches,
    searches_in_conversations_of_other_users_are_not_found,
    does_not_log_queries,
    expensive_searches_do_not_affect_turns,
    what_was_saved_before_a_crash_is_found,
);

fn query(user: &str, query: &str) -> SearchMessagesRequest {
    SearchMessagesRequest {
        user_id: user.to_owned(),
        query: query.to_owned(),
        ..SearchMessagesRequest::default()
    }
}

async fn hits(memory: &mut Memory, request: SearchMessagesRequest) -> Vec<Hit> {
    let page = memory.search_messages(request).await.unwrap().into_inner();
    assert_eq!(page.next_page_token, "");
    page.hits
}

async fn finds_messages_by_their_content(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let request = CreateConversationRequest {
        user_id: user.clone(),
        dept_id: "hr".to_owned(),
        title: "Time off".to_owned(),
        ..CreateConversationRequest::default()
    };
    let created = memory.create_conversation(request).await.unwrap();
    let conversation = created.into_inner().conversation.unwrap().id;
    let turn = vec![
        message(Role::User, "What is our vacation policy?"),
        message(Role::Assistant, "Policies of this kind: 25 days."),
    ];
    let saved = memory
        .save_messages(save(&conversation, turn))
        .await
        .unwrap()
        .into_inner();
    let found = hits(&mut memory, query(&user, "vacation OR days")).await;
    assert_eq!(found.len(), 2);
    let narrowed = SearchMessagesRequest {
        conversation_id: conversation.to_uppercase(),
        dept_id: "hr".to_owned(),
        role: Role::Assistant.into(),
        page_size: i32::MAX,
        ..query(&user, "policy -vacation")
    };
    let found = hits(&mut memory, narrowed.clone()).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, Some(saved.messages[1].clone()));
    assert_eq!(found[0].conversation_title, "Time off");
    assert_eq!(found[0].snippet, "⟦Policies⟧ of this kind: 25 days.");
    assert!(found[0].rank > 0.0);
    let created = saved.messages[1].created_at.unwrap();
    for (from, until, count) in [(created.seconds, None, 2), (0, Some(created.seconds), 0)] {
        let time = |seconds| Timestamp { seconds, nanos: 0 };
        let request = SearchMessagesRequest {
            created_from: Some(time(from)),
            created_until: until.map(time),
            ..query(&user, "policy")
        };
        assert_eq!(hits(&mut memory, request).await.len(), count);
    }
    let with_key = SearchMessagesRequest {
        metadata_key: "lang".to_owned(),
        ..query(&user, "policy")
    };
    assert!(hits(&mut memory, with_key).await.is_empty());
    let elsewhere = SearchMessagesRequest {
        dept_id: "it".to_owned(),
        ..narrowed
    };
    assert!(hits(&mut memory, elsewhere).await.is_empty());
    assert!(
        hits(&mut memory, query(&new_user(), "policy"))
            .await
            .is_empty()
    );
    let request = DeleteConversationRequest {
        conversation_id: conversation,
        ..DeleteConversationRequest::default()
    };
    memory.delete_conversation(request).await.unwrap();
    assert!(hits(&mut memory, query(&user, "policy")).await.is_empty());
}

async fn pages_of_hits_are_complete_and_fit_clients(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let large = format!("word {}", "and much else ".repeat(66_000));
    for text in ["word", "word", &large, &large, &large, &large, "word"] {
        save_text(&mut memory, &conversation, text).await;
    }
    for (page_size, largest) in [(0, 6), (2, 2), (100, 6)] {
        let mut request = SearchMessagesRequest {
            page_size,
            ..query(&user, "word")
        };
        let mut seen = Vec::new();
        loop {
            let page = memory.search_messages(request.clone()).await.unwrap();
            let page = page.into_inner();
            assert!((1..=largest).contains(&page.hits.len()));
            let messages: Vec<_> = page
                .hits
                .into_iter()
                .filter_map(|hit| hit.message)
                .collect();
            seen.extend(seqs(&messages));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, [7, 2, 1, 6, 5, 4, 3], "{page_size} a page");
    }
}

async fn queries_without_hits_are_corrected(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    for text in ["Vacation policy", "a vacation"] {
        save_text(&mut memory, &conversation, text).await;
    }
    let search = |text: &str| SearchMessagesRequest {
        page_size: 1,
        ..query(&user, text)
    };
    for text in ["vacation", "\"vaction\"", "holiday"] {
        let page = memory.search_messages(search(text)).await.unwrap();
        assert_eq!(page.into_inner().corrected_query, "", "{text}");
    }
    let first = memory.search_messages(search("vacatoin")).await.unwrap();
    let first = first.into_inner();
    assert_eq!(first.corrected_query, "vacation");
    assert_eq!(first.hits[0].snippet, "a ⟦vacation⟧");
    // A message that matches the query does not change the pages.
    save_text(&mut memory, &conversation, "vacatoin").await;
    let next = SearchMessagesRequest {
        page_token: first.next_page_token,
        ..search("vacatoin")
    };
    let next = memory.search_messages(next).await.unwrap().into_inner();
    assert_eq!(next.corrected_query, "vacation");
    assert_eq!(next.hits[0].snippet, "⟦Vacation⟧ policy");
    assert_eq!(next.next_page_token, "");
    // The user's own words are suggested only.
    let other = new_user();
    let foreign = memory.search_messages(query(&other, "vacatoin")).await;
    assert_eq!(foreign.unwrap().into_inner().corrected_query, "");
}

/// An invalid field, and the change that makes it invalid.
type Flaw<'a> = (&'a str, &'a dyn Fn(&mut SearchMessagesRequest));

async fn rejects_invalid_searches(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let long = "é".repeat(256);
    let longer = "é".repeat(513);
    let time = |seconds| Timestamp { seconds, nanos: 0 };
    let flaws: [Flaw<'_>; 23] = [
        ("user_id", &|r| r.user_id.clear()),
        ("user_id", &|r| r.user_id = "a\0b".to_owned()),
        ("user_id", &|r| r.user_id.clone_from(&long)),
        ("query", &|r| r.query.clear()),
        ("query", &|r| r.query = "a\0b".to_owned()),
        ("query", &|r| r.query.clone_from(&longer)),
        ("query", &|r| r.query = "w ".repeat(33)),
        ("conversation_id", &|r| r.conversation_id = "x".to_owned()),
        ("conversation_id", &|r| {
            r.conversation_id = format!("{{{}}}", new_id());
        }),
        ("dept_id", &|r| r.dept_id = "\0".to_owned()),
        ("dept_id", &|r| r.dept_id.clone_from(&long)),
        ("role", &|r| r.role = 99),
        ("role", &|r| r.role = -1),
        ("created_from", &|r| r.created_from = Some(time(i64::MAX))),
        ("created_until", &|r| r.created_until = Some(time(-1 << 40))),
        ("created_until", &|r| {
            (r.created_from, r.created_until) = (Some(time(1)), Some(time(1)));
        }),
        ("metadata_key", &|r| r.metadata_key = "x".repeat(256)),
        ("metadata_key", &|r| r.metadata_key = "\0".to_owned()),
        ("metadata_value", &|r| {
            r.metadata_value = Some(String::new());
        }),
        ("metadata_value", &|r| {
            (r.metadata_key, r.metadata_value) = ("x".to_owned(), Some("\0".to_owned()));
        }),
        ("page_size", &|r| r.page_size = -1),
        ("page_size", &|r| r.page_size = i32::MIN),
        ("page_token", &|r| r.page_token = "garbage".to_owned()),
    ];
    for (field, spoil) in flaws {
        let mut request = query(&user, "word");
        spoil(&mut request);
        let refused = memory.search_messages(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    let conversation = new_conversation(&mut memory, &user).await;
    for text in ["word", "word"] {
        save_text(&mut memory, &conversation, text).await;
    }
    let first = SearchMessagesRequest {
        page_size: 1,
        ..query(&user, "word")
    };
    let page = memory.search_messages(first.clone()).await.unwrap();
    let token = page.into_inner().next_page_token;
    let next = SearchMessagesRequest {
        page_token: token.clone(),
        ..first
    };
    assert_eq!(hits(&mut memory, next.clone()).await.len(), 1);
    let mut tampered = token.into_bytes();
    tampered[3] = if tampered[3] == b'A' { b'B' } else { b'A' };
    let flaws: [Flaw<'_>; 9] = [
        ("page_token", &|r| r.user_id = new_user()),
        ("page_token", &|r| r.query = "words".to_owned()),
        ("page_token", &|r| {
            r.conversation_id.clone_from(&conversation);
        }),
        ("page_token", &|r| r.dept_id = "hr".to_owned()),
        ("page_token", &|r| r.role = Role::User.into()),
        ("page_token", &|r| r.created_from = Some(time(1))),
        ("page_token", &|r| r.created_until = Some(time(1))),
        ("page_token", &|r| r.metadata_key = "x".to_owned()),
        ("page_token", &|r| {
            r.page_token = String::from_utf8(tampered.clone()).unwrap();
        }),
    ];
    for (field, spoil) in flaws {
        let mut request = next.clone();
        spoil(&mut request);
        let refused = memory.search_messages(request).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
}

async fn searches_in_conversations_of_other_users_are_not_found(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let theirs = new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &theirs, "word").await;
    let user = new_user();
    let mut refusals = Vec::new();
    for conversation in [theirs, new_id()] {
        let request = SearchMessagesRequest {
            conversation_id: conversation.clone(),
            ..query(&user, "word")
        };
        let refused = memory.search_messages(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(reason(&refused), "CONVERSATION_NOT_FOUND");
        let details = String::from_utf8_lossy(refused.details()).replace(&conversation, "");
        refusals.push((refused.message().replace(&conversation, ""), details));
    }
    assert_eq!(refusals[0], refusals[1]);
}

async fn does_not_log_queries(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("LOG_LEVEL", "trace")]).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &conversation, "the unspeakable word").await;
    let found = hits(&mut memory, query(&user, "unspeakable")).await;
    assert_eq!(found.len(), 1);
    let refused = query(&user, "unspeakable\0");
    memory.search_messages(refused).await.unwrap_err();
    let long = query(&user, &"unspeakable ".repeat(60));
    memory.search_messages(long).await.unwrap_err();
    for line in sidecar.log() {
        assert!(!line.contains("unspeakable"), "{line}");
    }
}

/// Texts that repeat many words, searched for all of them by several callers at once.
async fn expensive_searches_do_not_affect_turns(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let searched = new_conversation(&mut memory, &user).await;
    let words: Vec<String> = ('a'..='z').map(|c| format!("{c}{c}")).collect();
    let words = words.join(" ");
    let text = vec![words.as_str(); 16_000 / words.len()].join(" ");
    for _ in 0..40 {
        save_text(&mut memory, &searched, &text).await;
    }
    let mut searches = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (mut memory, request) = (sidecar.memory(), query(&user, &words));
        searches.spawn(async move {
            let mut found = 0;
            for _ in 0..4 {
                match memory.search_messages(request.clone()).await {
                    Ok(page) => found += page.into_inner().hits.len(),
                    Err(refused) => {
                        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
                    }
                }
            }
            found
        });
    }
    let other = new_conversation(&mut memory, &new_user()).await;
    let mut found = 0;
    while !searches.is_empty() {
        save_text(&mut memory, &other, "a turn").await;
        memory.get_history(history(&other)).await.unwrap();
        while let Some(searched) = searches.try_join_next() {
            found += searched.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(found > 0);
}

/// The embedded store analyzes messages shortly after they are saved.
async fn what_was_saved_before_a_crash_is_found(form: Form) {
    const TEXTS: usize = 90;
    let user = new_user();
    let texts: Vec<String> = (0..TEXTS)
        .map(|n| format!("Heliotropes no. x{n}y"))
        .collect();
    let messages = || texts.iter().map(|text| message(Role::User, text)).collect();
    let mut conversations = Vec::new();
    for round in 1..=3 {
        let sidecar = Sidecar::start(&form).await;
        let mut memory = sidecar.memory();
        let conversation = new_conversation(&mut memory, &user).await;
        for _ in 0..round {
            memory
                .save_messages(save(&conversation, messages()))
                .await
                .unwrap();
        }
        conversations.push(conversation);
        sidecar.kill().await;

        let sidecar = Sidecar::start(&form).await;
        let mut memory = sidecar.memory();
        for word in ["heliotrope", "x0y", "x89y"] {
            for (conversation, saves) in conversations.iter().zip(1..) {
                let mut request = query(&user, word);
                request.page_size = 50;
                request.conversation_id.clone_from(conversation);
                let mut found = 0;
                loop {
                    let page = memory.search_messages(request.clone()).await.unwrap();
                    let page = page.into_inner();
                    found += page.hits.len();
                    request.page_token = page.next_page_token;
                    if request.page_token.is_empty() {
                        break;
                    }
                }
                let each = if word == "heliotrope" { TEXTS } else { 1 };
                assert_eq!(found, each * saves, "{word}");
            }
        }
    }
}
