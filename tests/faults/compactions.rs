//! Compactions that are interrupted by a crash of the sidecar.

use std::{collections::HashSet, time::Duration};

use conversation_memory::proto::{
    CompactConversationRequest, Consistency, GetConversationRequest, GetHistoryRequest,
    ListMessagesRequest, Message, Role,
};
use tokio::{sync::watch, task::JoinSet};

use crate::Servers;
use test_support::{
    new_user,
    requests::{history, message, new_conversation, save},
    rounds,
    sidecar::{Form, Memory, Sidecar},
};

/// Environment variable with the number of crashes.
const ROUNDS: &str = "COMPACTION_CRASHES";

/// Writers that append to the conversation while it is compacted.
const WRITERS: usize = 2;

/// Compaction that was sent before the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    /// 1, 2, 3 … within a round; 0 before the first.
    number: u32,
    upto_seq: i64,
    is_acknowledged: bool,
}

/// What the sidecar has acknowledged before its crash.
struct Acknowledged {
    conversation: String,
    /// Numbers and texts of messages.
    messages: Vec<(i64, String)>,
    compactions: Vec<Sent>,
}

#[tokio::test]
async fn crash_during_compaction_leaves_the_old_or_the_new_history_embedded() {
    crash_repeatedly(&Form::embedded(), rounds(ROUNDS, 30)).await;
}

#[tokio::test]
async fn crash_during_compaction_leaves_the_old_or_the_new_history_on_servers() {
    let servers = Servers::start().await;
    crash_repeatedly(&servers.form(), rounds(ROUNDS, 30).div_ceil(3)).await;
}

async fn crash_repeatedly(form: &Form, rounds: u32) {
    let mut sidecar = Sidecar::start(form).await;
    let mut interrupted = 0;
    for round in 0..rounds {
        let acknowledged = crash(sidecar, round).await;
        sidecar = Sidecar::start(form).await;
        assert_consistent(&mut sidecar.memory(), &acknowledged).await;
        let last = acknowledged.compactions.last();
        interrupted += u32::from(last.is_some_and(|sent| !sent.is_acknowledged));
    }
    // Otherwise the crashes have missed what they are to interrupt.
    assert!(interrupted > 0);
}

/// Appends to a conversation and compacts it, and kills the sidecar at a point of a compaction that
/// depends on the round.
async fn crash(sidecar: Sidecar, round: u32) -> Acknowledged {
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (memory, conversation) = (sidecar.memory(), conversation.clone());
        writers.spawn(append_until_crash(memory, conversation, writer));
    }
    let (progress, mut seen) = watch::channel(0);
    let compacting = compact_until_crash(memory, conversation.clone(), progress);
    let mut compactions = JoinSet::new();
    compactions.spawn(compacting);
    let first = 2 + round % 3;
    seen.wait_for(|number| *number >= first).await.unwrap();
    // A compaction takes about as long. The factor spreads the points evenly over that time.
    let delay = round.wrapping_mul(2_654_435_769) % 8_000;
    tokio::time::sleep(Duration::from_micros(delay.into())).await;
    sidecar.kill().await;
    Acknowledged {
        conversation,
        messages: writers.join_all().await.into_iter().flatten().collect(),
        compactions: compactions.join_next().await.unwrap().unwrap(),
    }
}

/// Returns the acknowledged messages.
async fn append_until_crash(
    mut memory: Memory,
    conversation: String,
    writer: usize,
) -> Vec<(i64, String)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let text = format!("{writer}-{number}");
        let request = save(&conversation, vec![message(Role::User, &text)]);
        match memory.save_messages(request).await {
            Ok(saved) => acknowledged.push((saved.into_inner().last_seq, text)),
            Err(_) => break,
        }
    }
    acknowledged
}

/// Compacts the conversation up to about its middle again and again, and returns the compactions. The
/// last one was not acknowledged.
async fn compact_until_crash(
    mut memory: Memory,
    conversation: String,
    progress: watch::Sender<u32>,
) -> Vec<Sent> {
    let mut sent = Vec::new();
    for number in 1.. {
        let Ok(read) = memory.get_history(history(&conversation)).await else {
            break;
        };
        let upto_seq = (read.into_inner().last_seq + 1) / 2;
        if upto_seq == 0 {
            tokio::task::yield_now().await;
            continue;
        }
        let request = CompactConversationRequest {
            conversation_id: conversation.clone(),
            upto_seq,
            summary: summary(number, upto_seq),
            request_id: format!("compaction-{number}"),
            ..CompactConversationRequest::default()
        };
        progress.send_replace(number);
        let is_acknowledged = memory.compact_conversation(request).await.is_ok();
        sent.push(Sent {
            number,
            upto_seq,
            is_acknowledged,
        });
        if !is_acknowledged {
            break;
        }
    }
    sent
}

fn summary(number: u32, upto_seq: i64) -> String {
    format!("compaction {number} up to {upto_seq}")
}

/// Checks that all acknowledged messages are stored once, and that the history is that of the last
/// acknowledged compaction or that of the interrupted one.
async fn assert_consistent(memory: &mut Memory, acknowledged: &Acknowledged) {
    let conversation = &acknowledged.conversation;
    let stored = all_messages(memory, conversation).await;
    let seqs = stored.iter().map(|message| message.seq);
    let last_seq = i64::try_from(stored.len()).unwrap();
    assert!(seqs.eq(1..=last_seq));
    let texts: HashSet<_> = stored.iter().map(|message| &message.content).collect();
    assert_eq!(texts.len(), stored.len());
    for (seq, text) in &acknowledged.messages {
        let index = usize::try_from(seq - 1).unwrap();
        assert_eq!(&stored[index].content, text);
    }

    let get = GetConversationRequest {
        conversation_id: conversation.clone(),
        omit_messages: true,
        ..GetConversationRequest::default()
    };
    let found = memory.get_conversation(get).await.unwrap().into_inner();
    let upto_seq = found.conversation.unwrap().compacted_upto_seq;
    let compactions = &acknowledged.compactions;
    let last = compactions.iter().rfind(|sent| sent.is_acknowledged);
    let interrupted = compactions.iter().find(|sent| !sent.is_acknowledged);
    let mut expected: Vec<Option<Sent>> = vec![last.copied()];
    expected.extend(interrupted.copied().map(Some));

    for consistency in [
        Consistency::Strong,
        Consistency::Cached,
        Consistency::Cached,
    ] {
        let request = GetHistoryRequest {
            limit: 1000,
            consistency: consistency.into(),
            ..history(conversation)
        };
        let read = memory.get_history(request).await.unwrap().into_inner();
        let mut messages = read.messages;
        let has_summary = messages.first().is_some_and(|first| first.is_summary);
        let found = has_summary.then(|| messages.remove(0).content);
        let is_expected = expected.iter().any(|sent| match sent {
            None => found.is_none() && upto_seq == 0,
            Some(sent) => {
                let summary = summary(sent.number, sent.upto_seq);
                found.as_ref() == Some(&summary) && upto_seq == sent.upto_seq
            }
        });
        assert!(is_expected, "{found:?} up to {upto_seq}: {expected:?}");
        assert_eq!(messages, stored[usize::try_from(upto_seq).unwrap()..]);
    }
}

async fn all_messages(memory: &mut Memory, conversation: &str) -> Vec<Message> {
    let mut request = ListMessagesRequest {
        conversation_id: conversation.to_owned(),
        page_size: 1000,
        ..ListMessagesRequest::default()
    };
    let mut messages = Vec::new();
    loop {
        let page = memory.list_messages(request.clone()).await.unwrap();
        let page = page.into_inner();
        messages.extend(page.messages);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return messages;
        }
    }
}
