//! Routes, which are created from the HTTP rules of the methods.

use std::collections::BTreeSet;

use http::{Method, Uri};
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value,
};

use crate::{
    Config, pool,
    template::{FieldPath, Template},
    upload::Upload,
};

const HTTP_BODY: &str = "google.api.HttpBody";

/// Methods of HTTP that a rule can name, with the names of the rule's fields.
const METHODS: [(&str, Method); 5] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("delete", Method::DELETE),
    ("patch", Method::PATCH),
];

/// Error of descriptors whose HTTP rules cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{location}: {reason}")]
pub struct InvalidHttpRule {
    /// Full name of the method, or description of the part of the descriptors.
    location: String,
    reason: String,
}

impl InvalidHttpRule {
    pub(crate) fn new(location: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            reason: reason.into(),
        }
    }
}

/// All bindings of all HTTP rules.
#[derive(Debug)]
pub(crate) struct Routes {
    /// In the order of the proto files; the bindings of a method are adjacent.
    pub(crate) routes: Vec<Route>,
    /// Prefixes of the paths of gRPC calls.
    services: Vec<String>,
}

/// One binding of a method's HTTP rule.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) http_method: Method,
    pub(crate) template: Template,
    pub(crate) body: RequestBody,
    /// Field of a streamed response that is the file to download.
    pub(crate) response_body: Option<FieldDescriptor>,
    /// Whether a request without a body is accepted although the rule has one.
    body_is_optional: bool,
    /// Declared media types of the file; empty if any is possible.
    media_types: Vec<String>,
    pub(crate) method: MethodDescriptor,
    /// Path of the gRPC call.
    pub(crate) grpc_path: Uri,
    /// Whether this is the rule itself and not one of its `additional_bindings`.
    pub(crate) is_primary: bool,
}

/// Part of a request that its HTTP body contains.
#[derive(Clone, Debug)]
pub(crate) enum RequestBody {
    /// No part: fields that are not in the path are in the query.
    None,
    /// Every field that is not in the path.
    Message,
    /// One field; other fields that are not in the path are in the query.
    Field(FieldDescriptor),
    /// A file, sent as a stream of messages.
    File(Upload),
}

/// Result of looking up a path.
#[derive(Debug)]
pub(crate) enum Match<'r, 'p> {
    /// A route, and the values of its template's variables, still percent-encoded.
    Route(&'r Route, Vec<&'p str>),
    /// The path exists, but only for these HTTP methods.
    OtherMethods(String),
    /// No route has this path.
    None,
}

impl Route {
    /// Fields of the request that are not in the path.
    pub(crate) fn fields_outside_path(&self) -> Vec<FieldDescriptor> {
        let is_in_path = |field: &FieldDescriptor| {
            let path = FieldPath(vec![field.clone()]);
            self.template.variables().any(|variable| *variable == path)
        };
        let request = self.method.input();
        request
            .fields()
            .filter(|field| !is_in_path(field))
            .collect()
    }

    /// Media types of a request's body; empty if there is none or any is accepted.
    pub(crate) fn request_types(&self) -> Vec<String> {
        match &self.body {
            RequestBody::None => Vec::new(),
            RequestBody::Message | RequestBody::Field(_) => vec!["application/json".to_owned()],
            RequestBody::File(_) => self.media_types.clone(),
        }
    }

    /// Media types of the file to download; empty if any is possible.
    pub(crate) fn download_types(&self) -> &[String] {
        &self.media_types
    }

    /// Whether a request must have a body, which may be an empty object.
    pub(crate) fn requires_body(&self) -> bool {
        !matches!(self.body, RequestBody::None) && !self.body_is_optional
    }

    /// Whether a field can be a parameter of the query.
    pub(crate) fn has_parameter(&self, path: &FieldPath) -> bool {
        let is_in_body = match &self.body {
            RequestBody::None => false,
            RequestBody::Message | RequestBody::File(_) => true,
            RequestBody::Field(field) => path.0.first() == Some(field),
        };
        !is_in_body && self.template.variables().all(|variable| variable != path)
    }
}

impl Routes {
    /// Reads the rules of all services.
    ///
    /// # Errors
    /// Fails if a rule is invalid or uses a feature that is not supported.
    pub(crate) fn of_services(
        pool: &DescriptorPool,
        config: &Config,
    ) -> Result<Self, InvalidHttpRule> {
        let invalid = |reason: String| InvalidHttpRule::new("the descriptor pool", reason);
        let pool = pool::with_opaque_json(pool).map_err(|error| invalid(error.to_string()))?;
        let reader = RuleReader {
            http: find_extension(&pool, "google.api.http").map_err(invalid)?,
            optional_body: match &config.optional_body {
                Some(name) => Some(find_extension(&pool, name).map_err(invalid)?),
                None => None,
            },
            config,
        };
        let mut routes = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                routes.extend(reader.routes_of(&method)?);
            }
        }
        Ok(Self {
            routes,
            services: pool
                .services()
                .map(|service| format!("/{}/", service.full_name()))
                .collect(),
        })
    }

    /// Whether a path is that of a gRPC call.
    pub(crate) fn has_service(&self, path: &str) -> bool {
        self.services
            .iter()
            .any(|service| path.starts_with(service.as_str()))
    }

    /// Finds the route for a request.
    pub(crate) fn find<'p>(&self, method: &Method, path: &'p str) -> Match<'_, 'p> {
        let mut others = BTreeSet::new();
        let matching = self
            .routes
            .iter()
            .filter_map(|route| Some((route, route.template.matches(path)?)))
            .inspect(|(route, _)| {
                others.insert(route.http_method.as_str());
            })
            .filter(|(route, _)| route.http_method == method);
        // If several templates match, the one with the most literal segments is used.
        let best = matching.min_by_key(|(_, captures)| captures.len());
        if let Some((route, captures)) = best {
            return Match::Route(route, captures);
        }
        if others.contains("GET") {
            others.insert("HEAD");
        }
        if others.is_empty() {
            return Match::None;
        }
        Match::OtherMethods(others.into_iter().collect::<Vec<_>>().join(", "))
    }
}

fn find_extension(pool: &DescriptorPool, name: &str) -> Result<ExtensionDescriptor, String> {
    pool.get_extension_by_name(name)
        .ok_or_else(|| format!("the extension {name} is not defined"))
}

struct RuleReader<'c> {
    http: ExtensionDescriptor,
    optional_body: Option<ExtensionDescriptor>,
    config: &'c Config,
}

impl RuleReader<'_> {
    fn routes_of(&self, method: &MethodDescriptor) -> Result<Vec<Route>, InvalidHttpRule> {
        let options = method.options();
        if !options.has_extension(&self.http) {
            return Ok(Vec::new());
        }
        let rule = options.get_extension(&self.http);
        let Some(rule) = rule.as_message() else {
            return Err(InvalidHttpRule::new(method.full_name(), "is not a message"));
        };
        let mut routes = vec![self.route(method, rule, true)?];
        let bindings = rule.get_field_by_name("additional_bindings");
        if let Some(Value::List(bindings)) = bindings.as_deref() {
            for binding in bindings.iter().filter_map(Value::as_message) {
                routes.push(self.route(method, binding, false)?);
            }
        }
        Ok(routes)
    }

    fn route(
        &self,
        method: &MethodDescriptor,
        rule: &DynamicMessage,
        is_primary: bool,
    ) -> Result<Route, InvalidHttpRule> {
        let request = method.input();
        let invalid = |reason: &str| InvalidHttpRule::new(method.full_name(), reason);
        let (name, http_method) = METHODS
            .into_iter()
            .find(|(name, _)| rule.has_field_by_name(name))
            .ok_or_else(|| invalid("the rule has no supported HTTP method"))?;
        let template = Template::parse(&text(rule, name), &request).map_err(|why| invalid(&why))?;
        let body = request_body(method, &text(rule, "body")).map_err(invalid)?;
        let service = method.parent_service();
        let grpc_path = format!("/{}/{}", service.full_name(), method.name());
        let media_types = self.config.media_types.get(method.full_name());
        Ok(Route {
            http_method,
            template,
            body,
            response_body: response_body(method, &text(rule, "response_body")).map_err(invalid)?,
            body_is_optional: self.optional_body.as_ref().is_some_and(|extension| {
                let options = method.options();
                let value = options.get_extension(extension);
                value.as_bool().unwrap_or_default()
            }),
            media_types: media_types.cloned().unwrap_or_default(),
            method: method.clone(),
            grpc_path: grpc_path
                .parse()
                .map_err(|_| invalid("the name of the method is not a path"))?,
            is_primary,
        })
    }
}

fn request_body(method: &MethodDescriptor, name: &str) -> Result<RequestBody, &'static str> {
    if method.is_client_streaming() {
        return Upload::of(&method.input(), name).map(RequestBody::File);
    }
    match name {
        "" => Ok(RequestBody::None),
        "*" => Ok(RequestBody::Message),
        name => match method.input().get_field_by_name(name) {
            Some(field) if is_http_body(&field) => {
                Err("a body of type google.api.HttpBody needs a stream of requests")
            }
            Some(field) if is_single_message(&field) => Ok(RequestBody::Field(field)),
            _ => Err("the body is not a message field of the request"),
        },
    }
}

fn response_body(
    method: &MethodDescriptor,
    name: &str,
) -> Result<Option<FieldDescriptor>, &'static str> {
    match (method.is_server_streaming(), name) {
        (false, "") => Ok(None),
        (false, _) => Err("response_body is only supported for streams of responses"),
        (true, name) => {
            let field = method.output().get_field_by_name(name);
            field
                .filter(is_http_body)
                .map(Some)
                .ok_or("the response_body of a stream is not a google.api.HttpBody")
        }
    }
}

/// Whether a field is one `google.api.HttpBody`.
pub(crate) fn is_http_body(field: &FieldDescriptor) -> bool {
    is_single_message(field) && message_of(field).is_some_and(|it| it.full_name() == HTTP_BODY)
}

/// Whether a field is one message: neither repeated nor a map.
pub(crate) fn is_single_message(field: &FieldDescriptor) -> bool {
    message_of(field).is_some() && !field.is_list() && !field.is_map()
}

fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

fn text(rule: &DynamicMessage, name: &str) -> String {
    let value = rule.get_field_by_name(name);
    value
        .as_deref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
