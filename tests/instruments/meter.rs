//! A meter provider for one test at a time, because a process has one.

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

static LOCK: Mutex<()> = Mutex::const_new(());

/// Meter provider that collects the measurements of instruments created after its
/// start.
pub(crate) struct Meter {
    provider: SdkMeterProvider,
    exporter: MemoryExporter,
    _lock: MutexGuard<'static, ()>,
}

/// Data point of one instrument with one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Number of recorded values of a histogram; 1 for other instruments.
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Meter {
    /// Waits until no other test uses the meter provider, and replaces it.
    pub(crate) async fn start() -> Self {
        let lock = LOCK.lock().await;
        let exporter = MemoryExporter::default();
        // Measurements are collected by `points`, not by the interval.
        let reader = PeriodicReader::builder(exporter.clone())
            .with_interval(Duration::from_hours(1))
            .build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        global::set_meter_provider(provider.clone());
        Self {
            provider,
            exporter,
            _lock: lock,
        }
    }

    /// Current data points of an instrument.
    pub(crate) fn points(&self, name: &str) -> Vec<Point> {
        self.provider.force_flush().unwrap();
        let points = self.exporter.0.lock().unwrap();
        points
            .iter()
            .filter(|point| point.name == name)
            .cloned()
            .collect()
    }

    /// Sums of an instrument with exactly one label that are not 0, by the label's value. Counters are
    /// exported as 0 from the start.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let points = self.points(name).into_iter();
        points
            .filter(|point| point.sum != 0.0)
            .map(|mut point| {
                let value = point.labels.remove(label).unwrap();
                assert!(point.labels.is_empty(), "{point:?}");
                (value, point.sum)
            })
            .collect()
    }

    /// Value of an instrument without labels. None if nothing was recorded.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let points = self.points(name);
        assert!(points.len() <= 1, "{points:?}");
        points.first().map(|point| {
            assert!(point.labels.is_empty(), "{point:?}");
            point.sum
        })
    }
}

/// Expected result of [`Meter::by`].
pub(crate) fn values<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, f64> {
    pairs
        .map(|(label, value)| (label.to_owned(), value.into()))
        .into()
}

#[derive(Clone, Default)]
struct MemoryExporter(Arc<StdMutex<Vec<Point>>>);

impl PushMetricExporter for MemoryExporter {
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

#[expect(clippy::cast_precision_loss, reason = "tests record small numbers")]
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
        MetricData::ExponentialHistogram(_) => panic!("unexpected exponential histogram"),
    }
}
