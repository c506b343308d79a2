//! Records calls and their responses, to be validated with the OpenAPI document.

use std::cell::RefCell;

use http::StatusCode;
use serde_json::{Value, json};

use crate::caller::{Caller, OperationRequest};
use test_support::{http::HttpResponse, python::python, sidecar::Sidecar};

/// Recorded calls with their responses.
pub(crate) struct Recorder {
    pub(crate) caller: Caller,
    calls: RefCell<Vec<Value>>,
}

impl Recorder {
    pub(crate) async fn new(sidecar: &Sidecar) -> Self {
        Self {
            caller: Caller::new(sidecar).await,
            calls: RefCell::default(),
        }
    }

    /// Makes a call that must succeed.
    pub(crate) async fn ok(&self, operation: &str, request: Value) -> Value {
        let response = self.call(operation, &request).await;
        assert_eq!(response.status, StatusCode::OK, "{operation}: {response:?}");
        serde_json::from_slice(&response.body).unwrap_or_default()
    }

    /// Makes a call that must be rejected.
    pub(crate) async fn rejected(&self, status: u16, operation: &str, request: Value) {
        let response = self.call(operation, &request).await;
        assert_eq!(response.status, status, "{operation}: {response:?}");
    }

    pub(crate) async fn call(&self, operation: &str, request: &Value) -> HttpResponse {
        let asked = self.caller.asked(operation, request);
        let response = self.caller.send(&asked).await;
        self.record(operation, &asked, &response);
        response
    }

    pub(crate) fn record(
        &self,
        operation: &str,
        asked: &OperationRequest,
        response: &HttpResponse,
    ) {
        self.calls.borrow_mut().push(json!({
            "operation": operation,
            "parameters": asked.parameters,
            "body": asked.body,
            "status": response.status.as_u16(),
            "content_type": response.headers["content-type"].to_str().unwrap(),
            "answer": serde_json::from_slice::<Value>(&response.body).ok(),
        }));
    }

    /// Adds the calls of another recorder.
    pub(crate) fn add(&self, other: &Self) {
        self.calls.borrow_mut().extend(other.calls.take());
    }

    /// Validates the recorded calls with a document, and lists the parts of it that no call used.
    pub(crate) async fn validate(&self, document: &Value) -> Validation {
        let given = json!({ "document": document, "calls": *self.calls.borrow() });
        let judged = python("described.py", &[], &given.to_string()).await;
        serde_json::from_value(judged).unwrap()
    }
}

/// Output of tests/python/described.py.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Validation {
    pub(crate) wrong: Vec<String>,
    pub(crate) unseen: Vec<String>,
}
