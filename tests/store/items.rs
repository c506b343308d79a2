//! Items of the long-term memory.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use conversation_memory::{
    domain::{
        Embedding, IdSource as _, ItemId, ItemKey, ItemOwner, ItemTtl, ItemValue, Namespace, UuidV7,
    },
    store::{ItemHits, ItemSearch, ItemWrite, NamespaceQuery, NewItem, StoredItem},
};
use tokio::task::JoinSet;

use test_support::{
    eventually,
    store_fixture::{StoreFixture, at, user},
};

pub(crate) fn owner() -> ItemOwner {
    ItemOwner::new(Some(user()))
}

pub(crate) fn namespace(labels: &[&str]) -> Namespace {
    Namespace::parse_prefix(labels.iter().map(|label| (*label).to_owned()).collect()).unwrap()
}

fn key(key: &str) -> ItemKey {
    ItemKey::parse(key).unwrap()
}

fn id(owner: &ItemOwner, labels: &[&str], name: &str) -> ItemId {
    ItemId::new(owner, &namespace(labels), &key(name))
}

pub(crate) fn put(owner: &ItemOwner, labels: &[&str], name: &str, value: &str) -> ItemWrite {
    ItemWrite {
        put: Some(NewItem {
            value: ItemValue::parse(value.to_owned(), 1 << 20).unwrap(),
            ttl: None,
            vectors: Vec::new(),
        }),
        ..deletion(owner, labels, name)
    }
}

pub(crate) fn with_vectors(mut write: ItemWrite, vectors: &[&[f32]]) -> ItemWrite {
    if let Some(item) = &mut write.put {
        let vectors = vectors
            .iter()
            .map(|values| Embedding::parse(values.to_vec()));
        item.vectors = vectors.collect::<Result<_, _>>().unwrap();
    }
    write
}

fn with_ttl(mut write: ItemWrite, ttl: Duration) -> ItemWrite {
    if let Some(item) = &mut write.put {
        item.ttl = Some(ItemTtl::from_minutes(ttl.as_secs_f64() / 60.0).unwrap());
    }
    write
}

pub(crate) fn deletion(owner: &ItemOwner, labels: &[&str], name: &str) -> ItemWrite {
    ItemWrite {
        id: id(owner, labels, name),
        namespace: namespace(labels),
        key: key(name),
        put: None,
    }
}

pub(crate) fn search(owner: &ItemOwner, prefix: &[&str]) -> ItemSearch {
    ItemSearch {
        owner: owner.clone(),
        prefix: namespace(prefix),
        filter: None,
        vector: None,
        limit: 1_000,
        offset: 0,
    }
}

pub(crate) fn nearest(owner: &ItemOwner, prefix: &[&str], vector: &[f32]) -> ItemSearch {
    ItemSearch {
        vector: Some(Embedding::parse(vector.to_vec()).unwrap()),
        ..search(owner, prefix)
    }
}

pub(crate) fn list(owner: &ItemOwner) -> NamespaceQuery {
    NamespaceQuery {
        owner: owner.clone(),
        conditions: Vec::new(),
        max_depth: None,
        limit: 1_000,
        offset: 0,
    }
}

pub(crate) async fn write(fixture: &StoreFixture, owner: &ItemOwner, writes: &[ItemWrite]) {
    let written = fixture.store.write_items(owner, writes, at(0)).await;
    written.unwrap();
}

pub(crate) async fn read(
    fixture: &StoreFixture,
    owner: &ItemOwner,
    id: ItemId,
) -> Option<StoredItem> {
    let mut items = fixture.store.read_items(owner, &[id]).await.unwrap();
    items.pop().unwrap()
}

/// Keys of the hits of a search.
pub(crate) async fn keys(fixture: &StoreFixture, search: &ItemSearch) -> Vec<String> {
    let ItemHits { hits, .. } = fixture.store.search_items(search).await.unwrap();
    let ids: Vec<ItemId> = hits.iter().map(|hit| hit.id).collect();
    let items = fixture.store.read_items(&search.owner, &ids).await.unwrap();
    items.into_iter().map(|item| item.unwrap().key).collect()
}

pub(crate) async fn listed(fixture: &StoreFixture, query: &NamespaceQuery) -> Vec<String> {
    let page = fixture.store.list_namespaces(query).await.unwrap();
    let namespaces = page.namespaces.iter();
    namespaces.map(|it| it.labels().join("/")).collect()
}

pub(crate) async fn items_round_trip(fixture: &StoreFixture) {
    let owner = owner();
    let labels = &["users", "ana é", "*", "%_"][..];
    let value = r#"{"b": 1.0, "a": 123456789012345678901234567890, "c": [1e308, -0.0, "😀'\"\\"]}"#;
    let long = "k".repeat(512);
    let first = put(&owner, labels, &long, value);
    fixture
        .store
        .write_items(&owner, std::slice::from_ref(&first), at(0))
        .await
        .unwrap();
    let found = read(fixture, &owner, first.id).await.unwrap();
    assert_eq!(
        found,
        StoredItem {
            namespace: namespace(labels),
            key: long.clone(),
            value: value.to_owned(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: None,
        }
    );
    let second = put(&owner, labels, &long, "{}");
    fixture
        .store
        .write_items(&owner, std::slice::from_ref(&second), at(5))
        .await
        .unwrap();
    // The clock of another process can be behind.
    fixture
        .store
        .write_items(&owner, &[second], at(3))
        .await
        .unwrap();
    let replaced = read(fixture, &owner, first.id).await.unwrap();
    assert_eq!((replaced.created_at, replaced.updated_at), (at(0), at(5)));
    assert_eq!(replaced.value, "{}");
    for _ in 0..2 {
        write(fixture, &owner, &[deletion(&owner, labels, &long)]).await;
        assert_eq!(read(fixture, &owner, first.id).await, None);
    }
}

pub(crate) async fn largest_addresses_are_stored(fixture: &StoreFixture) {
    let user = format!("{}{}", UuidV7.uuid(), "😀".repeat(255 - 36));
    let owner = ItemOwner::new(Some(
        conversation_memory::domain::UserId::parse(user).unwrap(),
    ));
    let label = "é".repeat(255);
    let labels = [label.as_str(), label.as_str(), "x"];
    let key = "😀".repeat(512);
    write(fixture, &owner, &[put(&owner, &labels, &key, "{}")]).await;
    assert_eq!(keys(fixture, &search(&owner, &labels)).await, [key]);
}

pub(crate) async fn a_batch_of_writes_is_atomic(fixture: &StoreFixture) {
    let owner = owner();
    let written: Vec<ItemWrite> = (0..300)
        .map(|number| put(&owner, &["a"], &format!("{number:03}"), "{}"))
        .collect();
    write(fixture, &owner, &written).await;
    let names = keys(fixture, &search(&owner, &["a"])).await;
    assert_eq!(names.len(), 300);
    assert!(names.is_sorted(), "the order is that of the writes");
    let mixed = [
        deletion(&owner, &["a"], "000"),
        put(&owner, &["a"], "001", r#"{"new":1}"#),
        put(&owner, &["a"], "300", "{}"),
    ];
    write(fixture, &owner, &mixed).await;
    let names = keys(fixture, &search(&owner, &["a"])).await;
    assert_eq!(
        (names.len(), names[0].as_str(), names[299].as_str()),
        (300, "001", "300")
    );
}

pub(crate) async fn concurrent_batches_of_the_same_items_are_serialized(fixture: &StoreFixture) {
    let owner = owner();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (store, owner) = (Arc::clone(&fixture.store), owner.clone());
        writers.spawn(async move {
            for round in 0..20 {
                let mut writes: Vec<ItemWrite> = (0..10)
                    .map(|item| {
                        let value = format!("{{\"by\":{writer},\"round\":{round}}}");
                        put(&owner, &["a"], &format!("{item}"), &value)
                    })
                    .collect();
                if writer % 2 == 0 {
                    writes.reverse();
                }
                if writer == 7 {
                    writes.iter_mut().take(5).for_each(|write| write.put = None);
                }
                store.write_items(&owner, &writes, at(0)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let ids: Vec<ItemId> = (0..10)
        .map(|item| id(&owner, &["a"], &item.to_string()))
        .collect();
    let items = fixture.store.read_items(&owner, &ids).await.unwrap();
    let values = items.iter().flatten().map(|item| item.value.clone());
    let values: BTreeSet<String> = values.collect();
    assert_eq!(values.len(), 1, "all items are from one batch: {values:?}");
}

pub(crate) async fn items_of_other_owners_are_not_found(fixture: &StoreFixture) {
    let (ana, ben) = (owner(), owner());
    let application = ItemOwner::new(None);
    let label = UuidV7.uuid().to_string();
    let labels = [label.as_str()];
    write(fixture, &ana, &[put(&ana, &labels, "k", r#"{"of":"ana"}"#)]).await;
    let ana_id = id(&ana, &labels, "k");
    for other in [&ben, &application] {
        // Neither the same address nor the identity of the item itself leads to it.
        for id in [id(other, &labels, "k"), ana_id] {
            assert_eq!(read(fixture, other, id).await, None);
            let deleted = ItemWrite {
                id,
                ..deletion(other, &labels, "k")
            };
            write(fixture, other, &[deleted]).await;
        }
        assert_eq!(keys(fixture, &search(other, &labels)).await.len(), 0);
        let near = nearest(other, &labels, &[1.0]);
        assert_eq!(keys(fixture, &near).await.len(), 0);
        fixture.store.extend_items(other, &[ana_id]).await.unwrap();
    }
    assert_eq!(listed(fixture, &list(&ben)).await.len(), 0);
    write(
        fixture,
        &application,
        &[put(&application, &labels, "k", r#"{"of":"all"}"#)],
    )
    .await;
    let found = read(fixture, &ana, ana_id).await.unwrap();
    assert_eq!(found.value, r#"{"of":"ana"}"#);
    write(
        fixture,
        &application,
        &[deletion(&application, &labels, "k")],
    )
    .await;
    assert!(read(fixture, &ana, ana_id).await.is_some());
}

pub(crate) async fn large_items_are_read_in_parts(fixture: &StoreFixture) {
    let owner = owner();
    let value = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    let ids: Vec<ItemId> = (0..5).map(|n| id(&owner, &["a"], &n.to_string())).collect();
    for number in [3, 1, 4, 0] {
        write(
            fixture,
            &owner,
            &[put(&owner, &["a"], &number.to_string(), &value)],
        )
        .await;
    }
    let (mut read, mut reads) = (Vec::new(), 0);
    while read.len() < ids.len() {
        let part = fixture.store.read_items(&owner, &ids[read.len()..]).await;
        let part = part.unwrap();
        assert!(!part.is_empty());
        assert!(part.iter().flatten().count() <= 3);
        read.extend(part);
        reads += 1;
    }
    assert_eq!(reads, 2);
    let found: Vec<bool> = read.iter().map(Option::is_some).collect();
    assert_eq!(found, [true, true, false, true, true]);
}

pub(crate) async fn expired_items_are_absent(fixture: &StoreFixture) {
    let owner = owner();
    let short = Duration::from_millis(50);
    let expiring = with_vectors(put(&owner, &["a"], "k", "{}"), &[&[1.0]]);
    write(fixture, &owner, &[with_ttl(expiring, short)]).await;
    let later = put(&owner, &["b"], "k", "{}");
    write(
        fixture,
        &owner,
        &[with_ttl(later.clone(), Duration::from_hours(1))],
    )
    .await;
    let id_of_expiring = id(&owner, &["a"], "k");
    eventually("the item expires", async || {
        read(fixture, &owner, id_of_expiring).await.is_none()
    })
    .await;
    assert_eq!(keys(fixture, &search(&owner, &["a"])).await.len(), 0);
    let near = nearest(&owner, &[], &[1.0]);
    assert_eq!(keys(fixture, &near).await, ["k"]);
    assert_eq!(listed(fixture, &list(&owner)).await, ["b"]);
    // It is created again, not updated.
    fixture
        .store
        .write_items(&owner, &[put(&owner, &["a"], "k", "{}")], at(9))
        .await
        .unwrap();
    let created = read(fixture, &owner, id_of_expiring).await.unwrap();
    assert_eq!((created.created_at, created.expires_at), (at(9), None));
    // The item without an end is not removed with the expired ones.
    write(
        fixture,
        &owner,
        &[with_ttl(put(&owner, &["c"], "k", "{}"), short)],
    )
    .await;
    let read_c = async || read(fixture, &owner, id(&owner, &["c"], "k")).await;
    eventually("the item expires", async || read_c().await.is_none()).await;
    while fixture.store.remove_expired_items().await.unwrap() {}
    assert!(read(fixture, &owner, later.id).await.is_some());
    assert!(read(fixture, &owner, id_of_expiring).await.is_some());
}

pub(crate) async fn expired_items_are_removed_in_steps(fixture: &StoreFixture) {
    let owner = owner();
    let short = Duration::from_millis(1);
    let writes: Vec<ItemWrite> = (0..800)
        .map(|n| with_ttl(put(&owner, &["a"], &n.to_string(), "{}"), short))
        .collect();
    write(fixture, &owner, &writes).await;
    eventually("the items expire", async || {
        keys(fixture, &search(&owner, &["a"])).await.is_empty()
    })
    .await;
    // Another test on the same database can remove them, too.
    let mut steps = 1;
    while fixture.store.remove_expired_items().await.unwrap() {
        steps += 1;
    }
    assert!(!fixture.is_sqlite() || steps > 1, "{steps}");
    fixture
        .execute(
            "DO $$ BEGIN ASSERT NOT EXISTS (SELECT 1 FROM items \
                WHERE expires_at < now() - interval '1 minute'); END $$",
            "CREATE TABLE rest (n INTEGER CHECK (n = 0)); \
             INSERT INTO rest SELECT count(*) FROM items; DROP TABLE rest",
        )
        .await;
}

pub(crate) async fn reads_restart_the_time_to_live(fixture: &StoreFixture) {
    let owner = owner();
    let hour = Duration::from_hours(1);
    let item = with_ttl(put(&owner, &["a"], "k", "{}"), hour);
    write(fixture, &owner, std::slice::from_ref(&item)).await;
    let expires_at = async || {
        let item = read(fixture, &owner, item.id).await.unwrap();
        item.expires_at.unwrap()
    };
    let first = expires_at().await;
    // Less than a percent of the hour has passed.
    fixture
        .store
        .extend_items(&owner, &[item.id])
        .await
        .unwrap();
    assert_eq!(expires_at().await, first);
    fixture
        .execute(
            &format!(
                "UPDATE items SET expires_at = expires_at - interval '30 minutes' WHERE owner = '{}'",
                owner.as_str()
            ),
            "UPDATE items SET expires_at = expires_at - 1800000000",
        )
        .await;
    assert!(expires_at().await < first);
    fixture
        .store
        .extend_items(&owner, &[item.id])
        .await
        .unwrap();
    assert!(expires_at().await >= first);
    // Each write sets it again.
    write(fixture, &owner, &[put(&owner, &["a"], "k", "{}")]).await;
    let item = read(fixture, &owner, item.id).await.unwrap();
    assert_eq!(item.expires_at, None);
}
