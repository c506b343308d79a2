use std::collections::{BTreeMap, BTreeSet};

use conversation_memory::{
    domain::{ConversationId, ConversationRef, IdSource as _, UuidV7},
    store::{Bound, Branch, StoreError},
};
use tokio::task::JoinSet;

use test_support::world::{
    Ids, World, at, chosen, context, keyed, message, named, new_conversation, save_of, title,
    truncation, turn, user,
};

/// Branches and names the branch as its owner does.
async fn branch(world: &World, parent: &ConversationRef, at_seq: i64) -> ConversationRef {
    let branched = world
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

async fn truncate(world: &World, conversation: &ConversationRef, after_seq: i64) -> i64 {
    let truncation = truncation(conversation, after_seq);
    world.store.truncate(&truncation).await.unwrap().removed
}

pub(crate) async fn a_branch_shares_and_goes_on(world: &World) {
    let parent = world.conversation().await;
    world.say(&parent, &["1", "2", "3"]).await;
    let branch = branch(world, &parent, 2).await;
    assert_eq!(world.texts(&branch).await, ["1", "2"]);
    assert_eq!(world.say(&branch, &["b3", "b4"]).await, 3);
    world.say(&parent, &["4"]).await;
    assert_eq!(world.texts(&branch).await, ["1", "2", "b3", "b4"]);
    assert_eq!(world.texts(&parent).await, ["1", "2", "3", "4"]);
    // What is shared is shown as the branch's own.
    for message in world.all(&branch).await {
        assert_eq!(message.conversation_id, branch.id);
    }
}

pub(crate) async fn a_branch_is_created_like_its_parent(world: &World) {
    let owner = user();
    let mut new = new_conversation(&owner);
    new.title = Some(title("parent"));
    world.store.create(&new, at(0)).await.unwrap();
    let parent = named(&new);
    world.say(&parent, &["1"]).await;
    let mut wanted = branch_of(&parent, 1);
    let like = world.store.branch(&wanted).await.unwrap();
    assert_eq!((like.title, like.user_id), (Some(title("parent")), owner));
    wanted.id = ConversationId::from_uuid(UuidV7.uuid());
    wanted.title = Some(title("own"));
    let own = world.store.branch(&wanted).await.unwrap();
    assert_eq!(
        (own.title.clone(), own.created_at),
        (Some(title("own")), at(3))
    );
    let listed = world.store.branches(&parent, None, 1).await.unwrap();
    assert_eq!(listed.conversations, [own]);
    let rest = world.store.branches(&parent, listed.next, 1).await.unwrap();
    assert_eq!(rest.conversations[0].id, like.id);
    assert_eq!(rest.next, None);
}

pub(crate) async fn a_branch_begins_at_a_message_of_its_owners(world: &World) {
    let parent = world.conversation().await;
    world.say(&parent, &["1"]).await;
    let refused = world.store.branch(&branch_of(&parent, 2)).await;
    assert!(matches!(
        refused,
        Err(StoreError::BeyondEnd { last_seq: 1 })
    ));
    let foreign = ConversationRef {
        user_id: Some(user()),
        ..parent
    };
    let refused = world.store.branch(&branch_of(&foreign, 1)).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
    let refused = world.store.branches(&foreign, None, 1).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
}

pub(crate) async fn what_becomes_of_a_parent_changes_no_branch(world: &World) {
    let parent = world.conversation().await;
    world.say(&parent, &["1", "2", "3", "4"]).await;
    let branch = branch(world, &parent, 3).await;
    assert_eq!(truncate(world, &parent, 1).await, 3);
    assert_eq!(world.texts(&parent).await, ["1"]);
    assert_eq!(world.say(&parent, &["5"]).await, 5);
    assert_eq!(world.texts(&parent).await, ["1", "5"]);
    assert_eq!(world.texts(&branch).await, ["1", "2", "3"]);
    world.store.delete(&parent).await.unwrap();
    assert_eq!(world.texts(&branch).await, ["1", "2", "3"]);
    assert_eq!(world.kept(&[parent.id, branch.id]).await, 3);
    world.store.delete(&branch).await.unwrap();
    assert_eq!(world.kept(&[parent.id, branch.id]).await, 0);
}

pub(crate) async fn a_branch_is_truncated_into_what_it_shares(world: &World) {
    let parent = world.conversation().await;
    world.say(&parent, &["1", "2", "3"]).await;
    let branch = branch(world, &parent, 3).await;
    world.say(&branch, &["b4"]).await;
    assert_eq!(truncate(world, &branch, 1).await, 3);
    assert_eq!(world.say(&branch, &["b5"]).await, 5);
    assert_eq!(world.seqs(&branch).await, [1, 5]);
    assert_eq!(world.texts(&parent).await, ["1", "2", "3"]);
    assert_eq!(world.kept(&[parent.id, branch.id]).await, 4);
}

pub(crate) async fn shared_messages_come_with_their_contexts(world: &World) {
    let parent = world.conversation().await;
    let mut said = message("1");
    said.contexts = vec![context("doc", "c")];
    world.save(&save_of(&parent, vec![said])).await.unwrap();
    let branch = branch(world, &parent, 1).await;
    world.store.delete(&parent).await.unwrap();
    let shared = world.all(&branch).await;
    assert_eq!(shared[0].contexts, [context("doc", "c")]);
}

pub(crate) async fn a_retry_brings_back_nothing_that_a_branch_kept(world: &World) {
    let parent = world.conversation().await;
    world.say(&parent, &["1"]).await;
    let save = keyed(turn(&parent, &["2", "3"]), "key");
    world.save(&save).await.unwrap();
    let by_ids = save_of(&parent, vec![chosen("4"), chosen("5")]);
    world.save(&by_ids).await.unwrap();
    let branch = branch(world, &parent, 5).await;
    truncate(world, &parent, 2).await;
    let replayed = world.save(&save).await.unwrap();
    let conversation_memory::store::Appended::Replayed { messages, .. } = replayed else {
        panic!("saved again");
    };
    assert_eq!(messages.len(), 1, "the one that stayed");
    // The ids stand in the branch.
    let refused = world.save(&by_ids).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
    assert_eq!(world.texts(&parent).await, ["1", "2"]);
    assert_eq!(world.seqs(&branch).await, [1, 2, 3, 4, 5]);
}

/// Under another conversation of that id its messages would be shown.
pub(crate) async fn an_id_that_branches_need_is_not_given_again(world: &World) {
    for truncated in [false, true] {
        let owner = user();
        let new = new_conversation(&owner);
        world.store.create(&new, at(0)).await.unwrap();
        let parent = named(&new);
        world.say(&parent, &["1", "2"]).await;
        if truncated {
            truncate(world, &parent, 0).await;
        }
        let branch = branch(world, &parent, 2).await;
        world.store.delete(&parent).await.unwrap();
        let mut again = new_conversation(&user());
        again.id = parent.id;
        let refused = world.store.create(&again, at(1)).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
        world.store.delete(&branch).await.unwrap();
        world.store.create(&again, at(1)).await.unwrap();
        assert_eq!(world.texts(&named(&again)).await, [""; 0]);
    }
}

/// The last two that show a message give it up at the same time: one of them
/// takes it along.
pub(crate) async fn the_last_of_them_takes_the_messages_along(world: &World) {
    for _ in 0..10 {
        let parent = world.conversation().await;
        world.say(&parent, &["1", "2"]).await;
        let mut all = vec![parent.clone()];
        for _ in 0..3 {
            all.push(branch(world, &parent, 2).await);
        }
        let ids: Vec<_> = all.iter().map(|conversation| conversation.id).collect();
        let mut deletions = JoinSet::new();
        for conversation in all {
            let store = std::sync::Arc::clone(&world.store);
            deletions.spawn(async move { store.delete(&conversation).await.unwrap() });
        }
        deletions.join_all().await;
        assert_eq!(world.kept(&ids).await, 0);
    }
}

/// Any history of saves, branches, truncations and deletions leaves each
/// conversation with what it would have if everything had been copied, and the
/// store with each message once for as long as anybody shows it.
pub(crate) async fn branches_are_as_good_as_copies(world: &World) {
    for seed in 0..12 {
        let mut model = Model::new(world, seed).await;
        for _ in 0..10 {
            for _ in 0..4 {
                model.step().await;
            }
            model.check_all().await;
        }
        for conversation in model.conversations() {
            model.delete(&conversation).await;
        }
        assert_eq!(world.kept(&model.ever).await, 0, "seed {seed}");
    }
}

/// What each conversation shows, as if branching copied.
struct Model<'a> {
    world: &'a World,
    seed: u64,
    dice: u64,
    said: u64,
    shown: BTreeMap<Ids, (i64, Vec<(i64, String)>)>,
    ever: Vec<ConversationId>,
}

impl<'a> Model<'a> {
    async fn new(world: &'a World, seed: u64) -> Self {
        let first = world.conversation().await;
        Self {
            world,
            seed,
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            said: 0,
            ever: vec![first.id],
            shown: BTreeMap::from([(Ids(first), (0, Vec::new()))]),
        }
    }

    fn throw(&mut self, sides: u64) -> u64 {
        // Xorshift: enough to mix steps.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn conversations(&self) -> Vec<ConversationRef> {
        self.shown.keys().map(|ids| ids.0.clone()).collect()
    }

    async fn step(&mut self) {
        let all = self.conversations();
        let picked = self.throw(all.len() as u64);
        let conversation = all[usize::try_from(picked).unwrap()].clone();
        let last_seq = self.shown[&Ids(conversation.clone())].0;
        let to = u64::try_from(last_seq).unwrap();
        match self.throw(10) {
            0..=3 => self.say(&conversation).await,
            4..=6 if last_seq > 0 => {
                let at_seq = 1 + self.throw(to).cast_signed();
                self.branch(&conversation, at_seq).await;
            }
            7 | 8 => {
                let after_seq = self.throw(to + 1).cast_signed();
                self.truncate(&conversation, after_seq).await;
            }
            9 if all.len() > 1 => self.delete(&conversation).await,
            _ => {}
        }
    }

    async fn say(&mut self, conversation: &ConversationRef) {
        let texts: Vec<_> = (0..=self.throw(3))
            .map(|n| format!("{}-{}-{n}", self.seed, self.said))
            .collect();
        self.said += 1;
        let words: Vec<_> = texts.iter().map(String::as_str).collect();
        let first = self.world.say(conversation, &words).await;
        let (last_seq, shown) = self.shown.get_mut(&Ids(conversation.clone())).unwrap();
        assert_eq!(first, *last_seq + 1);
        for text in texts {
            *last_seq += 1;
            shown.push((*last_seq, text));
        }
    }

    async fn branch(&mut self, parent: &ConversationRef, at_seq: i64) {
        let branch = branch(self.world, parent, at_seq).await;
        let mut shown = self.shown[&Ids(parent.clone())].1.clone();
        shown.retain(|(seq, _)| *seq <= at_seq);
        self.ever.push(branch.id);
        self.shown.insert(Ids(branch), (at_seq, shown));
    }

    async fn truncate(&mut self, conversation: &ConversationRef, after_seq: i64) {
        let removed = truncate(self.world, conversation, after_seq).await;
        let (_, shown) = self.shown.get_mut(&Ids(conversation.clone())).unwrap();
        let before = shown.len();
        shown.retain(|(seq, _)| *seq <= after_seq);
        assert_eq!(removed, i64::try_from(before - shown.len()).unwrap());
    }

    async fn delete(&mut self, conversation: &ConversationRef) {
        self.world.store.delete(conversation).await.unwrap();
        self.shown.remove(&Ids(conversation.clone()));
    }

    async fn check_all(&mut self) {
        let mut kept = BTreeSet::new();
        for (Ids(conversation), (last_seq, shown)) in &self.shown {
            kept.extend(shown.iter().map(|(_, text)| text.clone()));
            self.check(conversation, *last_seq, shown).await;
        }
        let rows = self.world.kept(&self.ever).await;
        assert_eq!(
            rows,
            i64::try_from(kept.len()).unwrap(),
            "seed {}",
            self.seed
        );
    }

    async fn check(&self, conversation: &ConversationRef, last_seq: i64, shown: &[(i64, String)]) {
        let store = &self.world.store;
        let (found, newest) = store.newest(conversation, 3, false).await.unwrap();
        assert_eq!(found.last_seq, last_seq, "seed {}", self.seed);
        assert_eq!(listed(newest), shown[shown.len().saturating_sub(3)..]);
        let middle = last_seq / 2;
        let after = store.messages(conversation, Bound::After(middle), 2, false);
        let above = shown.iter().filter(|(seq, _)| *seq > middle);
        assert_eq!(listed(after.await.unwrap()), taken(above));
        let before = store.messages(conversation, Bound::Before(middle), 2, false);
        let below = shown.iter().rev().filter(|(seq, _)| *seq < middle);
        assert_eq!(listed(before.await.unwrap()), taken(below));
        let all = store.messages(conversation, Bound::After(0), 1000, true);
        assert_eq!(listed(all.await.unwrap()), shown, "seed {}", self.seed);
    }
}

fn taken<'a>(shown: impl Iterator<Item = &'a (i64, String)>) -> Vec<(i64, String)> {
    shown.take(2).cloned().collect()
}

fn listed(messages: Vec<conversation_memory::domain::Message>) -> Vec<(i64, String)> {
    let of = |message: conversation_memory::domain::Message| {
        (message.seq, message.content.into_string())
    };
    messages.into_iter().map(of).collect()
}
