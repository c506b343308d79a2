//! The routes as an OpenAPI 3.1 document, derived from the descriptors and their comments.

mod comments;
mod schemas;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use self::{
    comments::{Comments, summary},
    schemas::Schemas,
};
use crate::{
    json::WellKnown,
    rule::{RequestBody, Route, Routes},
    template::{FieldPath, Segment, Template},
};

/// Path of the OpenAPI document.
pub const PATH: &str = "/openapi.json";

const BEARER_TOKEN: &str = "bearerToken";

/// Parts of the document that do not follow from the descriptors.
#[derive(Clone, Debug)]
pub struct Info {
    /// Title of the API.
    pub title: String,
    /// Description of the API.
    pub description: String,
    /// Version of the API.
    pub version: String,
    /// SPDX identifier of the license.
    pub license: String,
    /// Whether a call needs a bearer token. If not, the document describes the token as
    /// optional, so that a generated client can still send one.
    pub requires_token: bool,
}

/// Renders the document as JSON.
pub(crate) fn document(routes: &Routes, info: &Info) -> String {
    let mut schemas = Schemas::new(Comments::default());
    let mut paths: Map<String, Value> = Map::new();
    for bindings in routes.routes.chunk_by(|_, next| !next.is_primary) {
        let [route, others @ ..] = bindings else {
            continue;
        };
        let operation = operation(route, others, &mut schemas);
        let path = paths
            .entry(route.template.to_string())
            .or_insert_with(|| json!({}));
        path[route.http_method.as_str().to_ascii_lowercase()] = operation;
    }
    let token = json!({ BEARER_TOKEN: [] });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": info.title,
            "description": info.description,
            "version": info.version,
            "license": { "name": info.license, "identifier": info.license },
        },
        "security": if info.requires_token { json!([token]) } else { json!([{}, token]) },
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": { BEARER_TOKEN: {
                "type": "http",
                "scheme": "bearer",
                "description": "Needed if the server is configured to require tokens.",
            } },
        },
    })
    .to_string()
}

/// The operation of a method. Its description lists the other bindings of the rule.
fn operation(route: &Route, others: &[Route], schemas: &mut Schemas) -> Value {
    let method = &route.method;
    let comment = schemas.comments.of_method(method);
    let summary = summary(&comment);
    let mut description = comment;
    for other in others {
        let binding = format!("{} {}", other.http_method, other.template);
        description.extend(["\n\nAlso served as `", &binding, "`."]);
    }
    let mut operation = json!({
        "operationId": method.name(),
        "tags": [method.parent_service().name()],
        "summary": summary,
        "description": description,
        "responses": {
            "200": success(route, schemas),
            "default": {
                "description": "The call failed.",
                "content": { "application/json": { "schema": schemas.error() } },
            },
        },
    });
    let parameters = parameters(route, schemas);
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(content) = request_body(route, schemas) {
        operation["requestBody"] = json!({
            "required": route.requires_body(),
            "content": content,
        });
    }
    operation
}

fn success(route: &Route, schemas: &mut Schemas) -> Value {
    if route.response_body.is_some() {
        let content = file(route.download_types());
        return json!({ "description": "The file.", "content": content });
    }
    let response = route.method.output();
    json!({
        "description": schemas.comments.of_message(&response),
        "content": { "application/json": { "schema": schemas.message(&response) } },
    })
}

/// Content that is a file of one of these types, or of any type if there is none.
fn file(types: &[String]) -> Value {
    let mut content: Map<_, _> = types.iter().map(|it| (it.clone(), json!({}))).collect();
    if content.is_empty() {
        content.insert("*/*".to_owned(), json!({}));
    }
    Value::Object(content)
}

fn parameters(route: &Route, schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters = Vec::new();
    for path in route.template.variables() {
        let mut parameter = parameter(path, "path", schemas);
        parameter["name"] = path.variable().into();
        parameter["required"] = true.into();
        // The path with an empty value is a different path.
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
        if route.has_parameter(&path) && is_text(&field) {
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

fn parameter(path: &FieldPath, location: &str, schemas: &mut Schemas) -> Value {
    let Some(field) = path.0.last() else {
        return Value::Null;
    };
    json!({
        "name": path.name(),
        "in": location,
        "description": schemas.comments.of_field(field),
        "schema": schemas.field(field),
    })
}

/// Whether a field's value can be represented by one text.
fn is_text(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => matches!(
            WellKnown::of(&message),
            Some(
                WellKnown::Timestamp
                    | WellKnown::Duration
                    | WellKnown::FieldMask
                    | WellKnown::Wrapper
            )
        ),
        _ => !field.is_map(),
    }
}

fn request_body(route: &Route, schemas: &mut Schemas) -> Option<Value> {
    let request = route.method.input();
    let schema = match &route.body {
        RequestBody::None => return None,
        RequestBody::File(_) => return Some(file(&route.request_types())),
        RequestBody::Field(field) => schemas.field(field),
        RequestBody::Message if has_variables(&route.template) => {
            schemas.object(&request, &route.fields_outside_path())
        }
        RequestBody::Message => schemas.message(&request),
    };
    Some(json!({ "application/json": { "schema": schema } }))
}

fn has_variables(template: &Template) -> bool {
    let mut segments = template.segments.iter();
    segments.any(|segment| matches!(segment, Segment::Variable(_)))
}

#[cfg(test)]
mod tests;
