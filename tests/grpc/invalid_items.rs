//! Invalid operations on items over gRPC.

use conversation_memory::proto::{
    ListNamespacesRequest, NamespaceCondition, PutItemRequest, SearchItemsRequest, Vector,
    item_operation::Operation,
};
use tonic::Code;

use crate::items::{batch, get, keys, labels, put, read, search};
use test_support::{
    new_user,
    requests::rejected_field,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    rejects_invalid_items_and_writes_nothing,
    rejects_invalid_reads_and_batches,
);

/// Changes of a valid write with the field that is rejected.
fn invalid_puts() -> Vec<(PutItemRequest, &'static str)> {
    let valid = || put("u", "k", "{}");
    let with_namespace = |namespace: Vec<String>| PutItemRequest {
        namespace,
        ..valid()
    };
    let with_value = |value: &str| put("u", "k", value);
    let vector = |values: Vec<f32>| PutItemRequest {
        vectors: vec![Vector { values: vec![1.0] }, Vector { values }],
        ..valid()
    };
    let mut invalid = vec![
        (put("a\0b", "k", "{}"), "user_id"),
        (put(&"é".repeat(256), "k", "{}"), "user_id"),
        (put("u", "", "{}"), "key"),
        (put("u", "a\0b", "{}"), "key"),
        (put("u", &"é".repeat(513), "{}"), "key"),
        (with_namespace(vec![]), "namespace"),
        (with_namespace(labels(&["a", ""])), "namespace"),
        (with_namespace(labels(&["a\0"])), "namespace"),
        (with_namespace(labels(&["x"; 33])), "namespace"),
        (with_namespace(vec!["é".repeat(256)]), "namespace"),
        (with_namespace(vec!["é".repeat(255); 4]), "namespace"),
        (vector(vec![]), "vectors[1].values"),
        (vector(vec![f32::NAN]), "vectors[1].values"),
        (vector(vec![f32::INFINITY]), "vectors[1].values"),
        (vector(vec![0.0; 8_193]), "vectors[1].values"),
    ];
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    for value in [
        "",
        "[]",
        "null",
        "{",
        "{'a':1}",
        r#"{"a":NaN}"#,
        r#"{"a":1e999}"#,
        r#"{"a":"\u0000"}"#,
        r#"{"a":"\ud800"}"#,
        &deep,
        &large,
    ] {
        invalid.push((with_value(value), "value"));
    }
    for minutes in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        let ttl_minutes = Some(minutes);
        invalid.push((
            PutItemRequest {
                ttl_minutes,
                ..valid()
            },
            "ttl_minutes",
        ));
    }
    let vectors = vec![Vector { values: vec![1.0] }; 101];
    invalid.push((PutItemRequest { vectors, ..valid() }, "vectors"));
    invalid
}

async fn rejects_invalid_items_and_writes_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    for (request, field) in invalid_puts() {
        let user = new_user();
        let valid = Operation::Put(put("", "valid", "{}"));
        let rejected = items.put_item(request.clone()).await.unwrap_err();
        assert_eq!(rejected.code(), Code::InvalidArgument);
        assert_eq!(rejected_field(&rejected), field);
        if field != "user_id" {
            let invalid = PutItemRequest {
                user_id: String::new(),
                ..request
            };
            let both = batch(&user, vec![valid, Operation::Put(invalid)]);
            let rejected = items.batch_items(both).await.unwrap_err();
            assert_eq!(
                rejected_field(&rejected),
                format!("operations[1].put.{field}")
            );
            assert_eq!(read(&mut items, get(&user, "valid")).await, None);
        }
    }
}

async fn rejects_invalid_reads_and_batches(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut items = sidecar.items();
    for (request, field) in [
        (
            SearchItemsRequest {
                filter: r#"{"a":{"$in":[]}}"#.to_owned(),
                ..search("")
            },
            "filter",
        ),
        (
            SearchItemsRequest {
                limit: -1,
                ..search("")
            },
            "limit",
        ),
        (
            SearchItemsRequest {
                offset: 100_001,
                ..search("")
            },
            "offset",
        ),
        (
            SearchItemsRequest {
                offset: -1,
                ..search("")
            },
            "offset",
        ),
        (
            SearchItemsRequest {
                query_vector: Some(Vector::default()),
                ..search("")
            },
            "query_vector.values",
        ),
    ] {
        let rejected = items.search_items(request).await.unwrap_err();
        assert_eq!(rejected_field(&rejected), field);
    }
    let clamped = SearchItemsRequest {
        limit: i32::MAX,
        ..search(&new_user())
    };
    assert_eq!(keys(&mut items, clamped).await.len(), 0);
    for (request, field) in [
        (
            ListNamespacesRequest {
                max_depth: Some(0),
                ..ListNamespacesRequest::default()
            },
            "max_depth",
        ),
        (
            ListNamespacesRequest {
                conditions: vec![NamespaceCondition::default()],
                ..ListNamespacesRequest::default()
            },
            "conditions[0].match_type",
        ),
    ] {
        let rejected = items.list_namespaces(request).await.unwrap_err();
        assert_eq!(rejected_field(&rejected), field);
    }
    let rejected = items.batch_items(batch("", vec![])).await.unwrap_err();
    assert_eq!(rejected_field(&rejected), "operations");
    let searches = vec![Operation::Search(search("")); 51];
    let rejected = items.batch_items(batch("", searches)).await.unwrap_err();
    assert_eq!(rejected_field(&rejected), "operations");
    let many = vec![Operation::Get(get("", "k")); 1_101];
    let rejected = items.batch_items(batch("", many)).await.unwrap_err();
    assert_eq!(rejected.code(), Code::ResourceExhausted);
    let largest = vec![Operation::Get(get("", "k")); 1_000];
    let read = items
        .batch_items(batch(&new_user(), largest))
        .await
        .unwrap();
    assert_eq!(read.into_inner().results.len(), 1_000);
}
