//! Titles that were derived from messages.

use conversation_memory::{
    domain::{ConversationChanges, ConversationRef, NewMessage, NumberedMessage, Role},
    store::Branch,
};

use crate::{branches::branch_of, imports::imported};
use test_support::store_fixture::{StoreFixture, at, message, title, truncation, turn, user};

async fn title_of(fixture: &StoreFixture, conversation: &ConversationRef) -> Option<String> {
    let found = fixture.store.get(conversation).await.unwrap();
    found.title.map(|title| title.as_str().to_owned())
}

pub(crate) async fn branch_does_not_inherit_a_title_of_later_messages(fixture: &StoreFixture) {
    let wanted = imported(user());
    let mut import = fixture.store.import(&wanted).await.unwrap();
    let messages = [(1, "Welcome", Role::System), (2, "Vacation", Role::User)];
    let messages = messages.map(|(seq, text, role)| NumberedMessage {
        seq,
        message: NewMessage {
            role,
            ..message(text)
        },
    });
    import.add(&messages).await.unwrap();
    import.finish(2).await.unwrap();
    let conversation = ConversationRef {
        id: wanted.id,
        user_id: None,
    };
    // The title may have been derived from the second message, which the first branch lacks.
    let before = fixture.branch(&branch_of(&conversation, 1)).await;
    let whole = fixture.branch(&branch_of(&conversation, 2)).await;
    assert_eq!(title_of(fixture, &before).await, None);
    assert_eq!(title_of(fixture, &whole).await.as_deref(), Some("Vacation"));
    let named = Branch {
        title: Some(title("Vacation")),
        ..branch_of(&conversation, 1)
    };
    let named = fixture.branch(&named).await;
    assert_eq!(title_of(fixture, &named).await.as_deref(), Some("Vacation"));
    let truncation = truncation(&whole, 1);
    fixture.store.truncate(&truncation).await.unwrap();
    assert_eq!(title_of(fixture, &whole).await, None);
}

pub(crate) async fn title_that_was_cleared_has_no_origin(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for text in ["first secret", "second secret"] {
        let clear = ConversationChanges {
            title: Some(None),
            metadata: None,
        };
        let cleared = fixture.store.update(&conversation, &clear, at(5)).await;
        assert_eq!(cleared.unwrap().title, None);
        let mut append = turn(&conversation, &[text]);
        append.title = Some((title(text), 0));
        fixture.save(&append).await.unwrap();
        assert_eq!(
            title_of(fixture, &conversation).await.as_deref(),
            Some(text)
        );
    }
    fixture
        .store
        .truncate(&truncation(&conversation, 1))
        .await
        .unwrap();
    assert_eq!(title_of(fixture, &conversation).await, None);
}
