//! Authentication of the callers of every call except health checks.
//!
//! There are two steps, because a rejection must be observed like any other response:
//! [`Authenticator`] runs before all layers. It authenticates the caller, stores the result
//! in the request and removes the credential. [`Admission`], behind the layers that observe
//! calls and translate REST, rejects the request by that result. A request without a result
//! is rejected. Neither reads the body.

use std::sync::Arc;

use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower_http::validate_request::ValidateRequest;

use super::status;
use crate::{
    access::{AccessDenied, AccessPolicy, Caller, Peer},
    fairness::ShareKey,
    transport::Exchange,
};

/// Result of authenticating the caller of a request, an extension of the request.
#[derive(Clone, Debug)]
struct Authentication(Result<Caller, AccessDenied>);

/// Returns the caller of a request. `None` if the request will be rejected.
pub(super) fn caller<B>(request: &Request<B>) -> Option<&Caller> {
    let authentication = request.extensions().get::<Authentication>()?;
    authentication.0.as_ref().ok()
}

/// The caller of a request.
///
/// # Errors
/// Fails if the caller is rejected.
pub(super) fn check<B>(request: &Request<B>) -> Result<&Caller, Status> {
    match request.extensions().get::<Authentication>() {
        Some(Authentication(Ok(caller))) => Ok(caller),
        Some(Authentication(Err(denied))) => Err(status::access_denied(*denied)),
        None => Err(status::internal()),
    }
}

/// Rejects a call of a method for operators by another caller. A handler calls it first, so that
/// nobody else learns anything from a request.
///
/// # Errors
/// Fails if the caller is no operator.
pub(super) fn check_operator<T>(request: &tonic::Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Authentication>() {
        Some(Authentication(Ok(caller))) if caller.is_operator() => Ok(()),
        _ => Err(status::operators_only()),
    }
}

/// Authenticates callers.
#[derive(Clone, Debug)]
pub struct Authenticator(Arc<AccessPolicy>);

impl Authenticator {
    /// Authenticates by `policy`.
    pub fn new(policy: Arc<AccessPolicy>) -> Self {
        Self(policy)
    }

    /// Stores the result of the authentication in the request, and removes the credential.
    pub(super) fn authenticate<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Some(peer) = request.extensions().get::<Peer>() {
            let result = self.0.authenticate(peer, request.headers());
            if let (Ok(caller), Some(exchange)) = (&result, Exchange::of(&request))
                && let Some(name) = caller.name()
            {
                exchange.set_key(ShareKey::new(name.as_str()));
            }
            request.extensions_mut().insert(Authentication(result));
        }
        request.headers_mut().remove(AUTHORIZATION);
        request
    }
}

/// Rejects requests by the result of their authentication, and limits the rate of each
/// caller.
#[derive(Clone, Debug)]
pub struct Admission(Arc<AccessPolicy>);

impl Admission {
    /// Limits the rate of calls by `policy`.
    pub fn new(policy: Arc<AccessPolicy>) -> Self {
        Self(policy)
    }
}

impl ValidateRequest<Body> for Admission {
    type ResponseBody = Body;

    fn validate(&mut self, request: &mut Request<Body>) -> Result<(), Response<Body>> {
        if request.uri().path().starts_with("/grpc.health.") {
            return Ok(());
        }
        check(request)
            .and_then(|caller| {
                let counted = self.0.check_rate(caller);
                counted.map_err(|exceeded| status::rate_limit_exceeded(&exceeded))
            })
            .map_err(Status::into_http)
    }
}
