use std::sync::Arc;

use conversation_memory::{
    domain::Message,
    store::{Appended, Bound, Invalidation, StoreError, Truncated},
};
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, append_of, at, context, message, new_conversation, owned_ref, retry_of,
    truncation, truncation_with_request_id, turn, user, with_request_id,
};

pub(crate) async fn truncation_removes_messages_after_a_number(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let batch = (1..=5)
        .map(|seq: i64| {
            let mut new = message(seq.to_string());
            new.contexts = vec![context("doc", "c")];
            new
        })
        .collect();
    fixture
        .save(&append_of(&conversation, batch))
        .await
        .unwrap();
    for (after_seq, removed, left) in [
        (9, 0, 5),
        (5, 0, 5),
        (3, 2, 3),
        (3, 0, 3),
        (0, 3, 0),
        (0, 0, 0),
    ] {
        let truncated = fixture
            .store
            .truncate(&truncation(&conversation, after_seq))
            .await
            .unwrap();
        assert_eq!(
            truncated,
            Truncated {
                removed,
                last_seq: 5
            }
        );
        assert_eq!(
            fixture.seqs(&conversation).await,
            (1..=left).collect::<Vec<_>>()
        );
        let found = fixture.store.get(&conversation).await.unwrap();
        assert_eq!((found.last_seq, found.updated_at), (5, at(2)));
    }
}

pub(crate) async fn truncation_retry_returns_first_outcome(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["1", "2", "3"]).await;
    let mut removal = truncation_with_request_id(&conversation, 1, "key");
    removal.expected_last_seq = Some(3);
    let first = fixture.store.truncate(&removal).await.unwrap();
    assert_eq!(
        first,
        Truncated {
            removed: 2,
            last_seq: 3
        }
    );
    fixture.append_texts(&conversation, &["4"]).await;
    // The retry does not remove messages that were saved since.
    assert_eq!(fixture.store.truncate(&removal).await.unwrap(), first);
    assert_eq!(fixture.texts(&conversation).await, ["1", "4"]);
    let other = truncation_with_request_id(&conversation, 0, "key");
    assert!(matches!(
        fixture.store.truncate(&other).await,
        Err(StoreError::AlreadyExists(_))
    ));
    assert_eq!(fixture.texts(&conversation).await, ["1", "4"]);
    let mut at_once = JoinSet::new();
    for _ in 0..4 {
        let (store, removal) = (
            Arc::clone(&fixture.store),
            truncation_with_request_id(&conversation, 1, "at once"),
        );
        at_once.spawn(async move { store.truncate(&removal).await.unwrap() });
    }
    let outcomes = at_once.join_all().await;
    assert_eq!(
        outcomes,
        [Truncated {
            removed: 1,
            last_seq: 4
        }; 4]
    );
}

pub(crate) async fn truncation_rejects_wrong_expected_last_seq(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["1", "2"]).await;
    let mut removal = truncation(&conversation, 0);
    removal.expected_last_seq = Some(1);
    assert!(matches!(
        fixture.store.truncate(&removal).await,
        Err(StoreError::Conflict { current_seq: 2 })
    ));
    assert_eq!(fixture.seqs(&conversation).await, [1, 2]);
    removal.expected_last_seq = Some(2);
    assert_eq!(fixture.store.truncate(&removal).await.unwrap().removed, 2);
}

pub(crate) async fn numbers_continue_after_truncation(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["1", "2", "3"]).await;
    fixture
        .store
        .truncate(&truncation(&conversation, 0))
        .await
        .unwrap();
    let mut append = turn(&conversation, &["4"]);
    append.expected_last_seq = Some(3);
    assert!(matches!(
        fixture.save(&append).await,
        Ok(Appended::Saved { first_seq: 4, .. })
    ));
    assert_eq!(fixture.seqs(&conversation).await, [4]);
}

pub(crate) async fn concurrent_truncations_and_saves_are_serialized(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (store, conversation) = (Arc::clone(&fixture.store), conversation.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                store
                    .append(&turn(&conversation, &["a", "b"]))
                    .await
                    .unwrap();
            }
            0
        });
    }
    let (store, of) = (Arc::clone(&fixture.store), conversation.clone());
    tasks.spawn(async move {
        let mut removed = 0;
        for _ in 0..20 {
            let truncated = store.truncate(&truncation(&of, 0)).await.unwrap();
            removed += truncated.removed;
            // Every message that was saved before the truncation is removed.
            let left = store
                .messages(&of, Bound::After(0), 1, false)
                .await
                .unwrap();
            assert!(
                left.first()
                    .is_none_or(|Message { seq, .. }| *seq > truncated.last_seq)
            );
        }
        removed
    });
    let removed: i64 = tasks.join_all().await.iter().sum();
    let left = i64::try_from(fixture.seqs(&conversation).await.len()).unwrap();
    assert_eq!(removed + left, 160);
    assert_eq!(
        fixture.store.get(&conversation).await.unwrap().last_seq,
        160
    );
}

pub(crate) async fn deletion_removes_everything(fixture: &StoreFixture) {
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    fixture.store.create(&new, at(0)).await.unwrap();
    let append = with_request_id(turn(&conversation, &["1", "2"]), "key");
    fixture.save(&append).await.unwrap();
    fixture
        .store
        .delete(&conversation, Invalidation::Never)
        .await
        .unwrap();
    for answer in [
        fixture.save(&turn(&conversation, &["late"])).await.err(),
        fixture.save(&retry_of(&append)).await.err(),
        fixture.store.get(&conversation).await.err(),
        fixture.store.newest(&conversation, 9, true).await.err(),
        fixture
            .store
            .delete(&conversation, Invalidation::Never)
            .await
            .err(),
    ] {
        assert!(matches!(answer, Some(StoreError::NotFound)), "{answer:?}");
    }
    // The ids can be used again, and no old message appears.
    fixture.store.create(&new, at(1)).await.unwrap();
    assert!(matches!(
        fixture.save(&append).await,
        Ok(Appended::Saved { first_seq: 1, .. })
    ));
}

pub(crate) async fn concurrent_deletion_and_saves_are_serialized(fixture: &StoreFixture) {
    for round in 0..20 {
        let conversation = fixture.create_conversation().await;
        let mut savers = JoinSet::new();
        for _ in 0..3 {
            let (store, conversation) = (Arc::clone(&fixture.store), conversation.clone());
            savers.spawn(async move {
                loop {
                    let mut append = turn(&conversation, &["a", "b"]);
                    append.messages[0].contexts = vec![context("doc", "c")];
                    match store.append(&append).await {
                        Ok(_) => {}
                        Err(StoreError::NotFound) => break,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
        if round % 2 == 0 {
            // Half of the deletions begin after the first saves.
            while fixture.store.get(&conversation).await.unwrap().last_seq < 4 {
                tokio::task::yield_now().await;
            }
        }
        fixture
            .store
            .delete(&conversation, Invalidation::Never)
            .await
            .unwrap();
        savers.join_all().await;
        assert!(matches!(
            fixture.store.get(&conversation).await,
            Err(StoreError::NotFound)
        ));
    }
}
