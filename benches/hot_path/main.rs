//! Latency of calls, measured on the release binary over gRPC.
//!
//! A single time on a shared machine is not meaningful. Variants are therefore
//! measured in one run, call by call in alternating order (A B B A …), and compared
//! by the ratio, or the difference, of their medians. No time makes the benchmark
//! fail.
//!
//! - `throughput`: calls per second of 1 to 256 callers and the CPU time that a call takes, compared
//!   with baselines and goals; docs/BENCHMARKS.md describes it. Its arguments are paths:
//!   `SECTION='throughput reads saves'`.
//! - `langgraph`: turns of a LangGraph agent and the size of its thread, compared with
//!   `AsyncPostgresSaver`; docs/BENCHMARKS.md describes it.
//! - `growth`: calls on a conversation of 1,000,000 messages, compared with one of
//!   10, which grows to some hundred messages during the run.
//! - `histories`: the cost of token budgets, tool calls, pinned messages, compaction
//!   and token counts.
//! - `window`: reads from the recent window, from the store, and gRPC alone.
//! - `steps`: the additional cost of a session, and of Redis.
//! - `redis`: calls while Redis refuses connections or is frozen, compared with a
//!   sidecar without Redis.
//! - `store`: time until a call fails while PostgreSQL is unavailable.
//! - `search`: searching a user's messages among 1,000,000 of 10,000 users, and the
//!   additional cost of a save for the search documents.
//! - `searches`: queries of several kinds in 100,000 messages of one user.
//! - `telemetry`: the cost of tracing, also with an unavailable collector.
//! - `process`: startup time, and memory when idle and after 10,000 turns.
//! - `attacks`: turns of a caller while others attack the sidecar, and the memory that it takes. Their
//!   p99 is compared with the mean of those of an idle sidecar before and after. The environment
//!   variable `ATTACK` selects the attacks whose names contain it.
//! - `baseline`: the calls of a turn on this build, compared with those on the program
//!   that the environment variable `BASELINE` names; skipped without it.
//!
//! `make bench` runs all sections, `make bench SECTION=window` one, and
//! `SECTION='window 10000'` runs it long enough to be profiled with `perf`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, fails by panicking, and is its own composition root"
)]

mod attacks;
mod baseline;
mod compare;
mod conversation;
mod costs;
mod histories;
mod outages;
mod process;
mod search;
mod searches;
mod telemetry;
mod throughput;

use std::process::ExitCode;

use self::throughput::{SERVE, serve};

const SECTIONS: [&str; 14] = [
    "throughput",
    "langgraph",
    "growth",
    "histories",
    "window",
    "steps",
    "redis",
    "store",
    "search",
    "searches",
    "telemetry",
    "process",
    "attacks",
    "baseline",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((SERVE, arguments)) = arguments
        .split_first()
        .map(|(first, others)| (first.as_str(), others))
    {
        return serve(arguments);
    }
    // Cargo adds the option `--bench`.
    let mut args = arguments.into_iter().filter(|arg| !arg.starts_with('-'));
    let chosen = args.next();
    let details: Vec<String> = args.collect();
    if let Some(name) = &chosen
        && !SECTIONS.contains(&name.as_str())
    {
        eprintln!(
            "unknown section {name}; valid sections: {}",
            SECTIONS.join(", ")
        );
        return ExitCode::from(2);
    }
    let rounds = match details.first() {
        Some(rounds) if chosen.as_deref() != Some("throughput") => rounds.parse().unwrap(),
        _ => 300,
    };
    // One thread, so that the sidecar can use the other processors.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for section in SECTIONS {
        if chosen.as_deref().is_none_or(|chosen| chosen == section) {
            match section {
                "throughput" => runtime.block_on(throughput::throughput(&details)),
                "langgraph" => runtime.block_on(throughput::langgraph()),
                "growth" => runtime.block_on(costs::growth(rounds)),
                "histories" => runtime.block_on(histories::histories(rounds)),
                "window" => runtime.block_on(costs::window(rounds)),
                "steps" => runtime.block_on(costs::steps(rounds)),
                "redis" => runtime.block_on(outages::redis()),
                "store" => runtime.block_on(outages::store()),
                "search" => runtime.block_on(search::search(rounds)),
                "searches" => runtime.block_on(searches::searches(rounds)),
                "telemetry" => runtime.block_on(telemetry::telemetry(rounds)),
                "process" => runtime.block_on(process::process()),
                "attacks" => runtime.block_on(attacks::attacks(rounds)),
                _ => runtime.block_on(baseline::baseline(rounds)),
            }
        }
    }
    ExitCode::SUCCESS
}
