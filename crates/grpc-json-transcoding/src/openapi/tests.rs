use super::*;
use crate::library::{config, pool};

fn rendered(requires_token: bool) -> Value {
    let info = Info {
        title: "library".to_owned(),
        description: "Books.".to_owned(),
        version: "1".to_owned(),
        license: "MIT".to_owned(),
        requires_token,
    };
    let routes = Routes::of_services(&pool(), &config()).unwrap();
    serde_json::from_str(&document(&routes, &info)).unwrap()
}

#[test]
fn each_method_is_one_operation() {
    let document = rendered(false);
    let paths = document["paths"].as_object().unwrap();
    let operations = paths
        .values()
        .flat_map(|path| path.as_object().unwrap().values());
    let mut ids: Vec<_> = operations
        .map(|it| it["operationId"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    let names = [
        "AddBooks",
        "CloseShelf",
        "ListBooks",
        "ReadBook",
        "SendBook",
        "UpdateBook",
    ];
    assert_eq!(ids, names);
    let add = &paths["/v1/shelves/{shelf_id}/books"]["post"];
    assert_eq!(add["summary"], "Adds books");
    let also = "More text.\n\nA paragraph.\n\nAlso served as `POST /shelves/{shelf_id}/books`.";
    assert!(add["description"].as_str().unwrap().ends_with(also));
    assert_eq!(add["requestBody"]["required"], true);
    let close = &paths["/v1/shelves/{shelf_id}:close"]["post"];
    assert_eq!(close["requestBody"]["required"], false);
}

#[test]
fn comments_become_descriptions_and_constraints() {
    let document = rendered(false);
    let book = &document["components"]["schemas"]["Book"];
    assert_eq!(book["required"], json!(["name"]));
    assert_eq!(book["properties"]["number"]["readOnly"], true);
    assert_eq!(book["properties"]["metadata"]["additionalProperties"], true);
    let list = &document["paths"]["/v1/books"]["get"]["parameters"];
    assert_eq!(list[0]["name"], "kind");
    let kind = document["components"]["schemas"]["Kind"]["description"]
        .as_str()
        .unwrap();
    assert!(
        kind.contains("- `KIND_NOVEL`: A novel.") && kind.contains("`short_story`"),
        "{kind}"
    );
    let update = &document["paths"]["/v1/books/{book_name}"]["patch"];
    assert_eq!(update["parameters"][0]["name"], "book_name");
}

#[test]
fn files_have_their_media_types() {
    let document = rendered(false);
    let read = &document["paths"]["/v1/books/{name}:read"]["get"]["responses"]["200"]["content"];
    let types: Vec<_> = read.as_object().unwrap().keys().collect();
    assert_eq!(types, ["application/epub+zip", "text/plain"]);
    let send = &document["paths"]["/v1/books:send"]["post"];
    assert_eq!(send["requestBody"]["content"], json!({ "*/*": {} }));
    assert_eq!(send["parameters"][0]["name"], "kind");
}

#[test]
fn a_token_is_required_only_where_it_is_configured() {
    assert_eq!(rendered(true)["security"], json!([{ "bearerToken": [] }]));
    assert_eq!(
        rendered(false)["security"],
        json!([{}, { "bearerToken": [] }])
    );
}

#[test]
fn every_reference_has_a_schema() {
    let document = rendered(false);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for (at, found) in text.match_indices("#/components/schemas/") {
        let name = text[at + found.len()..].split('"').next().unwrap();
        assert!(schemas.get(name).is_some_and(Value::is_object), "{name}");
    }
}
