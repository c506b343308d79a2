//! Sizes of responses: a page ends before it exceeds what a client receives by default, and the
//! memory of the server follows the size of the response.

use conversation_memory::proto::{
    BranchConversationRequest, CreateConversationRequest, ListBranchesRequest,
    ListConversationsRequest, ListMessagesRequest, Message, Role, SearchMessagesRequest,
};
use prost::Message as _;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::Code;

use test_support::{
    new_user,
    requests::{message, new_conversation, object, save},
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    lists_end_before_they_exceed_a_message,
    histories_and_hits_end_before_they_exceed_a_message,
    concurrent_lists_take_little_memory,
);

/// Size of a response that clients receive by default, in bytes.
const MAX_RESPONSE: usize = 4 << 20;

/// Metadata of 64 KB whose numbers have many digits without an exponent.
fn numbers() -> Struct {
    let value = Value {
        kind: Some(Kind::NumberValue(1e308)),
    };
    let values = vec![value; 9_000];
    object(&[("numbers", Kind::ListValue(ListValue { values }))])
}

/// Metadata of 64 KB with many values, each of which takes more memory than bytes.
fn objects() -> Struct {
    let value = Value {
        kind: Some(Kind::StructValue(Struct::default())),
    };
    let values = vec![value; 20_000];
    object(&[("objects", Kind::ListValue(ListValue { values }))])
}

async fn create(memory: &mut Memory, user: &str, count: usize, metadata: Struct) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let created = memory
            .create_conversation(CreateConversationRequest {
                user_id: user.to_owned(),
                metadata: Some(metadata.clone()),
                ..CreateConversationRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        ids.push(created.conversation.unwrap().id);
    }
    ids.reverse();
    ids
}

/// Lists all conversations of a user, and returns their ids and the number of pages.
async fn list(memory: &mut Memory, user: &str) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListConversationsRequest {
            user_id: user.to_owned(),
            page_size: 1_000,
            page_token: page_token.clone(),
            ..ListConversationsRequest::default()
        };
        let page = match memory.list_conversations(request).await {
            Ok(page) => page.into_inner(),
            // A time limit has expired on a busy machine.
            Err(status) if status.code() == Code::Unavailable => continue,
            Err(status) => panic!("{status}"),
        };
        assert!(page.encoded_len() <= MAX_RESPONSE);
        pages += 1;
        ids.extend(page.conversations.into_iter().map(|listed| listed.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (ids, pages);
        }
    }
}

async fn lists_end_before_they_exceed_a_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    for metadata in [numbers(), objects()] {
        let user = new_user();
        let expected = create(&mut memory, &user, 24, metadata).await;
        let (ids, pages) = list(&mut memory, &user).await;
        assert_eq!(ids, expected);
        assert!(pages > 1);
        let parent = &ids[0];
        let text = vec![message(Role::User, "first")];
        memory.save_messages(save(parent, text)).await.unwrap();
        let mut branches = Vec::new();
        for _ in 0..24 {
            let branch = memory
                .branch_conversation(BranchConversationRequest {
                    conversation_id: parent.clone(),
                    at_seq: 1,
                    ..BranchConversationRequest::default()
                })
                .await
                .unwrap()
                .into_inner();
            branches.insert(0, branch.conversation.unwrap().id);
        }
        let (mut ids, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListBranchesRequest {
                conversation_id: parent.clone(),
                page_size: 1_000,
                page_token,
                ..ListBranchesRequest::default()
            };
            let page = memory.list_branches(request).await.unwrap().into_inner();
            assert!(page.encoded_len() <= MAX_RESPONSE && page.conversations.len() < 24);
            ids.extend(page.conversations.into_iter().map(|listed| listed.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(ids, branches);
    }
}

async fn histories_and_hits_end_before_they_exceed_a_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    for metadata in [numbers(), objects()] {
        let large = Message {
            metadata: Some(metadata),
            ..message(Role::User, &format!("word {}", "filler ".repeat(50)))
        };
        for _ in 0..8 {
            let turn = vec![large.clone(); 2];
            memory
                .save_messages(save(&conversation, turn))
                .await
                .unwrap();
        }
    }
    let (mut seqs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListMessagesRequest {
            conversation_id: conversation.clone(),
            page_size: 1_000,
            page_token,
            ..ListMessagesRequest::default()
        };
        let page = memory.list_messages(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= MAX_RESPONSE);
        seqs.extend(page.messages.iter().map(|listed| listed.seq));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seqs, (1..=32).collect::<Vec<_>>());
    let (mut seqs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = SearchMessagesRequest {
            user_id: user.clone(),
            query: "word".to_owned(),
            page_size: 1_000,
            page_token,
            ..SearchMessagesRequest::default()
        };
        let page = memory.search_messages(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= MAX_RESPONSE);
        seqs.extend(page.hits.into_iter().map(|hit| hit.message.unwrap().seq));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=32).collect::<Vec<_>>());
}

async fn concurrent_lists_take_little_memory(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    create(&mut memory, &user, 60, numbers()).await;
    let calls = (0..8).map(|_| {
        let mut memory = sidecar.memory();
        let user = user.clone();
        tokio::spawn(async move { list(&mut memory, &user).await.0.len() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), 60);
    }
    let peak = sidecar.peak_kib() / 1_024;
    assert!(peak < 256, "{peak} MiB");
}
