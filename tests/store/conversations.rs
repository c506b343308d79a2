use conversation_memory::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, DeptId, IdSource,
        NewConversation, UserId, UuidV7,
    },
    store::{Bound, ConversationQuery, Invalidation, MinState, ReusedKey, StoreError},
};
use serde_json::json;

use test_support::store_fixture::{
    StoreFixture, at, metadata, new_conversation, owned_ref, session, title, truncation, turn, user,
};

pub(crate) async fn create_stores_all_fields(fixture: &StoreFixture) {
    let new = NewConversation {
        dept_id: Some(DeptId::parse("Größe 部门").unwrap()),
        title: Some(title("A title; DROP TABLE conversations; --")),
        metadata: Some(metadata(json!({"a": {"b": [1, null, "x"]}}))),
        session_id: Some(session()),
        ..new_conversation(&user())
    };
    let created = fixture.store.create(&new, at(5)).await.unwrap();
    let expected = Conversation {
        id: new.id,
        user_id: new.user_id.clone(),
        dept_id: new.dept_id.clone(),
        title: new.title.clone(),
        last_seq: 0,
        created_at: at(5),
        updated_at: at(5),
        metadata: new.metadata.clone(),
        parent_id: None,
        branched_at_seq: None,
        compacted_upto_seq: 0,
        uncompacted_tokens: 0,
    };
    assert_eq!(created, expected);
    assert_eq!(fixture.store.get(&owned_ref(&new)).await.unwrap(), expected);
    let anyone = ConversationRef {
        id: new.id,
        user_id: None,
    };
    assert_eq!(fixture.store.get(&anyone).await.unwrap(), expected);
}

pub(crate) async fn foreign_conversation_is_not_found(fixture: &StoreFixture) {
    let own = fixture.create_conversation().await;
    fixture.append_texts(&own, &["mine"]).await;
    let foreign = ConversationRef {
        user_id: Some(user()),
        ..own.clone()
    };
    let none = ConversationRef {
        id: ConversationId::from_uuid(UuidV7.uuid()),
        ..own.clone()
    };
    for conversation in [&foreign, &none] {
        let store = &fixture.store;
        let changes = ConversationChanges {
            title: Some(Some(title("theirs"))),
            metadata: None,
        };
        let unchanged = ConversationChanges::default();
        let append = turn(conversation, &["theirs"]);
        let answers = [
            store.get(conversation).await.err(),
            store.attach_session(conversation, session()).await.err(),
            store.update(conversation, &changes, at(9)).await.err(),
            store.update(conversation, &unchanged, at(9)).await.err(),
            store.append(&append).await.err(),
            store.truncate(&truncation(conversation, 0)).await.err(),
            store.newest(conversation, 10, true).await.err(),
            store
                .messages(conversation, Bound::After(0), 10, true)
                .await
                .err(),
            store
                .messages(conversation, Bound::Before(9), 10, false)
                .await
                .err(),
            store.delete(conversation, Invalidation::Never).await.err(),
        ];
        for (place, answer) in answers.into_iter().enumerate() {
            assert!(
                matches!(answer, Some(StoreError::NotFound)),
                "{place}: {answer:?}"
            );
        }
    }
    assert_eq!(fixture.texts(&own).await, ["mine"]);
}

pub(crate) async fn create_is_idempotent(fixture: &StoreFixture) {
    let new = new_conversation(&user());
    let first = fixture.store.create(&new, at(0)).await.unwrap();
    assert_eq!(fixture.store.create(&new, at(7)).await.unwrap(), first);

    let mut named_since = turn(&owned_ref(&new), &["hello"]);
    named_since.title = Some((title("hello"), 0));
    fixture.save(&named_since).await.unwrap();
    let again = fixture.store.create(&new, at(9)).await.unwrap();
    assert_eq!((again.last_seq, again.title), (1, Some(title("hello"))));
}

pub(crate) async fn create_rejects_used_id(fixture: &StoreFixture) {
    let new = new_conversation(&user());
    fixture.store.create(&new, at(0)).await.unwrap();
    let others = [
        NewConversation {
            user_id: user(),
            ..new.clone()
        },
        NewConversation {
            title: Some(title("other")),
            ..new.clone()
        },
        NewConversation {
            metadata: Some(metadata(json!({"other": true}))),
            ..new.clone()
        },
        NewConversation {
            dept_id: Some(DeptId::parse("other").unwrap()),
            ..new.clone()
        },
    ];
    for other in others {
        let answer = fixture.store.create(&other, at(1)).await;
        let taken = Err(StoreError::AlreadyExists(ReusedKey::ConversationId));
        assert_eq!(
            format!("{answer:?}"),
            format!("{:?}", taken as Result<(), _>)
        );
    }
}

pub(crate) async fn update_sets_and_clears_fields(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let change = async |title, metadata, micros| {
        let changes = ConversationChanges { title, metadata };
        let after = fixture
            .store
            .update(&conversation, &changes, at(micros))
            .await
            .unwrap();
        assert_eq!(fixture.store.get(&conversation).await.unwrap(), after);
        (after.title, after.metadata, after.updated_at)
    };
    let named = Some(title("named"));
    let noted = Some(metadata(json!({"k": 1})));
    assert_eq!(
        change(Some(named.clone()), None, 10).await,
        (named.clone(), None, at(10))
    );
    assert_eq!(
        change(None, Some(noted.clone()), 20).await,
        (named.clone(), noted.clone(), at(20))
    );
    assert_eq!(change(None, None, 30).await, (named, noted.clone(), at(20)));
    assert_eq!(change(Some(None), None, 40).await, (None, noted, at(40)));
    assert_eq!(change(None, Some(None), 50).await, (None, None, at(50)));
}

async fn list(fixture: &StoreFixture, user: &UserId, limit: u32) -> Vec<ConversationId> {
    let query = ConversationQuery {
        user_id: user.clone(),
        dept_id: None,
        after: None,
        state: MinState::ANY,
        limit,
    };
    let page = fixture.store.list(&query).await.unwrap();
    page.conversations
        .iter()
        .map(|conversation| conversation.id)
        .collect()
}

pub(crate) async fn list_is_ordered_by_activity(fixture: &StoreFixture) {
    let user = user();
    let new: Vec<_> = (0..3).map(|_| new_conversation(&user)).collect();
    for (place, new) in new.iter().enumerate() {
        // The times are in the opposite order, and have no effect.
        let micros = 1_000_000 - i64::try_from(place).unwrap();
        fixture.store.create(new, at(micros)).await.unwrap();
    }
    let [a, b, c] = [&new[0], &new[1], &new[2]];
    assert_eq!(list(fixture, &user, 10).await, [c.id, b.id, a.id]);
    fixture.append_texts(&owned_ref(a), &["hello"]).await;
    assert_eq!(list(fixture, &user, 10).await, [a.id, c.id, b.id]);
    fixture
        .store
        .attach_session(&owned_ref(b), session())
        .await
        .unwrap();
    assert_eq!(list(fixture, &user, 10).await, [a.id, c.id, b.id]);
    fixture
        .store
        .truncate(&truncation(&owned_ref(b), 0))
        .await
        .unwrap();
    assert_eq!(list(fixture, &user, 10).await, [b.id, a.id, c.id]);
    let changes = ConversationChanges {
        title: Some(Some(title("c"))),
        metadata: None,
    };
    fixture
        .store
        .update(&owned_ref(c), &changes, at(0))
        .await
        .unwrap();
    assert_eq!(list(fixture, &user, 10).await, [c.id, b.id, a.id]);
    assert!(
        list(fixture, &test_support::store_fixture::user(), 10)
            .await
            .is_empty()
    );
}

pub(crate) async fn list_is_paged(fixture: &StoreFixture) {
    let user = user();
    let mut expected = Vec::new();
    for _ in 0..7 {
        let new = new_conversation(&user);
        fixture.store.create(&new, at(0)).await.unwrap();
        expected.insert(0, new.id);
    }
    for limit in [1, 2, 3, 6, 7, 8] {
        let mut query = ConversationQuery {
            user_id: user.clone(),
            dept_id: None,
            after: None,
            state: MinState::ANY,
            limit,
        };
        let mut seen = Vec::new();
        loop {
            let page = fixture.store.list(&query).await.unwrap();
            assert!(page.conversations.len() <= limit as usize);
            seen.extend(
                page.conversations
                    .iter()
                    .map(|conversation| conversation.id),
            );
            query.after = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "{limit} a page");
    }
}

pub(crate) async fn list_filters_by_department(fixture: &StoreFixture) {
    let user = user();
    let mut sales = Vec::new();
    for dept in [Some("sales"), None, Some("it"), Some("sales")] {
        let new = NewConversation {
            dept_id: dept.map(|dept| DeptId::parse(dept).unwrap()),
            ..new_conversation(&user)
        };
        fixture.store.create(&new, at(0)).await.unwrap();
        if dept == Some("sales") {
            sales.insert(0, new.id);
        }
    }
    let mut query = ConversationQuery {
        user_id: user,
        dept_id: Some(DeptId::parse("sales").unwrap()),
        after: None,
        state: MinState::ANY,
        limit: 1,
    };
    let first = fixture.store.list(&query).await.unwrap();
    query.after = first.next;
    let second = fixture.store.list(&query).await.unwrap();
    let seen: Vec<_> = [first, second.clone()]
        .iter()
        .flat_map(|page| {
            page.conversations
                .iter()
                .map(|conversation| conversation.id)
        })
        .collect();
    assert_eq!((seen, second.next), (sales, None));
}

pub(crate) async fn session_is_found_on_its_last_conversation(fixture: &StoreFixture) {
    let user = user();
    let session = session();
    let [a, b] = [new_conversation(&user), new_conversation(&user)];
    let a = NewConversation {
        session_id: Some(session),
        ..a
    };
    for new in [&a, &b] {
        fixture.store.create(new, at(0)).await.unwrap();
    }
    let found = async || {
        let found = fixture
            .store
            .conversation_of_session(session, &user)
            .await
            .unwrap();
        found.map(|conversation| conversation.id)
    };
    assert_eq!(found().await, Some(a.id));
    let attached = fixture
        .store
        .attach_session(&owned_ref(&b), session)
        .await
        .unwrap();
    assert_eq!(attached, fixture.store.get(&owned_ref(&b)).await.unwrap());
    assert_eq!(found().await, Some(b.id));
    // Attaches the session to the same conversation again, and then to the first one.
    fixture
        .store
        .attach_session(&owned_ref(&b), session)
        .await
        .unwrap();
    fixture
        .store
        .attach_session(&owned_ref(&a), session)
        .await
        .unwrap();
    assert_eq!(found().await, Some(a.id));
    let mut append = turn(&owned_ref(&b), &["said in the session"]);
    append.session_id = Some(session);
    fixture.save(&append).await.unwrap();
    assert_eq!(found().await, Some(b.id));
    // A save without a session does not change the conversation of the session.
    fixture.append_texts(&owned_ref(&a), &["hello"]).await;
    assert_eq!(found().await, Some(b.id));
    fixture
        .store
        .delete(&owned_ref(&b), Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(found().await, Some(a.id));
    let unknown = test_support::store_fixture::session();
    assert!(
        fixture
            .store
            .conversation_of_session(unknown, &user)
            .await
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn a_session_of_another_user_with_the_same_id_has_no_effect(
    fixture: &StoreFixture,
) {
    let session = session();
    let [ann, bob] = [user(), user()];
    let [mine, theirs] = [&ann, &bob].map(new_conversation);
    for new in [&theirs, &mine] {
        fixture.store.create(new, at(0)).await.unwrap();
    }
    let of = async |user: &UserId| {
        let found = fixture.store.conversation_of_session(session, user).await;
        found.unwrap().map(|conversation| conversation.id)
    };
    let save = async |new: &NewConversation, text| {
        let mut append = turn(&owned_ref(new), &[text]);
        append.session_id = Some(session);
        fixture.save(&append).await.unwrap();
    };
    // The other user records the id before, between and after the user's own records.
    save(&theirs, "first").await;
    assert_eq!(of(&ann).await, None);
    save(&mine, "second").await;
    assert_eq!(
        (of(&ann).await, of(&bob).await),
        (Some(mine.id), Some(theirs.id))
    );
    let (mine_ref, theirs_ref) = (owned_ref(&mine), owned_ref(&theirs));
    let attached = fixture.store.attach_session(&theirs_ref, session);
    attached.await.unwrap();
    let created = NewConversation {
        session_id: Some(session),
        ..new_conversation(&bob)
    };
    fixture.store.create(&created, at(0)).await.unwrap();
    assert_eq!(
        (of(&ann).await, of(&bob).await),
        (Some(mine.id), Some(created.id))
    );
    // Attaching the session to the same conversation again is not hidden by the other user's.
    let attached = fixture.store.attach_session(&mine_ref, session);
    attached.await.unwrap();
    fixture
        .store
        .delete(&owned_ref(&mine), Invalidation::Never)
        .await
        .unwrap();
    assert_eq!((of(&ann).await, of(&bob).await), (None, Some(created.id)));
}

pub(crate) async fn a_user_without_the_session_finds_no_conversation(fixture: &StoreFixture) {
    let session = session();
    let new = NewConversation {
        session_id: Some(session),
        ..new_conversation(&user())
    };
    fixture.store.create(&new, at(0)).await.unwrap();
    let found = fixture
        .store
        .conversation_of_session(session, &user())
        .await;
    assert!(found.unwrap().is_none());
}
