//! Texts of the messages, 200 and 600 characters long.

use conversation_memory::proto::Message;
use test_support::requests::turn;

const SENTENCE: &str = "A sentence as people write them to an assistant, of fifty.";

/// Question of 200 characters.
pub(super) fn question() -> String {
    text(200)
}

/// Answer of 600 characters.
pub(super) fn answer() -> String {
    text(600)
}

/// Question and answer, a number of times.
pub(super) fn turns(count: usize) -> Vec<Message> {
    let turns = (0..count).map(|_| turn(&question(), &answer()));
    turns.flatten().collect()
}

fn text(length: usize) -> String {
    SENTENCE.chars().cycle().take(length).collect()
}
