//! Saves of a question and an answer.

use conversation_memory::proto::SaveMessagesRequest;
use test_support::{
    new_user,
    requests::{new_conversation, save},
    sidecar::{Form, Sidecar},
};

use super::{
    CALLERS, Path,
    client::{Calls, UNIQUE},
    compare,
    cpu::Processes,
    load::{Load, alternate},
    pgbench::Pgbench,
    table::{Comparison, Goal, Verdict, report},
    texts::turns,
};

const SAVE_MESSAGES: &str = "/conversation_memory.v1.ConversationMemory/SaveMessages";

/// Compares saves on PostgreSQL and Redis with pgbench.
pub(super) async fn servers() -> Vec<Verdict> {
    let form = Form::servers();
    let Form::Servers { database_url, .. } = &form else {
        return Vec::new();
    };
    let servers = Processes::servers(&form).await;
    let sidecar = Sidecar::start(&form).await;
    let pgbench = Pgbench::new(database_url, servers).await;
    let mut loads = [Load::Pgbench(pgbench), saves(&sidecar, servers).await];
    let path = Path {
        name: "SaveMessages, PostgreSQL",
        goals: &[
            (1, Goal::Throughput(0.6)),
            (16, Goal::Throughput(0.8)),
            (64, Goal::Throughput(1.0)),
            (150, Goal::Throughput(1.3)),
        ],
    };
    let baseline = "pgbench, with one prepared statement that updates a conversation and inserts \
                    two messages, and at most 150 clients";
    compare(baseline, &[path], &[1, 16, 64, 150, 256], &form, &mut loads).await
}

/// Measures saves of the embedded form.
pub(super) async fn embedded() -> Vec<Verdict> {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let mut loads = [saves(&sidecar, Processes::default()).await];
    let mut comparisons = Vec::new();
    for callers in CALLERS {
        let measured = alternate(callers, &mut loads).await.remove(0);
        comparisons.push(Comparison {
            callers,
            baseline: None,
            measured,
        });
    }
    let goals = [(64, Goal::PerSecond(5_000.0)), (256, Goal::NoneRejected)];
    report("SaveMessages, embedded", "none", &goals, &comparisons)
}

/// Saves of callers with a conversation each.
async fn saves(sidecar: &Sidecar, servers: Processes) -> Load {
    let mut memory = sidecar.memory();
    let mut requests = Vec::new();
    for _ in 0..CALLERS[CALLERS.len() - 1] {
        let id = new_conversation(&mut memory, &new_user()).await;
        requests.push(SaveMessagesRequest {
            request_id: UNIQUE.to_owned(),
            ..save(&id, turns(1))
        });
    }
    let calls = Calls::new(sidecar.address, SAVE_MESSAGES, requests);
    Load::Grpc(Box::new(calls), Processes::of(sidecar, servers))
}
