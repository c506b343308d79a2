//! Changes of the owner of a family of conversations.

use std::{collections::BTreeSet, sync::Arc};

use conversation_memory::{
    domain::{ConversationId, ConversationRef, DeptId, UserId},
    store::{
        Appended, ConversationQuery, Invalidation, MAX_FAMILY_CONVERSATIONS, MinState, OwnerChange,
        StoreError,
    },
};
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, at, new_conversation, owner_change, retry_of, session, truncation, turn, user,
    with_request_id,
};

use crate::{
    branches::branch_of,
    search::{found, query},
};

async fn change(fixture: &StoreFixture, change: &OwnerChange) -> BTreeSet<ConversationId> {
    let family: BTreeSet<_> = fixture
        .store
        .family(change)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let changed = fixture.store.change_owner(change).await.unwrap();
    let changed: BTreeSet<_> = changed.into_iter().collect();
    assert!(changed.is_subset(&family));
    changed
}

fn of_user(conversation: &ConversationRef, user: &UserId) -> ConversationRef {
    ConversationRef {
        id: conversation.id,
        user_id: Some(user.clone()),
    }
}

fn owner(conversation: &ConversationRef) -> UserId {
    conversation.user_id.clone().unwrap()
}

async fn listed(fixture: &StoreFixture, user: &UserId) -> BTreeSet<ConversationId> {
    let query = ConversationQuery {
        user_id: user.clone(),
        dept_id: None,
        after: None,
        state: MinState::ANY,
        limit: 100,
    };
    let page = fixture.store.list(&query).await.unwrap();
    page.conversations
        .into_iter()
        .map(|found| found.id)
        .collect()
}

pub(crate) async fn a_family_gets_its_owner_together(fixture: &StoreFixture) {
    let root = fixture.create_conversation().await;
    let previous = owner(&root);
    fixture
        .append_texts(&root, &["red one", "red two", "red three"])
        .await;
    let branch = fixture.branch(&branch_of(&root, 2)).await;
    fixture.append_texts(&branch, &["red branch"]).await;
    let grandchild = fixture.branch(&branch_of(&branch, 3)).await;
    // It shares nothing any more.
    let emptied = fixture.branch(&branch_of(&root, 1)).await;
    fixture
        .store
        .truncate(&truncation(&emptied, 0))
        .await
        .unwrap();
    // What connects the others is deleted.
    fixture
        .store
        .delete(&branch, Invalidation::Never)
        .await
        .unwrap();
    let other = ConversationRef {
        id: new_conversation(&previous).id,
        user_id: Some(previous.clone()),
    };
    let mut unrelated = new_conversation(&previous);
    unrelated.id = other.id;
    fixture.store.create(&unrelated, at(0)).await.unwrap();
    fixture.append_texts(&other, &["red other"]).await;
    let before = fixture.store.get(&root).await.unwrap();

    let new = user();
    let request = owner_change(&grandchild, &new);
    let family = BTreeSet::from([root.id, grandchild.id, emptied.id]);
    assert_eq!(change(fixture, &request).await, family);
    for conversation in [&root, &grandchild, &emptied] {
        let foreign = fixture.store.get(conversation).await;
        assert!(matches!(foreign, Err(StoreError::NotFound)));
    }
    let after = fixture.store.get(&of_user(&root, &new)).await.unwrap();
    assert_eq!(after.user_id, new);
    assert_eq!(
        (&after.title, after.last_seq, after.updated_at),
        (&before.title, before.last_seq, before.updated_at)
    );
    assert_eq!(listed(fixture, &new).await, family);
    assert_eq!(listed(fixture, &previous).await, BTreeSet::from([other.id]));
    let texts = ["red branch", "red one", "red three", "red two"];
    assert_eq!(found(fixture, &query(&new, "red")).await, texts);
    assert_eq!(
        found(fixture, &query(&previous, "red")).await,
        ["red other"]
    );
    let branches = fixture
        .store
        .branches(&of_user(&root, &new), None, 10)
        .await;
    let branches = branches.unwrap().conversations;
    assert_eq!(
        branches.iter().map(|found| found.id).collect::<Vec<_>>(),
        [emptied.id]
    );

    // A retry changes nothing, and the previous owner is not accepted for a third one.
    assert_eq!(change(fixture, &request).await, family);
    let third = owner_change(&grandchild, &user());
    let foreign = fixture.store.change_owner(&third).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    let missing = of_user(&other, &previous);
    fixture
        .store
        .delete(&other, Invalidation::Never)
        .await
        .unwrap();
    let missing = fixture
        .store
        .change_owner(&owner_change(&missing, &new))
        .await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
    assert_eq!(found(fixture, &query(&new, "red")).await, texts);
}

pub(crate) async fn saves_continue_for_the_new_owner(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let previous = owner(&conversation);
    let session = session();
    let mut save = with_request_id(turn(&conversation, &["blue one"]), "key");
    save.session_id = Some(session);
    fixture.save(&save).await.unwrap();
    let new = user();
    let mut request = owner_change(&conversation, &new);
    request.dept_id = Some(DeptId::parse("sales").unwrap());
    change(fixture, &request).await;

    let store = &fixture.store;
    for user in [&previous, &new] {
        let attached = store.conversation_of_session(session, user).await.unwrap();
        assert_eq!(attached, None);
    }
    assert!(matches!(
        fixture.save(&retry_of(&save)).await,
        Err(StoreError::NotFound)
    ));
    let mut retry = retry_of(&save);
    retry.conversation = of_user(&conversation, &new);
    assert!(matches!(
        fixture.save(&retry).await.unwrap(),
        Appended::Replayed { .. }
    ));
    // Without a claim, the save belongs to the owner.
    let unclaimed = ConversationRef {
        id: conversation.id,
        user_id: None,
    };
    fixture.append_texts(&unclaimed, &["blue two"]).await;
    let mut search = query(&new, "blue");
    search.dept_id = request.dept_id.clone();
    assert_eq!(found(fixture, &search).await, ["blue one", "blue two"]);
    assert_eq!(found(fixture, &query(&previous, "blue")).await.len(), 0);

    // The department can be corrected, and then the new owner keeps a session.
    let reference = of_user(&conversation, &new);
    store.attach_session(&reference, session).await.unwrap();
    request.dept_id = Some(DeptId::parse("hr").unwrap());
    change(fixture, &request).await;
    assert_eq!(
        store.get(&reference).await.unwrap().dept_id,
        request.dept_id
    );
    let attached = store.conversation_of_session(session, &new).await.unwrap();
    assert_eq!(attached.unwrap().id, conversation.id);
    search.dept_id = request.dept_id;
    assert_eq!(found(fixture, &search).await.len(), 2);
}

pub(crate) async fn concurrent_saves_and_branches_belong_to_one_owner(fixture: &StoreFixture) {
    const TEXTS: usize = 20;
    let root = fixture.create_conversation().await;
    let previous = owner(&root);
    fixture.append_texts(&root, &["green"]).await;
    let (first, second) = (user(), user());
    let unclaimed = ConversationRef {
        id: root.id,
        user_id: None,
    };
    let mut writes = JoinSet::new();
    for number in 0..TEXTS {
        let (store, unclaimed) = (Arc::clone(&fixture.store), unclaimed.clone());
        let own = root.clone();
        writes.spawn(async move {
            let saved = store.append(&turn(&unclaimed, &["green"])).await;
            assert!(saved.is_ok(), "{saved:?}");
            let mut branch = branch_of(&unclaimed, 1);
            branch.title = None;
            let branched = store.branch(&branch).await;
            assert!(branched.is_ok(), "{branched:?}");
            // The previous owner's saves are before the change, or fail.
            let saved = store.append(&turn(&own, &["green"])).await;
            assert!(
                matches!(saved, Ok(_) | Err(StoreError::NotFound)),
                "{number}: {saved:?}"
            );
            usize::from(saved.is_ok())
        });
    }
    for new in [&first, &second, &first] {
        let request = OwnerChange {
            conversation: unclaimed.clone(),
            ..owner_change(&root, new)
        };
        fixture.store.change_owner(&request).await.unwrap();
    }
    let claimed: usize = writes.join_all().await.into_iter().sum();
    let owned = fixture.store.get(&unclaimed).await.unwrap();
    assert_eq!(owned.user_id, first);
    let messages = 1 + TEXTS + claimed;
    assert_eq!(usize::try_from(owned.last_seq).unwrap(), messages);
    assert_eq!(listed(fixture, &first).await.len(), 1 + TEXTS);
    assert_eq!(
        found(fixture, &query(&first, "green")).await.len(),
        messages
    );
    for other in [&previous, &second] {
        assert_eq!(listed(fixture, other).await, BTreeSet::new());
        assert_eq!(found(fixture, &query(other, "green")).await.len(), 0);
    }
}

pub(crate) async fn a_family_that_is_too_large_is_not_changed(fixture: &StoreFixture) {
    let root = fixture.create_conversation().await;
    fixture.append_texts(&root, &["brown"]).await;
    for _ in 1..MAX_FAMILY_CONVERSATIONS {
        fixture.branch(&branch_of(&root, 1)).await;
    }
    let new = user();
    let request = owner_change(&root, &new);
    assert_eq!(
        change(fixture, &request).await.len(),
        usize::try_from(MAX_FAMILY_CONVERSATIONS).unwrap()
    );
    let root = of_user(&root, &new);
    fixture.branch(&branch_of(&root, 1)).await;
    let request = owner_change(&root, &user());
    for refused in [
        fixture.store.family(&request).await,
        fixture.store.change_owner(&request).await,
    ] {
        assert!(matches!(refused, Err(StoreError::FamilyTooLarge)));
    }
    assert_eq!(found(fixture, &query(&new, "brown")).await, ["brown"]);
}

pub(crate) async fn too_many_messages_are_not_changed(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let texts = vec!["grey"; 1_000];
    for _ in 0..20 {
        fixture.append_texts(&conversation, &texts).await;
    }
    let new = user();
    change(fixture, &owner_change(&conversation, &new)).await;
    let conversation = of_user(&conversation, &new);
    fixture.append_texts(&conversation, &["grey"]).await;
    let refused = fixture
        .store
        .change_owner(&owner_change(&conversation, &user()))
        .await;
    assert!(matches!(refused, Err(StoreError::FamilyTooLarge)));
    assert_eq!(fixture.store.get(&conversation).await.unwrap().user_id, new);
}
