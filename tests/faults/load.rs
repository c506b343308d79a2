//! Many writers, many sidecars, one conversation, one order.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use conversation_memory::proto::{ListMessagesRequest, Role};
use tokio::task::JoinSet;

use crate::Servers;
use test_support::{
    new_user,
    requests::{history, message, new_conversation, save},
    sidecar::{Form, Memory, Sidecar},
    within_progress,
};

const WRITERS: usize = 8;
/// Messages of each writer without a fault, and with one.
const MESSAGES: usize = 500;
const MESSAGES_DURING_FAULT: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars_keep_one_order() {
    let servers = Servers::start().await;
    let sidecars = two(&servers.form()).await;
    let load = Load::start(&sidecars, MESSAGES).await;
    load.finish(&sidecars).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_survives_a_suspended_redis() {
    let servers = Servers::start().await;
    let sidecars = two(&servers.form()).await;
    let load = Load::start(&sidecars, MESSAGES_DURING_FAULT).await;
    for part in 1..=3 {
        load.reaches(part * 500).await;
        servers.redis.freeze();
        load.reaches(part * 500 + 200).await;
        servers.redis.thaw();
    }
    load.finish(&sidecars).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_survives_a_killed_sidecar() {
    let servers = Servers::start().await;
    let [first, second] = two(&servers.form()).await;
    // The writers of the killed sidecar repeat their calls until its replacement answers.
    let port = first.address.to_string();
    let sidecars = [first, second];
    let load = Load::start(&sidecars, MESSAGES_DURING_FAULT).await;
    load.reaches(700).await;
    let [first, second] = sidecars;
    first.kill().await;
    let again = [("LISTEN_ADDR", port.as_str())];
    let first = Sidecar::start_with(&servers.form(), &again).await;
    load.finish(&[first, second]).await;
}

async fn two(form: &Form) -> [Sidecar; 2] {
    [Sidecar::start(form).await, Sidecar::start(form).await]
}

/// Concurrent writers and readers of one conversation.
struct Load {
    messages: usize,
    conversation: String,
    observer: Memory,
    writers: JoinSet<Vec<(i64, String)>>,
    readers: JoinSet<()>,
    done: Arc<AtomicBool>,
}

impl Load {
    async fn start(sidecars: &[Sidecar; 2], messages: usize) -> Self {
        let mut observer = sidecars[1].memory();
        let conversation = new_conversation(&mut observer, &new_user()).await;
        let done = Arc::new(AtomicBool::new(false));
        let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
        for (at, sidecar) in sidecars.iter().enumerate() {
            for writer in 0..WRITERS {
                let name = format!("{at}-{writer}");
                writers.spawn(write(
                    sidecar.memory(),
                    conversation.clone(),
                    name,
                    messages,
                ));
            }
            readers.spawn(watch(
                sidecar.memory(),
                conversation.clone(),
                Arc::clone(&done),
            ));
        }
        Self {
            messages,
            conversation,
            observer,
            writers,
            readers,
            done,
        }
    }

    /// Waits until `count` messages are stored.
    async fn reaches(&self, count: i64) {
        let mut observer = self.observer.clone();
        let stored = async || {
            let read = observer.get_history(history(&self.conversation)).await;
            read.map_or(0, |read| read.into_inner().last_seq)
        };
        within_progress("the writers save messages", stored, |last_seq| {
            *last_seq >= count
        })
        .await;
    }

    /// Waits for the writers, and compares the stored messages with the acknowledged ones.
    async fn finish(self, sidecars: &[Sidecar; 2]) {
        let mut acknowledged = self.writers.join_all().await.concat();
        self.done.store(true, Ordering::Relaxed);
        self.readers.join_all().await;
        acknowledged.sort();
        let total = i64::try_from(2 * WRITERS * self.messages).unwrap();
        let numbers: Vec<i64> = acknowledged.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(numbers, (1..=total).collect::<Vec<_>>());
        for sidecar in sidecars {
            let stored = stored(&mut sidecar.memory(), &self.conversation).await;
            assert!(
                stored == acknowledged,
                "another order than was acknowledged"
            );
        }
    }
}

/// Saves messages one after the other, and repeats each save until it is acknowledged.
async fn write(
    mut memory: Memory,
    conversation: String,
    name: String,
    messages: usize,
) -> Vec<(i64, String)> {
    let mut saved = Vec::new();
    for number in 0..messages {
        let text = format!("{name}-{number}");
        let mut request = save(&conversation, vec![message(Role::User, &text)]);
        request.request_id.clone_from(&text);
        let answer = loop {
            match memory.save_messages(request.clone()).await {
                Ok(answer) => break answer.into_inner(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        saved.push((answer.last_seq, text));
        // A read shows the acknowledged save, and possibly later ones.
        if number % 10 == 0
            && let Ok(read) = memory.get_history(history(&conversation)).await
        {
            assert!(
                read.into_inner().last_seq >= answer.last_seq,
                "a stale read"
            );
        }
    }
    saved
}

/// Reads until `done`: the history never becomes shorter, and has no gap.
async fn watch(mut memory: Memory, conversation: String, done: Arc<AtomicBool>) {
    let mut seen = 0;
    while !done.load(Ordering::Relaxed) {
        let Ok(read) = memory.get_history(history(&conversation)).await else {
            continue;
        };
        let read = read.into_inner();
        assert!(read.last_seq >= seen, "{} after {seen}", read.last_seq);
        seen = read.last_seq;
        let numbers: Vec<i64> = read.messages.iter().map(|found| found.seq).collect();
        let first = numbers.first().copied().unwrap_or(1);
        assert_eq!(numbers, (first..=seen).collect::<Vec<_>>());
    }
}

/// Returns the numbers and contents of the messages of a conversation.
pub(crate) async fn stored(memory: &mut Memory, conversation: &str) -> Vec<(i64, String)> {
    let mut request = ListMessagesRequest {
        conversation_id: conversation.to_owned(),
        page_size: 1000,
        ..ListMessagesRequest::default()
    };
    let mut stored = Vec::new();
    loop {
        let page = memory.list_messages(request.clone()).await.unwrap();
        let page = page.into_inner();
        let found = page.messages.into_iter();
        stored.extend(found.map(|found| (found.seq, found.content)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return stored;
        }
    }
}
