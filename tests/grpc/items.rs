//! Items over gRPC.

use conversation_memory::proto::{
    BatchItemsRequest, DeleteItemRequest, GetItemRequest, Item, ItemOperation, ItemResult,
    ListNamespacesRequest, Namespace, NamespaceCondition, NamespaceMatchType, PutItemRequest,
    SearchItemsRequest, Vector, item_operation::Operation, item_result::Result as ResultKind,
};
use test_support::{
    eventually, new_user,
    requests::rejected_field,
    sidecar::{Form, Items, Sidecar},
};

test_support::in_both_forms!(
    items_survive_a_restart,
    items_belong_to_their_user,
    batches_read_before_they_write,
    batches_that_are_too_large_for_a_response_are_incomplete,
    items_expire_and_are_extended_by_reads,
    searches_rank_by_vectors,
    logs_contain_no_items,
);

pub(crate) fn labels(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

pub(crate) fn put(user: &str, key: &str, value: &str) -> PutItemRequest {
    PutItemRequest {
        user_id: user.to_owned(),
        namespace: labels(&["facts"]),
        key: key.to_owned(),
        value: value.to_owned(),
        ..PutItemRequest::default()
    }
}

pub(crate) fn get(user: &str, key: &str) -> GetItemRequest {
    GetItemRequest {
        user_id: user.to_owned(),
        namespace: labels(&["facts"]),
        key: key.to_owned(),
        refresh_ttl: false,
    }
}

pub(crate) fn search(user: &str) -> SearchItemsRequest {
    SearchItemsRequest {
        user_id: user.to_owned(),
        ..SearchItemsRequest::default()
    }
}

fn delete(user: &str, key: &str) -> DeleteItemRequest {
    DeleteItemRequest {
        user_id: user.to_owned(),
        namespace: labels(&["facts"]),
        key: key.to_owned(),
    }
}

pub(crate) fn batch(user: &str, operations: Vec<Operation>) -> BatchItemsRequest {
    let operations = operations.into_iter().map(|operation| ItemOperation {
        operation: Some(operation),
    });
    BatchItemsRequest {
        user_id: user.to_owned(),
        operations: operations.collect(),
    }
}

pub(crate) async fn read(items: &mut Items, request: GetItemRequest) -> Option<Item> {
    items.get_item(request).await.unwrap().into_inner().item
}

pub(crate) async fn keys(items: &mut Items, request: SearchItemsRequest) -> Vec<String> {
    let found = items.search_items(request).await.unwrap().into_inner();
    let found = found.items.into_iter();
    found.map(|found| found.item.unwrap().key).collect()
}

async fn items_survive_a_restart(form: Form) {
    let user = new_user();
    let value = r#"{"n": 9007199254740993, "text": "é😀"}"#;
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    items.put_item(put(&user, "k", value)).await.unwrap();
    drop(sidecar);
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    let found = read(&mut items, get(&user, "k")).await.unwrap();
    assert_eq!((found.value.as_str(), found.key.as_str()), (value, "k"));
    assert_eq!(found.namespace, ["facts"]);
    assert_eq!(found.created_at, found.updated_at);
    assert_eq!(found.expires_at, None);
    for _ in 0..2 {
        items.delete_item(delete(&user, "k")).await.unwrap();
        assert_eq!(read(&mut items, get(&user, "k")).await, None);
    }
}

async fn items_belong_to_their_user(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("REQUIRE_USER_ID", "true")]).await;
    let mut items = sidecar.items();
    let (ana, ben, key) = (new_user(), new_user(), new_user());
    items.put_item(put(&ana, &key, "{}")).await.unwrap();
    // The application has items of its own.
    for other in [&ben, ""] {
        assert_eq!(read(&mut items, get(other, &key)).await, None);
        items.delete_item(delete(other, &key)).await.unwrap();
        let filter = format!("{{\"key\":\"{key}\"}}");
        let found = SearchItemsRequest {
            filter,
            ..search(other)
        };
        assert_eq!(keys(&mut items, found).await.len(), 0);
    }
    items.put_item(put("", &key, r#"{"a":1}"#)).await.unwrap();
    assert_eq!(read(&mut items, get(&ana, &key)).await.unwrap().value, "{}");
    items.delete_item(delete("", &key)).await.unwrap();
    // An operation of a batch cannot use the items of another user.
    let foreign = batch(&ben, vec![Operation::Get(get(&ana, &key))]);
    let rejected = items.batch_items(foreign).await.unwrap_err();
    assert_eq!(rejected_field(&rejected), "operations[0].get.user_id");
    let own = batch(&ana, vec![Operation::Get(get(&ana, &key))]);
    items.batch_items(own).await.unwrap();
}

async fn batches_read_before_they_write(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    let user = new_user();
    items.put_item(put(&user, "old", "{}")).await.unwrap();
    let list = || {
        Operation::ListNamespaces(ListNamespacesRequest {
            conditions: vec![NamespaceCondition {
                match_type: NamespaceMatchType::Prefix.into(),
                labels: labels(&["*"]),
            }],
            ..ListNamespacesRequest::default()
        })
    };
    let mut other_namespace = put("", "k", "{}");
    other_namespace.namespace = labels(&["other", "x"]);
    let request = batch(
        &user,
        vec![
            Operation::Put(put("", "new", r#"{"n":1}"#)),
            Operation::Get(get("", "new")),
            Operation::Search(search("")),
            Operation::Put(other_namespace),
            list(),
            Operation::Delete(delete("", "old")),
            Operation::Get(get("", "old")),
            Operation::Put(put("", "new", r#"{"n":2}"#)),
            Operation::Delete(delete("", "none")),
        ],
    );
    let response = items.batch_items(request).await.unwrap().into_inner();
    assert!(!response.incomplete);
    let results: Vec<ResultKind> = response
        .results
        .into_iter()
        .map(|ItemResult { result }| result.unwrap())
        .collect();
    let [
        ResultKind::Put(_),
        ResultKind::Get(new),
        ResultKind::Search(found),
        ResultKind::Put(_),
        ResultKind::ListNamespaces(listed),
        ResultKind::Delete(_),
        ResultKind::Get(old),
        ResultKind::Put(_),
        ResultKind::Delete(_),
    ] = results.as_slice()
    else {
        panic!("{results:?}");
    };
    assert_eq!(new.item, None);
    assert_eq!(found.items.len(), 1);
    assert_eq!(
        listed.namespaces,
        [Namespace {
            labels: labels(&["facts"])
        }]
    );
    assert!(old.item.is_some());
    let new = read(&mut items, get(&user, "new")).await.unwrap();
    assert_eq!(new.value, r#"{"n":2}"#);
    assert_eq!(keys(&mut items, search(&user)).await, ["new", "k"]);
}

async fn batches_that_are_too_large_for_a_response_are_incomplete(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    let user = new_user();
    let value = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    for key in ["1", "2", "3", "4"] {
        items.put_item(put(&user, key, &value)).await.unwrap();
    }
    let operations = || {
        let gets = ["1", "2", "3", "4"].map(|key| Operation::Get(get("", key)));
        let rest = [
            Operation::Search(search("")),
            Operation::ListNamespaces(ListNamespacesRequest::default()),
            Operation::Put(put("", "new", "{}")),
        ];
        gets.into_iter().chain(rest).collect()
    };
    let response = items.batch_items(batch(&user, operations())).await;
    let response = response.unwrap().into_inner();
    assert!(response.incomplete);
    let mut omitted = Vec::new();
    for ItemResult { result } in response.results {
        match result.unwrap() {
            ResultKind::Get(get) => omitted.push(get.omitted),
            ResultKind::Search(found) => {
                assert_eq!((found.items.len(), found.next_offset), (0, Some(0)));
            }
            ResultKind::ListNamespaces(listed) => assert_eq!(listed.next_offset, Some(0)),
            ResultKind::Put(_) | ResultKind::Delete(_) => {}
        }
    }
    assert_eq!(omitted, [false, false, false, true]);
    // Nothing was written, and searches continue.
    assert_eq!(read(&mut items, get(&user, "new")).await, None);
    let (mut found, mut offset) = (Vec::new(), Some(0));
    while let Some(next) = offset {
        let page = items
            .search_items(SearchItemsRequest {
                offset: next,
                ..search(&user)
            })
            .await
            .unwrap()
            .into_inner();
        offset = page.next_offset;
        assert!(!page.items.is_empty());
        found.extend(page.items.into_iter().map(|found| found.item.unwrap().key));
    }
    assert_eq!(found, ["1", "2", "3", "4"]);
}

async fn items_expire_and_are_extended_by_reads(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    let user = new_user();
    let expiring = |key: &str, minutes: f64| PutItemRequest {
        ttl_minutes: Some(minutes),
        ..put(&user, key, "{}")
    };
    items.put_item(expiring("short", 0.001)).await.unwrap();
    items.put_item(expiring("long", 60.0)).await.unwrap();
    eventually("the item expires", async || {
        let mut items = items.clone();
        read(&mut items, get(&user, "short")).await.is_none()
    })
    .await;
    let refreshing = GetItemRequest {
        refresh_ttl: true,
        ..get(&user, "long")
    };
    let first = read(&mut items, refreshing).await.unwrap().expires_at;
    assert!(first.is_some());
    let found = items
        .search_items(SearchItemsRequest {
            refresh_ttl: true,
            ..search(&user)
        })
        .await
        .unwrap()
        .into_inner();
    let found = found.items.into_iter().map(|it| it.item.unwrap());
    assert_eq!(found.map(|it| it.expires_at).collect::<Vec<_>>(), [first]);
    // Without a time to live, a write removes it.
    items.put_item(put(&user, "long", "{}")).await.unwrap();
    let found = read(&mut items, get(&user, "long")).await.unwrap();
    assert_eq!(found.expires_at, None);
}

async fn searches_rank_by_vectors(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    let user = new_user();
    for (key, vectors) in [
        ("none", vec![]),
        ("far", vec![vec![0.0, -1.0]]),
        ("near", vec![vec![-1.0, 0.0], vec![0.0, 2.0]]),
    ] {
        let vectors = vectors.into_iter().map(|values| Vector { values });
        let request = PutItemRequest {
            vectors: vectors.collect(),
            ..put(&user, key, "{}")
        };
        items.put_item(request).await.unwrap();
    }
    let request = SearchItemsRequest {
        query_vector: Some(Vector {
            values: vec![0.0, 1.0],
        }),
        limit: 2,
        ..search(&user)
    };
    let found = items.search_items(request.clone()).await.unwrap();
    let found = found.into_inner();
    let scores: Vec<(String, Option<f64>)> = found
        .items
        .into_iter()
        .map(|found| (found.item.unwrap().key, found.score))
        .collect();
    let expected = [
        ("near".to_owned(), Some(1.0)),
        ("far".to_owned(), Some(-1.0)),
    ];
    assert_eq!(scores, expected);
    assert_eq!(found.next_offset, Some(2));
    let rest = SearchItemsRequest {
        offset: 2,
        ..request
    };
    assert_eq!(keys(&mut items, rest).await, ["none"]);
    let largest = PutItemRequest {
        vectors: vec![Vector {
            values: vec![0.5; 8_192],
        }],
        ..put(&user, "largest", "{}")
    };
    items.put_item(largest).await.unwrap();
}

async fn logs_contain_no_items(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("LOG_LEVEL", "trace")]).await;
    let mut items = sidecar.items();
    let user = new_user();
    let value = r#"{"secret":"hidden-value"}"#;
    items
        .put_item(put(&user, "hidden-key", value))
        .await
        .unwrap();
    read(&mut items, get(&user, "hidden-key")).await.unwrap();
    let filtered = SearchItemsRequest {
        filter: value.to_owned(),
        ..search(&user)
    };
    assert_eq!(keys(&mut items, filtered).await.len(), 1);
    let bad = r#"{"secret":"hidden-value"#;
    items.put_item(put(&user, "k", bad)).await.unwrap_err();
    for line in sidecar.log() {
        assert!(!line.contains("hidden"), "{line}");
    }
}
