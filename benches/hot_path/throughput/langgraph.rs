//! Turns of a LangGraph agent, with the saver of this project and with `AsyncPostgresSaver` on the same
//! database. The same turns with `InMemorySaver` are the lower bound: the time that LangGraph itself
//! takes.

use std::{collections::HashMap, time::Duration};

use sqlx::{Connection as _, PgConnection};
use test_support::sidecar::{Form, Sidecar};

use super::{
    cpu::Processes,
    load::{Load, Measured, alternate_for},
    pgbench::checkpoint,
    python::Python,
    table::{micros, print, two_digits},
};

const SCRIPT: &str = "langgraph_turns.py";
const CALLERS: [usize; 2] = [1, 50];
/// Duration of each of the two periods in which a saver is measured.
const PERIOD: Duration = Duration::from_secs(4);
/// Turns of the thread whose size is measured: 1,000 steps.
const TURNS: usize = 250;
const SAVERS: [&str; 3] = [
    "AsyncPostgresSaver",
    "ConversationMemorySaver",
    "InMemorySaver",
];

/// Compares turns, and the bytes that a thread occupies after 1,000 steps.
pub(crate) async fn langgraph() {
    let form = Form::servers();
    let Form::Servers { database_url, .. } = &form else {
        return;
    };
    let servers = Processes::servers(&form).await;
    let sidecar = Sidecar::start(&form).await;
    let address = sidecar.address.to_string();
    let processes = Processes::of(&sidecar, servers);
    let mut pythons = [
        Python::start(SCRIPT, &["postgres", database_url], servers),
        Python::start(SCRIPT, &["client", &address], processes),
        Python::start(SCRIPT, &["memory"], servers),
    ];
    sizes(database_url, &mut pythons).await;
    let mut loads = pythons.map(|python| Load::Python(Box::new(python)));
    let mut rows = Vec::new();
    for callers in CALLERS {
        checkpoint(database_url).await;
        let measured = alternate_for(callers, &mut loads, PERIOD).await;
        for (saver, each) in SAVERS.iter().zip(&measured) {
            rows.push(cells(saver, callers, each, &measured[0]));
        }
    }
    println!("\n### Turns of a LangGraph agent\n");
    let columns = [
        "saver", "callers", "turns/s", "ratio", "p50", "ratio", "Python", "sidecar", "PG", "Redis",
        "all CPU", "ratio",
    ];
    print(&columns, rows.into_iter());
}

fn cells(saver: &str, callers: usize, measured: &Measured, baseline: &Measured) -> Vec<String> {
    let median = |of: &Measured| of.sample.median().unwrap_or_default();
    let cpu = measured.cpu_per_call();
    let ratio = |measured: Duration, baseline: Duration| {
        two_digits(Some(measured.as_secs_f64() / baseline.as_secs_f64()))
    };
    vec![
        saver.to_owned(),
        callers.to_string(),
        format!("{:.0}", measured.sample.per_second()),
        two_digits(Some(
            measured.sample.per_second() / baseline.sample.per_second(),
        )),
        micros(median(measured)),
        ratio(median(measured), median(baseline)),
        micros(cpu.client),
        micros(cpu.server),
        micros(cpu.postgres),
        micros(cpu.redis),
        micros(cpu.total()),
        ratio(cpu.total(), baseline.cpu_per_call().total()),
    ]
}

/// Prints what a thread of 1,000 steps adds to the tables of each saver, with their indexes.
async fn sizes(database_url: &str, pythons: &mut [Python]) {
    println!("\n### Bytes after 1,000 steps\n");
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut tables: Vec<Vec<String>> = Vec::new();
    let mut baseline = None;
    for (saver, python) in SAVERS.iter().zip(pythons).take(2) {
        let before = stored_bytes(database_url).await;
        let messages = python.take_turns_in_one_thread(TURNS).await;
        let after = stored_bytes(database_url).await;
        let mut stored = 0.0;
        let mut added = Vec::new();
        for (table, [table_bytes, index_bytes]) in after {
            let [table_before, index_before] = before.get(&table).copied().unwrap_or_default();
            let bytes = [table_bytes - table_before, index_bytes - index_before];
            stored += bytes[0] + bytes[1];
            added.push((table, bytes));
        }
        added.retain(|(_, bytes)| bytes[0] + bytes[1] > 0.0);
        added.sort_by(|(_, one), (_, other)| (other[0] + other[1]).total_cmp(&(one[0] + one[1])));
        tables.extend(added.into_iter().map(|(table, bytes)| {
            let kib = bytes.map(|bytes| format!("{:.0} KiB", bytes / 1024.0));
            let [table_size, indexes] = kib;
            let ratio = two_digits(Some((bytes[0] + bytes[1]) / messages));
            vec![(*saver).to_owned(), table, table_size, indexes, ratio]
        }));
        let baseline = *baseline.get_or_insert(stored);
        rows.push(vec![
            (*saver).to_owned(),
            format!("{:.0} KiB", stored / 1024.0),
            two_digits(Some(stored / baseline)),
            format!("{:.0} KiB", messages / 1024.0),
            two_digits(Some(stored / messages)),
        ]);
    }
    let columns = ["saver", "stored", "ratio", "messages", "stored / messages"];
    print(&columns, rows.into_iter());
    println!();
    let columns = ["saver", "table", "rows", "indexes", "stored / messages"];
    print(&columns, tables.into_iter());
}

/// Bytes of each table that is not the system's, and of its indexes. Partitions count as their table.
async fn stored_bytes(database_url: &str) -> HashMap<String, [f64; 2]> {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    let statement = "SELECT p.relname::text, sum(pg_table_size(c.oid))::float8, \
            sum(pg_indexes_size(c.oid))::float8 FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_inherits i ON i.inhrelid = c.oid \
         JOIN pg_class p ON p.oid = coalesce(i.inhparent, c.oid) \
         WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') GROUP BY p.relname";
    let sizes = sqlx::query_as(statement).fetch_all(&mut connection);
    let sizes: Vec<(String, f64, f64)> = sizes.await.unwrap();
    let sizes = sizes.into_iter();
    sizes
        .map(|(table, bytes, indexes)| (table, [bytes, indexes]))
        .collect()
}
