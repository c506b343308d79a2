//! Searches for items, and lists of namespaces.

use std::{sync::Arc, time::Duration};

use conversation_memory::{
    domain::{ItemFilter, NamespaceCondition},
    store::{ItemHit, ItemSearch, ItemWrite, MAX_EXAMINED, NamespaceQuery, StoreError},
};
use tokio::task::JoinSet;

use crate::items::{
    deletion, keys, list, listed, namespace, nearest, owner, put, read, search, with_vectors, write,
};
use test_support::{
    stopwatch::Stopwatch,
    store_fixture::{StoreFixture, turn},
};

/// Time within which other calls end while a namespace with many items is searched.
const PROMPT: Duration = Duration::from_millis(3_500);

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
