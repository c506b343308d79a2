//! Tables of results beside the goals, in Markdown.

use std::time::Duration;

use super::load::Measured;

/// Measurement at a number of callers.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) callers: usize,
    pub(super) baseline: Option<Measured>,
    pub(super) measured: Measured,
}

/// What is expected at a number of callers, compared with the baseline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// Lowest ratio of the throughputs.
    Throughput(f64),
    /// Highest ratio of the median durations.
    Median(f64),
    /// Highest ratio of the server's CPU times for a call.
    Cpu(f64),
    /// Lowest number of calls in a second, without a baseline.
    PerSecond(f64),
    /// No call is rejected.
    NoneRejected,
}

/// Result beside its goal.
#[derive(Debug)]
pub(super) struct Verdict {
    path: String,
    callers: usize,
    measure: &'static str,
    measured: f64,
    goal: String,
    is_met: bool,
}

impl Goal {
    fn judge(self, path: &str, at: &Comparison) -> Verdict {
        let (measure, measured, goal, is_met) = match self {
            Self::Throughput(least) => {
                let ratio = at.throughput().unwrap_or(f64::NAN);
                (
                    "throughput, ratio",
                    ratio,
                    format!("≥ {least}"),
                    ratio >= least,
                )
            }
            Self::Median(most) => {
                let ratio = at.median().unwrap_or(f64::NAN);
                ("median, ratio", ratio, format!("≤ {most}"), ratio <= most)
            }
            Self::Cpu(most) => {
                let ratio = at.cpu().unwrap_or(f64::NAN);
                (
                    "server CPU, ratio",
                    ratio,
                    format!("≤ {most}"),
                    ratio <= most,
                )
            }
            Self::PerSecond(least) => {
                let rate = at.measured.sample.per_second();
                ("calls/s", rate, format!("≥ {least}"), rate >= least)
            }
            Self::NoneRejected => {
                let rejected = at.measured.sample.rejected;
                #[expect(clippy::cast_precision_loss, reason = "a few million calls at most")]
                (
                    "rejected calls",
                    rejected as f64,
                    "0".to_owned(),
                    rejected == 0,
                )
            }
        };
        Verdict {
            path: path.to_owned(),
            callers: at.callers,
            measure,
            measured,
            goal,
            is_met,
        }
    }
}

impl Comparison {
    fn throughput(&self) -> Option<f64> {
        let baseline = self.baseline.as_ref()?;
        Some(self.measured.sample.per_second() / baseline.sample.per_second())
    }

    fn median(&self) -> Option<f64> {
        let baseline = self.baseline.as_ref()?;
        ratio(self.measured.sample.median()?, baseline.sample.median()?)
    }

    fn cpu(&self) -> Option<f64> {
        let baseline = self.baseline.as_ref()?;
        ratio(
            self.measured.cpu_per_call().server,
            baseline.cpu_per_call().server,
        )
    }

    fn cells(&self) -> Vec<String> {
        let measured = Some(&self.measured);
        let baseline = self.baseline.as_ref();
        let rate = |of: &Measured| format!("{:.0}", of.sample.per_second());
        let median = |of: &Measured| of.sample.median().map_or_else(dash, micros);
        let server = |of: &Measured| micros(of.cpu_per_call().server);
        let postgres = |of: &Measured| micros(of.cpu_per_call().postgres);
        let redis = |of: &Measured| micros(of.cpu_per_call().redis);
        let cell =
            |of: Option<&Measured>, text: &dyn Fn(&Measured) -> String| of.map_or_else(dash, text);
        vec![
            self.callers.to_string(),
            cell(baseline, &rate),
            cell(measured, &rate),
            two_digits(self.throughput()),
            cell(baseline, &median),
            cell(measured, &median),
            two_digits(self.median()),
            cell(baseline, &server),
            cell(measured, &server),
            two_digits(self.cpu()),
            cell(baseline, &postgres),
            cell(measured, &postgres),
            cell(baseline, &redis),
            cell(measured, &redis),
            self.measured.sample.rejected.to_string(),
        ]
    }
}

/// Prints the results of a path, and returns them beside its goals.
pub(super) fn report(
    path: &str,
    baseline: &str,
    goals: &[(usize, Goal)],
    comparisons: &[Comparison],
) -> Vec<Verdict> {
    println!("\n### {path}\n\nBaseline: {baseline}.\n");
    let columns = [
        "callers",
        "base/s",
        "calls/s",
        "ratio",
        "base p50",
        "p50",
        "ratio",
        "base CPU",
        "CPU",
        "ratio",
        "base PG",
        "PG",
        "base Redis",
        "Redis",
        "rejected",
    ];
    print(&columns, comparisons.iter().map(Comparison::cells));
    let verdicts = goals.iter().filter_map(|(callers, goal)| {
        let at = comparisons.iter().find(|at| at.callers == *callers)?;
        Some(goal.judge(path, at))
    });
    verdicts.collect()
}

/// Prints all results that have a goal.
pub(super) fn summary(verdicts: &[Verdict]) {
    println!("\n### Goals\n");
    let columns = ["path", "callers", "measure", "measured", "goal", "met"];
    let rows = verdicts.iter().map(|verdict| {
        let digits = if verdict.measured < 100.0 && verdict.measure.ends_with("ratio") {
            2
        } else {
            0
        };
        vec![
            verdict.path.clone(),
            verdict.callers.to_string(),
            verdict.measure.to_owned(),
            format!("{:.digits$}", verdict.measured),
            verdict.goal.clone(),
            if verdict.is_met { "yes" } else { "no" }.to_owned(),
        ]
    });
    print(&columns, rows);
}

/// Prints a table whose columns are as wide as their widest cell.
pub(super) fn print(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let heading = columns.iter().map(|column| (*column).to_owned()).collect();
    let mut lines: Vec<Vec<String>> = vec![heading];
    lines.extend(rows);
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let rule = widths
        .iter()
        .map(|width| "-".repeat(width - 1) + ":")
        .collect();
    lines.insert(1, rule);
    for line in lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:>width$}"))
            .collect();
        println!("| {} |", cells.join(" | "));
    }
}

fn ratio(measured: Duration, baseline: Duration) -> Option<f64> {
    (!baseline.is_zero()).then(|| measured.as_secs_f64() / baseline.as_secs_f64())
}

pub(super) fn two_digits(ratio: Option<f64>) -> String {
    ratio.map_or_else(dash, |ratio| format!("{ratio:.2}"))
}

pub(super) fn micros(time: Duration) -> String {
    if time.is_zero() {
        return dash();
    }
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

pub(super) fn dash() -> String {
    "–".to_owned()
}
