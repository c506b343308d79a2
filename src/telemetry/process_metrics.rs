use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use prometheus::{
    Counter, Gauge, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Kernel ticks per second in `/proc`, which Linux defines as 100 on every supported platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// Metrics of the process under the names that all Prometheus clients use, read from `/proc` at
/// each scrape. Values that cannot be read are absent, so that other systems than Linux have none.
struct ProcessMetrics {
    cpu_seconds: Mutex<Counter>,
    gauges: Vec<ProcessGauge>,
}

/// A gauge and the function that reads its value.
struct ProcessGauge {
    gauge: Gauge,
    read: Reading,
}

/// Function that reads the value of a gauge; `None` where the system does not provide it.
type Reading = fn() -> Option<f64>;

/// Name, description and source of each gauge.
const GAUGES: [(&str, &str, Reading); 6] = [
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        || status_number("VmRSS:").map(|kib| kib * 1024.0),
    ),
    (
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        || status_number("VmSize:").map(|kib| kib * 1024.0),
    ),
    (
        "process_threads",
        "Number of operating system threads in the process.",
        || status_number("Threads:"),
    ),
    (
        "process_open_fds",
        "Number of open file descriptors.",
        open_file_descriptors,
    ),
    (
        "process_max_fds",
        "Maximum number of open file descriptors.",
        max_file_descriptors,
    ),
    (
        "process_start_time_seconds",
        "Start time of the process since the Unix epoch in seconds.",
        start_seconds,
    ),
];

/// Adds the metrics of this process to a registry.
///
/// # Errors
/// Fails if a metric with one of the names is registered.
pub(super) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    let cpu_seconds = Counter::new(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
    )?;
    let gauges = GAUGES.into_iter().map(|(name, description, read)| {
        let gauge = Gauge::new(name, description)?;
        Ok(ProcessGauge { gauge, read })
    });
    registry.register(Box::new(ProcessMetrics {
        cpu_seconds: Mutex::new(cpu_seconds),
        gauges: gauges.collect::<Result<_, prometheus::Error>>()?,
    }))
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        // The description of the counter is behind its lock. One description is sufficient to
        // identify a collector.
        self.gauges
            .iter()
            .flat_map(|one| one.gauge.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::with_capacity(GAUGES.len() + 1);
        if let Some(seconds) = cpu_seconds() {
            let counter = self.cpu_seconds.lock();
            // Scrapes that overlap must not set the value of each other's counter.
            let counter = counter.unwrap_or_else(PoisonError::into_inner);
            counter.reset();
            counter.inc_by(seconds);
            families.extend(counter.collect());
        }
        for ProcessGauge { gauge, read } in &self.gauges {
            if let Some(value) = read() {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

/// Returns the number after a name in `/proc/self/status`.
fn status_number(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_file_descriptors() -> Option<f64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // Without the descriptor of the directory that was just read.
    Some(f64::from(u32::try_from(open).ok()?.saturating_sub(1)))
}

fn max_file_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let name = "Max open files";
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    // "unlimited" is not a number, and then the metric is absent.
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_ticks(14)? + stat_ticks(15)?) / TICKS_PER_SECOND)
}

fn start_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + stat_ticks(22)? / TICKS_PER_SECOND)
}

/// Returns a field of `/proc/self/stat` by its number in the manual page proc(5).
fn stat_ticks(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name of the program in parentheses, can contain spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn value_of(registry: &Registry, name: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metric = family.unwrap().get_metric()[0].clone();
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    #[test]
    fn the_metrics_describe_this_process() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let at_least = [
            ("process_resident_memory_bytes", 1e6),
            ("process_virtual_memory_bytes", 1e6),
            ("process_threads", 1.0),
            ("process_open_fds", 3.0),
            ("process_max_fds", 3.0),
            ("process_start_time_seconds", 1.7e9),
        ];
        for (name, least) in at_least {
            let value = value_of(&registry, name);
            assert!(value >= least, "{name}: {value}");
        }
        let open = value_of(&registry, "process_open_fds");
        let files = [fs::File::open("/dev/null"), fs::File::open("/dev/null")];
        assert!(value_of(&registry, "process_open_fds") >= open + 1.0);
        drop(files);
    }

    #[test]
    fn processor_time_grows() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let before = value_of(&registry, "process_cpu_seconds_total");
        while value_of(&registry, "process_cpu_seconds_total") < before + 0.05 {
            std::hint::spin_loop();
        }
    }
}
