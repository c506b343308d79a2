//! A [`tower`] layer that serves gRPC services over HTTP with JSON, as the
//! `google.api.http` annotations of their methods define it.
//!
//! # Request flow
//!
//! ```text
//! HTTP request ─▶ rule.rs      find the method by HTTP method and path
//!                 request.rs   read the body; JSON ─▶ protobuf (json.rs)
//!                 inner.call   the gRPC request, with every header of the HTTP request
//! gRPC response ▶ response.rs  protobuf ─▶ JSON, status ─▶ HTTP status (error.rs)
//! ```
//!
//! The layer is placed outside of the layers that observe, authorize and limit calls. They
//! receive a gRPC call for both protocols, so that spans, metrics, deadlines and limits are the
//! same for both. The body of a request is read by the inner service, under its
//! deadline, and an error in it is the status of that call. gRPC requests are passed on
//! unchanged: a `POST` over HTTP/2 with the content type `application/grpc`. Other requests for
//! the path of a service are rejected, with 505 over HTTP/1 and 415 over HTTP/2.
//!
//! # What is served
//!
//! - Unary methods with the bindings of their rule, `additional_bindings` included. The `body`
//!   of a rule is absent, `"*"` or one message field.
//! - Downloads: methods that stream responses and whose rule has a `response_body` that is a
//!   `google.api.HttpBody`. The initial metadata `content-disposition` becomes the header of
//!   that name.
//! - Uploads: methods that accept a stream of requests and whose rule has a `body` that is a
//!   `google.api.HttpBody`. At most one other message field may exist: it is sent first, alone,
//!   and its fields are the parameters of the query.
//!
//! Other annotations are rejected with [`InvalidHttpRule`] when the layer is created.
//!
//! # JSON
//!
//! Messages are read and written by prost-reflect, which implements the JSON mapping of proto3.
//! This crate adds three things. The size of a body's structure is checked before it is parsed,
//! because the message of a small body can need hundreds of times the memory of that body. Errors
//! name the path of the field and never contain its value. Values of enums are also accepted
//! in lower case and without the prefix that the enum's name gives them: `"user"` for
//! `ROLE_USER`.
//!
//! # OpenAPI
//!
//! The document at [`OPENAPI_PATH`] is derived from the descriptors and their comments, which
//! the pool contains if it was compiled with source information. A field whose comment starts
//! with "Required." is required, and one whose comment starts with "Output only." is read-only.
//! Each method is one operation, at the first path of its rule.

mod error;
mod frames;
mod http_body;
mod json;
#[cfg(test)]
mod library;
mod openapi;
mod pool;
mod request;
mod response;
mod rule;
mod service;
mod template;
mod upload;

use std::{collections::BTreeMap, fmt, sync::Arc};

use http::Request;
use tonic::{Status, body::Body};

pub use self::{
    error::{code_name, render as render_error},
    openapi::{Info as OpenApiInfo, PATH as OPENAPI_PATH},
    rule::InvalidHttpRule,
    service::{Transcoding, TranscodingLayer},
};

/// Decides whether a request that is not a gRPC call may be answered.
pub type Authorize = Arc<dyn Fn(&Request<Body>) -> Result<(), Status> + Send + Sync>;

/// Settings of a [`TranscodingLayer`].
#[derive(Clone)]
pub struct Config {
    /// Limits on the bodies of requests.
    pub limits: Limits,
    /// Full name of an extension of `google.protobuf.MethodOptions` of type `bool`. Where a
    /// method sets it, a request may omit its body, which then counts as `{}`. Other methods
    /// reject a request without a body: an omitted field may mean "everything", and a body is
    /// easily lost. `None` if there is no such extension.
    pub optional_body: Option<String>,
    /// Media types of the files that a method downloads or uploads, by the method's full name.
    /// An upload of another type is rejected. A method without an entry is described as
    /// `*/*`.
    pub media_types: BTreeMap<String, Vec<String>>,
    /// Authorizes requests that do not become a gRPC call, such as those for the OpenAPI
    /// document and for unknown paths: the inner service, which authorizes calls, does not
    /// receive them.
    pub authorize: Authorize,
    /// Content of the OpenAPI document; `None` if the document is not served.
    pub openapi: Option<OpenApiInfo>,
}

/// Limits on JSON bodies of requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum size in bytes of a body, and of the protobuf message it is converted to.
    pub max_bytes: usize,
    /// Maximum number of values in a body: scalars, lists and objects, where an object counts as
    /// [`OBJECT_WEIGHT`] values. A value takes up to 250 bytes of memory while it is converted,
    /// however short it is in JSON.
    pub max_values: usize,
    /// Maximum number of levels of nested lists and objects in a body. It is at most 127.
    pub max_depth: usize,
    /// Creates the status of a request with more than the maximum number of bytes.
    pub too_large: fn(usize) -> Status,
    /// Creates the status of a request with more than the maximum number of values.
    pub too_many_values: fn(usize) -> Status,
}

/// Number of values that an object counts as, since it needs more memory than other values.
pub const OBJECT_WEIGHT: usize = 8;

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("limits", &self.limits)
            .field("optional_body", &self.optional_body)
            .field("media_types", &self.media_types)
            .field("openapi", &self.openapi)
            .finish_non_exhaustive()
    }
}
