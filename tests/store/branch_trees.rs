//! Deep and wide trees of branches: the cost and the locks of an operation are bounded.

use conversation_memory::{
    domain::{ConversationId, ConversationRef, IdSource as _, UuidV7},
    store::{Bound, Invalidation, MAX_BRANCH_DEPTH, StoreError},
};
use tokio::task::JoinSet;

use crate::branches::branch_of;
use test_support::{
    eventually,
    store_fixture::{StoreFixture, redaction, retried, truncation, user},
};

/// Inserts a conversation that is `depth` branches deep, as an earlier version stored it. Each
/// branch has contributed one message, and the others have been deleted.
async fn insert_deep(fixture: &StoreFixture, depth: i64) -> (ConversationRef, Vec<ConversationId>) {
    let new_id = || ConversationId::from_uuid(UuidV7.uuid());
    let (leaf, first_source, owner) = (new_id(), new_id(), user());
    // The ids of the sources differ in their last group.
    let prefix = &first_source.to_string()[..24];
    let source = |seq: i64| format!("{prefix}{seq:012x}");
    let owner_name = owner.as_str();
    let sqlite = format!(
        "WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {depth}) \
         INSERT INTO messages (conversation_id, seq, id, role, content, created_at) \
         SELECT '{prefix}' || printf('%012x', seq), seq, \
                substr('{leaf}', 1, 24) || printf('%012x', seq), 'user', 'm' || seq, 1 FROM n; \
         INSERT INTO conversations (id, user_id, last_seq, own_after, activity, created_at, updated_at) \
         VALUES ('{leaf}', '{owner_name}', {depth}, {depth}, 1000000, 1, 1); \
         INSERT INTO lineage (conversation_id, source_id, after_seq, upto_seq) \
         SELECT '{leaf}', conversation_id, seq - 1, seq FROM messages \
         WHERE conversation_id LIKE '{prefix}%'"
    );
    let postgres = format!(
        "INSERT INTO messages (conversation_id, seq, id, role, content, created_at) \
         SELECT ('{prefix}' || lpad(to_hex(seq), 12, '0'))::uuid, seq, \
                (left('{leaf}', 24) || lpad(to_hex(seq), 12, '0'))::uuid, 'user', 'm' || seq, now() \
         FROM generate_series(1, {depth}) AS seq; \
         INSERT INTO conversations (id, user_id, last_seq, own_after, created_at, updated_at) \
         VALUES ('{leaf}', '{owner_name}', {depth}, {depth}, now(), now()); \
         INSERT INTO lineage (conversation_id, source_id, after_seq, upto_seq) \
         SELECT '{leaf}', ('{prefix}' || lpad(to_hex(seq), 12, '0'))::uuid, seq - 1, seq \
         FROM generate_series(1, {depth}) AS seq"
    );
    fixture.execute(&postgres, &sqlite).await;
    let leaf = ConversationRef {
        id: leaf,
        user_id: Some(owner),
    };
    let sources = (1..=depth).map(|seq| ConversationId::parse(&source(seq)).unwrap());
    (leaf, sources.collect())
}

pub(crate) async fn depth_of_branches_is_limited(fixture: &StoreFixture) {
    let (parent, _) = insert_deep(fixture, MAX_BRANCH_DEPTH).await;
    let deepest = fixture.branch(&branch_of(&parent, MAX_BRANCH_DEPTH)).await;
    fixture.append_texts(&deepest, &["own"]).await;
    let refused = fixture
        .store
        .branch(&branch_of(&deepest, MAX_BRANCH_DEPTH + 1))
        .await;
    assert!(
        matches!(refused, Err(StoreError::TooDeep { max }) if max == MAX_BRANCH_DEPTH),
        "{refused:?}"
    );
    // At an earlier message the branch is less deep.
    let earlier = fixture.branch(&branch_of(&deepest, 10)).await;
    assert_eq!(fixture.texts(&earlier).await.len(), 10);
    let listed = fixture.store.branches(&deepest, None, 10).await.unwrap();
    assert_eq!(listed.conversations.len(), 1);
}

/// More ranges than the shared lock table of a server has entries.
const LEGACY_DEPTH: i64 = 20_000;

pub(crate) async fn deeper_branches_are_readable_and_removable(fixture: &StoreFixture) {
    let (leaf, sources) = insert_deep(fixture, LEGACY_DEPTH).await;
    let newest = fixture.store.newest(&leaf, 3, true).await.unwrap();
    let seqs: Vec<i64> = newest.messages.iter().map(|m| m.seq).collect();
    assert_eq!(seqs, [LEGACY_DEPTH - 2, LEGACY_DEPTH - 1, LEGACY_DEPTH]);
    for (from, expected) in [
        (Bound::After(5), [6, 7]),
        (Bound::Before(100), [99, 98]),
        (
            Bound::After(LEGACY_DEPTH - 2),
            [LEGACY_DEPTH - 1, LEGACY_DEPTH],
        ),
    ] {
        let page = fixture.store.messages(&leaf, from, 2, true).await.unwrap();
        let seqs: Vec<i64> = page.iter().map(|m| m.seq).collect();
        assert_eq!(seqs, expected);
    }
    let branch = fixture.branch(&branch_of(&leaf, 10)).await;
    fixture.append_texts(&leaf, &["own"]).await;
    let redacted = redaction(&leaf, &[7]);
    let redacted = retried(|| fixture.store.redact(&redacted)).await.unwrap();
    assert_eq!(redacted.conversations.len(), 2);
    let truncated = truncation(&leaf, LEGACY_DEPTH / 2);
    let truncated = retried(|| fixture.store.truncate(&truncated))
        .await
        .unwrap();
    assert_eq!(truncated.removed, LEGACY_DEPTH / 2 + 1);
    // The embedded store removes many messages in steps.
    eventually("the messages of the end are removed", async || {
        fixture.count_stored(&sources).await == LEGACY_DEPTH / 2
    })
    .await;
    fixture
        .store
        .delete(&leaf, Invalidation::Never)
        .await
        .unwrap();
    eventually("the other messages are removed", async || {
        fixture.count_stored(&sources).await == 10
    })
    .await;
    assert_eq!(fixture.texts(&branch).await.len(), 10);
    fixture
        .store
        .delete(&branch, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.count_stored(&sources).await, 0);
}

pub(crate) async fn branches_of_one_parent_are_removable_concurrently(fixture: &StoreFixture) {
    const BRANCHES: usize = 200;
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1", "2", "3", "4"]).await;
    let mut branches = Vec::new();
    for number in 0..BRANCHES {
        let at_seq = i64::try_from(number % 4).unwrap() + 1;
        let branch = fixture.branch(&branch_of(&parent, at_seq)).await;
        if number % 2 == 0 {
            fixture.append_texts(&branch, &["own"]).await;
        }
        branches.push(branch);
    }
    let truncated = truncation(&parent, 1);
    assert_eq!(fixture.store.truncate(&truncated).await.unwrap().removed, 3);
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.count_stored(&[parent.id]).await, 4);
    let ids: Vec<ConversationId> = branches.iter().map(|branch| branch.id).collect();
    let mut removals = JoinSet::new();
    for share in branches.chunks(BRANCHES / 4) {
        let (store, share) = (std::sync::Arc::clone(&fixture.store), share.to_vec());
        removals.spawn(async move {
            for (number, branch) in share.iter().enumerate() {
                if number % 3 == 0 {
                    store.truncate(&truncation(branch, 0)).await.unwrap();
                }
                store.newest(branch, 10, false).await.unwrap();
                store.delete(branch, Invalidation::Never).await.unwrap();
            }
        });
    }
    removals.join_all().await;
    assert_eq!(fixture.count_stored(&[parent.id]).await, 0);
    assert_eq!(fixture.count_stored(&ids).await, 0);
}

/// A conversation whose own messages are repeatedly hidden for its branches has several ranges of
/// its own messages, of which each is kept as far as branches contain it.
pub(crate) async fn each_range_of_own_messages_is_kept_for_its_branches(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    let mut branches = Vec::new();
    for _ in 0..4 {
        let first = fixture.append_texts(&parent, &["a", "b", "c"]).await;
        branches.push(fixture.branch(&branch_of(&parent, first + 1)).await);
        fixture
            .store
            .truncate(&truncation(&parent, first))
            .await
            .unwrap();
    }
    assert_eq!(fixture.seqs(&parent).await, [1, 4, 7, 10]);
    assert_eq!(fixture.count_stored(&[parent.id]).await, 8);
    fixture
        .store
        .delete(&branches[1], Invalidation::Never)
        .await
        .unwrap();
    // Message 4 is still contained in the parent, message 5 in no conversation.
    assert_eq!(fixture.count_stored(&[parent.id]).await, 7);
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.seqs(&branches[2]).await, [1, 4, 7, 8]);
    assert_eq!(fixture.seqs(&branches[3]).await, [1, 4, 7, 10, 11]);
    assert_eq!(fixture.count_stored(&[parent.id]).await, 7);
    fixture
        .store
        .delete(&branches[3], Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.count_stored(&[parent.id]).await, 5);
}
