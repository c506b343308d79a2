//! Calls and their answers, kept to be held against the description of the routes.

use std::cell::RefCell;

use http::StatusCode;
use serde_json::{Value, json};

use crate::caller::{Asked, Caller};
use test_support::{http::Answer, python::python, sidecar::Sidecar};

/// Calls that were made, with their answers.
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

    /// Calls an operation, which must go well.
    pub(crate) async fn ok(&self, operation: &str, request: Value) -> Value {
        let answer = self.call(operation, &request).await;
        assert_eq!(answer.status, StatusCode::OK, "{operation}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Calls an operation, which must be refused.
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

    /// Adds what another one has recorded.
    pub(crate) fn add(&self, other: &Self) {
        self.calls.borrow_mut().extend(other.calls.take());
    }

    /// What is wrong by a description, and what of it was not seen.
    pub(crate) async fn judged(&self, document: &Value) -> Judgement {
        let given = json!({ "document": document, "calls": *self.calls.borrow() });
        let judged = python("described.py", &[], &given.to_string()).await;
        serde_json::from_value(judged).unwrap()
    }
}

/// What tests/python/described.py says.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Judgement {
    pub(crate) wrong: Vec<String>,
    pub(crate) unseen: Vec<String>,
}
