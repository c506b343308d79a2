use std::collections::{BTreeMap, BTreeSet};

use conversation_memory::{
    domain::{ConversationId, ConversationRef, IdSource as _, UuidV7},
    store::{Appended, Bound, Branch, Invalidation, Newest, StoreError},
};
use tokio::task::JoinSet;

use test_support::store_fixture::{
    ConversationKey, StoreFixture, append_of, at, context, message, new_conversation, owned_ref,
    title, truncation, turn, user, with_chosen_id, with_request_id,
};

/// Creates a branch, and returns its reference with its owner.
async fn branch(fixture: &StoreFixture, parent: &ConversationRef, at_seq: i64) -> ConversationRef {
    let branched = fixture
        .store
        .branch(&branch_of(parent, at_seq))
        .await
        .unwrap();
    assert_eq!(
        (
            branched.parent_id,
            branched.branched_at_seq,
            branched.last_seq
        ),
        (Some(parent.id), Some(at_seq), at_seq)
    );
    ConversationRef {
        id: branched.id,
        user_id: Some(branched.user_id),
    }
}

pub(crate) fn branch_of(parent: &ConversationRef, at_seq: i64) -> Branch {
    Branch {
        parent: parent.clone(),
        at_seq,
        id: ConversationId::from_uuid(UuidV7.uuid()),
        title: None,
        at: at(3),
    }
}

async fn truncate(fixture: &StoreFixture, conversation: &ConversationRef, after_seq: i64) -> i64 {
    let truncation = truncation(conversation, after_seq);
    fixture.store.truncate(&truncation).await.unwrap().removed
}

pub(crate) async fn branch_shares_messages_and_continues(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1", "2", "3"]).await;
    let branch = branch(fixture, &parent, 2).await;
    assert_eq!(fixture.texts(&branch).await, ["1", "2"]);
    assert_eq!(fixture.append_texts(&branch, &["b3", "b4"]).await, 3);
    fixture.append_texts(&parent, &["4"]).await;
    assert_eq!(fixture.texts(&branch).await, ["1", "2", "b3", "b4"]);
    assert_eq!(fixture.texts(&parent).await, ["1", "2", "3", "4"]);
    // Shared messages have the id of the branch.
    for message in fixture.all_messages(&branch).await {
        assert_eq!(message.conversation_id, branch.id);
    }
}

pub(crate) async fn branch_inherits_fields_of_its_parent(fixture: &StoreFixture) {
    let owner = user();
    let mut new = new_conversation(&owner);
    new.title = Some(title("parent"));
    fixture.store.create(&new, at(0)).await.unwrap();
    let parent = owned_ref(&new);
    fixture.append_texts(&parent, &["1"]).await;
    let mut wanted = branch_of(&parent, 1);
    let like = fixture.store.branch(&wanted).await.unwrap();
    assert_eq!((like.title, like.user_id), (Some(title("parent")), owner));
    wanted.id = ConversationId::from_uuid(UuidV7.uuid());
    wanted.title = Some(title("own"));
    let own = fixture.store.branch(&wanted).await.unwrap();
    assert_eq!(
        (own.title.clone(), own.created_at),
        (Some(title("own")), at(3))
    );
    let listed = fixture.store.branches(&parent, None, 1).await.unwrap();
    assert_eq!(listed.conversations, [own]);
    let rest = fixture
        .store
        .branches(&parent, listed.next, 1)
        .await
        .unwrap();
    assert_eq!(rest.conversations[0].id, like.id);
    assert_eq!(rest.next, None);
}

pub(crate) async fn branch_rejects_missing_message_and_foreign_parent(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1"]).await;
    let refused = fixture.store.branch(&branch_of(&parent, 2)).await;
    assert!(matches!(
        refused,
        Err(StoreError::BeyondEnd { last_seq: 1, .. })
    ));
    let foreign = ConversationRef {
        user_id: Some(user()),
        ..parent
    };
    let refused = fixture.store.branch(&branch_of(&foreign, 1)).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
    let refused = fixture.store.branches(&foreign, None, 1).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
}

pub(crate) async fn removals_in_a_parent_do_not_affect_branches(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1", "2", "3", "4"]).await;
    let branch = branch(fixture, &parent, 3).await;
    assert_eq!(truncate(fixture, &parent, 1).await, 3);
    assert_eq!(fixture.texts(&parent).await, ["1"]);
    assert_eq!(fixture.append_texts(&parent, &["5"]).await, 5);
    assert_eq!(fixture.texts(&parent).await, ["1", "5"]);
    assert_eq!(fixture.texts(&branch).await, ["1", "2", "3"]);
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.texts(&branch).await, ["1", "2", "3"]);
    assert_eq!(fixture.count_stored(&[parent.id, branch.id]).await, 3);
    fixture
        .store
        .delete(&branch, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.count_stored(&[parent.id, branch.id]).await, 0);
}

pub(crate) async fn branch_can_be_truncated_into_its_shared_messages(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1", "2", "3"]).await;
    let branch = branch(fixture, &parent, 3).await;
    fixture.append_texts(&branch, &["b4"]).await;
    assert_eq!(truncate(fixture, &branch, 1).await, 3);
    assert_eq!(fixture.append_texts(&branch, &["b5"]).await, 5);
    assert_eq!(fixture.seqs(&branch).await, [1, 5]);
    assert_eq!(fixture.texts(&parent).await, ["1", "2", "3"]);
    assert_eq!(fixture.count_stored(&[parent.id, branch.id]).await, 4);
}

pub(crate) async fn shared_messages_include_their_contexts(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    let mut shared = message("1");
    shared.contexts = vec![context("doc", "c")];
    fixture
        .save(&append_of(&parent, vec![shared]))
        .await
        .unwrap();
    let branch = branch(fixture, &parent, 1).await;
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    let shared = fixture.all_messages(&branch).await;
    assert_eq!(shared[0].contexts, [context("doc", "c")]);
}

pub(crate) async fn retry_does_not_restore_messages_kept_for_a_branch(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1"]).await;
    let save = with_request_id(turn(&parent, &["2", "3"]), "key");
    fixture.save(&save).await.unwrap();
    let by_ids = append_of(&parent, vec![with_chosen_id("4"), with_chosen_id("5")]);
    fixture.save(&by_ids).await.unwrap();
    let branch = branch(fixture, &parent, 5).await;
    truncate(fixture, &parent, 2).await;
    let replayed = fixture.save(&save).await.unwrap();
    let conversation_memory::store::Appended::Replayed { messages, .. } = replayed else {
        panic!("the turn was saved a second time");
    };
    assert_eq!(messages.len(), 1, "the message that was not removed");
    // The branch still has messages with these ids.
    let refused = fixture.save(&by_ids).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
    assert_eq!(fixture.texts(&parent).await, ["1", "2"]);
    assert_eq!(fixture.seqs(&branch).await, [1, 2, 3, 4, 5]);
}

pub(crate) async fn branch_rejects_ids_of_its_shared_messages(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    let ids: Vec<_> = ["1", "2", "3"].map(with_chosen_id).into();
    let save = |conversation: &ConversationRef, range: std::ops::Range<usize>| {
        append_of(conversation, ids[range].to_vec())
    };
    fixture.save(&save(&parent, 0..2)).await.unwrap();
    let child = branch(fixture, &parent, 2).await;
    let grandchild = branch(fixture, &child, 2).await;
    // A message that the branches do not contain.
    fixture.save(&save(&parent, 2..3)).await.unwrap();
    for branch in [&child, &grandchild] {
        for range in [0..1, 0..2, 1..3] {
            for reused in [
                save(branch, range.clone()),
                with_request_id(save(branch, range.clone()), "key"),
            ] {
                let refused = fixture.save(&reused).await;
                assert!(
                    matches!(refused, Err(StoreError::AlreadyExists(_))),
                    "{range:?}: {refused:?}"
                );
            }
        }
        assert_eq!(fixture.texts(branch).await, ["1", "2"]);
        let saved = fixture.save(&save(branch, 2..3)).await.unwrap();
        assert!(matches!(saved, Appended::Saved { first_seq: 3, .. }));
        let again = fixture.save(&save(branch, 2..3)).await.unwrap();
        assert!(matches!(again, Appended::Replayed { last_seq: 3, .. }));
    }
    // The branch does not contain the message any more.
    truncate(fixture, &child, 1).await;
    let saved = fixture.save(&save(&child, 1..2)).await.unwrap();
    assert!(matches!(saved, Appended::Saved { first_seq: 4, .. }));
    assert_eq!(fixture.texts(&child).await, ["1", "2"]);
    assert_eq!(fixture.texts(&parent).await, ["1", "2", "3"]);
    assert_eq!(fixture.texts(&grandchild).await, ["1", "2", "3"]);
}

/// A new conversation with that id would contain the messages that the branch refers to.
pub(crate) async fn create_rejects_id_that_branches_refer_to(fixture: &StoreFixture) {
    for truncated in [false, true] {
        let owner = user();
        let new = new_conversation(&owner);
        fixture.store.create(&new, at(0)).await.unwrap();
        let parent = owned_ref(&new);
        fixture.append_texts(&parent, &["1", "2"]).await;
        if truncated {
            truncate(fixture, &parent, 0).await;
        }
        let branch = branch(fixture, &parent, 2).await;
        fixture
            .store
            .delete(&parent, Invalidation::Never)
            .await
            .unwrap();
        let mut again = new_conversation(&user());
        again.id = parent.id;
        let refused = fixture.store.create(&again, at(1)).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
        fixture
            .store
            .delete(&branch, Invalidation::Never)
            .await
            .unwrap();
        fixture.store.create(&again, at(1)).await.unwrap();
        assert_eq!(fixture.texts(&owned_ref(&again)).await, [""; 0]);
    }
}

/// If the last two conversations that contain a message are deleted concurrently, one of the
/// deletions must delete the message.
pub(crate) async fn deleting_the_last_conversation_deletes_shared_messages(fixture: &StoreFixture) {
    for _ in 0..10 {
        let parent = fixture.create_conversation().await;
        fixture.append_texts(&parent, &["1", "2"]).await;
        let mut all = vec![parent.clone()];
        for _ in 0..3 {
            all.push(branch(fixture, &parent, 2).await);
        }
        let ids: Vec<_> = all.iter().map(|conversation| conversation.id).collect();
        let mut deletions = JoinSet::new();
        for conversation in all {
            let store = std::sync::Arc::clone(&fixture.store);
            deletions.spawn(async move {
                store
                    .delete(&conversation, Invalidation::Never)
                    .await
                    .unwrap();
            });
        }
        deletions.join_all().await;
        assert_eq!(fixture.count_stored(&ids).await, 0);
    }
}

/// After any sequence of saves, branches, truncations and deletions, each conversation contains
/// the messages that it would contain if branches copied them, and the store keeps each message
/// once as long as a conversation contains it.
pub(crate) async fn branches_behave_like_copies(fixture: &StoreFixture) {
    for seed in 0..12 {
        let mut model = Model::new(fixture, seed).await;
        for _ in 0..10 {
            for _ in 0..4 {
                model.step().await;
            }
            model.check_all().await;
        }
        for conversation in model.conversations() {
            model.delete(&conversation).await;
        }
        assert_eq!(fixture.count_stored(&model.all_ids).await, 0, "seed {seed}");
    }
}

/// Expected messages of each conversation, computed as if branches were copies.
struct Model<'a> {
    fixture: &'a StoreFixture,
    seed: u64,
    random: u64,
    appends: u64,
    expected: BTreeMap<ConversationKey, (i64, Vec<(i64, String)>)>,
    all_ids: Vec<ConversationId>,
}

impl<'a> Model<'a> {
    async fn new(fixture: &'a StoreFixture, seed: u64) -> Self {
        let first = fixture.create_conversation().await;
        Self {
            fixture,
            seed,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            appends: 0,
            all_ids: vec![first.id],
            expected: BTreeMap::from([(ConversationKey(first), (0, Vec::new()))]),
        }
    }

    fn random_below(&mut self, bound: u64) -> u64 {
        // Xorshift, whose randomness is sufficient to mix the steps.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn conversations(&self) -> Vec<ConversationRef> {
        self.expected.keys().map(|ids| ids.0.clone()).collect()
    }

    async fn step(&mut self) {
        let all = self.conversations();
        let picked = self.random_below(all.len() as u64);
        let conversation = all[usize::try_from(picked).unwrap()].clone();
        let last_seq = self.expected[&ConversationKey(conversation.clone())].0;
        let to = u64::try_from(last_seq).unwrap();
        match self.random_below(10) {
            0..=3 => self.append(&conversation).await,
            4..=6 if last_seq > 0 => {
                let at_seq = 1 + self.random_below(to).cast_signed();
                self.branch(&conversation, at_seq).await;
            }
            7 | 8 => {
                let after_seq = self.random_below(to + 1).cast_signed();
                self.truncate(&conversation, after_seq).await;
            }
            9 if all.len() > 1 => self.delete(&conversation).await,
            _ => {}
        }
    }

    async fn append(&mut self, conversation: &ConversationRef) {
        let texts: Vec<_> = (0..=self.random_below(3))
            .map(|n| format!("{}-{}-{n}", self.seed, self.appends))
            .collect();
        self.appends += 1;
        let texts_ref: Vec<_> = texts.iter().map(String::as_str).collect();
        let first = self.fixture.append_texts(conversation, &texts_ref).await;
        let (last_seq, expected) = self
            .expected
            .get_mut(&ConversationKey(conversation.clone()))
            .unwrap();
        assert_eq!(first, *last_seq + 1);
        for text in texts {
            *last_seq += 1;
            expected.push((*last_seq, text));
        }
    }

    async fn branch(&mut self, parent: &ConversationRef, at_seq: i64) {
        let branch = branch(self.fixture, parent, at_seq).await;
        let mut expected = self.expected[&ConversationKey(parent.clone())].1.clone();
        expected.retain(|(seq, _)| *seq <= at_seq);
        self.all_ids.push(branch.id);
        self.expected
            .insert(ConversationKey(branch), (at_seq, expected));
    }

    async fn truncate(&mut self, conversation: &ConversationRef, after_seq: i64) {
        let removed = truncate(self.fixture, conversation, after_seq).await;
        let (_, expected) = self
            .expected
            .get_mut(&ConversationKey(conversation.clone()))
            .unwrap();
        let before = expected.len();
        expected.retain(|(seq, _)| *seq <= after_seq);
        assert_eq!(removed, i64::try_from(before - expected.len()).unwrap());
    }

    async fn delete(&mut self, conversation: &ConversationRef) {
        self.fixture
            .store
            .delete(conversation, Invalidation::Never)
            .await
            .unwrap();
        self.expected.remove(&ConversationKey(conversation.clone()));
    }

    async fn check_all(&mut self) {
        let mut stored = BTreeSet::new();
        for (ConversationKey(conversation), (last_seq, expected)) in &self.expected {
            stored.extend(expected.iter().map(|(_, text)| text.clone()));
            self.check(conversation, *last_seq, expected).await;
        }
        let rows = self.fixture.count_stored(&self.all_ids).await;
        assert_eq!(
            rows,
            i64::try_from(stored.len()).unwrap(),
            "seed {}",
            self.seed
        );
    }

    async fn check(
        &self,
        conversation: &ConversationRef,
        last_seq: i64,
        expected: &[(i64, String)],
    ) {
        let store = &self.fixture.store;
        let Newest {
            conversation: found,
            messages: newest,
            ..
        } = store.newest(conversation, 3, false).await.unwrap();
        assert_eq!(found.last_seq, last_seq, "seed {}", self.seed);
        assert_eq!(
            numbered_texts(newest),
            expected[expected.len().saturating_sub(3)..]
        );
        let middle = last_seq / 2;
        let after = store.messages(conversation, Bound::After(middle), 2, false);
        let above = expected.iter().filter(|(seq, _)| *seq > middle);
        assert_eq!(numbered_texts(after.await.unwrap()), first_two(above));
        let before = store.messages(conversation, Bound::Before(middle), 2, false);
        let below = expected.iter().rev().filter(|(seq, _)| *seq < middle);
        assert_eq!(numbered_texts(before.await.unwrap()), first_two(below));
        let all = store.messages(conversation, Bound::After(0), 1000, true);
        assert_eq!(
            numbered_texts(all.await.unwrap()),
            expected,
            "seed {}",
            self.seed
        );
    }
}

fn first_two<'a>(expected: impl Iterator<Item = &'a (i64, String)>) -> Vec<(i64, String)> {
    expected.take(2).cloned().collect()
}

fn numbered_texts(messages: Vec<conversation_memory::domain::Message>) -> Vec<(i64, String)> {
    let of = |message: conversation_memory::domain::Message| {
        (message.seq, message.content.into_string())
    };
    messages.into_iter().map(of).collect()
}
