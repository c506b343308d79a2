//! Search: which messages are found, for which user, and in which order.
//! [`ENGINE_DIFFERENCES`] lists the cases in which the engines differ.

use std::fmt::Write as _;

use conversation_memory::{
    domain::{
        ConversationChanges, ConversationId, ConversationRef, DeptId, IdSource, NewConversation,
        NewMessage, Role, SearchText, UserId, UuidV7,
    },
    store::{SearchHit, SearchQuery},
};

use crate::branches::branch_of;
use test_support::world::{
    World, append_of, at, message, new_conversation, owned_ref, title, truncation, user,
};

pub(crate) fn query(user_id: &UserId, text: &str) -> SearchQuery {
    SearchQuery {
        user_id: user_id.clone(),
        text: SearchText::parse(text).unwrap(),
        conversation_id: None,
        dept_id: None,
        role: None,
        after: None,
        limit: 100,
    }
}

async fn hits(world: &World, query: &SearchQuery) -> Vec<SearchHit> {
    let page = world.store.search(query).await.unwrap();
    assert!(!page.more);
    page.hits
}

/// Returns the texts of all hits in alphabetical order.
pub(crate) async fn found(world: &World, query: &SearchQuery) -> Vec<String> {
    let mut texts: Vec<_> = hits(world, query)
        .await
        .into_iter()
        .map(|hit| hit.message.content.into_string())
        .collect();
    texts.sort();
    texts
}

/// Creates a conversation of these texts, and returns it and its owner.
async fn conversation_with(world: &World, texts: &[&str]) -> (ConversationRef, UserId) {
    let conversation = world.create_conversation().await;
    if !texts.is_empty() {
        world.append_texts(&conversation, texts).await;
    }
    let user = conversation.user_id.clone().unwrap();
    (conversation, user)
}

pub(crate) async fn hit_contains_message_title_and_snippet(world: &World) {
    let (conversation, user) =
        conversation_with(world, &["Which policies hold?", "no match"]).await;
    let changes = ConversationChanges {
        title: Some(Some(title("Named since"))),
        metadata: None,
    };
    world
        .store
        .update(&conversation, &changes, at(3))
        .await
        .unwrap();
    let hits = hits(world, &query(&user, "POLICY")).await;
    let [hit] = hits.as_slice() else {
        panic!("{hits:?}");
    };
    assert_eq!(hit.message, world.all_messages(&conversation).await[0]);
    assert_eq!(hit.title, Some(title("Named since")));
    assert_eq!(hit.snippet, "Which ⟦policies⟧ hold?");
    assert!(hit.key.rank > 0.0 && hit.key.rank.is_finite());
    let untitled = new_conversation(&user);
    world.store.create(&untitled, at(0)).await.unwrap();
    world
        .append_texts(&owned_ref(&untitled), &["unmistakable"])
        .await;
    let hits = self::hits(world, &query(&user, "unmistakable")).await;
    assert_eq!(hits[0].title, None);
}

pub(crate) async fn supports_search_box_syntax(world: &World) {
    const RED: &str = "a red fish swims";
    const BLUE: &str = "a blue fish runs";
    const BOTH: &str = "a fish, blue and red";
    let (_, user) = conversation_with(world, &[RED, BLUE, BOTH]).await;
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
        ("fi*", vec![]),
        ("unheard", vec![]),
    ] {
        expected.sort_unstable();
        let texts = found(world, &query(&user, text)).await;
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
        let texts = found(world, &query(&user, &text)).await;
        assert_eq!(texts, expected, "{text}");
    }
}

pub(crate) async fn accepts_every_query(world: &World) {
    let words = "a b c d e ".repeat(51);
    let either = "x or ".repeat(102);
    let neither = "-x ".repeat(170);
    let planes: String = (0..17)
        .filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x41))
        .collect();
    let (_, user) = conversation_with(world, &["hello & (world) | \"you\" * ^ : NEAR 'x'"]).await;
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
        &"-(x ".repeat(128),
        &words,
        &either,
        &neither,
        &planes,
        &"\"x\" ".repeat(128),
        &"w".repeat(512),
        &"\u{10ffff}".repeat(512),
    ] {
        let page = world.store.search(&query(&user, text)).await;
        assert!(page.is_ok(), "{text}: {page:?}");
    }
    for text in ["hello NEAR", "\"hello world\"", "x -y"] {
        assert_eq!(found(world, &query(&user, text)).await.len(), 1, "{text}");
    }
}

pub(crate) async fn finds_no_messages_of_other_users(world: &World) {
    let (theirs, _) = conversation_with(world, &["the same secret"]).await;
    let (_, user) = conversation_with(world, &["the same secret", "nothing"]).await;
    let mine = hits(world, &query(&user, "secret")).await;
    assert_eq!(mine.len(), 1);
    assert_ne!(mine[0].message.conversation_id, theirs.id);
    for conversation in [theirs.id, ConversationId::from_uuid(UuidV7.uuid())] {
        let elsewhere = SearchQuery {
            conversation_id: Some(conversation),
            ..query(&user, "secret or -unheard")
        };
        assert!(hits(world, &elsewhere).await.is_empty());
    }
    // Messages of other users do not change ranks.
    for _ in 0..3 {
        conversation_with(world, &["secret secret", "secret"]).await;
    }
    assert_eq!(hits(world, &query(&user, "secret")).await, mine);
    // User ids with a common prefix, and with characters that a tokenizer can split.
    for name in [" x", "-x", "é", "E", "\""] {
        let name = UserId::parse(format!("{}{name}", user.as_str())).unwrap();
        assert!(hits(world, &query(&name, "secret or -x")).await.is_empty());
        let other = new_conversation(&name);
        world.store.create(&other, at(0)).await.unwrap();
        world
            .append_texts(&owned_ref(&other), &["secret of another"])
            .await;
        let found = found(world, &query(&name, "secret")).await;
        assert_eq!(found, ["secret of another"], "{name:?}");
    }
    assert_eq!(hits(world, &query(&user, "secret")).await, mine);
}

pub(crate) async fn filters_narrow_a_search(world: &World) {
    let user = user();
    let mut conversations = Vec::new();
    for dept in ["sales", "it"] {
        let new = NewConversation {
            dept_id: Some(DeptId::parse(dept).unwrap()),
            ..new_conversation(&user)
        };
        world.store.create(&new, at(0)).await.unwrap();
        let messages = [Role::User, Role::Assistant].map(|role| NewMessage {
            role,
            ..message(format!("a word in {dept} by {}", role.as_str()))
        });
        let save = append_of(&owned_ref(&new), messages.into());
        world.save(&save).await.unwrap();
        conversations.push(new.id);
    }
    let all = query(&user, "word");
    assert_eq!(found(world, &all).await.len(), 4);
    let in_sales = SearchQuery {
        conversation_id: Some(conversations[0]),
        ..all.clone()
    };
    assert_eq!(
        found(world, &in_sales).await,
        ["a word in sales by assistant", "a word in sales by user"]
    );
    let in_it = SearchQuery {
        dept_id: Some(DeptId::parse("it").unwrap()),
        ..all.clone()
    };
    assert_eq!(
        found(world, &in_it).await,
        ["a word in it by assistant", "a word in it by user"]
    );
    let by_user = SearchQuery {
        role: Some(Role::User),
        ..all.clone()
    };
    assert_eq!(
        found(world, &by_user).await,
        ["a word in it by user", "a word in sales by user"]
    );
    let nowhere = SearchQuery {
        conversation_id: Some(conversations[0]),
        dept_id: Some(DeptId::parse("it").unwrap()),
        ..all
    };
    assert!(found(world, &nowhere).await.is_empty());
}

pub(crate) async fn hits_are_ordered_by_rank_then_recency(world: &World) {
    let (conversation, user) =
        conversation_with(world, &["one word", "word, word, word", "one word"]).await;
    let seqs: Vec<_> = hits(world, &query(&user, "word"))
        .await
        .iter()
        .map(|hit| hit.message.seq)
        .collect();
    assert_eq!(seqs, [2, 3, 1]);
    let long = format!("word {}", "and much else ".repeat(200));
    world.append_texts(&conversation, &[&long]).await;
    let hits = hits(world, &query(&user, "word")).await;
    assert_eq!(hits[3].message.seq, 4);
}

pub(crate) async fn hits_are_paged(world: &World) {
    let texts: Vec<String> = (0..23)
        .map(|number| "word ".repeat(1 + number % 5) + "end")
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (conversation, user) = conversation_with(world, &texts).await;
    let all = hits(world, &query(&user, "word")).await;
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
            let page = world.store.search(&query).await.unwrap();
            assert!(page.hits.len() <= limit as usize);
            query.after = page.hits.last().map(|hit| hit.key);
            seen.extend(page.hits);
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all, "{limit} a page");
    }
    // A message that is saved between two pages does not move the hits.
    let mut query = SearchQuery {
        limit: 10,
        ..query(&user, "word")
    };
    let first = world.store.search(&query).await.unwrap().hits;
    world
        .append_texts(&conversation, &["word ".repeat(9).trim()])
        .await;
    query.after = first.last().map(|hit| hit.key);
    let second = world.store.search(&query).await.unwrap().hits;
    assert_eq!([first, second].concat(), all[..20]);
}

pub(crate) async fn removed_messages_are_not_found(world: &World) {
    let (conversation, user) =
        conversation_with(world, &["word one", "word two", "word three"]).await;
    let query = query(&user, "word");
    world
        .store
        .truncate(&truncation(&conversation, 1))
        .await
        .unwrap();
    assert_eq!(found(world, &query).await, ["word one"]);
    world.append_texts(&conversation, &["word again"]).await;
    assert_eq!(found(world, &query).await, ["word again", "word one"]);
    world.store.delete(&conversation).await.unwrap();
    assert!(found(world, &query).await.is_empty());
    let anything = SearchQuery {
        text: SearchText::parse("-unheard").unwrap(),
        ..query
    };
    assert!(found(world, &anything).await.is_empty());
}

pub(crate) async fn shared_messages_are_found_once(world: &World) {
    let (parent, user) = conversation_with(world, &["word one", "word two", "word three"]).await;
    let branched = world.store.branch(&branch_of(&parent, 2)).await.unwrap();
    let branch = ConversationRef {
        id: branched.id,
        user_id: Some(user.clone()),
    };
    world.append_texts(&branch, &["word four"]).await;
    let all = query(&user, "word");
    let within = |conversation: &ConversationRef| SearchQuery {
        conversation_id: Some(conversation.id),
        ..all.clone()
    };
    let everything = ["word four", "word one", "word three", "word two"];
    assert_eq!(found(world, &all).await, everything);
    let of_parent = ["word one", "word three", "word two"];
    assert_eq!(found(world, &within(&parent)).await, of_parent);
    let of_branch = ["word four", "word one", "word two"];
    assert_eq!(found(world, &within(&branch)).await, of_branch);
    for hit in hits(world, &within(&branch)).await {
        assert_eq!(hit.message.conversation_id, branch.id);
    }
    // A message that the parent no longer shows is found in the branch.
    world.store.truncate(&truncation(&parent, 1)).await.unwrap();
    assert_eq!(found(world, &within(&parent)).await, ["word one"]);
    assert_eq!(found(world, &within(&branch)).await, of_branch);
    for hit in hits(world, &all).await {
        let in_parent = hit.message.content.as_str() == "word one";
        let shown_in = if in_parent { parent.id } else { branch.id };
        assert_eq!(hit.message.conversation_id, shown_in);
    }
    world.store.delete(&parent).await.unwrap();
    assert_eq!(found(world, &all).await, of_branch);
    for hit in hits(world, &all).await {
        assert_eq!(hit.message.conversation_id, branch.id);
    }
    world.store.delete(&branch).await.unwrap();
    assert!(found(world, &all).await.is_empty());
}

pub(crate) async fn long_messages_are_searched_by_their_beginning(world: &World) {
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
    let (_, user) = conversation_with(world, &[]).await;
    let new = new_conversation(&user);
    world.store.create(&new, at(0)).await.unwrap();
    for text in texts {
        world.append_texts(&owned_ref(&new), &[text]).await;
    }
    assert_eq!(world.texts(&owned_ref(&new)).await, texts);
    let begun = hits(world, &query(&user, "beginning")).await;
    assert_eq!(begun[0].message.content.as_str(), words);
    assert!(begun[0].snippet.contains("⟦beginning⟧"));
    assert!(begun[0].snippet.chars().count() <= 242);
    assert!(found(world, &query(&user, "end")).await.is_empty());
    for hit in hits(world, &query(&user, "-beginning")).await {
        assert!(hit.snippet.chars().count() <= 242, "{}", hit.snippet.len());
    }
}

pub(crate) async fn marks_in_a_message_are_escaped(world: &World) {
    let (_, user) = conversation_with(world, &["an ⟦odd⟧ text <b>here</b>"]).await;
    let hits = hits(world, &query(&user, "text")).await;
    assert_eq!(hits[0].snippet, "an [odd] ⟦text⟧ <b>here</b>");
    assert_eq!(
        hits[0].message.content.as_str(),
        "an ⟦odd⟧ text <b>here</b>"
    );
}

/// Text, query, and whether PostgreSQL and SQLite find the text.
const ENGINE_DIFFERENCES: [(&str, &str, bool, bool); 5] = [
    // PostgreSQL ignores stop words in phrases, except for their number.
    ("cat on a hat", "\"cat in the hat\"", true, false),
    // PostgreSQL uses the second version of Porter's stemmer, SQLite the first.
    ("skis", "ski", true, true),
    ("kindly", "kind", true, false),
    // PostgreSQL indexes an address as one word, and does not find its parts.
    ("write to ann@example.com", "ann", false, true),
    ("see example.com/a/b", "\"a b\"", false, true),
];

#[tokio::test(flavor = "multi_thread")]
async fn engines_differ_in_listed_cases() {
    for (text, words, on_postgres, on_sqlite) in ENGINE_DIFFERENCES {
        for (world, expected) in [
            (World::postgres().await, on_postgres),
            (World::sqlite().await, on_sqlite),
        ] {
            let (_, user) = conversation_with(&world, &[text]).await;
            let found = found(&world, &query(&user, words)).await;
            assert_eq!(!found.is_empty(), expected, "{text}: {words}");
        }
    }
}

/// Asserts which texts are found by inflected forms, and which only by their exact words.
pub(crate) async fn assert_forms(world: &World, user: &UserId, forms: &[&str], exact: &[&str]) {
    let mut all = [forms, exact].concat();
    all.sort_unstable();
    assert_eq!(found(world, &query(user, "policies")).await, all);
    assert_eq!(found(world, &query(user, "policy")).await, forms);
    assert_eq!(found(world, &query(user, "the")).await, exact);
}
