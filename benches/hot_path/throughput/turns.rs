//! Turns of Python programs.

use test_support::sidecar::{Form, Sidecar};

use super::{
    Path, compare,
    cpu::Processes,
    load::Load,
    python::Python,
    table::{Goal, Verdict},
};

/// Compares turns of the Python client with turns by redis-py and psycopg alone.
pub(super) async fn turns() -> Vec<Verdict> {
    let form = Form::servers();
    let Form::Servers {
        database_url,
        redis_url,
    } = &form
    else {
        return Vec::new();
    };
    let servers = Processes::servers(&form).await;
    let sidecar = Sidecar::start(&form).await;
    let address = sidecar.address.to_string();
    let mut verdicts = Vec::new();
    for (style, name) in [
        ("blocking", "Python turn(), blocking"),
        ("asyncio", "Python turn(), asyncio"),
    ] {
        let by_hand = [style, "drivers", database_url, redis_url];
        let by_client = [style, "client", &address];
        let mut loads = [
            Load::Python(Box::new(Python::start("turns.py", &by_hand, servers))),
            Load::Python(Box::new(Python::start(
                "turns.py",
                &by_client,
                Processes::of(&sidecar, servers),
            ))),
        ];
        let path = Path {
            name,
            goals: &[(1, Goal::Median(1.5)), (50, Goal::Throughput(2.0))],
        };
        let baseline = "redis-py and psycopg alone, as durable";
        verdicts.extend(compare(baseline, &[path], &[1, 50], &form, &mut loads).await);
    }
    verdicts
}
