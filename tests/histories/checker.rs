//! Checks of a single history that share no code with the selection.

use std::collections::HashSet;

use conversation_memory::proto::{GetHistoryRequest, Message, Role};

use crate::{
    messages::{answers, calls, has_only_reasoning, tokens},
    reference::History,
};

/// Checks that model APIs accept a history and that it is within its limits.
pub(crate) fn check(
    history: &History,
    all: &[Message],
    request: &GetHistoryRequest,
) -> Result<(), String> {
    let (head, newest) = split(history);
    check_order(head, newest)?;
    check_pairs(newest, all)?;
    check_limits(history, newest, request)?;
    let starts_with_user = newest
        .first()
        .is_none_or(|first| first.role() == Role::User);
    // Without a summary, a pinned message can be the first of the newest ones.
    let has_pinned_user = head
        .last()
        .is_some_and(|last| !last.is_summary && head.iter().any(|it| it.role() == Role::User));
    if request.start_on_user && !starts_with_user && !has_pinned_user {
        return Err("starts without a user".to_owned());
    }
    Ok(())
}

/// Splits a history into pinned messages with the summary, and the newest messages.
fn split(history: &History) -> (&[Message], &[Message]) {
    let messages = &history.messages;
    let summary = messages.iter().position(|message| message.is_summary);
    let start = summary.map_or_else(
        || {
            // Without a summary the newest messages begin with the first one that is not pinned,
            // or earlier, which makes no difference to the checks.
            let plain = messages.iter().position(|message| !message.pinned);
            plain.unwrap_or(messages.len())
        },
        |summary| summary + 1,
    );
    messages.split_at(start)
}

fn check_order(head: &[Message], newest: &[Message]) -> Result<(), String> {
    let mut pinned = head;
    if let Some((last, before)) = head.split_last()
        && last.is_summary
    {
        pinned = before;
    }
    if pinned
        .iter()
        .any(|message| !message.pinned || message.role() == Role::Tool)
    {
        return Err("a message before the summary is not a pinned one".to_owned());
    }
    let descents = |messages: &[Message]| {
        let pairs = messages.windows(2);
        pairs.filter(|pair| pair[0].seq >= pair[1].seq).count()
    };
    // Without a summary, the newest messages can begin within what looks like the head.
    let starts = usize::from(pinned.len() == head.len());
    if descents(pinned) > starts || descents(newest) > 0 || newest.iter().any(|it| it.is_summary) {
        return Err("not in order".to_owned());
    }
    Ok(())
}

/// Checks what model APIs check, message by message.
fn check_pairs(newest: &[Message], all: &[Message]) -> Result<(), String> {
    let mut open: Vec<(i64, &str)> = Vec::new();
    for message in newest {
        for id in answers(message) {
            let Some(at) = open.iter().position(|(_, call)| *call == id) else {
                return Err(format!("message {}: result without its call", message.seq));
            };
            open.remove(at);
        }
        for id in calls(message) {
            if open.iter().any(|(_, call)| *call == id) {
                return Err(format!("message {}: two open calls {id}", message.seq));
            }
            open.push((message.seq, id));
        }
    }
    for (seq, id) in open {
        let mut later = all.iter().filter(|message| message.seq > seq);
        let is_open = later.all(|message| {
            message.role() == Role::Tool
                || !calls(message).is_empty()
                || has_only_reasoning(message)
        });
        if !is_open {
            return Err(format!("message {seq}: call {id} without its result"));
        }
    }
    Ok(())
}

fn check_limits(
    history: &History,
    newest: &[Message],
    request: &GetHistoryRequest,
) -> Result<(), String> {
    let total: u64 = history.messages.iter().map(tokens).sum();
    if total != history.token_count {
        return Err(format!("{total} tokens, not {}", history.token_count));
    }
    let limit = match request.limit {
        0 => 6,
        limit => usize::try_from(limit).unwrap(),
    };
    let max_tokens = u64::from(request.max_tokens.unsigned_abs());
    let groups = groups(newest);
    if newest.len() > limit && groups.iter().any(|group| *group != groups[0]) {
        return Err("several groups exceed the limit on messages".to_owned());
    }
    let counted = newest.iter().zip(groups);
    let counted = counted.filter(|(message, _)| !message.pinned && tokens(message) > 0);
    let counted: HashSet<usize> = counted.map(|(_, group)| group).collect();
    if max_tokens > 0 && total > max_tokens && counted.len() > 1 {
        return Err("several groups exceed the limit on tokens".to_owned());
    }
    Ok(())
}

/// Groups to which the messages belong: calls with their results, tool messages with what they
/// follow, and reasoning with the message after it.
fn groups(messages: &[Message]) -> Vec<usize> {
    let mut group_of: Vec<usize> = (0..messages.len()).collect();
    let mut unite = |a: usize, b: usize| {
        let (from, to) = (group_of[a], group_of[b]);
        for group in &mut group_of {
            if *group == from {
                *group = to;
            }
        }
    };
    for (at, message) in messages.iter().enumerate() {
        for id in answers(message) {
            let call = (0..at)
                .rev()
                .find(|&call| calls(&messages[call]).contains(&id));
            unite(at, call.unwrap_or(at));
        }
        let Some(previous) = at.checked_sub(1) else {
            continue;
        };
        let is_plain_result = message.role() == Role::Tool && answers(message).is_empty();
        if is_plain_result
            || message.role() == Role::Assistant && has_only_reasoning(&messages[previous])
        {
            unite(at, previous);
        }
    }
    group_of
}
