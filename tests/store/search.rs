//! Search: which messages are found, for which user, and in which order.

use std::fmt::Write as _;

use conversation_memory::{
    domain::{
        ConversationChanges, ConversationId, ConversationRef, DeptId, IdSource, Metadata,
        MetadataFilter, NewConversation, NewMessage, Role, SearchText, UserId, UuidV7,
    },
    store::{Invalidation, MinState, SearchHit, SearchQuery},
};

use serde_json::{Value, json};

use crate::branches::branch_of;
use test_support::store_fixture::{
    StoreFixture, append_of, at, message, new_conversation, owned_ref, title, truncation, user,
};

pub(crate) fn query(user_id: &UserId, text: &str) -> SearchQuery {
    SearchQuery {
        user_id: user_id.clone(),
        text: SearchText::parse(text).unwrap(),
        conversation_id: None,
        dept_id: None,
        role: None,
        created_from: None,
        created_until: None,
        metadata: None,
        after: None,
        state: MinState::ANY,
        limit: 100,
    }
}

async fn hits(fixture: &StoreFixture, query: &SearchQuery) -> Vec<SearchHit> {
    let page = fixture.store.search(query).await.unwrap();
    assert!(!page.more);
    page.hits
}

/// Returns the texts of all hits in alphabetical order.
pub(crate) async fn found(fixture: &StoreFixture, query: &SearchQuery) -> Vec<String> {
    let mut texts: Vec<_> = hits(fixture, query)
        .await
        .into_iter()
        .map(|hit| hit.message.content.into_string())
        .collect();
    texts.sort();
    texts
}

/// Creates a conversation of these texts, and returns it and its owner.
async fn conversation_with(fixture: &StoreFixture, texts: &[&str]) -> (ConversationRef, UserId) {
    let conversation = fixture.create_conversation().await;
    if !texts.is_empty() {
        fixture.append_texts(&conversation, texts).await;
    }
    let user = conversation.user_id.clone().unwrap();
    (conversation, user)
}

pub(crate) async fn hit_contains_message_title_and_snippet(fixture: &StoreFixture) {
    let (conversation, user) =
        conversation_with(fixture, &["Which policies hold?", "no match"]).await;
    let changes = ConversationChanges {
        title: Some(Some(title("Named since"))),
        metadata: None,
    };
    fixture
        .store
        .update(&conversation, &changes, at(3))
        .await
        .unwrap();
    let hits = hits(fixture, &query(&user, "POLICY")).await;
    let [hit] = hits.as_slice() else {
        panic!("{hits:?}");
    };
    assert_eq!(hit.message, fixture.all_messages(&conversation).await[0]);
    assert_eq!(hit.title, Some(title("Named since")));
    assert_eq!(hit.snippet, "Which ⟦policies⟧ hold?");
    assert!(hit.key.rank > 0.0 && hit.key.rank.is_finite());
    let untitled = new_conversation(&user);
    fixture.store.create(&untitled, at(0)).await.unwrap();
    fixture
        .append_texts(&owned_ref(&untitled), &["unmistakable"])
        .await;
    let hits = self::hits(fixture, &query(&user, "unmistakable")).await;
    assert_eq!(hits[0].title, None);
}

pub(crate) async fn supports_search_box_syntax(fixture: &StoreFixture) {
    const RED: &str = "a red fish swims";
    const BLUE: &str = "a blue fish runs";
    const BOTH: &str = "a fish, blue and red";
    let (_, user) = conversation_with(fixture, &[RED, BLUE, BOTH]).await;
    for (text, mut expected) in [
        ("fish", vec![RED, BLUE, BOTH]),
        ("red fish", vec![RED, BOTH]),
        ("\"red fish\"", vec![RED]),
        ("\"fish red\"", vec![]),
        ("fish -red", vec![BLUE]),
        ("fish -\"blue fish\"", vec![RED, BOTH]),
        ("-red", vec![BLUE]),
        ("--red", vec![RED, BOTH]),
        ("swim or run", vec![RED, BLUE]),
        ("swim OR \"blue and red\"", vec![RED, BOTH]),
        ("red swims or blue -red", vec![RED, BLUE]),
        ("swimming", vec![RED]),
        ("swim blue", vec![]),
        ("or red", vec![RED, BOTH]),
        ("red or", vec![RED, BOTH]),
        ("the FISH", vec![RED, BLUE, BOTH]),
        ("the", vec![]),
        ("fi*", vec![RED, BLUE, BOTH]),
        ("\"fi*\"", vec![]),
        ("unheard", vec![]),
    ] {
        expected.sort_unstable();
        let texts = found(fixture, &query(&user, text)).await;
        assert_eq!(texts, expected, "{text}");
    }
    // More consecutive negations than PostgreSQL supports.
    let rule = "-".repeat(101);
    for (text, mut expected) in [
        (format!("{rule}red"), vec![BLUE]),
        (format!("-{rule} red"), vec![RED, BOTH]),
        (format!("{}red", "-(- ".repeat(101)), vec![RED, BOTH]),
        (format!("fish{rule} {rule}red"), vec![BLUE]),
        (format!("fish -{rule}\"red {rule} fish\""), vec![RED]),
        (format!("{rule}\"blue\"-\"red\" {rule}"), vec![]),
    ] {
        expected.sort_unstable();
        let texts = found(fixture, &query(&user, &text)).await;
        assert_eq!(texts, expected, "{text}");
    }
}

pub(crate) async fn words_beside_a_long_run_are_found(fixture: &StoreFixture) {
    let run = "é".repeat(600);
    let text = format!("vivid\tvelvet\u{b}violet\u{c}silver\r\n{run}\nvalve {run}");
    let (_, user) = conversation_with(fixture, &[&text]).await;
    for word in [
        "vivid",
        "velvet",
        "violet",
        "silver",
        "valve",
        "\"silver\" valve",
    ] {
        assert_eq!(
            found(fixture, &query(&user, word)).await,
            [text.as_str()],
            "{word}"
        );
    }
    assert!(found(fixture, &query(&user, "ivid")).await.is_empty());
}

pub(crate) async fn accepts_every_query(fixture: &StoreFixture) {
    let words = "a b c d e ".repeat(6);
    let either = "x or ".repeat(16);
    let neither = "-x ".repeat(32);
    let planes: String = (0..17)
        .filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x41))
        .collect();
    let (_, user) =
        conversation_with(fixture, &["hello & (fixture) | \"you\" * ^ : NEAR 'x'"]).await;
    for text in [
        "((( & ! \\ <->",
        "\"",
        "\"\"",
        "\"\" \"\"",
        "the of and",
        " ",
        "-",
        "- - -",
        "or",
        "or or or",
        "'",
        "''",
        "\\",
        "%_*?[]{}",
        "a:b text:hello {text owner}: x",
        "hello*",
        "^hello",
        "NEAR(hello you, 2)",
        "hello AND NOT OR you",
        "\"hello",
        "hello\"you",
        "'; DROP TABLE messages; --",
        "<script>alert(1)</script>",
        "👩‍👩‍👧‍👦 \u{202e}العربية עברית",
        "\u{301}\u{301}",
        "\u{1}\u{7f}\u{feff}\u{200b}",
        "\u{27e6}x\u{27e7}",
        "-----x",
        &format!("see <{}>", "-".repeat(40)),
        &"-<".repeat(200),
        &"- ".repeat(256),
        &"-(x ".repeat(32),
        &words,
        &either,
        &neither,
        &planes,
        &"\"x\" ".repeat(32),
        &"w".repeat(512),
        &"\u{10ffff}".repeat(512),
    ] {
        let page = fixture.store.search(&query(&user, text)).await;
        assert!(page.is_ok(), "{text}: {page:?}");
    }
    for text in ["hello NEAR", "\"hello fixture\"", "x -y"] {
        assert_eq!(found(fixture, &query(&user, text)).await.len(), 1, "{text}");
    }
}

pub(crate) async fn finds_no_messages_of_other_users(fixture: &StoreFixture) {
    let (theirs, _) = conversation_with(fixture, &["the same secret"]).await;
    let (_, user) = conversation_with(fixture, &["the same secret", "nothing"]).await;
    let mine = hits(fixture, &query(&user, "secret")).await;
    assert_eq!(mine.len(), 1);
    assert_ne!(mine[0].message.conversation_id, theirs.id);
    for conversation in [theirs.id, ConversationId::from_uuid(UuidV7.uuid())] {
        let elsewhere = SearchQuery {
            conversation_id: Some(conversation),
            ..query(&user, "secret or -unheard")
        };
        assert!(hits(fixture, &elsewhere).await.is_empty());
    }
    // Messages of other users do not change ranks.
    for _ in 0..3 {
        conversation_with(fixture, &["secret secret", "secret"]).await;
    }
    assert_eq!(hits(fixture, &query(&user, "secret")).await, mine);
    // User ids with a common prefix, and with characters that a tokenizer can split.
    for name in [" x", "-x", "é", "E", "\""] {
        let name = UserId::parse(format!("{}{name}", user.as_str())).unwrap();
        assert!(
            hits(fixture, &query(&name, "secret or -x"))
                .await
                .is_empty()
        );
        let other = new_conversation(&name);
        fixture.store.create(&other, at(0)).await.unwrap();
        fixture
            .append_texts(&owned_ref(&other), &["secret of another"])
            .await;
        let found = found(fixture, &query(&name, "secret")).await;
        assert_eq!(found, ["secret of another"], "{name:?}");
    }
    assert_eq!(hits(fixture, &query(&user, "secret")).await, mine);
}

pub(crate) async fn filters_narrow_a_search(fixture: &StoreFixture) {
    let user = user();
    let mut conversations = Vec::new();
    for dept in ["sales", "it"] {
        let new = NewConversation {
            dept_id: Some(DeptId::parse(dept).unwrap()),
            ..new_conversation(&user)
        };
        fixture.store.create(&new, at(0)).await.unwrap();
        let messages = [Role::User, Role::Assistant].map(|role| NewMessage {
            role,
            ..message(format!("a word in {dept} by {}", role.as_str()))
        });
        let save = append_of(&owned_ref(&new), messages.into());
        fixture.save(&save).await.unwrap();
        conversations.push(new.id);
    }
    let all = query(&user, "word");
    assert_eq!(found(fixture, &all).await.len(), 4);
    let in_sales = SearchQuery {
        conversation_id: Some(conversations[0]),
        ..all.clone()
    };
    assert_eq!(
        found(fixture, &in_sales).await,
        ["a word in sales by assistant", "a word in sales by user"]
    );
    let in_it = SearchQuery {
        dept_id: Some(DeptId::parse("it").unwrap()),
        ..all.clone()
    };
    assert_eq!(
        found(fixture, &in_it).await,
        ["a word in it by assistant", "a word in it by user"]
    );
    let by_user = SearchQuery {
        role: Some(Role::User),
        ..all.clone()
    };
    assert_eq!(
        found(fixture, &by_user).await,
        ["a word in it by user", "a word in sales by user"]
    );
    let nowhere = SearchQuery {
        conversation_id: Some(conversations[0]),
        dept_id: Some(DeptId::parse("it").unwrap()),
        ..all
    };
    assert!(found(fixture, &nowhere).await.is_empty());
}

pub(crate) async fn filters_by_time_and_metadata(fixture: &StoreFixture) {
    let (conversation, user) = conversation_with(fixture, &[]).await;
    let metadata = [
        json!({ "lang": "de", "n": 3, "\"k\\": "" }),
        json!({ "lang": "en", "n": 1e300, "x": true }),
        json!({ "n": "3", "nested": { "lang": "de" } }),
    ];
    for (second, metadata) in (1..).zip(metadata) {
        let Value::Object(object) = metadata else {
            panic!("{metadata}");
        };
        let save = append_of(
            &conversation,
            vec![NewMessage {
                metadata: Some(Metadata::parse(object, 1_000).unwrap()),
                created_at: Some(at(second)),
                ..message(format!("word {second}"))
            }],
        );
        fixture.save(&save).await.unwrap();
    }
    fixture
        .save(&append_of(&conversation, vec![message("word 4")]))
        .await
        .unwrap();
    let filter = |key: &str, value: Option<&str>| {
        let filter = MetadataFilter::with_key(key).unwrap();
        match value {
            Some(value) => filter.and_value(value).unwrap(),
            None => filter,
        }
    };
    for (key, value, expected) in [
        ("lang", None, &["word 1", "word 2"][..]),
        ("lang", Some("de"), &["word 1"]),
        ("n", Some("3"), &["word 1", "word 3"]),
        ("n", Some("3.0"), &["word 1"]),
        ("n", Some("1e300"), &["word 2"]),
        ("x", Some("true"), &["word 2"]),
        ("\"k\\", Some(""), &["word 1"]),
        ("nested", None, &["word 3"]),
        ("nested", Some("de"), &[]),
        ("conversation_memory.json", None, &[]),
    ] {
        for conversation_id in [None, Some(conversation.id)] {
            let narrowed = SearchQuery {
                metadata: Some(filter(key, value)),
                conversation_id,
                ..query(&user, "word")
            };
            assert_eq!(found(fixture, &narrowed).await, expected, "{key} {value:?}");
        }
    }
    for (from, until, expected) in [
        (Some(at(2)), None, &["word 2", "word 3"][..]),
        (None, Some(at(2)), &["word 1"]),
        (Some(at(1)), Some(at(3)), &["word 1", "word 2"]),
        (Some(at(3)), Some(at(4)), &["word 3"]),
    ] {
        let narrowed = SearchQuery {
            created_from: from,
            created_until: until,
            ..query(&user, "word -4")
        };
        assert_eq!(
            found(fixture, &narrowed).await,
            expected,
            "{from:?} {until:?}"
        );
    }
    let both = SearchQuery {
        created_from: Some(at(2)),
        metadata: Some(filter("lang", None)),
        limit: 1,
        ..query(&user, "word")
    };
    assert_eq!(found(fixture, &both).await, ["word 2"]);
}

/// Number of messages from which on PostgreSQL plans a search for its user.
const MANY: usize = 10_000;

/// Saves many messages of a user. Those with numbers that 400 divides contain the word "vocation", every
/// second one among more words.
pub(crate) async fn save_many(fixture: &StoreFixture) -> (ConversationRef, UserId) {
    let (conversation, user) = conversation_with(fixture, &[]).await;
    let numbers: Vec<usize> = (0..MANY).collect();
    for numbers in numbers.chunks(100) {
        let text = |number: &usize| match number % 800 {
            0 => format!("{number} vocation"),
            400 => format!("{number} vocation and policies"),
            _ => format!("{number} policies"),
        };
        let texts: Vec<String> = numbers.iter().map(text).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        fixture.append_texts(&conversation, &texts).await;
    }
    (conversation, user)
}

/// Returns the first word of each message with "vocation", in the order in which they are found.
pub(crate) fn expected_of_many() -> Vec<String> {
    let numbers = |first: usize| (first..MANY).step_by(800).rev();
    let ordered = numbers(0).chain(numbers(400));
    ordered.map(|number| number.to_string()).collect()
}

/// Returns the first word of each hit, from pages of ten hits.
pub(crate) async fn found_on_pages(fixture: &StoreFixture, query: SearchQuery) -> Vec<String> {
    let mut query = SearchQuery { limit: 10, ..query };
    let mut found = Vec::new();
    loop {
        let page = fixture.store.search(&query).await.unwrap();
        found.extend(page.hits.iter().map(|hit| {
            let text = hit.message.content.as_str();
            text.split(' ').next().unwrap().to_owned()
        }));
        query.after = page.hits.last().map(|hit| hit.key);
        query.state = page.state;
        if !page.more {
            return found;
        }
    }
}

pub(crate) async fn searches_of_many_messages_are_complete(fixture: &StoreFixture) {
    let (conversation, user) = save_many(fixture).await;
    let all = query(&user, "vocation");
    let by_time = SearchQuery {
        created_from: Some(at(0)),
        ..all.clone()
    };
    let of_conversation = SearchQuery {
        conversation_id: Some(conversation.id),
        ..all.clone()
    };
    for search in [all, by_time, of_conversation] {
        assert_eq!(found_on_pages(fixture, search).await, expected_of_many());
    }
    let search = query(&user, "vication");
    assert_eq!(found_on_pages(fixture, search.clone()).await, [""; 0]);
    let corrected = fixture.store.correct(&search).await.unwrap();
    assert_eq!(corrected.as_deref(), Some("vocation"));
}

pub(crate) async fn queries_are_corrected_by_the_words_of_the_search(fixture: &StoreFixture) {
    let (conversation, user) = conversation_with(fixture, &["vacation", "a vocation"]).await;
    let save = append_of(
        &conversation,
        vec![NewMessage {
            role: Role::Assistant,
            created_at: Some(at(9)),
            metadata: Some(Metadata::from_json("{\"a\": 1}", 100).unwrap()),
            ..message("Vocation and policies")
        }],
    );
    fixture.save(&save).await.unwrap();
    conversation_with(fixture, &["vacations vecation", "vecation"]).await;
    let corrected = async |search: SearchQuery| fixture.store.correct(&search).await.unwrap();
    for (text, expected) in [
        ("vication", Some("vocation")),
        ("vecation -x", Some("vocation -x")),
        ("plicies vcaation", Some("policies vacation")),
        ("\"vication\"", None),
        ("vacation", None),
        ("nothing", None),
    ] {
        let found = corrected(query(&user, text)).await;
        assert_eq!(found.as_deref(), expected, "{text}");
    }
    let by_user = SearchQuery {
        role: Some(Role::User),
        conversation_id: Some(conversation.id),
        ..query(&user, "vication")
    };
    assert_eq!(corrected(by_user).await.as_deref(), Some("vacation"));
    for (from, key, expected) in [
        (Some(at(9)), None, Some("policies")),
        (Some(at(10)), None, None),
        (None, Some("a"), Some("policies")),
        (None, Some("b"), None),
    ] {
        let search = SearchQuery {
            created_from: from,
            metadata: key.map(|key| MetadataFilter::with_key(key).unwrap()),
            ..query(&user, "polocies")
        };
        assert_eq!(
            corrected(search).await.as_deref(),
            expected,
            "{from:?} {key:?}"
        );
    }
}

pub(crate) async fn hits_are_ordered_by_rank_then_recency(fixture: &StoreFixture) {
    let (conversation, user) =
        conversation_with(fixture, &["one word", "word, word, word", "one word"]).await;
    let seqs: Vec<_> = hits(fixture, &query(&user, "word"))
        .await
        .iter()
        .map(|hit| hit.message.seq)
        .collect();
    assert_eq!(seqs, [2, 3, 1]);
    let long = format!("word {}", "and much else ".repeat(200));
    fixture.append_texts(&conversation, &[&long]).await;
    let hits = hits(fixture, &query(&user, "word")).await;
    assert_eq!(hits[3].message.seq, 4);
}

pub(crate) async fn hits_are_paged(fixture: &StoreFixture) {
    let texts: Vec<String> = (0..23)
        .map(|number| "word ".repeat(1 + number % 5) + "end")
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (conversation, user) = conversation_with(fixture, &texts).await;
    let all = hits(fixture, &query(&user, "word")).await;
    assert_eq!(all.len(), 23);
    for pair in all.windows(2) {
        let [before, after] = [pair[0].key, pair[1].key];
        assert!(
            (before.rank, before.place) > (after.rank, after.place),
            "{pair:?}"
        );
    }
    for limit in [1, 5, 22, 23, 24] {
        let mut query = SearchQuery {
            limit,
            ..query(&user, "word")
        };
        let mut seen = Vec::new();
        loop {
            let page = fixture.store.search(&query).await.unwrap();
            assert!(page.hits.len() <= limit as usize);
            query.after = page.hits.last().map(|hit| hit.key);
            seen.extend(page.hits);
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all, "{limit} a page");
    }
    // A message that is saved between two pages does not change the order of the hits.
    let mut query = SearchQuery {
        limit: 10,
        ..query(&user, "word")
    };
    let first = fixture.store.search(&query).await.unwrap().hits;
    fixture
        .append_texts(&conversation, &["word ".repeat(9).trim()])
        .await;
    query.after = first.last().map(|hit| hit.key);
    let second = fixture.store.search(&query).await.unwrap().hits;
    assert_eq!([first, second].concat(), all[..20]);
}

pub(crate) async fn removed_messages_are_not_found(fixture: &StoreFixture) {
    let (conversation, user) =
        conversation_with(fixture, &["word one", "word two", "word three"]).await;
    let query = query(&user, "word");
    fixture
        .store
        .truncate(&truncation(&conversation, 1))
        .await
        .unwrap();
    assert_eq!(found(fixture, &query).await, ["word one"]);
    fixture.append_texts(&conversation, &["word again"]).await;
    assert_eq!(found(fixture, &query).await, ["word again", "word one"]);
    fixture
        .store
        .delete(&conversation, Invalidation::Never)
        .await
        .unwrap();
    assert!(found(fixture, &query).await.is_empty());
    let anything = SearchQuery {
        text: SearchText::parse("-unheard").unwrap(),
        ..query
    };
    assert!(found(fixture, &anything).await.is_empty());
}

pub(crate) async fn shared_messages_are_found_once(fixture: &StoreFixture) {
    let (parent, user) = conversation_with(fixture, &["word one", "word two", "word three"]).await;
    let branched = fixture.store.branch(&branch_of(&parent, 2)).await.unwrap();
    let branch = ConversationRef {
        id: branched.id,
        user_id: Some(user.clone()),
    };
    fixture.append_texts(&branch, &["word four"]).await;
    let all = query(&user, "word");
    let within = |conversation: &ConversationRef| SearchQuery {
        conversation_id: Some(conversation.id),
        ..all.clone()
    };
    let everything = ["word four", "word one", "word three", "word two"];
    assert_eq!(found(fixture, &all).await, everything);
    let of_parent = ["word one", "word three", "word two"];
    assert_eq!(found(fixture, &within(&parent)).await, of_parent);
    let of_branch = ["word four", "word one", "word two"];
    assert_eq!(found(fixture, &within(&branch)).await, of_branch);
    for hit in hits(fixture, &within(&branch)).await {
        assert_eq!(hit.message.conversation_id, branch.id);
    }
    // A message that the parent no longer contains is found in the branch.
    fixture
        .store
        .truncate(&truncation(&parent, 1))
        .await
        .unwrap();
    assert_eq!(found(fixture, &within(&parent)).await, ["word one"]);
    assert_eq!(found(fixture, &within(&branch)).await, of_branch);
    for hit in hits(fixture, &all).await {
        let in_parent = hit.message.content.as_str() == "word one";
        let shown_in = if in_parent { parent.id } else { branch.id };
        assert_eq!(hit.message.conversation_id, shown_in);
    }
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(found(fixture, &all).await, of_branch);
    for hit in hits(fixture, &all).await {
        assert_eq!(hit.message.conversation_id, branch.id);
    }
    fixture
        .store
        .delete(&branch, Invalidation::Never)
        .await
        .unwrap();
    assert!(found(fixture, &all).await.is_empty());
}

pub(crate) async fn long_messages_are_searched_by_their_beginning(fixture: &StoreFixture) {
    let mut words = String::from("beginning ");
    for number in 0..150_000 {
        write!(words, "{number:x}q ").unwrap();
    }
    words.truncate((1 << 20) - 4);
    words.push_str(" end");
    let compounds = "a-b.c/d@e.f-g ".repeat(70_000);
    let wide = "\u{1f600}\u{20000}\u{130}-".repeat(60_000);
    let endless = "w".repeat(3_000);
    let texts = [&words, &compounds, &wide, &endless, "short"];
    let (_, user) = conversation_with(fixture, &[]).await;
    let new = new_conversation(&user);
    fixture.store.create(&new, at(0)).await.unwrap();
    for text in texts {
        fixture.append_texts(&owned_ref(&new), &[text]).await;
    }
    assert_eq!(fixture.texts(&owned_ref(&new)).await, texts);
    let begun = hits(fixture, &query(&user, "beginning")).await;
    assert_eq!(begun[0].message.content.as_str(), words);
    assert!(begun[0].snippet.contains("⟦beginning⟧"));
    assert!(begun[0].snippet.chars().count() <= 242);
    assert!(found(fixture, &query(&user, "end")).await.is_empty());
    for hit in hits(fixture, &query(&user, "-beginning")).await {
        assert!(hit.snippet.chars().count() <= 242, "{}", hit.snippet.len());
    }
}

pub(crate) async fn marks_in_a_message_are_escaped(fixture: &StoreFixture) {
    let (_, user) = conversation_with(fixture, &["an ⟦odd⟧ text <b>here</b>"]).await;
    let hits = hits(fixture, &query(&user, "text")).await;
    assert_eq!(hits[0].snippet, "an [odd] ⟦text⟧ <b>here</b>");
    assert_eq!(
        hits[0].message.content.as_str(),
        "an ⟦odd⟧ text <b>here</b>"
    );
}

/// Asserts which texts are found by inflected forms, and which only by their exact words.
pub(crate) async fn assert_forms(
    fixture: &StoreFixture,
    user: &UserId,
    forms: &[&str],
    exact: &[&str],
) {
    let mut all = [forms, exact].concat();
    all.sort_unstable();
    assert_eq!(found(fixture, &query(user, "policies")).await, all);
    assert_eq!(found(fixture, &query(user, "policy")).await, forms);
    assert_eq!(found(fixture, &query(user, "the")).await, exact);
}
