//! The OpenTelemetry instrumentation scope of this program.
//!
//! Modules create their instruments with [`meter`]. Where the measurements are
//! exported to is decided in `telemetry` alone.

use opentelemetry::{global, metrics::Meter};

/// Name of the instrumentation scope, shared by the meter and the tracer.
pub const SCOPE: &str = "conversation_memory";

/// Returns the meter of the global provider.
///
/// An instrument reports to the provider that is installed when its meter is
/// obtained, so instruments are created after `Telemetry::start`.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that names the scope"
)]
pub fn meter() -> Meter {
    global::meter(SCOPE)
}
