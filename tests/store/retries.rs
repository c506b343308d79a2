use std::sync::Arc;

use conversation_memory::{
    domain::{ConversationRef, Message, NewMessage},
    store::{Append, Appended, Reused, StoreError},
};
use serde_json::json;
use tokio::task::JoinSet;

use test_support::world::{
    World, at, chosen, content, context, keyed, keyed_truncation, message, message_id, metadata,
    retry_of, save_of, truncation, turn,
};

/// A turn with all that a message can have.
fn rich(conversation: &ConversationRef) -> Append {
    let mut answer = message("answer");
    answer.tokens_used = Some(7);
    answer.metadata = Some(metadata(json!({"model": "m", "t": 0.25})));
    answer.contexts = vec![context("doc", "found")];
    save_of(conversation, vec![message("question"), answer])
}

async fn replayed(world: &World, append: &Append) -> (i64, Vec<Message>) {
    match world.save(append).await.unwrap() {
        Appended::Replayed { last_seq, messages } => (last_seq, messages),
        Appended::Saved { .. } => panic!("it was saved once more"),
    }
}

async fn is_reused(world: &World, append: &Append, reused: Reused) -> bool {
    matches!(world.save(append).await, Err(StoreError::AlreadyExists(what)) if what == reused)
}

pub(crate) async fn a_retry_gives_the_first_outcome(world: &World) {
    let conversation = world.conversation().await;
    world.say(&conversation, &["before"]).await;
    let append = keyed(rich(&conversation), "key");
    assert!(matches!(
        world.save(&append).await.unwrap(),
        Appended::Saved { first_seq: 2, .. }
    ));
    world.say(&conversation, &["after"]).await;
    let before = world.store.get(&conversation).await.unwrap();
    let mut saved = world.all(&conversation).await[1..3].to_vec();
    for message in &mut saved {
        message.contexts.clear();
    }
    for _ in 0..2 {
        let mut retry = retry_of(&append);
        retry.at = at(1_000);
        assert_eq!(replayed(world, &retry).await, (3, saved.clone()));
    }
    assert_eq!(world.store.get(&conversation).await.unwrap(), before);
    assert_eq!(world.seqs(&conversation).await, [1, 2, 3, 4]);
}

pub(crate) async fn a_key_is_of_one_request(world: &World) {
    let conversation = world.conversation().await;
    let append = keyed(rich(&conversation), "key");
    world.save(&append).await.unwrap();
    let other = keyed(turn(&conversation, &["other"]), "key");
    assert!(is_reused(world, &other, Reused::RequestId).await);
    // The key counts before the expectation does.
    let mut expecting = other;
    expecting.expected_last_seq = Some(77);
    assert!(is_reused(world, &expecting, Reused::RequestId).await);
    let removal = keyed_truncation(&conversation, 0, "key");
    assert!(matches!(
        world.store.truncate(&removal).await,
        Err(StoreError::AlreadyExists(Reused::RequestId))
    ));
    assert_eq!(world.seqs(&conversation).await, [1, 2]);
    let removal = keyed_truncation(&conversation, 1, "other key");
    world.store.truncate(&removal).await.unwrap();
    let save = keyed(turn(&conversation, &["other"]), "other key");
    assert!(is_reused(world, &save, Reused::RequestId).await);
    assert_eq!(world.seqs(&conversation).await, [1]);
}

async fn at_once(world: &World, retries: Vec<Append>) {
    let tries = retries.len();
    let mut savers = JoinSet::new();
    for retry in retries {
        let store = Arc::clone(&world.store);
        savers.spawn(async move { store.append(&retry).await.unwrap() });
    }
    let outcomes = savers.join_all().await;
    let mut saved = outcomes.iter().filter_map(|outcome| match outcome {
        Appended::Saved { first_seq, .. } => Some(*first_seq),
        Appended::Replayed { .. } => None,
    });
    let (first, more) = (saved.next().unwrap(), saved.next());
    assert_eq!(more, None, "one of {tries} saves");
    for outcome in &outcomes {
        if let Appended::Replayed { last_seq, messages } = outcome {
            assert_eq!(*last_seq, first + 1);
            let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
            assert_eq!(seqs, [first, first + 1]);
        }
    }
}

pub(crate) async fn simultaneous_retries_save_once(world: &World) {
    let conversation = world.conversation().await;
    for round in 0..40 {
        let append = keyed(rich(&conversation), &format!("key {round}"));
        at_once(world, vec![retry_of(&append), append]).await;
    }
    assert_eq!(
        world.seqs(&conversation).await,
        (1..=80).collect::<Vec<_>>()
    );
}

pub(crate) async fn simultaneous_retries_with_chosen_ids_save_once(world: &World) {
    let conversation = world.conversation().await;
    for round in 0..20 {
        let messages = vec![chosen("question"), chosen("answer")];
        let mut append = save_of(&conversation, messages);
        if round % 2 == 0 {
            append = keyed(append, &format!("key {round}"));
        }
        append.expected_last_seq = Some(round * 2);
        at_once(world, vec![append.clone(), append.clone(), append]).await;
    }
    assert_eq!(
        world.seqs(&conversation).await,
        (1..=40).collect::<Vec<_>>()
    );
}

pub(crate) async fn a_retry_of_truncated_messages_brings_none_back(world: &World) {
    let conversation = world.conversation().await;
    let append = keyed(turn(&conversation, &["one", "two", "three"]), "key");
    world.save(&append).await.unwrap();
    world
        .store
        .truncate(&truncation(&conversation, 1))
        .await
        .unwrap();
    world.say(&conversation, &["four"]).await;
    let (last_seq, messages) = replayed(world, &retry_of(&append)).await;
    let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
    assert_eq!((last_seq, seqs), (3, vec![1]));
    world
        .store
        .truncate(&truncation(&conversation, 0))
        .await
        .unwrap();
    assert_eq!(replayed(world, &retry_of(&append)).await, (3, vec![]));
    assert_eq!(world.texts(&conversation).await, [""; 0]);
    assert_eq!(world.say(&conversation, &["five"]).await, 5);
}

pub(crate) async fn chosen_ids_make_a_retry(world: &World) {
    let conversation = world.conversation().await;
    let mut append = rich(&conversation);
    for message in &mut append.messages {
        message.id_chosen = true;
    }
    world.say(&conversation, &["before"]).await;
    world.save(&append).await.unwrap();
    world.say(&conversation, &["after"]).await;
    let (last_seq, messages) = replayed(world, &append).await;
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    assert_eq!(last_seq, 3);
    assert_eq!(ids, [append.messages[0].id, append.messages[1].id]);
    assert!(messages.iter().all(|message| message.contexts.is_empty()));
    // Under a new key too: the messages are there, once.
    replayed(world, &keyed(append, "new key")).await;
    assert_eq!(world.seqs(&conversation).await, [1, 2, 3, 4]);
}

pub(crate) async fn a_message_id_is_used_once(world: &World) {
    let conversation = world.conversation().await;
    let elsewhere = world.conversation().await;
    let [a, b] = [chosen("a"), chosen("b")];
    world
        .save(&save_of(&conversation, vec![a.clone(), b.clone()]))
        .await
        .unwrap();
    let changed = |change: fn(&mut NewMessage)| {
        let mut changed = b.clone();
        change(&mut changed);
        vec![a.clone(), changed]
    };
    let twice = chosen("twice");
    let batches = [
        (&conversation, changed(|m| m.content = content("other"))),
        (&conversation, changed(|m| m.tokens_used = Some(1))),
        (
            &conversation,
            changed(|m| m.metadata = Some(metadata(json!({})))),
        ),
        (
            &conversation,
            changed(|m| m.contexts = vec![context("d", "c")]),
        ),
        (&conversation, changed(|m| m.id = message_id())),
        (&conversation, changed(|m| m.id_chosen = false)),
        (&conversation, vec![b.clone(), a.clone()]),
        (&conversation, vec![a.clone(), b.clone(), chosen("more")]),
        (&conversation, vec![message("new"), a.clone()]),
        (&conversation, vec![twice.clone(), twice]),
        (&elsewhere, vec![a.clone(), b.clone()]),
        (&elsewhere, vec![message("new"), b.clone()]),
    ];
    for (place, (where_to, batch)) in batches.into_iter().enumerate() {
        let append = save_of(where_to, batch);
        assert!(
            is_reused(world, &append, Reused::MessageId).await,
            "batch {place}"
        );
        let append = keyed(append, &format!("key {place}"));
        assert!(
            is_reused(world, &append, Reused::MessageId).await,
            "batch {place}, keyed"
        );
    }
    assert_eq!(world.texts(&conversation).await, ["a", "b"]);
    assert_eq!(world.texts(&elsewhere).await, [""; 0]);
    // A part of it that stands in a row is a save that was made.
    replayed(world, &save_of(&conversation, vec![b])).await;
    // What was refused left no key behind.
    world
        .save(&keyed(turn(&conversation, &["c"]), "key 0"))
        .await
        .unwrap();
}

pub(crate) async fn a_retry_is_known_before_an_expectation(world: &World) {
    let conversation = world.conversation().await;
    let mut by_key = keyed(turn(&conversation, &["one"]), "key");
    by_key.expected_last_seq = Some(0);
    world.save(&by_key).await.unwrap();
    assert_eq!(replayed(world, &retry_of(&by_key)).await.0, 1);
    let mut by_id = save_of(&conversation, vec![chosen("two")]);
    by_id.expected_last_seq = Some(1);
    world.save(&by_id).await.unwrap();
    world.say(&conversation, &["three"]).await;
    assert_eq!(replayed(world, &by_id).await.0, 2);
    by_id.messages[0].content = content("other");
    let refused = world.save(&by_id).await;
    assert!(matches!(
        refused,
        Err(StoreError::Conflict { current_seq: 3 })
    ));
}

pub(crate) async fn keys_are_of_one_conversation(world: &World) {
    for _ in 0..2 {
        let conversation = world.conversation().await;
        let append = keyed(turn(&conversation, &["one"]), "the same key");
        assert!(matches!(
            world.save(&append).await,
            Ok(Appended::Saved { .. })
        ));
    }
}
