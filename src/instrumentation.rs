//! The OpenTelemetry instrumentation scope of this program.
//!
//! Modules create their instruments with [`meter`]. Where the measurements are
//! exported to is decided in `telemetry` alone.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Meter},
};

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

/// Exports a counter as 0 from the start: the rate of a series that appears later misses its first
/// increment.
pub fn export_zero(counter: &Counter<u64>, attributes: &[KeyValue]) {
    counter.add(0, attributes);
}
