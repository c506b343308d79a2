//! Saves of a batch are stored as saves that are written one by one.

use conversation_memory::domain::{
    AuthorName, ConversationRef, NewConversation, NewMessage, Part, Role,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, query_scalar};
use test_support::{
    random::Random,
    store_fixture::{metadata, session},
};

use super::*;

/// Conversations that are saved to at once.
const CONVERSATIONS: usize = 8;

/// Texts that JSON, SQL or UTF-8 could change.
fn hostile_texts() -> Vec<String> {
    let planes = (0..=0x10_u32).flat_map(|plane| {
        let ends = [
            0x0, 0x1, 0x20, 0x301, 0xd7ff, 0xe000, 0xfdd0, 0xfffd, 0xfffe, 0xffff,
        ];
        ends.map(|end| (plane << 16) + end)
    });
    let bmp_step = (1..0x1_0000).step_by(97);
    let chars = |codes: &mut dyn Iterator<Item = u32>| -> String {
        let chars = codes.filter_map(char::from_u32);
        chars.filter(|char| *char != '\0').collect()
    };
    let mut texts = vec![
        chars(&mut (1..0x100)),
        chars(&mut planes.into_iter()),
        chars(&mut bmp_step.into_iter()),
        "\u{1}".repeat(500),
        "\\".repeat(501),
        "word ".repeat(1_000),
    ];
    let short = [
        " ",
        "\"",
        "'",
        "\\",
        "\\u0000",
        "\\ud800",
        "\\x00\\0",
        "\u{7f}\u{80}\u{9f}\u{ad}",
        "\u{feff}\u{2028}\u{2029}",
        "e\u{301} \u{301}",
        "null",
        "true",
        "0",
        "-0.0",
        "1e999",
        "0x10",
        "9223372036854775808",
        "NaN",
        "[1]",
        "{\"a\":\"\\u0000\"}",
        "/* */ -- ? ?1 $1 :a @a",
        "'; DELETE FROM messages; --",
        "\r\n\t\u{8}\u{c}",
        "👩‍👩‍👧‍👦 مرحبا ⟦ ⟧",
    ];
    texts.extend(short.map(str::to_owned));
    texts
}

struct Turns {
    random: Random,
    texts: Vec<String>,
}

impl Turns {
    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.random.below(values.len())].clone()
    }

    fn text(&mut self) -> String {
        let index = self.random.below(self.texts.len());
        self.texts[index].clone()
    }

    /// A text of at most `max` characters.
    fn short_text(&mut self, max: usize) -> String {
        self.text().chars().take(max).collect()
    }

    fn count(&mut self) -> Option<i32> {
        self.one_of(&[None, Some(0), Some(1), Some(i32::MAX)])
    }

    fn message(&mut self) -> NewMessage {
        let text = self.text();
        let mut message = message(text.clone());
        message.id_chosen = self.random.one_in(2);
        message.role = self.one_of(&[Role::User, Role::Assistant, Role::System, Role::Tool]);
        message.tokens_used = self.count();
        message.latency_ms = self.count();
        message.token_count = self.count();
        message.pinned = self.random.one_in(4);
        if self.random.one_in(4) {
            message.name = Some(AuthorName::parse(self.short_text(255)).unwrap());
        }
        if self.random.one_in(3) {
            let micros = self.one_of(&[-62_135_596_800_000_000, -1, 253_402_300_799_999_999]);
            message.created_at = chrono::DateTime::from_timestamp_micros(micros);
        }
        if self.random.one_in(3) {
            let numbers = json!([0, -1, 1e308, -0.0, 0.1, 9_007_199_254_740_992.0, null, true]);
            let object = json!({self.text(): self.text(), "numbers": numbers});
            message.metadata = Some(metadata(object));
        }
        if self.random.one_in(3) {
            message.parts = vec![
                Part::Text { bytes: text.len() },
                Part::Reasoning {
                    content: self.text(),
                },
                Part::ToolCall {
                    id: self.text(),
                    name: self.text(),
                    arguments: self.text(),
                },
            ];
        }
        if self.random.one_in(8) {
            message.content = test_support::store_fixture::content("");
            message.redacted = true;
        }
        message
    }

    /// A save that is new, to a conversation with this last number.
    fn turn(&mut self, conversation: &ConversationRef, last_seq: i64, time: i64) -> Append {
        let length = self.one_of(&[1, 2, 2, 2, 8, 9, 20]);
        let messages = (0..length).map(|_| self.message()).collect();
        let mut save = append_of(conversation, messages);
        save.at = at(time - self.random.between(0, 5));
        save.expected_last_seq = self.one_of(&[None, Some(last_seq)]);
        save.session_id = self.one_of(&[None, Some(session())]);
        if self.random.one_in(2) {
            let text = title(&self.short_text(255));
            save.title = Some((text, self.random.below(length)));
        }
        if self.random.one_in(4) {
            save.conversation.user_id = None;
        }
        if self.random.one_in(2) {
            let key = format!("{time}{}", self.short_text(100));
            save = with_request_id(save, &key);
        }
        save
    }
}

/// Changes a save so that it is written with the statements for one turn, or rejected.
fn make_exception(save: &mut Append, earlier: Option<&Append>, random: &mut Random) {
    match (random.below(4), earlier) {
        (0, Some(earlier)) if earlier.is_repeatable() => *save = retry_of(earlier),
        (1, Some(earlier)) => {
            save.messages[0].id = earlier.messages[0].id;
            save.messages[0].id_chosen = true;
        }
        (2, _) => save.expected_last_seq = Some(1_000_000),
        _ => save.messages[0].contexts = vec![context("document", "context")],
    }
}

/// Returns all rows of all tables, after the search documents were analyzed.
async fn dump(fixture: &mut Fixture) -> Vec<String> {
    let without_terms = "SELECT CAST(count(*) AS TEXT) FROM message_documents WHERE terms IS NULL";
    while strings(fixture, without_terms).await != ["0"] {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlx%' ORDER BY name";
    let tables: Vec<String> = query_scalar(tables)
        .fetch_all(&mut fixture.other)
        .await
        .unwrap();
    assert!(tables.len() > 8, "{tables:?}");
    let mut rows = Vec::new();
    for table in tables {
        let columns = "SELECT group_concat(format('quote(%s)', name), ' || '','' || ') \
                       FROM pragma_table_info(?1)";
        let columns: String = query_scalar(columns)
            .bind(&table)
            .fetch_one(&mut fixture.other)
            .await
            .unwrap();
        let select = format!("SELECT '{table}: ' || {columns} FROM {table} ORDER BY 1");
        rows.extend(strings(fixture, &select).await);
    }
    rows
}

async fn strings(fixture: &mut Fixture, select: &str) -> Vec<String> {
    let select = query_scalar(AssertSqlSafe(select.to_owned()));
    select.fetch_all(&mut fixture.other).await.unwrap()
}

async fn create(fixtures: &mut [Fixture; 2], new: &NewConversation) -> ConversationRef {
    for fixture in fixtures {
        fixture.store.create(new, at(0)).await.unwrap();
    }
    owned_ref(new)
}

#[tokio::test(flavor = "multi_thread")]
async fn saves_of_a_batch_are_stored_as_those_that_are_written_one_by_one() {
    let mut fixtures = [Fixture::new().await, Fixture::new().await];
    let mut turns = Turns {
        random: Random::new(7),
        texts: hostile_texts(),
    };
    let first = create(&mut fixtures, &new_conversation(&user())).await;
    let mut all = Vec::new();
    for _ in 0..CONVERSATIONS {
        all.push(create(&mut fixtures, &new_conversation(&user())).await);
    }
    let mut last_seqs = vec![0; CONVERSATIONS];
    let mut earlier = vec![None; CONVERSATIONS];
    for round in 1..=16 {
        let mut saves: Vec<_> = all
            .iter()
            .zip(&last_seqs)
            .map(|(conversation, last_seq)| turns.turn(conversation, *last_seq, round * 3))
            .collect();
        // The saves that are written together precede the others.
        let exceptions = turns.random.below(4);
        for (save, earlier) in saves.iter_mut().zip(&earlier).rev().take(exceptions) {
            make_exception(save, earlier.as_ref(), &mut turns.random);
        }
        let before = turn(&first, &["first"]);
        let [together, single] = &mut fixtures;
        let outcomes = together.write_after(&before, &saves).await;
        single.store.append(&before).await.unwrap();
        for (index, (save, outcome)) in saves.into_iter().zip(&outcomes).enumerate() {
            let expected = single.store.append(&save).await;
            assert_eq!(format!("{outcome:?}"), format!("{expected:?}"));
            if let Ok(Appended::Saved { .. }) = outcome {
                last_seqs[index] += i64::try_from(save.messages.len()).unwrap();
                earlier[index] = Some(save);
            }
        }
    }
    let [together, single] = &mut fixtures;
    let (stored, expected) = (dump(together).await, dump(single).await);
    assert_eq!(stored.len(), expected.len());
    for (stored, expected) in stored.iter().zip(&expected) {
        assert_eq!(stored, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hostile_text_is_stored_to_the_byte() {
    let mut fixture = Fixture::new().await;
    let record = "CREATE TABLE steps (step INTEGER); \
                  CREATE TRIGGER record AFTER UPDATE ON activity_order \
                  BEGIN INSERT INTO steps VALUES (new.last - old.last); END";
    fixture.execute(record).await;
    let texts = hostile_texts();
    let all = fixture.conversations(texts.len()).await;
    let saves: Vec<_> = all
        .iter()
        .zip(&texts)
        .map(|(conversation, text)| turn(conversation, &[text, text]))
        .collect();
    let outcomes = fixture.write_together(&saves).await;
    for ((conversation, text), outcome) in all.iter().zip(&texts).zip(&outcomes) {
        assert!(is_saved_at(outcome, 1), "{outcome:?}");
        let stored = fixture.texts(conversation).await;
        assert_eq!(stored, [text.as_str(), text.as_str()]);
    }
    // The save that the others waited for, and one query for all others.
    let steps = "SELECT CAST(step AS TEXT) FROM steps ORDER BY rowid";
    let steps = strings(&mut fixture, steps).await;
    assert_eq!(
        steps[steps.len() - 2..],
        ["1".to_owned(), texts.len().to_string()]
    );
}
