//! Calls on this build, compared with the same calls on another build.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use test_support::{
    requests::history,
    sidecar::{Form, Sidecar},
};

use crate::{
    compare::{Call, Caller, alternate, heading, micros, row},
    costs::{begun, read_strong},
};

/// Compares this build with the program that the environment variable `BASELINE` names.
pub(crate) async fn baseline(rounds: usize) {
    let Some(program) = std::env::var_os("BASELINE").map(PathBuf::from) else {
        println!("baseline: skipped, because BASELINE names no program to compare with");
        return;
    };
    let columns = ["baseline", "this build", "ratio", "CPU ratio"];
    heading("baseline: calls on two builds", &columns);
    compare("PostgreSQL + Redis", rounds, &program, Form::servers).await;
    compare("embedded", rounds, &program, Form::embedded).await;
}

async fn compare(name: &str, rounds: usize, program: &Path, form: impl Fn() -> Form) {
    let forms = [form(), form()];
    // The baseline migrates first: the newer build can upgrade the schema, not the reverse.
    let baseline = Sidecar::start_program(program, &forms[0]).await;
    let current = Sidecar::start(&forms[1]).await;
    let sidecars = [&baseline, &current];
    let turns = [begun(&baseline).await, begun(&current).await];
    let of_each = |call: &dyn Fn(usize) -> Caller| [call(0), call(1)];
    let conversation = |index: usize| turns[index].conversation_id.as_str();
    let cases: [(&str, [Caller; 2]); 4] = [
        (
            "BeginTurn, live session",
            of_each(&|index| Caller::new(sidecars[index], Call::Begin(turns[index].clone()))),
        ),
        (
            "GetHistory",
            of_each(&|index| {
                Caller::new(sidecars[index], Call::History(history(conversation(index))))
            }),
        ),
        (
            "GetHistory STRONG",
            of_each(&|index| read_strong(sidecars[index], conversation(index))),
        ),
        (
            "SaveMessages",
            of_each(&|index| Caller::new(sidecars[index], Call::save(conversation(index)))),
        ),
    ];
    for (label, callers) in cases {
        let before = sidecars.map(cpu_time);
        let [old, new] = alternate(rounds, callers).await;
        let after = sidecars.map(cpu_time);
        let cpu = [0, 1].map(|index| after[index].saturating_sub(before[index]).as_secs_f64());
        let cells = [
            micros(old.median()),
            micros(new.median()),
            new.ratio(&old),
            format!("{:.2}", cpu[1] / cpu[0]),
        ];
        row(&format!("{name}: {label}"), &cells);
    }
}

/// Returns the CPU time of all threads of a sidecar, as the kernel's scheduler counts it.
fn cpu_time(sidecar: &Sidecar) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", sidecar.id())).unwrap();
    let nanoseconds = threads.map(|thread| {
        let statistics = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        let running = statistics.split_whitespace().next().unwrap();
        running.parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}
