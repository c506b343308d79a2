//! Calls of any method with a request as JSON: over gRPC, and over HTTP as the OpenAPI document
//! describes it.

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use test_support::{
    http::{Http, HttpResponse},
    json_grpc::JsonGrpc,
    sidecar::Sidecar,
};

/// Protocol of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Grpc,
    Rest,
}

/// Result of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Name of the gRPC status code.
    pub(crate) status: String,
    /// Field that an error names; empty if it names none.
    pub(crate) field: String,
    /// The response; the text of a download.
    pub(crate) response: Value,
    /// Everything by which a caller could distinguish it from another error.
    pub(crate) visible_text: String,
}

/// Client of one sidecar.
pub(crate) struct Caller {
    pub(crate) http: Http,
    /// The OpenAPI document.
    pub(crate) document: Value,
    grpc: JsonGrpc,
}

/// A request for an operation of the OpenAPI document.
pub(crate) struct OperationRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Names of the parameters that are set.
    pub(crate) parameters: Vec<String>,
    /// `None` if the operation has no body.
    pub(crate) body: Option<Value>,
}

impl Caller {
    pub(crate) async fn new(sidecar: &Sidecar) -> Self {
        let http = Http::new(sidecar);
        Self {
            document: http.get("/openapi.json").await.ok(),
            http,
            grpc: JsonGrpc::new(sidecar.channel()),
        }
    }

    pub(crate) async fn call(&self, protocol: Protocol, rpc: &str, request: &Value) -> Outcome {
        match protocol {
            Protocol::Grpc => self.grpc(rpc, request).await,
            Protocol::Rest => of_http(&self.send(&self.asked(rpc, request)).await),
        }
    }

    /// Makes a call that must succeed.
    pub(crate) async fn ok(&self, protocol: Protocol, rpc: &str, request: &Value) -> Value {
        let outcome = self.call(protocol, rpc, request).await;
        assert_eq!(
            outcome.status, "OK",
            "{protocol:?} {rpc}: {}",
            outcome.visible_text
        );
        outcome.response
    }

    pub(crate) async fn send(&self, asked: &OperationRequest) -> HttpResponse {
        let body = asked.body.as_ref().map(Value::to_string);
        let headers = body.as_ref().map(|_| ("content-type", "application/json"));
        let body = body.unwrap_or_default();
        let method = asked.method.clone();
        self.http
            .send(method, &asked.path, headers.as_slice(), body)
            .await
    }

    /// Builds the request for an operation.
    pub(crate) fn asked(&self, operation: &str, request: &Value) -> OperationRequest {
        let (mut path, method, described) = self.operation(operation);
        let mut left = request.as_object().unwrap().clone();
        let (mut query, mut given) = (String::new(), Vec::new());
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let value = take(&mut left, name);
            if value.is_some() {
                given.push(name.to_owned());
            }
            if parameter["in"] == "path" {
                let variable = format!("{{{name}}}");
                let text = value.map(|value| encoded(&value));
                path = path.replace(&variable, &text.unwrap_or_default());
                continue;
            }
            // A list is a parameter for each of its elements.
            let values = match value {
                Some(Value::Array(values)) => values,
                value => value.into_iter().collect(),
            };
            for value in values {
                let mark = if query.is_empty() { '?' } else { '&' };
                query.extend([mark.to_string().as_str(), name, "=", &encoded(&value)]);
            }
        }
        let body = described.get("requestBody").map(|_| {
            // The body is the updated resource, the file, or all other fields.
            let only = left.remove("conversation").or_else(|| left.remove("file"));
            only.unwrap_or_else(|| Value::Object(std::mem::take(&mut left)))
        });
        assert!(left.is_empty(), "{operation} does not take {left:?}");
        OperationRequest {
            method,
            path: format!("{path}{query}"),
            parameters: given,
            body,
        }
    }

    fn operation(&self, name: &str) -> (String, Method, &Value) {
        let paths = self.document["paths"].as_object().unwrap().iter();
        let mut operations = paths.flat_map(|(path, operations)| {
            let operations = operations.as_object().unwrap().iter();
            operations.map(move |(verb, operation)| (path, verb, operation))
        });
        let (path, verb, operation) = operations
            .find(|(.., operation)| operation["operationId"] == name)
            .unwrap_or_else(|| panic!("{name} is not described"));
        let method = verb.to_uppercase().parse().unwrap();
        (path.clone(), method, operation)
    }

    async fn grpc(&self, rpc: &str, request: &Value) -> Outcome {
        let is_file = self.grpc.is_server_streaming(rpc);
        match self.grpc.call(rpc, std::slice::from_ref(request)).await {
            Ok(response) if is_file => {
                let pieces = response.messages.iter().flat_map(|piece| {
                    let file = piece.get_field_by_name("file").unwrap();
                    let data = file.as_message().unwrap().get_field_by_name("data");
                    data.unwrap().as_bytes().unwrap().to_vec()
                });
                successful(String::from_utf8(pieces.collect()).unwrap().into())
            }
            Ok(response) => successful(serde_json::to_value(&response.messages[0]).unwrap()),
            Err(status) => of_status(&status),
        }
    }
}

/// Removes the value of a parameter from a request: `page_size` is `pageSize`, and
/// `conversation_id` may be the `id` of the `conversation`.
fn take(request: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let mut words = name.split('_');
    let mut field = words.next().unwrap().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        field.extend([first.to_uppercase().as_str(), rest]);
    }
    request.remove(&field).or_else(|| {
        let (outer, inner) = name.split_once('_')?;
        request.get_mut(outer)?.as_object_mut()?.remove(inner)
    })
}

fn encoded(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned);
    utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string()
}

fn successful(response: Value) -> Outcome {
    Outcome {
        status: "OK".to_owned(),
        field: String::new(),
        visible_text: response.to_string(),
        response,
    }
}

fn of_status(status: &Status) -> Outcome {
    let details = status.get_error_details();
    let violation = details.bad_request().map(|bad| &bad.field_violations[0]);
    let mut metadata = status.metadata().clone();
    metadata.remove("date");
    Outcome {
        status: code_name(status.code()),
        field: violation.map_or_else(String::new, |violation| violation.field.clone()),
        response: Value::Null,
        visible_text: format!(
            "{:?} {} {:?} {metadata:?}",
            status.code(),
            status.message(),
            status.details()
        ),
    }
}

fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn of_http(response: &HttpResponse) -> Outcome {
    let body = String::from_utf8(response.body.to_vec()).unwrap();
    if response.status.is_success() {
        let is_file = response.headers.contains_key("content-disposition");
        return successful(if is_file { body.into() } else { response.ok() });
    }
    let error = response.error();
    let field = &error["details"][0]["fieldViolations"][0]["field"];
    let mut headers = response.headers.clone();
    headers.remove("date");
    Outcome {
        status: error["status"].as_str().unwrap().to_owned(),
        field: field.as_str().unwrap_or_default().to_owned(),
        response: Value::Null,
        visible_text: format!("{} {headers:?} {body}", response.status),
    }
}
