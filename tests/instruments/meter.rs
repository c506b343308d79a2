//! A meter for one test at a time, since a process has one.

use std::{
    collections::BTreeMap,
    future,
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        PeriodicReader, SdkMeterProvider, Temporality,
        data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics},
        exporter::PushMetricExporter,
    },
};
use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// All that is measured from its start on, by what is made from its start on.
pub(crate) struct Meter {
    provider: SdkMeterProvider,
    exporter: Memory,
    _turn: MutexGuard<'static, ()>,
}

/// What one instrument says under one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// How many values there were; 1 unless they make a histogram.
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Meter {
    /// Waits until no other test measures.
    pub(crate) async fn start() -> Self {
        let turn = TURN.lock().await;
        let exporter = Memory::default();
        // It is read when the test asks, not by the clock.
        let reader = PeriodicReader::builder(exporter.clone())
            .with_interval(Duration::from_hours(1))
            .build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        global::set_meter_provider(provider.clone());
        Self {
            provider,
            exporter,
            _turn: turn,
        }
    }

    /// What an instrument says now.
    pub(crate) fn points(&self, name: &str) -> Vec<Point> {
        self.provider.force_flush().unwrap();
        let points = self.exporter.0.lock().unwrap();
        points
            .iter()
            .filter(|point| point.name == name)
            .cloned()
            .collect()
    }

    /// The sums that an instrument with one label has, by the label's value.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let points = self.points(name).into_iter();
        points
            .map(|mut point| {
                let value = point.labels.remove(label).unwrap();
                assert!(point.labels.is_empty(), "{point:?}");
                (value, point.sum)
            })
            .collect()
    }

    /// What an instrument without labels says.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let points = self.points(name);
        assert!(points.len() <= 1, "{points:?}");
        points.first().map(|point| {
            assert!(point.labels.is_empty(), "{point:?}");
            point.sum
        })
    }
}

/// Values by a label's value, for comparison.
pub(crate) fn values<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, f64> {
    pairs
        .map(|(label, value)| (label.to_owned(), value.into()))
        .into()
}

#[derive(Clone, Default)]
struct Memory(Arc<StdMutex<Vec<Point>>>);

impl PushMetricExporter for Memory {
    fn export(&self, metrics: &ResourceMetrics) -> impl Future<Output = OTelSdkResult> + Send {
        *self.0.lock().unwrap() = flatten(metrics);
        future::ready(Ok(()))
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[expect(clippy::cast_precision_loss, reason = "tests count to ten")]
fn flatten(metrics: &ResourceMetrics) -> Vec<Point> {
    let mut points = Vec::new();
    for metric in metrics.scope_metrics().flat_map(ScopeMetrics::metrics) {
        assert!(!metric.description().is_empty(), "{}", metric.name());
        let mut add = |labels, count, sum| {
            points.push(Point {
                name: metric.name().to_owned(),
                unit: metric.unit().to_owned(),
                labels,
                count,
                sum,
            });
        };
        match metric.data() {
            AggregatedMetrics::F64(data) => each(data, |value| value, &mut add),
            AggregatedMetrics::U64(data) => each(data, |value| value as f64, &mut add),
            AggregatedMetrics::I64(data) => each(data, |value| value as f64, &mut add),
        }
    }
    points
}

type Labels = BTreeMap<String, String>;

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> Labels {
    attributes
        .map(|label| (label.key.to_string(), label.value.to_string()))
        .collect()
}

fn each<T: Copy>(
    data: &MetricData<T>,
    number: impl Fn(T) -> f64,
    add: &mut dyn FnMut(Labels, u64, f64),
) {
    match data {
        MetricData::Gauge(gauge) => {
            for point in gauge.data_points() {
                add(labels(point.attributes()), 1, number(point.value()));
            }
        }
        MetricData::Sum(sum) => {
            for point in sum.data_points() {
                add(labels(point.attributes()), 1, number(point.value()));
            }
        }
        MetricData::Histogram(histogram) => {
            for point in histogram.data_points() {
                add(
                    labels(point.attributes()),
                    point.count(),
                    number(point.sum()),
                );
            }
        }
        MetricData::ExponentialHistogram(_) => panic!("nobody asked for one"),
    }
}
