//! Items of the long-term memory.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use conversation_memory::{
    domain::{
        Embedding, IdSource as _, ItemFilter, ItemId, ItemKey, ItemOwner, ItemTtl, ItemValue,
        Namespace, NamespaceCondition, UuidV7,
    },
    store::{
        ItemHit, ItemHits, ItemSearch, ItemWrite, MAX_EXAMINED, NamespaceQuery, NewItem,
        StoreError, StoredItem,
    },
};
use tokio::task::JoinSet;

use test_support::{
    eventually,
    stopwatch::Stopwatch,
    store_fixture::{StoreFixture, at, turn, user},
};

/// Time within which other calls end while a namespace with many items is searched.
const PROMPT: Duration = Duration::from_millis(3_500);

pub(crate) fn owner() -> ItemOwner {
    ItemOwner::new(Some(user()))
}

fn namespace(labels: &[&str]) -> Namespace {
    Namespace::parse_prefix(labels.iter().map(|label| (*label).to_owned()).collect()).unwrap()
}

fn key(key: &str) -> ItemKey {
    ItemKey::parse(key).unwrap()
}

fn id(owner: &ItemOwner, labels: &[&str], name: &str) -> ItemId {
    ItemId::new(owner, &namespace(labels), &key(name))
}

fn put(owner: &ItemOwner, labels: &[&str], name: &str, value: &str) -> ItemWrite {
    ItemWrite {
        put: Some(NewItem {
            value: ItemValue::parse(value.to_owned(), 1 << 20).unwrap(),
            ttl: None,
            vectors: Vec::new(),
        }),
        ..deletion(owner, labels, name)
    }
}

fn with_vectors(mut write: ItemWrite, vectors: &[&[f32]]) -> ItemWrite {
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

fn deletion(owner: &ItemOwner, labels: &[&str], name: &str) -> ItemWrite {
    ItemWrite {
        id: id(owner, labels, name),
        namespace: namespace(labels),
        key: key(name),
        put: None,
    }
}

fn search(owner: &ItemOwner, prefix: &[&str]) -> ItemSearch {
    ItemSearch {
        owner: owner.clone(),
        prefix: namespace(prefix),
        filter: None,
        vector: None,
        limit: 1_000,
        offset: 0,
    }
}

fn nearest(owner: &ItemOwner, prefix: &[&str], vector: &[f32]) -> ItemSearch {
    ItemSearch {
        vector: Some(Embedding::parse(vector.to_vec()).unwrap()),
        ..search(owner, prefix)
    }
}

fn list(owner: &ItemOwner) -> NamespaceQuery {
    NamespaceQuery {
        owner: owner.clone(),
        conditions: Vec::new(),
        max_depth: None,
        limit: 1_000,
        offset: 0,
    }
}

async fn write(fixture: &StoreFixture, owner: &ItemOwner, writes: &[ItemWrite]) {
    let written = fixture.store.write_items(owner, writes, at(0)).await;
    written.unwrap();
}

async fn read(fixture: &StoreFixture, owner: &ItemOwner, id: ItemId) -> Option<StoredItem> {
    let mut items = fixture.store.read_items(owner, &[id]).await.unwrap();
    items.pop().unwrap()
}

/// Keys of the hits of a search.
async fn keys(fixture: &StoreFixture, search: &ItemSearch) -> Vec<String> {
    let ItemHits { hits, .. } = fixture.store.search_items(search).await.unwrap();
    let ids: Vec<ItemId> = hits.iter().map(|hit| hit.id).collect();
    let items = fixture.store.read_items(&search.owner, &ids).await.unwrap();
    items.into_iter().map(|item| item.unwrap().key).collect()
}

async fn listed(fixture: &StoreFixture, query: &NamespaceQuery) -> Vec<String> {
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

pub(crate) async fn searches_are_limited_to_a_prefix(fixture: &StoreFixture) {
    let owner = owner();
    let writes = [
        put(&owner, &["b"], "1", "{}"),
        put(&owner, &["a", "x"], "2", "{}"),
        put(&owner, &["a"], "3", "{}"),
        put(&owner, &["ab"], "4", "{}"),
        put(&owner, &["a", "x", "y"], "5", "{}"),
        put(&owner, &["a"], "0", "{}"),
    ];
    write(fixture, &owner, &writes).await;
    for (prefix, expected) in [
        (&[][..], "302541"),
        (&["a"], "3025"),
        (&["a", "x"], "25"),
        (&["x"], ""),
        (&["a", "*"], ""),
    ] {
        let found = keys(fixture, &search(&owner, prefix)).await;
        assert_eq!(found.concat(), expected, "{prefix:?}");
        // The same items in the same order if their values have to be examined.
        let filtered = ItemSearch {
            filter: Some(ItemFilter::parse("{}").unwrap()),
            ..search(&owner, prefix)
        };
        assert_eq!(keys(fixture, &filtered).await, found);
        assert_eq!(keys(fixture, &nearest(&owner, prefix, &[1.0])).await, found);
    }
}

pub(crate) async fn pages_of_items_continue(fixture: &StoreFixture) {
    let owner = owner();
    let numbers = 0..1_203;
    for chunk in numbers.clone().collect::<Vec<_>>().chunks(401) {
        let writes: Vec<ItemWrite> = chunk
            .iter()
            .map(|number| {
                let value = format!("{{\"number\":{number},\"odd\":{}}}", number % 2);
                put(&owner, &["a"], &number.to_string(), &value)
            })
            .collect();
        write(fixture, &owner, &writes).await;
    }
    for filter in [None, Some(ItemFilter::parse(r#"{"odd":1}"#).unwrap())] {
        let matching = numbers.clone().filter(|it| filter.is_none() || it % 2 == 1);
        let matching: Vec<String> = matching.map(|number| number.to_string()).collect();
        let mut found = Vec::new();
        loop {
            let page = ItemSearch {
                filter: filter.clone(),
                limit: 100,
                offset: u32::try_from(found.len()).unwrap(),
                ..search(&owner, &["a"])
            };
            let names = keys(fixture, &page).await;
            let more = fixture.store.search_items(&page).await.unwrap().more;
            found.extend(names);
            assert_eq!(more, found.len() < matching.len());
            if !more {
                break;
            }
        }
        assert_eq!(found, matching);
    }
}

pub(crate) async fn filters_apply_to_values(fixture: &StoreFixture) {
    let owner = owner();
    let writes = [
        put(&owner, &["a"], "1", r#"{"n":1,"kind":"x"}"#),
        put(&owner, &["a"], "2", r#"{"n":2.5,"kind":"x"}"#),
        put(&owner, &["a"], "3", r#"{"n":"3"}"#),
        put(&owner, &["a"], "4", r#"{"n":9007199254740993}"#),
    ];
    write(fixture, &owner, &writes).await;
    for (filter, expected) in [
        (r#"{"kind":"x"}"#, "12"),
        (r#"{"n":{"$gt":1}}"#, "24"),
        (r#"{"n":9007199254740993}"#, "4"),
        (r#"{"n":9007199254740992}"#, ""),
        (r#"{"kind":{"$ne":"x"}}"#, "34"),
        (r#"{"kind":"x","n":{"$lte":1}}"#, "1"),
    ] {
        let search = ItemSearch {
            filter: Some(ItemFilter::parse(filter).unwrap()),
            ..search(&owner, &["a"])
        };
        assert_eq!(keys(fixture, &search).await.concat(), expected, "{filter}");
    }
}

pub(crate) async fn hits_are_ordered_by_similarity(fixture: &StoreFixture) {
    let owner = owner();
    let item = |name: &str| put(&owner, &["a"], name, "{}");
    let writes = [
        with_vectors(item("far"), &[&[-1.0, 0.0]]),
        item("none"),
        with_vectors(item("other"), &[&[1.0, 0.0, 0.0]]),
        with_vectors(item("near"), &[&[0.0, -1.0], &[2.0, 0.0]]),
        with_vectors(item("half"), &[&[3.0, 4.0]]),
        with_vectors(item("same"), &[&[6.0, 8.0]]),
    ];
    write(fixture, &owner, &writes).await;
    let query = nearest(&owner, &["a"], &[1.0, 0.0]);
    let order = ["near", "half", "same", "far", "none", "other"];
    assert_eq!(keys(fixture, &query).await, order);
    let hits = fixture.store.search_items(&query).await.unwrap().hits;
    let scores: Vec<Option<f64>> = hits.iter().map(|hit: &ItemHit| hit.score).collect();
    let expected = [Some(1.0), Some(0.6), Some(0.6), Some(-1.0), None, None];
    assert_eq!(scores, expected);
    for offset in 0..7_usize {
        let page = ItemSearch {
            limit: 2,
            offset: u32::try_from(offset).unwrap(),
            ..query.clone()
        };
        let expected = &order[offset.min(6)..(offset + 2).min(6)];
        assert_eq!(keys(fixture, &page).await, expected);
        let more = fixture.store.search_items(&page).await.unwrap().more;
        assert_eq!(more, offset + 2 < 6);
    }
    // A write replaces the vectors.
    write(
        fixture,
        &owner,
        &[with_vectors(item("near"), &[&[-2.0, 0.0]])],
    )
    .await;
    write(fixture, &owner, &[item("half")]).await;
    let order = ["same", "far", "near", "none", "other", "half"];
    let mut found = keys(fixture, &query).await;
    assert_eq!(found.len(), 6);
    found[3..].sort();
    let mut expected = order.map(str::to_owned);
    expected[3..].sort();
    assert_eq!(found, expected);
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

pub(crate) async fn namespaces_are_listed(fixture: &StoreFixture) {
    let owner = owner();
    let namespaces = [
        &["a", "b", "c"][..],
        &["a", "b", "d", "e"],
        &["a", "b", "d", "i"],
        &["a", "b", "f"],
        &["a", "c", "f"],
        &["é"],
    ];
    let writes: Vec<ItemWrite> = namespaces
        .iter()
        .rev()
        .flat_map(|labels| ["1", "2"].map(|name| put(&owner, labels, name, "{}")))
        .collect();
    write(fixture, &owner, &writes).await;
    let condition = |labels: &[&str], is_suffix| NamespaceCondition {
        labels: namespace(labels),
        is_suffix,
    };
    for (conditions, max_depth, expected) in [
        (
            vec![],
            None,
            &["a/b/c", "a/b/d/e", "a/b/d/i", "a/b/f", "a/c/f", "é"][..],
        ),
        (
            vec![condition(&["a", "b"], false)],
            Some(3),
            &["a/b/c", "a/b/d", "a/b/f"],
        ),
        (vec![], Some(1), &["a", "é"]),
        (vec![condition(&["f"], true)], None, &["a/b/f", "a/c/f"]),
        (
            vec![condition(&["a", "*", "f"], false)],
            None,
            &["a/b/f", "a/c/f"],
        ),
        (
            vec![condition(&["a", "c"], false), condition(&["*", "f"], true)],
            None,
            &["a/c/f"],
        ),
        (vec![condition(&["x"], false)], None, &[]),
    ] {
        let query = NamespaceQuery {
            conditions,
            max_depth,
            ..list(&owner)
        };
        assert_eq!(listed(fixture, &query).await, expected);
        for offset in 0..=expected.len() {
            let page = NamespaceQuery {
                limit: 2,
                offset: u32::try_from(offset).unwrap(),
                ..query.clone()
            };
            let end = (offset + 2).min(expected.len());
            assert_eq!(listed(fixture, &page).await, expected[offset..end]);
            let more = fixture.store.list_namespaces(&page).await.unwrap().more;
            assert_eq!(more, end < expected.len());
        }
    }
    let emptied = ["1", "2"].map(|name| deletion(&owner, &["é"], name));
    write(fixture, &owner, &emptied).await;
    assert_eq!(listed(fixture, &list(&owner)).await.len(), 5);
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

pub(crate) async fn a_namespace_with_many_items_does_not_delay_others(fixture: &StoreFixture) {
    let owner = owner();
    let added = i64::try_from(MAX_EXAMINED).unwrap() + 1;
    let name = owner.as_str();
    fixture
        .execute(
            &format!(
                "INSERT INTO items (id, owner, namespace, key, value, vectors, created_at, updated_at) \
                 SELECT sha256(convert_to('{name}' || n, 'UTF8')), '{name}', '\\x6100', n, \
                        '{{\"n\":' || n || '}}', '\\x0200000000000000' || '\\x0000803f', now(), now() \
                 FROM generate_series(1, {added}) AS n"
            )
            .replace("'\\x0200000000000000' || '\\x0000803f'", "'\\x02000000000000000000803f'"),
            &format!(
                "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {added}) \
                 INSERT INTO items (id, owner, namespace, key, value, vectors, created_at, updated_at) \
                 SELECT CAST(printf('%032d', n) AS BLOB), '{name}', X'6100', n, '{{\"n\":' || n || '}}', \
                        X'02000000000000000000803f', 0, 0 FROM s"
            ),
        )
        .await;
    let other = fixture.create_conversation().await;
    let never = ItemSearch {
        filter: Some(ItemFilter::parse(r#"{"n":0}"#).unwrap()),
        limit: 10,
        ..search(&owner, &["a"])
    };
    let near = ItemSearch {
        limit: 10,
        ..nearest(&owner, &["a"], &[1.0, 1.0])
    };
    let mut searches = JoinSet::new();
    for search in [&never, &near, &never, &near, &never, &near] {
        let (store, search) = (Arc::clone(&fixture.store), search.clone());
        searches.spawn(async move { store.search_items(&search).await });
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < 6 {
        let time = Stopwatch::start();
        let written = put(&owner, &["b"], "k", "{}");
        write(fixture, &owner, std::slice::from_ref(&written)).await;
        assert!(read(fixture, &owner, written.id).await.is_some());
        fixture
            .store
            .append(&turn(&other, &["turn"]))
            .await
            .unwrap();
        assert!(time.elapsed() < PROMPT);
        while let Some(outcome) = searches.try_join_next() {
            outcomes.push(outcome.unwrap().unwrap_err());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let is_limit = |error: &StoreError| {
        matches!(
            error,
            StoreError::SearchTooExpensive | StoreError::TooManySearches
        )
    };
    assert!(outcomes.iter().all(is_limit), "{outcomes:?}");
    // What needs few of the items is read at once.
    let page = ItemSearch {
        limit: 10,
        ..search(&owner, &["a"])
    };
    assert_eq!(keys(fixture, &page).await.len(), 10);
    assert_eq!(listed(fixture, &list(&owner)).await, ["a", "b"]);
    let early = ItemSearch {
        filter: Some(ItemFilter::parse(r#"{"n":{"$lte":3}}"#).unwrap()),
        limit: 2,
        ..search(&owner, &["a"])
    };
    assert_eq!(keys(fixture, &early).await, ["1", "2"]);
}
