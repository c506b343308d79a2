//! Disk of the embedded store without room: writes are rejected, reads succeed, and the store
//! recovers when there is room again.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::Command,
};

use conversation_memory::proto::{Consistency, Role, TruncateConversationRequest};
use test_support::{
    eventually,
    http::Http,
    new_user,
    requests::{begin, history, message, new_conversation, save, save_text},
    sidecar::{Form, Memory, Sidecar},
};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

const DISK_MIB: u32 = 12;

/// Fills a disk, and empties it when it is dropped.
struct Ballast<'a>(&'a Path);

impl<'a> Ballast<'a> {
    fn fill(file: &'a Path) -> Self {
        let mut ballast = File::create(file).unwrap();
        for size in [1 << 20, 4096, 1] {
            while ballast
                .write(&vec![1; size])
                .is_ok_and(|written| written > 0)
            {}
        }
        Self(file)
    }
}

impl Drop for Ballast<'_> {
    fn drop(&mut self) {
        fs::remove_file(self.0).unwrap();
    }
}

fn assert_full(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "STORE_FULL");
    // The disk stays full until somebody makes room.
    assert!(details.retry_info().is_none());
}

/// Saves turns until one is rejected, and returns how many were saved.
async fn save_until_full(memory: &mut Memory, conversation: &str) -> i64 {
    let text = "x".repeat(50_000);
    for saved in 0..2_000 {
        let request = save(conversation, vec![message(Role::User, &text)]);
        if let Err(refused) = memory.save_messages(request).await {
            assert_full(&refused);
            return saved;
        }
    }
    unreachable!("the disk has not become full");
}

async fn last_seq(memory: &mut Memory, conversation: &str) -> i64 {
    let mut strong = history(conversation);
    strong.set_consistency(Consistency::Strong);
    let read = memory.get_history(strong).await.unwrap();
    read.into_inner().last_seq
}

/// Whether the operations port reports the store as full.
async fn reports_full(operations: SocketAddr) -> bool {
    let metrics = Http::at(operations).get("/metrics").await;
    String::from_utf8_lossy(&metrics.body)
        .lines()
        .any(|line| line.starts_with("conversation_memory_store_full") && line.ends_with(" 1"))
}

/// Calls that do not need room succeed, and the sidecar is healthy.
async fn assert_reads_succeed(sidecar: &Sidecar, user: &str, conversation: &str) {
    let mut memory = sidecar.memory();
    last_seq(&mut memory, conversation).await;
    let mut turn = begin(user);
    turn.conversation_id = conversation.to_owned();
    memory.begin_turn(turn).await.unwrap();
    let health = HealthClient::new(sidecar.channel())
        .check(HealthCheckRequest::default())
        .await;
    let status = health.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
}

#[tokio::test]
async fn full_disk_rejects_writes_until_there_is_room() {
    let form = Form::embedded();
    let Some((mut sidecar, folder)) = Sidecar::start_on_small_disk(&form, DISK_MIB).await else {
        eprintln!("this machine does not permit to mount a disk");
        return;
    };
    let operations = sidecar.operations().await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let file = folder.join("ballast");
    let mut expected = 0;
    for round in 0..3 {
        save_text(&mut memory, &conversation, "room").await;
        expected += 1;
        let ballast = Ballast::fill(&file);
        expected += save_until_full(&mut memory, &conversation).await;
        for _ in 0..20 {
            let text = "x".repeat(200_000);
            let large = save(&conversation, vec![message(Role::User, &text)]);
            assert_full(&memory.save_messages(large).await.unwrap_err());
        }
        assert!(reports_full(operations).await, "round {round}");
        assert_reads_succeed(&sidecar, &user, &conversation).await;
        assert_eq!(last_seq(&mut memory, &conversation).await, expected);
        drop(ballast);
        // The first write succeeds.
        save_text(&mut memory, &conversation, "room again").await;
        expected += 1;
        eventually("the metric shows that there is room", async || {
            !reports_full(operations).await
        })
        .await;
    }
    let lines = sidecar.log();
    let about_it = lines.iter().filter(|line| line.contains("is full")).count();
    assert!(about_it <= 3, "{about_it} lines: {lines:#?}");
    assert!(
        !lines.iter().any(|line| line.contains("\"ERROR\"")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn store_that_has_filled_its_disk_itself_accepts_removals_when_there_is_room() {
    let form = Form::embedded();
    let Some((sidecar, folder)) = Sidecar::start_on_small_disk(&form, 2 * DISK_MIB).await else {
        eprintln!("this machine does not permit to mount a disk");
        return;
    };
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    // Room that the operator can free. A removal overwrites what it removes, and needs as much room
    // in the log.
    let reserve = folder.join("reserve");
    fs::write(&reserve, vec![1; 12 << 20]).unwrap();
    let saved = save_until_full(&mut memory, &conversation).await;
    assert_reads_succeed(&sidecar, &user, &conversation).await;
    let truncation = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: 1,
        ..Default::default()
    };
    let truncated = memory.truncate_conversation(truncation.clone()).await;
    if let Err(refused) = &truncated {
        assert_full(refused);
    }
    assert_eq!(last_seq(&mut memory, &conversation).await, saved);
    fs::remove_file(&reserve).unwrap();
    memory.truncate_conversation(truncation).await.unwrap();
    // The room of the removed messages is used again.
    for _ in 0..saved / 2 {
        save_text(&mut memory, &conversation, &"y".repeat(50_000)).await;
    }
}

#[tokio::test]
async fn maximum_size_of_a_file_does_not_end_the_sidecar() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start(&form).await;
    let operations = sidecar.operations().await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let set_limit = |bytes: &str| {
        let set = Command::new("prlimit")
            .args(["--pid", &sidecar.id().to_string()])
            .arg(format!("--fsize={bytes}:unlimited"))
            .status();
        assert!(set.unwrap().success());
    };
    let mut expected = 0;
    for limit in ["600000", "3000000"] {
        set_limit(limit);
        expected += save_until_full(&mut memory, &conversation).await;
        assert!(reports_full(operations).await);
        for _ in 0..20 {
            let text = "x".repeat(200_000);
            let large = save(&conversation, vec![message(Role::User, &text)]);
            match memory.save_messages(large).await {
                // The log, whose size was the limit, has been emptied.
                Ok(_) => expected += 1,
                Err(refused) => assert_full(&refused),
            }
        }
        assert_reads_succeed(&sidecar, &user, &conversation).await;
        assert_eq!(last_seq(&mut memory, &conversation).await, expected);
        set_limit("unlimited");
        save_text(&mut memory, &conversation, "room again").await;
        expected += 1;
        assert_eq!(last_seq(&mut memory, &conversation).await, expected);
    }
}
