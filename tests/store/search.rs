//! Searching: what is found, by whom, in which order. Where the engines cannot agree,
//! [`differences`] has the cases by name.

use std::fmt::Write as _;

use conversation_memory::{
    domain::{
        ConversationChanges, ConversationId, ConversationRef, DeptId, IdSource, NewConversation,
        NewMessage, Role, SearchText, UserId, UuidV7,
    },
    store::{Hit, SearchQuery},
};

use crate::branches::branch_of;
use test_support::world::{
    World, at, message, named, new_conversation, save_of, title, truncation, user,
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

async fn hits(world: &World, query: &SearchQuery) -> Vec<Hit> {
    let page = world.store.search(query).await.unwrap();
    assert!(!page.more);
    page.hits
}

/// The texts that are found, in alphabetical order.
pub(crate) async fn found(world: &World, query: &SearchQuery) -> Vec<String> {
    let mut texts: Vec<_> = hits(world, query)
        .await
        .into_iter()
        .map(|hit| hit.message.content.into_string())
        .collect();
    texts.sort();
    texts
}

/// A new conversation in which these were said, and its owner.
async fn said(world: &World, texts: &[&str]) -> (ConversationRef, UserId) {
    let conversation = world.conversation().await;
    if !texts.is_empty() {
        world.say(&conversation, texts).await;
    }
    let user = conversation.user_id.clone().unwrap();
    (conversation, user)
}

pub(crate) async fn a_hit_shows_the_message_and_where_it_was_said(world: &World) {
    let (conversation, user) = said(world, &["Which policies hold?", "no match"]).await;
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
    assert_eq!(hit.message, world.all(&conversation).await[0]);
    assert_eq!(hit.title, Some(title("Named since")));
    assert_eq!(hit.snippet, "Which ⟦policies⟧ hold?");
    assert!(hit.key.rank > 0.0 && hit.key.rank.is_finite());
    let untitled = new_conversation(&user);
    world.store.create(&untitled, at(0)).await.unwrap();
    world.say(&named(&untitled), &["unmistakable"]).await;
    let hits = self::hits(world, &query(&user, "unmistakable")).await;
    assert_eq!(hits[0].title, None);
}

pub(crate) async fn the_syntax_is_that_of_search_boxes(world: &World) {
    const RED: &str = "a red fish swims";
    const BLUE: &str = "a blue fish runs";
    const BOTH: &str = "a fish, blue and red";
    let (_, user) = said(world, &[RED, BLUE, BOTH]).await;
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
    // More negations than PostgreSQL bears.
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

pub(crate) async fn no_query_is_wrong(world: &World) {
    let words = "a b c d e ".repeat(51);
    let either = "x or ".repeat(102);
    let neither = "-x ".repeat(170);
    let planes: String = (0..17)
        .filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x41))
        .collect();
    let (_, user) = said(world, &["hello & (world) | \"you\" * ^ : NEAR 'x'"]).await;
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

pub(crate) async fn a_search_never_leaves_its_user(world: &World) {
    let (theirs, _) = said(world, &["the same secret"]).await;
    let (_, user) = said(world, &["the same secret", "nothing"]).await;
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
    // What others say changes no rank.
    for _ in 0..3 {
        said(world, &["secret secret", "secret"]).await;
    }
    assert_eq!(hits(world, &query(&user, "secret")).await, mine);
    // Names that begin alike, and such as an index may take apart.
    for name in [" x", "-x", "é", "E", "\""] {
        let name = UserId::parse(format!("{}{name}", user.as_str())).unwrap();
        assert!(hits(world, &query(&name, "secret or -x")).await.is_empty());
        let other = new_conversation(&name);
        world.store.create(&other, at(0)).await.unwrap();
        world.say(&named(&other), &["secret of another"]).await;
        let found = found(world, &query(&name, "secret")).await;
        assert_eq!(found, ["secret of another"], "{name:?}");
    }
    assert_eq!(hits(world, &query(&user, "secret")).await, mine);
}

pub(crate) async fn a_search_can_be_narrowed(world: &World) {
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
        let save = save_of(&named(&new), messages.into());
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

pub(crate) async fn the_best_come_first_and_then_the_newest(world: &World) {
    let (conversation, user) = said(world, &["one word", "word, word, word", "one word"]).await;
    let seqs: Vec<_> = hits(world, &query(&user, "word"))
        .await
        .iter()
        .map(|hit| hit.message.seq)
        .collect();
    assert_eq!(seqs, [2, 3, 1]);
    let long = format!("word {}", "and much else ".repeat(200));
    world.say(&conversation, &[&long]).await;
    let hits = hits(world, &query(&user, "word")).await;
    assert_eq!(hits[3].message.seq, 4);
}

pub(crate) async fn hits_are_paged(world: &World) {
    let texts: Vec<String> = (0..23)
        .map(|number| "word ".repeat(1 + number % 5) + "end")
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (conversation, user) = said(world, &texts).await;
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
    // What is saved between two pages moves nothing.
    let mut query = SearchQuery {
        limit: 10,
        ..query(&user, "word")
    };
    let first = world.store.search(&query).await.unwrap().hits;
    world.say(&conversation, &["word ".repeat(9).trim()]).await;
    query.after = first.last().map(|hit| hit.key);
    let second = world.store.search(&query).await.unwrap().hits;
    assert_eq!([first, second].concat(), all[..20]);
}

pub(crate) async fn what_was_removed_is_not_found(world: &World) {
    let (conversation, user) = said(world, &["word one", "word two", "word three"]).await;
    let query = query(&user, "word");
    world
        .store
        .truncate(&truncation(&conversation, 1))
        .await
        .unwrap();
    assert_eq!(found(world, &query).await, ["word one"]);
    world.say(&conversation, &["word again"]).await;
    assert_eq!(found(world, &query).await, ["word again", "word one"]);
    world.store.delete(&conversation).await.unwrap();
    assert!(found(world, &query).await.is_empty());
    let anything = SearchQuery {
        text: SearchText::parse("-unheard").unwrap(),
        ..query
    };
    assert!(found(world, &anything).await.is_empty());
}

pub(crate) async fn what_branches_share_is_found_once(world: &World) {
    let (parent, user) = said(world, &["word one", "word two", "word three"]).await;
    let branched = world.store.branch(&branch_of(&parent, 2)).await.unwrap();
    let branch = ConversationRef {
        id: branched.id,
        user_id: Some(user.clone()),
    };
    world.say(&branch, &["word four"]).await;
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
    // What the parent no longer shows is found where it still is.
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

pub(crate) async fn long_texts_are_found_by_their_beginning(world: &World) {
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
    let (_, user) = said(world, &[]).await;
    let new = new_conversation(&user);
    world.store.create(&new, at(0)).await.unwrap();
    for text in texts {
        world.say(&named(&new), &[text]).await;
    }
    assert_eq!(world.texts(&named(&new)).await, texts);
    let begun = hits(world, &query(&user, "beginning")).await;
    assert_eq!(begun[0].message.content.as_str(), words);
    assert!(begun[0].snippet.contains("⟦beginning⟧"));
    assert!(begun[0].snippet.chars().count() <= 242);
    assert!(found(world, &query(&user, "end")).await.is_empty());
    for hit in hits(world, &query(&user, "-beginning")).await {
        assert!(hit.snippet.chars().count() <= 242, "{}", hit.snippet.len());
    }
}

pub(crate) async fn marks_in_a_message_are_not_taken_for_ours(world: &World) {
    let (_, user) = said(world, &["an ⟦odd⟧ text <b>here</b>"]).await;
    let hits = hits(world, &query(&user, "text")).await;
    assert_eq!(hits[0].snippet, "an [odd] ⟦text⟧ <b>here</b>");
    assert_eq!(
        hits[0].message.content.as_str(),
        "an ⟦odd⟧ text <b>here</b>"
    );
}

/// A text, a query, and whether PostgreSQL and SQLite find the one by the other.
const DIFFERENCES: [(&str, &str, bool, bool); 5] = [
    // PostgreSQL leaves stop words out of phrases, and only counts them.
    ("cat on a hat", "\"cat in the hat\"", true, false),
    // Its stemmer is Porter's second one, SQLite's the first.
    ("skis", "ski", true, true),
    ("kindly", "kind", true, false),
    // It takes an address for one word, and does not find its parts.
    ("write to ann@example.com", "ann", false, true),
    ("see example.com/a/b", "\"a b\"", false, true),
];

#[tokio::test(flavor = "multi_thread")]
async fn differences() {
    for (text, words, on_postgres, on_sqlite) in DIFFERENCES {
        for (world, expected) in [
            (World::postgres().await, on_postgres),
            (World::sqlite().await, on_sqlite),
        ] {
            let (_, user) = said(&world, &[text]).await;
            let found = found(&world, &query(&user, words)).await;
            assert_eq!(!found.is_empty(), expected, "{text}: {words}");
        }
    }
}

/// What is found by forms of words, and what only as it is written.
pub(crate) async fn assert_forms(world: &World, user: &UserId, forms: &[&str], exact: &[&str]) {
    let mut all = [forms, exact].concat();
    all.sort_unstable();
    assert_eq!(found(world, &query(user, "policies")).await, all);
    assert_eq!(found(world, &query(user, "policy")).await, forms);
    assert_eq!(found(world, &query(user, "the")).await, exact);
}
