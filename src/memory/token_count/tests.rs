use std::iter;

use super::*;
use crate::{
    domain::{Limits, MessageId, RawMessage, Role},
    memory::tests::memory_counting,
};

fn message(text: &str) -> NewMessage {
    let raw = RawMessage::text(Role::User, text);
    let id = || MessageId::from_uuid(uuid::Uuid::nil());
    NewMessage::new(raw, iter::empty(), id, &Limits::default()).unwrap()
}

async fn counts(encoding: TokenEncoding, messages: Vec<NewMessage>) -> Vec<i32> {
    let counted = memory_counting(encoding).count_tokens(messages).await;
    let counts = counted.unwrap().into_iter();
    counts.map(|message| message.token_count.unwrap()).collect()
}

#[tokio::test]
async fn messages_are_counted_unless_their_caller_has_counted_them() {
    let mut given = message("Hello, world!");
    given.token_count = Some(7);
    let messages = vec![given, message("Hello, world!"), message("don't")];
    let encoded = counts(TokenEncoding::O200kBase, messages.clone()).await;
    assert_eq!(encoded, [7, 8, 5]);
    let estimated = counts(TokenEncoding::None, messages).await;
    assert_eq!(estimated, [7, 8, 6]);
}

#[tokio::test]
async fn long_messages_are_counted_in_order() {
    let long = "word ".repeat(MAX_INLINE_BYTES);
    let messages = vec![message("a"), message(&long), message("don't stop")];
    let expected = i32::try_from(TokenEncoding::Cl100kBase.count(&long)).unwrap();
    let encoded = counts(TokenEncoding::Cl100kBase, messages).await;
    assert_eq!(encoded, [5, 4 + expected, 7]);
}
