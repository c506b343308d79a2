use std::collections::BTreeSet;

use http::{Method, Uri};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};

use super::{
    download, json,
    template::{FieldPath, Template},
    upload::Upload,
};
use crate::proto::POOL;

/// Why the contract cannot be served over REST.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub(super) String);

/// The contract as its annotations have it.
#[derive(Debug)]
pub(super) struct Contract {
    /// The routes, in the order of the proto files.
    pub(super) routes: Vec<Route>,
    services: Vec<String>,
}

/// A way to call an RPC over REST.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Method,
    pub(super) template: Template,
    pub(super) body: RequestBody,
    /// The RPC.
    pub(super) method: MethodDescriptor,
    /// Its path in gRPC.
    pub(super) rpc: Uri,
    /// Which of the RPC's routes it is; the first one is 0.
    pub(super) position: usize,
}

impl Route {
    /// The fields that the path leaves to a body.
    pub(super) fn rest(&self) -> Vec<FieldDescriptor> {
        let in_path = |field: &FieldDescriptor| {
            let path = FieldPath(vec![field.clone()]);
            self.template.variables().any(|variable| *variable == path)
        };
        let request = self.method.input();
        request.fields().filter(|field| !in_path(field)).collect()
    }

    /// The media types that a request's body can have.
    pub(super) fn body_types(&self) -> Vec<String> {
        match &self.body {
            RequestBody::Nothing => Vec::new(),
            RequestBody::Rest | RequestBody::Field(_) => vec!["application/json".to_owned()],
            RequestBody::File(_) => download::media_types(&self.method.input()),
        }
    }

    /// Whether a request must have a body, if only an empty object: what is not set
    /// may mean all of something, and a body is easily lost. A claim of whose something is
    /// narrows nothing.
    pub(super) fn needs_body(&self) -> bool {
        match &self.body {
            RequestBody::Nothing => false,
            RequestBody::Rest => self.rest().iter().any(|field| field.name() != "user_id"),
            RequestBody::Field(_) | RequestBody::File(_) => true,
        }
    }
}

/// What a request's body holds.
#[derive(Clone, Debug)]
pub(super) enum RequestBody {
    /// Nothing: what the path leaves is in the query.
    Nothing,
    /// Whatever the path leaves.
    Rest,
    /// One field; what it and the path leave is in the query.
    Field(FieldDescriptor),
    /// A file: whatever comes before it is in the query.
    File(Upload),
}

/// What a path and a method lead to.
#[derive(Debug)]
pub(super) enum Found<'c, 'p> {
    /// A route, and what the path says of its variables.
    Route(&'c Route, Vec<&'p str>),
    /// Only routes of these other methods.
    OtherMethods(String),
    Nothing,
}

impl Contract {
    pub(super) fn load() -> Result<Self, Unfit> {
        let pool = POOL.as_ref().map_err(|error| Unfit(error.to_string()))?;
        let mut routes = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                routes.extend(routes_of(&method)?);
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

    /// Whether a path is one of gRPC.
    pub(super) fn has_service(&self, path: &str) -> bool {
        self.services
            .iter()
            .any(|service| path.starts_with(service.as_str()))
    }

    pub(super) fn find<'p>(&self, method: &Method, path: &'p str) -> Found<'_, 'p> {
        let mut others = BTreeSet::new();
        let matching = self
            .routes
            .iter()
            .filter_map(|route| Some((route, route.template.matches(path)?)))
            .inspect(|(route, _)| {
                others.insert(route.verb.as_str());
            })
            .filter(|(route, _)| route.verb == method);
        // The most literal one, should more than one match.
        let best = matching.min_by_key(|(_, captures)| captures.len());
        if let Some((route, captures)) = best {
            return Found::Route(route, captures);
        }
        if others.contains("GET") {
            others.insert("HEAD");
        }
        if others.is_empty() {
            return Found::Nothing;
        }
        Found::OtherMethods(others.into_iter().collect::<Vec<_>>().join(", "))
    }
}

fn routes_of(method: &MethodDescriptor) -> Result<Vec<Route>, Unfit> {
    let pool = method.parent_pool();
    let Some(extension) = pool.get_extension_by_name("google.api.http") else {
        return Err(Unfit("the contract has no annotations".to_owned()));
    };
    let options = method.options();
    if !options.has_extension(&extension) {
        return Ok(Vec::new());
    }
    let unfit = |why: String| Unfit(format!("{}: {why}", method.full_name()));
    json::check(method).map_err(unfit)?;
    let rule = options.get_extension(&extension);
    let Some(rule) = rule.as_message() else {
        return Err(unfit("its annotation is none".to_owned()));
    };
    let mut routes = vec![route(method, rule, 0)?];
    if let Some(Value::List(bindings)) = rule.get_field_by_name("additional_bindings").as_deref() {
        for binding in bindings.iter().filter_map(Value::as_message) {
            routes.push(route(method, binding, routes.len())?);
        }
    }
    Ok(routes)
}

fn route(
    method: &MethodDescriptor,
    rule: &DynamicMessage,
    position: usize,
) -> Result<Route, Unfit> {
    let request = method.input();
    let unfit = |why: &str| Unfit(format!("{}: {why}", method.full_name()));
    let verbs = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let (name, verb) = verbs
        .into_iter()
        .find(|(name, _)| rule.has_field_by_name(name))
        .ok_or_else(|| unfit("its annotation names no method of HTTP"))?;
    if !text(rule, "response_body").is_empty() {
        return Err(unfit("response_body is not served"));
    }
    let body = match text(rule, "body").as_str() {
        name if method.is_client_streaming() => {
            RequestBody::File(Upload::of(method, name).map_err(unfit)?)
        }
        "" => RequestBody::Nothing,
        "*" => RequestBody::Rest,
        name => RequestBody::Field(
            body_field(&request, name).ok_or_else(|| unfit("its body is no message's field"))?,
        ),
    };
    let rpc = format!("/{}/{}", method.parent_service().full_name(), method.name());
    Ok(Route {
        verb,
        template: Template::parse(&text(rule, name), &request)?,
        body,
        method: method.clone(),
        rpc: rpc.parse().map_err(|_| unfit("its name is no path"))?,
        position,
    })
}

fn body_field(request: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    let FieldPath(fields) = FieldPath::find(request, name)?;
    let [field] = fields.as_slice() else {
        return None;
    };
    let is_message = matches!(field.kind(), Kind::Message(_)) && !field.is_list();
    (is_message && !field.is_map()).then(|| field.clone())
}

fn text(rule: &DynamicMessage, name: &str) -> String {
    let value = rule.get_field_by_name(name);
    value
        .as_deref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
