//! Creating, listing, reading, updating and deleting conversations.

use conversation_memory::proto::{
    Conversation, CreateConversationRequest, DeleteConversationRequest, GetConversationRequest,
    ListConversationsRequest, ListMessagesRequest, Role, TruncateConversationRequest,
    UpdateConversationRequest, conversation_memory_client::ConversationMemoryClient,
};
use prost_types::{FieldMask, value::Kind};
use tonic::{Code, Status};

use test_support::{
    new_id, new_user,
    requests::{
        begin, contents, history, message, new_conversation, object, reason, save, save_text, seqs,
    },
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    creates_a_conversation_once,
    derives_the_title_from_the_first_user_message,
    lists_conversations_by_activity,
    reads_a_conversation_in_pages,
    pages_fit_the_size_limit_of_clients,
    updates_title_and_metadata,
    deletes_a_conversation,
    conversations_of_other_users_are_not_found,
);

async fn creates_a_conversation_once(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let request = CreateConversationRequest {
        user_id: new_user(),
        dept_id: "hr".to_owned(),
        title: "Vacation".to_owned(),
        metadata: Some(object(&[("model", Kind::StringValue("m".to_owned()))])),
        conversation_id: new_id(),
    };
    let first = memory.create_conversation(request.clone()).await.unwrap();
    let first = first.into_inner().conversation.unwrap();
    assert_eq!(first.id, request.conversation_id);
    assert_eq!(first.dept_id, "hr");
    assert_eq!(first.title, "Vacation");
    assert_eq!(first.metadata, request.metadata);
    assert_eq!(first.last_seq, 0);
    let again = memory.create_conversation(request.clone()).await.unwrap();
    assert_eq!(again.into_inner().conversation.unwrap(), first);
    for other in [
        CreateConversationRequest {
            user_id: new_user(),
            ..request.clone()
        },
        CreateConversationRequest {
            title: "Other".to_owned(),
            ..request
        },
    ] {
        let refused = memory.create_conversation(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert_eq!(reason(&refused), "CONVERSATION_ID_REUSED");
    }
}

async fn derives_the_title_from_the_first_user_message(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let greeting = save(&conversation, vec![message(Role::Assistant, "Hello!")]);
    memory.save_messages(greeting).await.unwrap();
    assert_eq!(get(&mut memory, &conversation).await.title, "");
    let long = format!("What is\nour {}policy?", "very ".repeat(30));
    save_text(&mut memory, &conversation, &long).await;
    save_text(&mut memory, &conversation, "Something else").await;
    let title = get(&mut memory, &conversation).await.title;
    assert!(title.starts_with("What is our very very"), "{title}");
    assert!(title.ends_with("very") && title.len() <= 80, "{title}");
}

async fn lists_conversations_by_activity(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(new_conversation(&mut memory, &user).await);
    }
    new_conversation(&mut memory, &new_user()).await;
    save_text(&mut memory, &ids[1], "again").await;
    let expected: Vec<String> = [1, 4, 3, 2, 0].map(|at: usize| ids[at].clone()).into();
    let mut listed = Vec::new();
    let mut request = ListConversationsRequest {
        user_id: user.clone(),
        page_size: 2,
        ..ListConversationsRequest::default()
    };
    loop {
        let page = memory.list_conversations(request.clone()).await.unwrap();
        let page = page.into_inner();
        assert!(page.conversations.len() <= 2);
        listed.extend(page.conversations.into_iter().map(|found| found.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, expected);

    let mut turn = begin(&user);
    turn.dept_id = "hr".to_owned();
    let begun = memory.begin_turn(turn).await.unwrap().into_inner();
    let begun = begun.conversation.unwrap().id;
    let request = ListConversationsRequest {
        user_id: user,
        dept_id: "hr".to_owned(),
        page_size: 1_000_000,
        ..ListConversationsRequest::default()
    };
    let of_dept = memory.list_conversations(request.clone()).await.unwrap();
    assert!(
        of_dept.into_inner().conversations.is_empty(),
        "nothing was saved in the turn"
    );
    save_text(&mut memory, &begun, "hello").await;
    let of_dept = memory.list_conversations(request).await.unwrap();
    let of_dept = of_dept.into_inner().conversations;
    assert_eq!(of_dept.len(), 1);
    assert_eq!(of_dept[0].id, begun);
}

async fn reads_a_conversation_in_pages(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let messages = (1..=25).map(|n| message(Role::User, &format!("message {n}")));
    let request = save(&conversation, messages.collect());
    memory.save_messages(request).await.unwrap();
    let request = GetConversationRequest {
        conversation_id: conversation.clone(),
        page_size: 10,
        ..GetConversationRequest::default()
    };
    let first = memory.get_conversation(request.clone()).await.unwrap();
    let first = first.into_inner();
    assert_eq!(first.conversation.unwrap().last_seq, 25);
    let mut read = seqs(&first.messages);
    let mut request = ListMessagesRequest {
        conversation_id: conversation.clone(),
        page_size: 10,
        page_token: first.next_page_token,
        ..ListMessagesRequest::default()
    };
    while !request.page_token.is_empty() {
        let page = memory.list_messages(request.clone()).await.unwrap();
        let page = page.into_inner();
        read.extend(seqs(&page.messages));
        request.page_token = page.next_page_token;
    }
    assert_eq!(read, (1..=25).collect::<Vec<_>>());
    let request = GetConversationRequest {
        conversation_id: conversation,
        omit_messages: true,
        ..GetConversationRequest::default()
    };
    let bare = memory.get_conversation(request).await.unwrap().into_inner();
    assert!(bare.messages.is_empty() && bare.next_page_token.is_empty());
}

async fn pages_fit_the_size_limit_of_clients(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for at in 0..10 {
        save_text(&mut memory, &conversation, &"x".repeat(900_000 + at)).await;
    }
    // Clients accept at most 4 MiB unless configured otherwise.
    let mut plain = ConversationMemoryClient::new(sidecar.channel());
    for newest_first in [false, true] {
        let mut request = ListMessagesRequest {
            conversation_id: conversation.clone(),
            page_size: 1000,
            newest_first,
            ..ListMessagesRequest::default()
        };
        let mut read = Vec::new();
        loop {
            let page = plain.list_messages(request.clone()).await.unwrap();
            let page = page.into_inner();
            read.extend(seqs(&page.messages));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        if newest_first {
            read.reverse();
        }
        assert_eq!(read, (1..=10).collect::<Vec<_>>());
    }
}

async fn updates_title_and_metadata(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let metadata = object(&[("pinned", Kind::BoolValue(true))]);
    let change = |title: &str, paths: &[&str]| UpdateConversationRequest {
        conversation: Some(Conversation {
            id: conversation.clone(),
            title: title.to_owned(),
            metadata: Some(metadata.clone()),
            ..Conversation::default()
        }),
        update_mask: (!paths.is_empty()).then(|| FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
        ..UpdateConversationRequest::default()
    };
    let mut update = async |request| {
        let updated = memory.update_conversation(request).await?;
        Ok::<_, Status>(updated.into_inner().conversation.unwrap())
    };
    let updated = update(change("Mine", &["title"])).await.unwrap();
    assert_eq!((updated.title.as_str(), updated.metadata), ("Mine", None));
    let updated = update(change("", &["metadata"])).await.unwrap();
    assert_eq!(updated.title, "Mine");
    assert_eq!(updated.metadata.as_ref(), Some(&metadata));
    let updated = update(change("", &["title"])).await.unwrap();
    assert_eq!(updated.title, "");
    let updated = update(change("Both", &[])).await.unwrap();
    assert_eq!(updated.title, "Both");
    let refused = update(change("x", &["user_id"])).await.unwrap_err();
    assert_eq!(
        test_support::requests::rejected_field(&refused),
        "update_mask"
    );
}

async fn deletes_a_conversation(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let begun = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    let conversation = begun.conversation.unwrap().id;
    save_text(&mut memory, &conversation, "forget this").await;
    memory.get_history(history(&conversation)).await.unwrap();
    let request = DeleteConversationRequest {
        conversation_id: conversation.clone(),
        user_id: user.clone(),
    };
    memory.delete_conversation(request.clone()).await.unwrap();
    let gone = memory.delete_conversation(request).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let gone = memory
        .get_history(history(&conversation))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let late = save(&conversation, vec![message(Role::User, "late")]);
    let gone = memory.save_messages(late).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    // The session continues with a new conversation.
    let mut request = begin(&user);
    request.session_id = begun.session.unwrap().id;
    let next = memory.begin_turn(request.clone()).await.unwrap();
    let next = next.into_inner().conversation.unwrap().id;
    assert_ne!(next, conversation);
    let same = memory.begin_turn(request).await.unwrap().into_inner();
    assert_eq!(same.conversation.unwrap().id, next);
}

async fn conversations_of_other_users_are_not_found(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let owner = new_user();
    let conversation = new_conversation(&mut memory, &owner).await;
    save_text(&mut memory, &conversation, "private").await;
    let nobodys = new_id_like(&conversation);
    // Once from the store, and once from a filled window.
    for _ in 0..2 {
        for call in 0..CALLS {
            let foreign = claimed(&mut memory, call, &conversation, "somebody-else").await;
            let missing = claimed(&mut memory, call, &nobodys, "somebody-else").await;
            let (foreign, missing) = (foreign.unwrap_err(), missing.unwrap_err());
            assert_eq!(foreign.code(), Code::NotFound, "call {call}");
            assert_eq!(foreign.message(), missing.message());
            let same = |status: &Status, id: &str| {
                String::from_utf8_lossy(status.details()).replace(id, "<id>")
            };
            assert_eq!(same(&foreign, &conversation), same(&missing, &nobodys));
        }
        memory.get_history(history(&conversation)).await.unwrap();
    }
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(contents(&read.into_inner().messages), ["private"]);
}

/// The id with another last digit, which no conversation has.
fn new_id_like(id: &str) -> String {
    let last = if id.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &id[..id.len() - 1])
}

const CALLS: usize = 8;

/// Calls every method that names a conversation, with a claimed owner.
async fn claimed(
    memory: &mut Memory,
    call: usize,
    conversation: &str,
    user: &str,
) -> Result<(), Status> {
    let (conversation_id, user_id) = (conversation.to_owned(), user.to_owned());
    match call {
        0 => {
            let mut request = history(conversation);
            request.user_id = user_id;
            memory.get_history(request).await.map(drop)
        }
        1 => {
            let mut request = save(conversation, vec![message(Role::User, "x")]);
            request.user_id = user_id;
            memory.save_messages(request).await.map(drop)
        }
        2 => {
            let mut request = begin(user);
            request.conversation_id = conversation_id;
            memory.begin_turn(request).await.map(drop)
        }
        3 => {
            let request = GetConversationRequest {
                conversation_id,
                user_id,
                ..GetConversationRequest::default()
            };
            memory.get_conversation(request).await.map(drop)
        }
        4 => {
            let request = ListMessagesRequest {
                conversation_id,
                user_id,
                ..ListMessagesRequest::default()
            };
            memory.list_messages(request).await.map(drop)
        }
        5 => {
            let request = TruncateConversationRequest {
                conversation_id,
                user_id,
                ..TruncateConversationRequest::default()
            };
            memory.truncate_conversation(request).await.map(drop)
        }
        6 => {
            let request = DeleteConversationRequest {
                conversation_id,
                user_id,
            };
            memory.delete_conversation(request).await.map(drop)
        }
        _ => {
            let request = UpdateConversationRequest {
                conversation: Some(Conversation {
                    id: conversation_id,
                    title: "mine now".to_owned(),
                    ..Conversation::default()
                }),
                user_id,
                ..UpdateConversationRequest::default()
            };
            memory.update_conversation(request).await.map(drop)
        }
    }
}

async fn get(memory: &mut Memory, conversation: &str) -> Conversation {
    let request = GetConversationRequest {
        conversation_id: conversation.to_owned(),
        omit_messages: true,
        ..GetConversationRequest::default()
    };
    let found = memory.get_conversation(request).await.unwrap();
    found.into_inner().conversation.unwrap()
}
