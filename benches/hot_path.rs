//! What a turn costs, measured on the release binary over gRPC.
//!
//! A single time on a shared machine says little. So whatever is compared is
//! measured side by side in one run, call by call in turns (A B B A …), and what
//! counts is the ratio, or the difference, of the medians. It prints and never
//! fails on a time.
//!
//! - `growth`: a conversation of 1,000,000 messages costs what one of 10 does.
//!   The smaller one grows to some hundred messages on the way.
//! - `window`: what the recent window saves, and what gRPC alone costs.
//! - `steps`: what a session, and Redis, cost a call.
//! - `redis`: how much slower calls are when Redis is refused or frozen, than
//!   those of a sidecar that has none.
//! - `store`: how long until a call is refused when PostgreSQL is away.
//! - `search`: a search of a user's messages among 1,000,000 of 10,000 users, and
//!   what it costs a save that they can be searched.
//! - `telemetry`: what tracing costs, and a collector that is away.
//! - `process`: the time to start, and memory, idle and after 10,000 turns.
//!
//! `make bench` runs all of them, `make bench SECTION=window` one, and
//! `SECTION='window 10000'` that one for long enough to look at it with `perf`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, fails by panicking, and is its own composition root"
)]

#[path = "hot_path/compare.rs"]
mod compare;
#[path = "hot_path/conversation.rs"]
mod conversation;
#[path = "hot_path/costs.rs"]
mod costs;
#[path = "hot_path/outages.rs"]
mod outages;
#[path = "hot_path/process.rs"]
mod process;
#[path = "hot_path/search.rs"]
mod search;
#[path = "hot_path/telemetry.rs"]
mod telemetry;

use std::process::ExitCode;

const SECTIONS: [&str; 8] = [
    "growth",
    "window",
    "steps",
    "redis",
    "store",
    "search",
    "telemetry",
    "process",
];

fn main() -> ExitCode {
    // Cargo adds an option of its own.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let chosen = args.next();
    let rounds = args.next().map_or(300, |rounds| rounds.parse().unwrap());
    if let Some(name) = &chosen
        && !SECTIONS.contains(&name.as_str())
    {
        eprintln!("there is no section {name:?}; there are {SECTIONS:?}");
        return ExitCode::from(2);
    }
    // One thread, so that the sidecar has the other processors.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for section in SECTIONS {
        if chosen.as_deref().is_none_or(|chosen| chosen == section) {
            match section {
                "growth" => runtime.block_on(costs::growth(rounds)),
                "window" => runtime.block_on(costs::window(rounds)),
                "steps" => runtime.block_on(costs::steps(rounds)),
                "redis" => runtime.block_on(outages::redis()),
                "store" => runtime.block_on(outages::store()),
                "search" => runtime.block_on(search::search(rounds)),
                "telemetry" => runtime.block_on(telemetry::telemetry(rounds)),
                _ => runtime.block_on(process::process()),
            }
        }
    }
    ExitCode::SUCCESS
}
