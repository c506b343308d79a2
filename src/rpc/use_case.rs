use std::{error::Error as _, future::Future};

use tonic::Status;

use crate::{
    call::{Scope, Span},
    log_throttle::LogThrottle,
    memory::Error,
};

/// During an outage every call fails with the same causes.
static FAILURE_LOG: LogThrottle = LogThrottle::new();

/// Runs a use case in a new span. A failure of the server is logged here, with its causes, the
/// first one of a cause at once and later ones once a minute. An error that the caller has
/// caused is not logged.
pub(super) async fn use_case<T>(
    name: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Status> {
    let mut span = Span::of_use_case(name);
    let outcome = span.run(work).await;
    outcome.map_err(|error| failed(&mut span, error))
}

/// Converts the error of a use case that ran in `span`, and logs it like [`use_case`].
pub(super) fn failed(span: &mut Span, error: Error) -> Status {
    if let Some(level) = severity(&error) {
        span.set_error(|| error.to_string());
        log(span.scope(), level, &chain(&error));
    }
    error.into()
}

fn log(scope: Option<Scope>, level: Severity, error: &str) {
    let Some(suppressed) = FAILURE_LOG.admit(error) else {
        return;
    };
    let suppressed = suppressed.count();
    let write = || match level {
        Severity::Warning => tracing::warn!(error, suppressed, "call failed"),
        Severity::Bug => tracing::error!(error, suppressed, "call failed"),
    };
    match scope {
        Some(scope) => scope.run_sync(write),
        None => write(),
    }
}

#[derive(Clone, Copy)]
enum Severity {
    Warning,
    Bug,
}

fn severity(error: &Error) -> Option<Severity> {
    match error {
        Error::Unavailable(_) | Error::StoreFull(_) | Error::OutcomeUnknown { .. } => {
            Some(Severity::Warning)
        }
        Error::Internal(_) => Some(Severity::Bug),
        _ => None,
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
