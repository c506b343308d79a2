//! Plain HTTP client, and checks of its responses.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use crate::sidecar::Sidecar;

/// Time limit of a sidecar's calls of Redis.
const REDIS_CALL_LIMIT: Duration = Duration::from_millis(40);
/// Highest number of attempts of a request.
const MAX_ATTEMPTS: usize = 20;

/// HTTP client of one sidecar.
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

/// Complete HTTP response.
#[derive(Debug)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    pub fn new(sidecar: &Sidecar) -> Self {
        Self::at(sidecar.address)
    }

    pub fn at(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, address }
    }

    /// Creates a client that uses HTTP/2.
    pub fn over_http_2(sidecar: &Sidecar) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let address = sidecar.address;
        Self { client, address }
    }

    /// Sends a request with the given headers and body. On a busy machine, a call of Redis may exceed its
    /// time limit. Nothing has been written then, and the request is repeated.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> HttpResponse {
        let body = body.into();
        for _ in 1..MAX_ATTEMPTS {
            let started = Instant::now();
            let response = self.send_once(&method, path, headers, &body).await;
            let is_refused = response.status == StatusCode::SERVICE_UNAVAILABLE;
            if !is_refused || started.elapsed() < REDIS_CALL_LIMIT {
                return response;
            }
        }
        self.send_once(&method, path, headers, &body).await
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Bytes,
    ) -> HttpResponse {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method.clone()).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.clone())).unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        HttpResponse {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub async fn get(&self, path: &str) -> HttpResponse {
        self.send(Method::GET, path, &[], "").await
    }

    pub async fn delete(&self, path: &str) -> HttpResponse {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.json(Method::POST, path, &body.to_string()).await
    }

    /// Sends a text with the content type JSON.
    pub async fn json(&self, method: Method, path: &str, body: &str) -> HttpResponse {
        let json = [("content-type", "application/json")];
        self.send(method, path, &json, body.to_owned()).await
    }

    /// Creates a conversation of a user and returns its id.
    pub async fn conversation(&self, user: &str) -> String {
        let body = json!({ "userId": user });
        let created = self.post("/v1/conversations", &body).await.ok();
        created["conversation"]["id"].as_str().unwrap().to_owned()
    }

    /// Saves a text as a message of the role user.
    pub async fn save_text(&self, conversation: &str, text: &str) -> Value {
        let path = format!("/v1/conversations/{conversation}/messages");
        let body = json!({ "messages": [{ "role": "ROLE_USER", "content": text }] });
        self.post(&path, &body).await.ok()
    }
}

impl HttpResponse {
    /// Returns the body of a successful call.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the error of a failed call, and checks the form that all errors have.
    pub fn error(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        let mut response: Value = serde_json::from_slice(&self.body).unwrap();
        let error = response["error"].take();
        assert_eq!(error["code"], self.status.as_u16());
        assert!(!error["message"].as_str().unwrap().is_empty(), "{error}");
        for detail in error["details"].as_array().into_iter().flatten() {
            let kind = detail["@type"].as_str().unwrap();
            assert!(
                kind.starts_with("type.googleapis.com/google.rpc."),
                "{kind}"
            );
        }
        error
    }

    /// Returns the field that the error of an invalid request names.
    pub fn rejected_field(&self) -> String {
        assert_eq!(self.status, StatusCode::BAD_REQUEST, "{self:?}");
        let error = self.error();
        assert_eq!(error["status"], "INVALID_ARGUMENT");
        let violation = &error["details"][0]["fieldViolations"][0];
        assert!(!violation["description"].as_str().unwrap().is_empty());
        violation["field"].as_str().unwrap().to_owned()
    }
}

/// Returns the contents of the messages in a response.
pub fn contents(response: &Value) -> Vec<&str> {
    let messages = response["messages"].as_array().into_iter().flatten();
    messages
        .map(|message| message["content"].as_str().unwrap())
        .collect()
}
