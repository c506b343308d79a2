//! The write-ahead log of the embedded store is written to the file beside the commits.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use conversation_memory::store::sqlite::SqliteStore;
use tokio::task::JoinSet;

use test_support::{
    eventually,
    store_fixture::{StoreFixture, append_of, message},
};

/// Length of the log from which on commits write it to the file as well.
const MAX_LOG: u64 = 64 * 1024 * 1024;

fn log_of(file: &Path) -> std::path::PathBuf {
    file.with_extension("db-wal")
}

/// Salts in the header of the log, which change when the log begins anew.
fn salts(file: &Path) -> [u8; 8] {
    let mut header = [0; 24];
    let mut log = File::open(log_of(file)).unwrap();
    log.read_exact(&mut header).unwrap();
    header[16..].try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_written_to_the_file_although_it_is_short() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["first"]).await;
    let before = salts(&file);
    eventually("the file contains what was saved", async || {
        let bytes = std::fs::read(&file).unwrap();
        bytes.windows(5).any(|bytes| bytes == b"first")
    })
    .await;
    eventually("the log begins anew", async || {
        fixture.append_texts(&conversation, &["further"]).await;
        salts(&file) != before
    })
    .await;
    fixture.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_begins_anew_while_writes_do_not_pause() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = Arc::new(StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await);
    let has_ended = Arc::new(AtomicBool::new(false));
    fixture.create_conversation().await;
    let mut writers = JoinSet::new();
    for _ in 0..3 {
        let (fixture, has_ended) = (Arc::clone(&fixture), Arc::clone(&has_ended));
        writers.spawn(async move {
            let conversation = fixture.create_conversation().await;
            while !has_ended.load(Ordering::Relaxed) {
                let text = message("some words ".repeat(400));
                let append = append_of(&conversation, vec![text]);
                fixture.save(&append).await.unwrap();
            }
        });
    }
    let log = || std::fs::metadata(log_of(&file)).unwrap().len();
    for _ in 0..2 {
        let before = salts(&file);
        eventually("the log begins anew", async || salts(&file) != before).await;
        assert!(log() < MAX_LOG);
    }
    has_ended.store(true, Ordering::Relaxed);
    writers.join_all().await;
    fixture.store.close().await;
}
