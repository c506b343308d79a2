//! One user's view of one server: what it has returned so far, and calls.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use test_support::{json_grpc::JsonGrpc, sidecar::Sidecar};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    known::{Kind, Known},
    normalize::Normalizer,
    operations::Operation,
};

/// Headers that do not depend on the request.
const TRANSPORT_HEADERS: [&str; 2] = ["date", "content-type"];

/// One user's view of one server.
pub(crate) struct View {
    grpc: JsonGrpc,
    normalizer: Normalizer,
    pub(crate) known: Known,
}

/// Result of a call, before normalization.
pub(crate) struct Outcome {
    /// Name of the status code.
    pub(crate) code: String,
    /// Everything that the caller received.
    pub(crate) received: Value,
}

impl View {
    pub(crate) fn new(sidecar: &Sidecar) -> Self {
        Self {
            grpc: JsonGrpc::new(sidecar.channel()),
            normalizer: Normalizer::default(),
            known: Known::default(),
        }
    }

    pub(crate) async fn call(&self, operation: &Operation) -> Outcome {
        let requests = operation.requests.iter().map(|request| {
            let mut request = self.known.resolve(request);
            if let Some(data) = request.pointer_mut("/file/data") {
                // A file is text in an operation, and bytes in a request.
                *data = STANDARD.encode(data.as_str().unwrap()).into();
            }
            request
        });
        let requests: Vec<Value> = requests.collect();
        match self.grpc.call(operation.rpc, &requests).await {
            Ok(response) => {
                let is_file = self.grpc.is_server_streaming(operation.rpc);
                let messages = response.messages.iter();
                let messages: Vec<_> = messages
                    .map(|message| serde_json::to_value(message).unwrap())
                    .collect();
                let headers = response.headers.into_headers();
                let mut headers: Vec<_> = headers
                    .iter()
                    .filter(|(name, _)| !TRANSPORT_HEADERS.contains(&name.as_str()))
                    .map(|(name, value)| format!("{name}: {value:?}"))
                    .collect();
                headers.sort();
                let mut response = if is_file {
                    file_of(&messages)
                } else {
                    messages.into_iter().next().unwrap()
                };
                if operation.rpc == "BeginTurn" {
                    keep_constant_fields(&mut response["conversation"]);
                }
                Outcome {
                    code: "Ok".to_owned(),
                    received: json!({ "headers": headers, "response": response }),
                }
            }
            Err(status) => of_status(&status),
        }
    }

    /// Stores what a call has returned, and returns what must not depend on the server.
    pub(crate) fn accept(&mut self, outcome: &Outcome) -> Value {
        let response = &outcome.received["response"];
        self.known.add_response(response);
        if let Some(file) = response["file"].as_str() {
            self.known.add(Kind::File, file);
        }
        json!({
            "code": outcome.code,
            "received": self.normalizer.value(&outcome.received),
        })
    }
}

impl Outcome {
    /// Whether the machine was too busy for a time limit of the program.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.received["response"]["sessionState"] == "SESSION_STATE_UNAVAILABLE"
            || ["Unavailable", "DeadlineExceeded"].contains(&self.code.as_str())
    }
}

/// Removes the fields of a conversation that BeginTurn returns only if they were read from the store,
/// because the window may not be filled in time on a busy machine.
fn keep_constant_fields(conversation: &mut Value) {
    let fields = conversation.as_object_mut().unwrap();
    fields.retain(|name, _| ["id", "userId", "lastSeq"].contains(&name.as_str()));
}

fn file_of(pieces: &[Value]) -> Value {
    let bytes = pieces.iter().flat_map(|piece| {
        let data = piece["file"]["data"].as_str().unwrap_or_default();
        STANDARD.decode(data).unwrap()
    });
    let file = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned();
    let content_type = pieces.first().map(|piece| &piece["file"]["contentType"]);
    json!({ "file": file, "contentType": content_type })
}

fn of_status(status: &Status) -> Outcome {
    let headers = status.metadata().clone().into_headers();
    let mut headers: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !TRANSPORT_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    Outcome {
        code: format!("{:?}", status.code()),
        received: json!({
            "headers": headers,
            "message": status.message(),
            "details": format!("{:?}", status.get_error_details()),
        }),
    }
}
