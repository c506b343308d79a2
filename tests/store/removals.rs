use std::sync::Arc;

use conversation_memory::{
    domain::Message,
    store::{Appended, Bound, StoreError, Truncated},
};
use tokio::task::JoinSet;

use test_support::world::{
    World, append_of, at, context, message, new_conversation, owned_ref, retry_of, truncation,
    truncation_with_request_id, turn, user, with_request_id,
};

pub(crate) async fn truncation_removes_messages_after_a_number(world: &World) {
    let conversation = world.create_conversation().await;
    let batch = (1..=5)
        .map(|seq: i64| {
            let mut new = message(seq.to_string());
            new.contexts = vec![context("doc", "c")];
            new
        })
        .collect();
    world.save(&append_of(&conversation, batch)).await.unwrap();
    for (after_seq, removed, left) in [
        (9, 0, 5),
        (5, 0, 5),
        (3, 2, 3),
        (3, 0, 3),
        (0, 3, 0),
        (0, 0, 0),
    ] {
        let truncated = world
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
            world.seqs(&conversation).await,
            (1..=left).collect::<Vec<_>>()
        );
        let found = world.store.get(&conversation).await.unwrap();
        assert_eq!((found.last_seq, found.updated_at), (5, at(2)));
    }
}

pub(crate) async fn truncation_retry_returns_first_outcome(world: &World) {
    let conversation = world.create_conversation().await;
    world.append_texts(&conversation, &["1", "2", "3"]).await;
    let mut removal = truncation_with_request_id(&conversation, 1, "key");
    removal.expected_last_seq = Some(3);
    let first = world.store.truncate(&removal).await.unwrap();
    assert_eq!(
        first,
        Truncated {
            removed: 2,
            last_seq: 3
        }
    );
    world.append_texts(&conversation, &["4"]).await;
    // The retry does not remove messages that were saved since.
    assert_eq!(world.store.truncate(&removal).await.unwrap(), first);
    assert_eq!(world.texts(&conversation).await, ["1", "4"]);
    let other = truncation_with_request_id(&conversation, 0, "key");
    assert!(matches!(
        world.store.truncate(&other).await,
        Err(StoreError::AlreadyExists(_))
    ));
    assert_eq!(world.texts(&conversation).await, ["1", "4"]);
    let mut at_once = JoinSet::new();
    for _ in 0..4 {
        let (store, removal) = (
            Arc::clone(&world.store),
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

pub(crate) async fn truncation_rejects_wrong_expected_last_seq(world: &World) {
    let conversation = world.create_conversation().await;
    world.append_texts(&conversation, &["1", "2"]).await;
    let mut removal = truncation(&conversation, 0);
    removal.expected_last_seq = Some(1);
    assert!(matches!(
        world.store.truncate(&removal).await,
        Err(StoreError::Conflict { current_seq: 2 })
    ));
    assert_eq!(world.seqs(&conversation).await, [1, 2]);
    removal.expected_last_seq = Some(2);
    assert_eq!(world.store.truncate(&removal).await.unwrap().removed, 2);
}

pub(crate) async fn numbers_continue_after_truncation(world: &World) {
    let conversation = world.create_conversation().await;
    world.append_texts(&conversation, &["1", "2", "3"]).await;
    world
        .store
        .truncate(&truncation(&conversation, 0))
        .await
        .unwrap();
    let mut append = turn(&conversation, &["4"]);
    append.expected_last_seq = Some(3);
    assert!(matches!(
        world.save(&append).await,
        Ok(Appended::Saved { first_seq: 4, .. })
    ));
    assert_eq!(world.seqs(&conversation).await, [4]);
}

pub(crate) async fn concurrent_truncations_and_saves_are_serialized(world: &World) {
    let conversation = world.create_conversation().await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (store, conversation) = (Arc::clone(&world.store), conversation.clone());
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
    let (store, of) = (Arc::clone(&world.store), conversation.clone());
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
    let left = i64::try_from(world.seqs(&conversation).await.len()).unwrap();
    assert_eq!(removed + left, 160);
    assert_eq!(world.store.get(&conversation).await.unwrap().last_seq, 160);
}

pub(crate) async fn deletion_removes_everything(world: &World) {
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    world.store.create(&new, at(0)).await.unwrap();
    let append = with_request_id(turn(&conversation, &["1", "2"]), "key");
    world.save(&append).await.unwrap();
    world.store.delete(&conversation).await.unwrap();
    for answer in [
        world.save(&turn(&conversation, &["late"])).await.err(),
        world.save(&retry_of(&append)).await.err(),
        world.store.get(&conversation).await.err(),
        world.store.newest(&conversation, 9, true).await.err(),
        world.store.delete(&conversation).await.err(),
    ] {
        assert!(matches!(answer, Some(StoreError::NotFound)), "{answer:?}");
    }
    // The ids can be used again, and no old message appears.
    world.store.create(&new, at(1)).await.unwrap();
    assert!(matches!(
        world.save(&append).await,
        Ok(Appended::Saved { first_seq: 1, .. })
    ));
}

pub(crate) async fn concurrent_deletion_and_saves_are_serialized(world: &World) {
    for round in 0..20 {
        let conversation = world.create_conversation().await;
        let mut savers = JoinSet::new();
        for _ in 0..3 {
            let (store, conversation) = (Arc::clone(&world.store), conversation.clone());
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
            while world.store.get(&conversation).await.unwrap().last_seq < 4 {
                tokio::task::yield_now().await;
            }
        }
        world.store.delete(&conversation).await.unwrap();
        savers.join_all().await;
        assert!(matches!(
            world.store.get(&conversation).await,
            Err(StoreError::NotFound)
        ));
    }
}
