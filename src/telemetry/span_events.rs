use std::fmt;

use opentelemetry::{KeyValue, Value, trace};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{Layer, filter::filter_fn, layer::Context, registry::LookupSpan};

use crate::call;

/// Layer that adds the log lines of a call to its current span.
#[derive(Debug)]
pub(super) struct SpanEvents;

impl SpanEvents {
    /// Creates the layer for the lines of this program that an operator reads.
    pub(super) fn layer<S>() -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let filter = filter_fn(|metadata: &Metadata<'_>| {
            metadata.is_event()
                && *metadata.level() <= Level::INFO
                && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
        });
        Self.with_filter(filter.with_max_level_hint(LevelFilter::INFO))
    }
}

impl<S: Subscriber> Layer<S> for SpanEvents {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        call::add_event(|| {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let level = event.metadata().level().as_str();
            fields.attributes.push(KeyValue::new("level", level));
            trace::Event::new(fields.message, call::now(), fields.attributes, 0)
        });
    }
}

/// Fields of a log line.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(field.name(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field, text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.add(field, value),
            Err(_) => self.add(field, value.to_string()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}
