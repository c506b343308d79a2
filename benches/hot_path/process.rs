//! Startup time and memory of the process.

use std::{
    fs,
    time::{Duration, Instant},
};

use conversation_memory::proto::BeginTurnRequest;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    compare::{Call, Times, heading, millis, row},
    costs::begun,
};
use test_support::sidecar::{Form, Memory, Sidecar};

const STARTS: usize = 10;
const USERS: u32 = 8;
const TURNS: u32 = 10_000;

/// Measures startup time and memory.
pub(crate) async fn process() {
    let forms = [
        ("embedded", Form::embedded()),
        ("PostgreSQL + Redis", Form::servers()),
    ];
    for (_, form) in &forms {
        // The first start migrates the schema.
        Sidecar::start(form).await.kill().await;
    }
    let mut times = [Times::new(), Times::new()];
    for _ in 0..STARTS {
        for ((_, form), times) in forms.iter().zip(&mut times) {
            let start = Instant::now();
            let sidecar = Sidecar::start(form).await;
            times.add(Some(start.elapsed()));
            sidecar.kill().await;
        }
    }
    heading("process: from start to serving", &["median", "max"]);
    for ((label, _), times) in forms.iter().zip(&times) {
        row(label, &[millis(times.median()), millis(times.max())]);
    }
    let columns = ["RSS", "anonymous", "PSS", "peak RSS"];
    heading("process: memory", &columns);
    for (label, form) in &forms {
        let sidecar = Sidecar::start(form).await;
        sleep(Duration::from_secs(1)).await;
        row(&format!("{label}, idle"), &memory(&sidecar));
        let start = Instant::now();
        take_turns(&sidecar).await;
        let rate = f64::from(TURNS) / start.elapsed().as_secs_f64();
        sleep(Duration::from_secs(1)).await;
        let label = format!("{label}, after {TURNS} turns at {rate:.0}/s");
        row(&label, &memory(&sidecar));
    }
}

/// Runs turns of several users concurrently.
async fn take_turns(sidecar: &Sidecar) {
    let mut users = JoinSet::new();
    for _ in 0..USERS {
        let turn = begun(sidecar).await;
        users.spawn(take_turns_of(sidecar.memory(), turn));
    }
    users.join_all().await;
}

async fn take_turns_of(mut memory: Memory, turn: BeginTurnRequest) {
    let Call::Save(mut save) = Call::save(&turn.conversation_id) else {
        return;
    };
    save.session_id = turn.session_id.clone();
    for _ in 0..TURNS / USERS {
        memory.begin_turn(turn.clone()).await.unwrap();
        memory.save_messages(save.clone()).await.unwrap();
    }
}

/// Reads the memory of the process from `/proc`.
fn memory(sidecar: &Sidecar) -> [String; 4] {
    let read = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{}/{file}", sidecar.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        let kib: f64 = kib.parse().unwrap();
        format!("{:.1} MiB", kib / 1024.0)
    };
    [
        read("status", "VmRSS:"),
        read("status", "RssAnon:"),
        read("smaps_rollup", "Pss:"),
        read("status", "VmHWM:"),
    ]
}
