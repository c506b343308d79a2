//! Searches of both stores: what they find, and that they find the same in the same order.

use std::collections::BTreeMap;

use conversation_memory::{
    domain::SearchText,
    store::{SearchHit, SearchQuery, postgres::PostgresStore, sqlite::SqliteStore},
    text_analysis::Languages,
};
use sqlx::postgres::PgConnectOptions;

use crate::{
    dumps::create_databases,
    hostile_texts::hostile_texts,
    search::{found, query},
};
use test_support::{
    postgres_server::PostgresServer,
    random::Random,
    store_fixture::{StoreFixture, at, new_conversation, owned_ref, server_options, user},
};

const EXPECTATIONS: &str = include_str!("search_expectations.tsv");

/// Line of the table: text, query, and whether the query finds the text.
type Expectation = (&'static str, &'static str, bool);

/// Returns the table by the languages of the store.
fn expectations() -> BTreeMap<&'static str, Vec<Expectation>> {
    let mut expectations = BTreeMap::<_, Vec<_>>::new();
    for line in EXPECTATIONS.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split('\t').collect();
        let [_, languages, text, query, is_found] = columns.as_slice() else {
            panic!("{line}");
        };
        let is_found = match *is_found {
            "yes" => true,
            "no" => false,
            _ => panic!("{line}"),
        };
        let group = expectations.entry(*languages).or_default();
        group.push((*text, *query, is_found));
    }
    let count: usize = expectations.values().map(Vec::len).sum();
    assert!(count >= 200, "{count}");
    expectations
}

/// Searches each text of the table, which is the only one of its user.
async fn check(fixture: &StoreFixture, expectations: &[Expectation], store: &str) {
    let mut failures = Vec::new();
    for (text, words, is_found) in expectations {
        let conversation = fixture.create_conversation().await;
        fixture.append_texts(&conversation, &[text]).await;
        let user = conversation.user_id.clone().unwrap();
        let found = found(fixture, &query(&user, words)).await;
        if found.is_empty() == *is_found {
            failures.push(format!("{text}: {words}"));
        }
    }
    assert!(failures.is_empty(), "{store}: {failures:#?}");
}

async fn sqlite(languages: Languages) -> (StoreFixture, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::with_languages(&folder.path().join("memory.db"), languages).unwrap();
    (StoreFixture::prepared(store).await, folder)
}

async fn postgres(options: &PgConnectOptions, languages: Languages) -> StoreFixture {
    let store = PostgresStore::with_languages(options.clone(), 2, languages);
    StoreFixture::prepared(store).await
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations_are_met_on_sqlite() {
    for (languages, expectations) in expectations() {
        let (fixture, _folder) = sqlite(Languages::from_names(languages).unwrap()).await;
        check(&fixture, &expectations, "SQLite").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations_are_met_on_postgres_with_each_locale() {
    let server = PostgresServer::start().await;
    for options in create_databases(&server).await {
        for (languages, expectations) in expectations() {
            let languages = Languages::from_names(languages).unwrap();
            let fixture = postgres(&options, languages).await;
            let database = options.get_database().unwrap();
            check(&fixture, &expectations, database).await;
            fixture.store.close().await;
        }
    }
}

/// Number of random queries; `SEARCHES` sets another one.
#[expect(clippy::disallowed_methods, reason = "a setting of the test")]
fn searches() -> usize {
    let searches = std::env::var("SEARCHES").ok();
    searches.map_or(2_000, |searches| searches.parse().unwrap())
}

/// Words from which random texts and queries are made, so that many of them match.
const WORDS: [&str; 40] = [
    "red",
    "reds",
    "policy",
    "policies",
    "the",
    "and",
    "Häuser",
    "Haus",
    "Straße",
    "STRASSE",
    "ПРИВЕТ",
    "привет",
    "北京",
    "北京大学",
    "大学",
    "学",
    "東京タワー",
    "タワー",
    "ｶﾞ",
    "회사는",
    "회사",
    "สวัสดี",
    "ครับ",
    "हिन्दी",
    "ABC-1234",
    "SKU1234",
    "1234",
    "getUserName",
    "user_name",
    "ann@example.com",
    "https://example.com/a?b=1",
    "a/b",
    "İ",
    "ı",
    "e\u{301}",
    "é",
    "🎉",
    "x",
    "ﷺ",
    "…",
];

struct Texts(Random, Vec<String>);

impl Texts {
    fn word(&mut self) -> String {
        let Self(random, hostile) = self;
        if random.below(12) == 0 {
            let text = &hostile[random.below(hostile.len())];
            let start = random.below(20);
            return text
                .chars()
                .skip(start)
                .take(1 + random.below(12))
                .collect();
        }
        WORDS[random.below(WORDS.len())].to_owned()
    }

    fn text(&mut self) -> String {
        let max = if self.0.one_in(20) { 300 } else { 12 };
        let words = 1 + self.0.below(max);
        let words: Vec<_> = (0..words).map(|_| self.word()).collect();
        words.join([" ", ", ", "", "-"][self.0.below(4)])
    }

    fn query(&mut self) -> SearchText {
        loop {
            let operands = (0..=self.0.below(3)).map(|_| {
                let word = self.word();
                match self.0.below(8) {
                    0 => format!("\"{word} {}\"", self.word()),
                    1 => format!("-{word}"),
                    2 => format!("or {word}"),
                    3 => format!("{}*", word.chars().take(2).collect::<String>()),
                    _ => word,
                }
            });
            let operands: Vec<_> = operands.collect();
            if let Ok(text) = SearchText::parse(operands.join(" ")) {
                return text;
            }
        }
    }
}

/// What both stores must agree on.
fn shown(hits: &[SearchHit]) -> Vec<(i64, u64, &str)> {
    hits.iter()
        .map(|hit| {
            let rank = hit.key.rank.to_bits();
            (hit.message.seq, rank, hit.snippet.as_str())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_searches_find_the_same_in_the_same_order() {
    let languages = Languages::from_names("english,german").unwrap();
    let (sqlite, _folder) = sqlite(languages).await;
    let postgres = postgres(&server_options(), languages).await;
    let mut texts = Texts(Random::new(11), hostile_texts());
    let mut users = Vec::new();
    let mut matches = 0;
    for search in 0..searches() {
        if search % 500 == 0 {
            // The texts of another user.
            let new = new_conversation(&user());
            let conversation = owned_ref(&new);
            let saved: Vec<String> = (0..60)
                .map(|_| texts.text().replace('\0', ""))
                .filter(|text| !text.is_empty())
                .collect();
            for fixture in [&sqlite, &postgres] {
                fixture.store.create(&new, at(0)).await.unwrap();
                let saved: Vec<&str> = saved.iter().map(String::as_str).collect();
                for saved in saved.chunks(20) {
                    fixture.append_texts(&conversation, saved).await;
                }
            }
            users.push(new.user_id.clone());
        }
        let mut on_sqlite = SearchQuery {
            text: texts.query(),
            limit: 1 + u32::try_from(texts.0.below(20)).unwrap(),
            ..query(users.last().unwrap(), "x")
        };
        let mut on_postgres = on_sqlite.clone();
        let corrections = [
            sqlite.store.correct(&on_sqlite).await.unwrap(),
            postgres.store.correct(&on_postgres).await.unwrap(),
        ];
        let words = on_sqlite.text.as_str();
        assert_eq!(corrections[0], corrections[1], "{words}");
        // Places of documents differ, so that each store continues after its own last hit.
        for _ in 0..4 {
            let found = sqlite.store.search(&on_sqlite).await.unwrap();
            let expected = postgres.store.search(&on_postgres).await.unwrap();
            let words = on_sqlite.text.as_str();
            assert_eq!(shown(&found.hits), shown(&expected.hits), "{words}");
            assert_eq!(found.more, expected.more, "{words}");
            matches += found.hits.len();
            if !found.more {
                break;
            }
            on_sqlite.after = found.hits.last().map(|hit| hit.key);
            on_postgres.after = expected.hits.last().map(|hit| hit.key);
        }
    }
    assert!(matches > searches(), "{matches} matches");
}
