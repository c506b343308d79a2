//! Latency of searches of a user with 100,000 messages.

use std::time::Instant;

use conversation_memory::proto::{Role, SearchMessagesRequest};
use sqlx::{Connection as _, PgConnection, raw_sql};
use test_support::{
    new_user,
    random::Random,
    requests::{message, new_conversation, save},
    sidecar::{Form, Sidecar},
};

use crate::compare::{Times, heading, micros, row};

const MESSAGES: usize = 100_000;
const MESSAGES_OF_CALL: usize = 100;
const MESSAGES_OF_CONVERSATION: usize = 1_000;

/// Number of different words. Their frequencies are those of a natural language: the second occurs half
/// as often as the first.
const WORDS: usize = 30_000;

/// Names and texts of the queries.
const QUERIES: [(&str, &str); 9] = [
    ("rare word", "unicorn"),
    ("word of every hundredth message", "budget"),
    ("word of every message", "projects"),
    ("two frequent words", "projects meeting"),
    ("phrase", "\"next meeting\""),
    ("word that must not occur", "projects -meeting"),
    ("prefix", "mee*"),
    ("misspelled word", "unicrn"),
    ("alternatives", "budget or unicorn"),
];

/// Measures searches of users with messages of 200 and of 600 characters, in both forms.
pub(crate) async fn searches(rounds: usize) {
    let forms = [
        ("PostgreSQL", Form::servers()),
        ("embedded", Form::embedded()),
    ];
    for (label, form) in &forms {
        let sidecar = Sidecar::start(form).await;
        for characters in [200, 600] {
            let user = new_user();
            save_messages(&sidecar, &user, characters).await;
            heading(
                &format!("searches: {label}, {MESSAGES} messages of {characters} characters"),
                &["median", "max"],
            );
            for (name, query) in QUERIES {
                let times = time(&sidecar, &user, query, rounds).await;
                row(name, &[micros(times.median()), micros(times.max())]);
            }
        }
    }
}

async fn time(sidecar: &Sidecar, user: &str, query: &str, rounds: usize) -> Times {
    let mut memory = sidecar.memory();
    let mut times = Times::new();
    for _ in 0..rounds {
        let request = SearchMessagesRequest {
            user_id: user.to_owned(),
            query: query.to_owned(),
            ..SearchMessagesRequest::default()
        };
        let start = Instant::now();
        let page = memory.search_messages(request).await.unwrap();
        times.add(Some(start.elapsed()));
        assert!(!page.into_inner().hits.is_empty(), "{query}");
    }
    times
}

/// Saves 100,000 messages of a user, in the order in which their conversations would continue.
pub(crate) async fn save_messages(sidecar: &Sidecar, user: &str, characters: usize) {
    let mut memory = sidecar.memory();
    let mut conversations = Vec::new();
    for _ in 0..MESSAGES / MESSAGES_OF_CONVERSATION {
        conversations.push(new_conversation(&mut memory, user).await);
    }
    let mut random = Random::new(7);
    let words: Vec<String> = (0..WORDS).map(word).collect();
    for call in 0..MESSAGES / MESSAGES_OF_CALL {
        let messages = (0..MESSAGES_OF_CALL).map(|number| {
            let number = call * MESSAGES_OF_CALL + number;
            message(Role::User, &text(&mut random, &words, number, characters))
        });
        let conversation = &conversations[call % conversations.len()];
        let request = save(conversation, messages.collect());
        memory.save_messages(request).await.unwrap();
    }
    analyze().await;
}

/// Lets PostgreSQL count the documents of each user, which it does within a minute by itself.
async fn analyze() {
    let Form::Servers { database_url, .. } = Form::servers() else {
        unreachable!("the form consists of servers");
    };
    let mut connection = PgConnection::connect(&database_url).await.unwrap();
    raw_sql("VACUUM ANALYZE message_documents")
        .execute(&mut connection)
        .await
        .unwrap();
}

fn text(random: &mut Random, words: &[String], number: usize, characters: usize) -> String {
    let mut text = "our project".to_owned();
    if number.is_multiple_of(3) {
        text += " next meeting";
    }
    if number.is_multiple_of(100) {
        text += " budget";
    }
    if number % 4_000 == 3_999 {
        text += " unicorn";
    }
    while text.len() < characters {
        text.push(' ');
        text += &words[frequent(random)];
    }
    text
}

/// Returns the number of a word, whose frequency is inverse to its number.
fn frequent(random: &mut Random) -> usize {
    let exponent = random.below(1_000_000);
    let exponent = f64::from(u32::try_from(exponent).unwrap()) / 1_000_000.0;
    let all = f64::from(u32::try_from(WORDS).unwrap());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is positive and small"
    )]
    let number = all.powf(exponent) as usize;
    number.clamp(1, WORDS) - 1
}

fn word(number: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "ba", "con", "di", "ler", "mo", "na", "pre", "ri", "sta", "tu", "ve", "wo", "zi", "gra",
        "hel", "ko",
    ];
    let mut word = String::new();
    let mut rest = number + 16;
    while rest > 0 {
        word += SYLLABLES[rest % 16];
        rest /= 16;
    }
    word + ["", "s", "ing", "ed"][number % 4]
}
