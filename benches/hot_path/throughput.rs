//! Throughput of the hot paths under a closed loop of callers, and the CPU time of each server for
//! a call, compared with baselines in the same run.

mod bare;
mod client;
mod cpu;
mod langgraph;
mod load;
mod pgbench;
mod python;
mod reads;
mod saves;
mod table;
mod texts;
mod turns;

use test_support::sidecar::Form;

pub(crate) use self::{
    bare::{SERVE, serve},
    langgraph::langgraph,
};
use self::{
    load::{Load, alternate},
    pgbench::checkpoint,
    table::{Comparison, Goal, Verdict, report, summary},
};

const CALLERS: [usize; 4] = [1, 16, 64, 256];
const PATHS: [&str; 6] = [
    "reads",
    "embedded-reads",
    "saves",
    "embedded-saves",
    "traces",
    "python",
];

/// Measures the paths that are named, or all.
pub(crate) async fn throughput(paths: &[String]) {
    for path in paths {
        assert!(
            PATHS.contains(&path.as_str()),
            "unknown path {path}; valid paths: {}",
            PATHS.join(", ")
        );
    }
    let mut verdicts = Vec::new();
    for path in PATHS {
        if paths.is_empty() || paths.iter().any(|chosen| chosen == path) {
            verdicts.extend(match path {
                "reads" => reads::hits().await,
                "embedded-reads" => reads::embedded().await,
                "saves" => saves::servers().await,
                "embedded-saves" => saves::embedded().await,
                "traces" => reads::traced().await,
                _ => turns::turns().await,
            });
        }
    }
    summary(&verdicts);
}

/// A path, and what is expected of it.
struct Path {
    name: &'static str,
    goals: &'static [(usize, Goal)],
}

/// Measures the loads of paths beside the first one, which is their baseline, and prints the
/// results.
async fn compare(
    baseline: &str,
    paths: &[Path],
    callers: &[usize],
    form: &Form,
    loads: &mut [Load],
) -> Vec<Verdict> {
    let mut comparisons: Vec<Vec<Comparison>> = paths.iter().map(|_| Vec::new()).collect();
    for &callers in callers {
        if let Form::Servers { database_url, .. } = form {
            checkpoint(database_url).await;
        }
        let measured = alternate(callers, loads).await;
        let (baseline, others) = measured.split_first().unwrap();
        for (comparisons, measured) in comparisons.iter_mut().zip(others) {
            comparisons.push(Comparison {
                callers,
                baseline: Some(baseline.clone()),
                measured: measured.clone(),
            });
        }
    }
    let reports = paths
        .iter()
        .zip(&comparisons)
        .flat_map(|(path, comparisons)| report(path.name, baseline, path.goals, comparisons));
    reports.collect()
}
