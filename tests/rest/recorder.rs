//! Records calls and their responses, to be validated with the OpenAPI document.

use std::cell::RefCell;

use http::StatusCode;
use serde_json::{Value, json};

use crate::caller::{Asked, Caller};
use test_support::{http::Answer, python::python, sidecar::Sidecar};

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
        let answer = self.call(operation, &request).await;
        assert_eq!(answer.status, StatusCode::OK, "{operation}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Makes a call that must be rejected.
    pub(crate) async fn refused(&self, status: u16, operation: &str, request: Value) {
        let answer = self.call(operation, &request).await;
        assert_eq!(answer.status, status, "{operation}: {answer:?}");
    }

    pub(crate) async fn call(&self, operation: &str, request: &Value) -> Answer {
        let asked = self.caller.asked(operation, request);
        let answer = self.caller.send(&asked).await;
        self.record(operation, &asked, &answer);
        answer
    }

    pub(crate) fn record(&self, operation: &str, asked: &Asked, answer: &Answer) {
        self.calls.borrow_mut().push(json!({
            "operation": operation,
            "parameters": asked.parameters,
            "body": asked.body,
            "status": answer.status.as_u16(),
            "content_type": answer.headers["content-type"].to_str().unwrap(),
            "answer": serde_json::from_slice::<Value>(&answer.body).ok(),
        }));
    }

    /// Adds the calls of another recorder.
    pub(crate) fn add(&self, other: &Self) {
        self.calls.borrow_mut().extend(other.calls.take());
    }

    /// Validates the recorded calls with a document, and lists the parts of it that no call used.
    pub(crate) async fn judged(&self, document: &Value) -> Judgement {
        let given = json!({ "document": document, "calls": *self.calls.borrow() });
        let judged = python("described.py", &[], &given.to_string()).await;
        serde_json::from_value(judged).unwrap()
    }
}

/// Output of tests/python/described.py.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Judgement {
    pub(crate) wrong: Vec<String>,
    pub(crate) unseen: Vec<String>,
}
