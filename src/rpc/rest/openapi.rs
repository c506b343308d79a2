//! The description of the routes, as OpenAPI 3.1 has it, made of the contract: what
//! the comments of the proto files say is what it says.

mod comments;
mod schemas;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use self::{comments::Comments, schemas::Schemas};
use super::{
    contract::{Contract, RequestBody, Route},
    download,
    json::WellKnown,
    request::is_parameter,
    template::{FieldPath, Segment, Template},
};

/// The document, as JSON.
pub(super) fn document(contract: &Contract) -> String {
    let mut schemas = Schemas::new(Comments::default());
    let mut paths: Map<String, Value> = Map::new();
    for route in &contract.routes {
        let operation = operation(route, &mut schemas);
        let path = paths
            .entry(route.template.to_string())
            .or_insert_with(|| json!({}));
        path[route.verb.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": env!("CARGO_PKG_NAME"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "paths": paths,
        "components": { "schemas": schemas.finish() },
    })
    .to_string()
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let method = &route.method;
    // Each operation has a name of its own, those of one RPC as well.
    let name = match route.position {
        0 => method.name().to_owned(),
        position => format!("{}_{}", method.name(), position + 1),
    };
    let mut operation = json!({
        "operationId": name,
        "tags": [method.parent_service().name()],
        "description": schemas.comments.of(method.parent_file().file_descriptor_proto(), method.path()),
        "responses": {
            "200": success(route, schemas),
            "default": {
                "description": "Why the call failed.",
                "content": { "application/json": { "schema": schemas.error() } },
            },
        },
    });
    let parameters = parameters(route, schemas);
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(media) = request_body(route, schemas) {
        let types = route.body_types().into_iter();
        let content: Map<_, _> = types.map(|kind| (kind, media.clone())).collect();
        operation["requestBody"] = json!({
            "required": route.needs_body(),
            "content": content,
        });
    }
    operation
}

fn success(route: &Route, schemas: &mut Schemas) -> Value {
    let method = &route.method;
    if method.is_server_streaming() {
        let types = download::media_types(&method.output()).into_iter();
        let content: Map<_, _> = types.map(|kind| (kind, json!({}))).collect();
        return json!({ "description": "The file.", "content": content });
    }
    json!({
        "description": schemas.comments.of(
            method.output().parent_file().file_descriptor_proto(),
            method.output().path(),
        ),
        "content": { "application/json": { "schema": schemas.message(&method.output()) } },
    })
}

fn parameters(route: &Route, schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters = Vec::new();
    for path in route.template.variables() {
        let mut parameter = parameter(path, "path", schemas);
        parameter["name"] = path.variable().into();
        parameter["required"] = true.into();
        // An empty one would be another path.
        parameter["schema"]["minLength"] = 1.into();
        parameters.push(parameter);
    }
    if let RequestBody::File(upload) = &route.body {
        let options = upload.options();
        for field in options.iter().flat_map(MessageDescriptor::fields) {
            parameters.push(parameter(&FieldPath(vec![field]), "query", schemas));
        }
    }
    for field in route.method.input().fields() {
        let path = FieldPath(vec![field.clone()]);
        if is_parameter(route, &path) && is_text(&field) {
            let mut parameter = parameter(&path, "query", schemas);
            if schemas.comments.is_required(&field) {
                parameter["required"] = true.into();
                parameter["schema"]["minLength"] = 1.into();
            }
            parameters.push(parameter);
        }
    }
    parameters
}

fn parameter(path: &FieldPath, place: &str, schemas: &mut Schemas) -> Value {
    let Some(field) = path.0.last() else {
        return Value::Null;
    };
    json!({
        "name": path.name(),
        "in": place,
        "description": schemas.comments.of_field(field),
        "schema": schemas.field(field),
    })
}

/// Whether a field's value can be written as one text.
fn is_text(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => matches!(
            WellKnown::of(&message),
            Some(WellKnown::Timestamp | WellKnown::FieldMask)
        ),
        _ => !field.is_map(),
    }
}

fn request_body(route: &Route, schemas: &mut Schemas) -> Option<Value> {
    let request = route.method.input();
    let schema = match &route.body {
        RequestBody::Nothing => return None,
        // A format of its own.
        RequestBody::File(_) => return Some(json!({})),
        RequestBody::Field(field) => schemas.field(field),
        RequestBody::Rest if has_variables(&route.template) => {
            schemas.object(&request, &route.rest())
        }
        RequestBody::Rest => schemas.message(&request),
    };
    Some(json!({ "schema": schema }))
}

fn has_variables(template: &Template) -> bool {
    let mut segments = template.segments.iter();
    segments.any(|segment| matches!(segment, Segment::Variable(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Value {
        serde_json::from_str(&document(&Contract::load().unwrap())).unwrap()
    }

    #[test]
    fn paths_differ_in_more_than_the_names_of_variables() {
        let made = made();
        let shapes = made["paths"].as_object().unwrap().keys().map(|path| {
            let parts = path.split('/').map(|part| match part.split_once('}') {
                Some((_, verb)) => verb,
                None => part,
            });
            parts.collect::<Vec<_>>().join("/")
        });
        let mut shapes: Vec<_> = shapes.collect();
        let count = shapes.len();
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), count);
    }

    #[test]
    fn comments_become_descriptions_and_say_what_is_required() {
        let made = made();
        let create = &made["components"]["schemas"]["CreateConversationRequest"];
        assert_eq!(create["required"], json!(["userId"]));
        let title = &create["properties"]["title"]["description"];
        assert!(title.as_str().unwrap().starts_with("Optional. At most 255"));
        let list = &made["paths"]["/conversations"]["get"];
        assert_eq!(list["operationId"], "ListConversations_2");
        assert_eq!(list["parameters"][0]["name"], "user_id");
        assert_eq!(list["parameters"][0]["required"], true);
        let save = &made["paths"]["/v1/conversations/{conversation_id}/messages"]["post"];
        let body = &save["requestBody"]["content"]["application/json"]["schema"];
        assert!(body["properties"]["messages"].is_object());
        assert!(body["properties"]["conversationId"].is_null());
        let message = &made["components"]["schemas"]["Message"]["properties"];
        assert_eq!(message["seq"]["readOnly"], true);
        assert_eq!(made["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let made = made();
        let schemas = made["components"]["schemas"].as_object().unwrap();
        let text = made.to_string();
        for (at, found) in text.match_indices("#/components/schemas/") {
            let name = text[at + found.len()..].split('"').next().unwrap();
            assert!(schemas.get(name).is_some_and(Value::is_object), "{name}");
        }
    }
}
