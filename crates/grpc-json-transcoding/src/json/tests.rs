use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _};
use serde_json::{Value, json};
use tonic_types::StatusExt as _;

use super::*;
use crate::library::{LIMITS, message, pool};

/// Path and reason of the rejected field, or the encoded message.
fn read(name: &str, json: &str) -> Result<Vec<u8>, String> {
    decode(&message(name), None, json.as_bytes(), &LIMITS).map_err(|status| {
        let details = status.get_error_details();
        match details.bad_request() {
            Some(bad) => {
                let violation = &bad.field_violations[0];
                let text = format!("{} {}", violation.field, violation.description);
                assert_eq!(text, status.message());
                text
            }
            None => status.message().to_owned(),
        }
    })
}

fn written(name: &str, encoded: Vec<u8>) -> Value {
    let json = encode(&message(name), &encoded.into()).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The message that prost-reflect reads without this crate.
fn oracle(pool: &DescriptorPool, name: &str, json: &str) -> DynamicMessage {
    let message = pool
        .get_message_by_name(&format!("library.v1.{name}"))
        .unwrap();
    let mut parser = serde_json::Deserializer::from_str(json);
    let read = DynamicMessage::deserialize(message.clone(), &mut parser).unwrap();
    // Before it is encoded, a field that is set to its default value is not equal to one that
    // is not set.
    DynamicMessage::decode(message, read.encode_to_vec().as_slice()).unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn any_book()(
        name in ".{0,200}",
        kind in 0..3usize,
        pages in any::<Option<i32>>(),
        number in any::<i64>(),
        is_text in any::<bool>(),
        score in any::<f64>(),
        serial in any::<u64>(),
        metadata in prop::collection::btree_map(".{0,4}", any_json(), 0..5),
        notes in 0..3usize,
        count in any::<i64>(),
        year in 1..10_000u32,
    ) -> Value {
        let kinds = ["KIND_UNSPECIFIED", "KIND_NOVEL", "KIND_SHORT_STORY"];
        json!({
            "name": name,
            "kind": kinds[kind],
            "kinds": &kinds[kind..],
            "pages": pages,
            "number": if is_text { json!(number.to_string()) } else { json!(number) },
            "serial": serial,
            "created_at": format!("{year:04}-02-28T23:59:59.125+02:00"),
            "metadata": metadata,
            "counts": { name.clone(): count },
            "notes": vec![json!({ "text": name, "score": score, "metadata": metadata }); notes],
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reads_and_writes_the_same_as_prost_reflect(
        books in prop::collection::vec(any_book(), 0..4),
        expected in any::<Option<i64>>(),
    ) {
        let pool = pool();
        let request = json!({ "books": books, "expectedCount": expected }).to_string();
        let encoded = read("AddBooksRequest", &request).unwrap();
        let theirs = oracle(&pool, "AddBooksRequest", &request);
        let ours = DynamicMessage::decode(theirs.descriptor(), encoded.as_slice()).unwrap();
        prop_assert!(ours == theirs);
        let ours = written("AddBooksRequest", theirs.encode_to_vec());
        let again = oracle(&pool, "AddBooksRequest", &ours.to_string());
        prop_assert!(again == theirs);
    }

    #[test]
    fn survives_arbitrary_input(
        text in ".{0,64}",
        encoded in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = read("AddBooksRequest", &text);
        let _ = encode(&message("AddBooksRequest"), &encoded.into());
    }
}

const REJECTIONS: &[(&str, &str)] = &[
    (
        r#"{"books":[{},{"name":5}]}"#,
        "books[1].name must be a string",
    ),
    (
        r#"{"books":[{"kind":"secret"}]}"#,
        "books[0].kind must be one of KIND_NOVEL, KIND_SHORT_STORY (or novel, short_story)",
    ),
    (
        r#"{"books":[{"kinds":["novel",true]}]}"#,
        "books[0].kinds[1] must be one of KIND_NOVEL, KIND_SHORT_STORY (or novel, short_story)",
    ),
    (r#"{"books":{"secret":1}}"#, "books must be a list"),
    (r#"{"books":["secret"]}"#, "books[0] must be an object"),
    (r#"{"books":[null]}"#, "books[0] must be an object"),
    (r#"{"requestId":["secret"]}"#, "request_id must be a string"),
    (
        r#"{"books":[{"pages":1.5}]}"#,
        "books[0].pages must be a whole number of 32 bits",
    ),
    (
        r#"{"books":[{"pages":3000000000}]}"#,
        "books[0].pages must be a whole number of 32 bits",
    ),
    (
        r#"{"books":[{"serial":-1}]}"#,
        "books[0].serial must be a whole number of 64 bits, 0 or more",
    ),
    (
        r#"{"expectedCount":"9223372036854775808"}"#,
        "expected_count must be a whole number of 64 bits",
    ),
    (
        r#"{"expectedCount":9223372036854775808.0}"#,
        "expected_count must be a whole number of 64 bits",
    ),
    (
        r#"{"expectedCount":"many"}"#,
        "expected_count must be a whole number of 64 bits",
    ),
    (
        r#"{"books":[{"createdAt":"secret"}]}"#,
        "books[0].created_at must be a time as in RFC 3339: 2024-02-29T12:00:00Z",
    ),
    (
        r#"{"books":[{"createdAt":"0000-01-01T00:00:00Z"}]}"#,
        "books[0].created_at must be a time as in RFC 3339: 2024-02-29T12:00:00Z",
    ),
    (
        r#"{"books":[{"lentFor":5}]}"#,
        "books[0].lent_for must be a duration in seconds: 1.5s",
    ),
    (
        r#"{"books":[{"metadata":["secret"]}]}"#,
        "books[0].metadata must be an object",
    ),
    (
        r#"{"books":[{"metadata":{"a":[1,{"b":1180000000000000123}]}}]}"#,
        "books[0].metadata must not have numbers beyond 2^53 that a double would round; use a \
         string",
    ),
    (
        r#"{"books":[{"isLent":"true"}]}"#,
        "books[0].is_lent must be true or false",
    ),
    (
        r#"{"books":[{"cover":"?"}]}"#,
        "books[0].cover must be a string of base64",
    ),
    (
        r#"{"books":[{"counts":{"secret":"x"}}]}"#,
        "books[0].counts must be an object",
    ),
    (
        r#"{"books":[{"notes":[{"score":"inf"}]}]}"#,
        "books[0].notes[0].score must be a number",
    ),
    (r#"{"what":1}"#, "what is not a field of AddBooksRequest"),
    (
        r#"{"books":[{"x":{"books":1}}]}"#,
        "books[0].x is not a field of Book",
    ),
    (
        r#"{"request_id":"a","requestId":"b"}"#,
        "request_id is set more than once",
    ),
    ("[]", "body must be an object"),
    ("null", "body must be an object"),
    (r#""secret""#, "body must be an object"),
    (
        r#"{"books":[{"name":"secret"#,
        "books[0].name is not valid JSON: EOF while parsing a string at line 1 column 25",
    ),
    (
        "{} {}",
        "body is not valid JSON: trailing characters at line 1 column 4",
    ),
];

#[test]
fn rejections_name_the_field_and_not_the_value() {
    for (json, rejected) in REJECTIONS {
        assert_eq!(
            read("AddBooksRequest", json),
            Err((*rejected).to_owned()),
            "{json}"
        );
    }
    let field = message("UpdateBookRequest")
        .get_field_by_name("book")
        .unwrap();
    let request = message("UpdateBookRequest");
    for (json, rejected) in [
        (
            r#"{"pages":"x"}"#,
            "book.pages must be a whole number of 32 bits",
        ),
        ("[]", "book must be an object"),
        ("null", "book must be an object"),
    ] {
        let status = decode(&request, Some(&field), json.as_bytes(), &LIMITS).unwrap_err();
        assert_eq!(status.message(), rejected);
    }
}

#[test]
fn limits_are_checked_before_parsing() {
    let metadata = |text: &str| format!(r#"{{"books":[{{}},{{"metadata":{text}}}]}}"#);
    let deep = metadata(&format!(r#"{{"a":{}"#, "[".repeat(1 << 10)));
    assert_eq!(
        read("AddBooksRequest", &deep).unwrap_err(),
        "books[1].metadata must not be nested deeper than 64 levels"
    );
    let long = metadata(&format!(r#"{{"a":[{}0]}}"#, "0,".repeat(10_000)));
    assert_eq!(
        read("AddBooksRequest", &long).unwrap_err(),
        "more than 10000 values"
    );
}

#[test]
fn accepts_every_form_of_numbers_nulls_and_names() {
    for json in [
        r#"{"expectedCount":7}"#,
        r#"{"expectedCount":"7"}"#,
        r#"{"expectedCount":7.0}"#,
        r#"{"expectedCount":"7e0"}"#,
        r#"{"expected_count":7,"books":null,"requestId":null}"#,
    ] {
        let encoded = read("AddBooksRequest", json).unwrap();
        assert_eq!(
            written("AddBooksRequest", encoded),
            json!({ "expectedCount": "7" })
        );
    }
    for name in [r#""KIND_SHORT_STORY""#, r#""short_story""#, "2"] {
        let encoded = read("Book", &format!(r#"{{"kind":{name},"kinds":[{name}]}}"#)).unwrap();
        let kind = "KIND_SHORT_STORY";
        assert_eq!(
            written("Book", encoded),
            json!({ "kind": kind, "kinds": [kind] })
        );
    }
    for name in ["SHORT_STORY", "Short_Story", "kind_short_story", ""] {
        assert!(read("Book", &format!(r#"{{"kind":"{name}"}}"#)).is_err());
    }
    let encoded = read(
        "UpdateBookRequest",
        r#"{"updateMask":"name,fooBar,a_b.cD"}"#,
    )
    .unwrap();
    let written = written("UpdateBookRequest", encoded);
    assert_eq!(written, json!({ "updateMask": "name,fooBar,aB.cD" }));
}

#[test]
fn integers_of_64_bits_are_exact_outside_of_arbitrary_json() {
    let json = r#"{"expectedCount":1180000000000000123,"books":[{"serial":18446744073709551615}]}"#;
    let encoded = read("AddBooksRequest", json).unwrap();
    assert_eq!(
        written("AddBooksRequest", encoded),
        json!({ "expectedCount": "1180000000000000123", "books": [{ "serial": "18446744073709551615" }] })
    );
    let json =
        r#"{"metadata":{"a":[1152921504606847000,9007199254740992,1e21,"9007199254740993"]}}"#;
    let encoded = read("Note", json).unwrap();
    assert_eq!(
        written("Note", encoded),
        json!({ "metadata": { "a": [1_152_921_504_606_847_000_f64, 9_007_199_254_740_992_f64, 1e21, "9007199254740993"] } })
    );
}

#[test]
fn writes_numbers_as_callers_write_them() {
    let json = json!({ "metadata": { "list": [1, 2.5, -0.0, 1e300, null, true], "no": {} } });
    let encoded = read("Note", &json.to_string()).unwrap();
    let text = encode(&message("Note"), &encoded.into()).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        r#"{"metadata":{"list":[1,2.5,-0.0,1e+300,null,true],"no":{}}}"#
    );
}

#[test]
fn parameters_have_the_types_of_their_fields() {
    let request = message("ListBooksRequest");
    let set = |parameters: &[(&str, &str)]| {
        let mut set = Parameters::default();
        for (name, text) in parameters {
            let path = FieldPath::find(&request, name).unwrap();
            set.set(&path, (*text).to_owned());
        }
        set.encode(&request)
    };
    let encoded = set(&[
        ("kind", "novel"),
        ("is_lent", "true"),
        ("names", "a"),
        ("names", "b"),
        ("pageSize", "3"),
    ]);
    assert_eq!(
        written("ListBooksRequest", encoded.unwrap()),
        json!({ "kind": "KIND_NOVEL", "isLent": true, "names": ["a", "b"], "pageSize": 3 })
    );
    for (name, text) in [
        ("kind", "poem"),
        ("is_lent", "yes"),
        ("page_size", "-1"),
        ("page_size", ""),
    ] {
        assert_eq!(set(&[(name, text)]).unwrap_err().field, name);
    }
    // An unknown number may be known to the service.
    assert!(set(&[("kind", "99")]).is_ok());
    let update = message("UpdateBookRequest");
    let mut nested = Parameters::default();
    nested.set(
        &FieldPath::find(&update, "book.name").unwrap(),
        "n".to_owned(),
    );
    let encoded = nested.encode(&update).unwrap();
    assert_eq!(
        written("UpdateBookRequest", encoded),
        json!({ "book": { "name": "n" } })
    );
}
