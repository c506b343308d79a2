use std::{f64::consts::PI, sync::Arc};

use conversation_memory::{
    domain::{ConversationRef, NewMessage, Role},
    store::{Appended, Bound, Newest, StoreError},
};
use serde_json::json;
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, append_of, at, content, context, message, metadata, title, turn, with_chosen_id,
};

pub(crate) async fn concurrent_saves_get_consecutive_numbers(fixture: &StoreFixture) {
    const WRITERS: i64 = 8;
    const SAVES: i64 = 50;
    let conversation = fixture.create_conversation().await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, conversation) = (Arc::clone(&fixture.store), conversation.clone());
        writers.spawn(async move {
            let mut seqs = Vec::new();
            for save in 0..SAVES {
                let texts = [
                    format!("{writer} asks {save}"),
                    format!("{writer} hears {save}"),
                ];
                let append = turn(&conversation, &[&texts[0], &texts[1]]);
                let Appended::Saved { first_seq, .. } = store.append(&append).await.unwrap() else {
                    panic!("the save was replayed");
                };
                seqs.push((first_seq, texts));
            }
            assert!(seqs.is_sorted_by_key(|(seq, _)| *seq));
            seqs
        });
    }
    let saved: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    let texts = fixture.texts(&conversation).await;
    assert_eq!(
        fixture.seqs(&conversation).await,
        (1..=WRITERS * SAVES * 2).collect::<Vec<_>>()
    );
    for (first_seq, [asked, heard]) in saved {
        let place = usize::try_from(first_seq).unwrap() - 1;
        assert_eq!(texts[place..place + 2], [asked, heard]);
    }
}

pub(crate) async fn batch_is_atomic(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let taken = with_chosen_id("taken");
    fixture
        .save(&append_of(&conversation, vec![taken.clone()]))
        .await
        .unwrap();
    let before = fixture.store.get(&conversation).await.unwrap();
    let mut with_context = message("first");
    with_context.contexts = vec![context("d", "c")];
    let batch = vec![
        with_context,
        message("second"),
        NewMessage {
            content: content("taken, with other words"),
            ..taken
        },
    ];
    let mut append = append_of(&conversation, batch);
    append.title = Some((title("no title"), 0));
    append.at = at(99);
    assert!(matches!(
        fixture.save(&append).await,
        Err(StoreError::AlreadyExists(_))
    ));
    assert_eq!(fixture.texts(&conversation).await, ["taken"]);
    assert_eq!(fixture.store.get(&conversation).await.unwrap(), before);
    assert_eq!(fixture.append_texts(&conversation, &["next"]).await, 2);
}

pub(crate) async fn title_is_set_only_once(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for (offered, expected) in [
        (None, None),
        (Some("first"), Some("first")),
        (Some("second"), Some("first")),
        (None, Some("first")),
    ] {
        let mut append = turn(&conversation, &["hello"]);
        append.title = offered.map(|text| (title(text), 0));
        fixture.save(&append).await.unwrap();
        let stored = fixture.store.get(&conversation).await.unwrap();
        assert_eq!(stored.title, expected.map(title));
    }
}

pub(crate) async fn save_rejects_wrong_expected_last_seq(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let expecting = async |expected| {
        let mut append = turn(&conversation, &["one", "two"]);
        append.expected_last_seq = Some(expected);
        fixture.save(&append).await
    };
    assert!(matches!(
        expecting(1).await,
        Err(StoreError::Conflict { current_seq: 0 })
    ));
    assert!(matches!(
        expecting(0).await,
        Ok(Appended::Saved { first_seq: 1, .. })
    ));
    assert!(matches!(
        expecting(0).await,
        Err(StoreError::Conflict { current_seq: 2 })
    ));
    assert!(matches!(
        expecting(2).await,
        Ok(Appended::Saved { first_seq: 3, .. })
    ));
    assert_eq!(fixture.seqs(&conversation).await, [1, 2, 3, 4]);
}

pub(crate) async fn one_of_concurrent_saves_with_same_expectation_succeeds(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for round in 0..10 {
        let mut savers = JoinSet::new();
        for _ in 0..4 {
            let store = Arc::clone(&fixture.store);
            let mut append = turn(&conversation, &["me first"]);
            append.expected_last_seq = Some(round);
            savers.spawn(async move { store.append(&append).await });
        }
        let outcomes = savers.join_all().await;
        let saved = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(saved, 1);
        for outcome in outcomes {
            let end = round + 1;
            assert!(
                matches!(&outcome, Ok(Appended::Saved { first_seq, .. }) if *first_seq == end)
                    || matches!(&outcome, Err(StoreError::Conflict { current_seq }) if *current_seq == end),
                "{outcome:?}"
            );
        }
    }
}

fn difficult_texts() -> Vec<String> {
    let every_plane: String = (0..=0x10_u32)
        .flat_map(|plane| [0x0041, 0x0301, 0xfffd].map(|low| (plane << 16) + low))
        .filter_map(char::from_u32)
        .collect();
    let distinct_words = (0..).map(|n: u32| format!("{n:x} ")).scan(0, |size, word| {
        *size += word.len();
        (*size <= 1 << 20).then_some(word)
    });
    vec![
        String::new(),
        " \n\t\r\u{b}\u{1}\u{7f}\u{85}\u{2028} ".to_owned(),
        every_plane,
        "שלום \u{202e}مرحبا\u{202c} e\u{301} é 👩‍👩‍👧‍👦 \u{feff}\u{ffff}\u{10ffff}".to_owned(),
        "'; DROP TABLE messages; -- $1 ? :a %s \\ \\u0000 \\N {a,NULL,\"b\"} <b>&amp;</b>"
            .to_owned(),
        "NULL".to_owned(),
        "x".repeat(3 << 10),
        distinct_words.collect(),
    ]
}

pub(crate) async fn messages_round_trip(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let roles = [Role::User, Role::Assistant, Role::System, Role::Tool];
    let mut batch = Vec::new();
    for (text, role) in difficult_texts().into_iter().zip(roles.into_iter().cycle()) {
        let short: String = text.chars().take(512).collect();
        let mut first = context(&short, text.clone());
        first.score = Some(0.1 + 0.2);
        first.metadata = Some(metadata(
            json!({ "text": short, short.as_str(): [{"x": short}] }),
        ));
        batch.push(NewMessage {
            role,
            tokens_used: Some(i32::MAX),
            latency_ms: Some(0),
            created_at: Some(at(-1_234_567)),
            metadata: Some(metadata(json!({ "k": short, "empty": {}, "list": [[]] }))),
            contexts: vec![first, context("", ""), context("z", "last")],
            ..message(text)
        });
    }
    batch.push(message("plain"));
    let append = append_of(&conversation, batch.clone());
    let Appended::Saved {
        owner, first_seq, ..
    } = fixture.save(&append).await.unwrap()
    else {
        panic!("the save was replayed");
    };
    assert_eq!((Some(owner), first_seq), (conversation.user_id.clone(), 1));
    let stored = fixture.all_messages(&conversation).await;
    assert_eq!(stored.len(), batch.len());
    for (seq, (new, stored)) in (1..).zip(batch.into_iter().zip(stored)) {
        assert!(new.is_saved_as(&stored), "message {seq}");
        let contexts = new.contexts.clone();
        let mut expected = new.into_stored(conversation.id, seq, append.at);
        expected.contexts = contexts;
        assert_eq!(stored, expected);
    }
}

pub(crate) async fn doubles_round_trip(fixture: &StoreFixture) {
    let doubles = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        0.1,
        1e15,
        1e16,
        -1e16,
        9_007_199_254_740_993.0,
        1.5e16,
        1e21,
        1e22,
        1e300,
        5e-324,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::EPSILON,
        PI,
    ];
    let conversation = fixture.create_conversation().await;
    let mut new = message("doubles");
    new.metadata = Some(metadata(
        json!({ "doubles": doubles, "int": 5, "big": 1_u64 << 53 }),
    ));
    for double in doubles {
        let mut scored = context("d", "c");
        scored.score = Some(double);
        new.contexts.push(scored);
    }
    fixture
        .save(&append_of(&conversation, vec![new.clone()]))
        .await
        .unwrap();
    let stored = fixture.all_messages(&conversation).await.remove(0);
    assert_eq!(stored.contexts, new.contexts);
    assert_eq!(stored.metadata, new.metadata);
    assert!(new.is_saved_as(&stored));
}

pub(crate) async fn updated_at_never_decreases(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for (micros, expected) in [(100, 100), (50, 100), (-1_000_000_000, 100), (101, 101)] {
        let mut append = turn(&conversation, &["when"]);
        append.at = at(micros);
        fixture.save(&append).await.unwrap();
        let stored = fixture.store.get(&conversation).await.unwrap();
        assert_eq!(
            (stored.created_at, stored.updated_at),
            (at(0), at(expected))
        );
    }
    // A message without a time has the time of its save.
    let times: Vec<_> = fixture
        .all_messages(&conversation)
        .await
        .iter()
        .map(|m| m.created_at)
        .collect();
    assert_eq!(times, [at(100), at(50), at(-1_000_000_000), at(101)]);
}

pub(crate) async fn save_without_user_claim_succeeds(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let anyone = ConversationRef {
        user_id: None,
        ..conversation.clone()
    };
    assert_eq!(fixture.append_texts(&anyone, &["who asks?"]).await, 1);
    let Newest {
        conversation: stored,
        messages,
        ..
    } = fixture
        .store
        .newest(&conversation, 10, false)
        .await
        .unwrap();
    assert_eq!((stored.last_seq, messages.len()), (1, 1));
    assert_eq!(
        fixture
            .store
            .messages(&anyone, Bound::Before(2), 10, false)
            .await
            .unwrap(),
        messages
    );
}
