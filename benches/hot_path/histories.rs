//! Cost of token budgets, tool calls, pinned messages, compaction and token counts.

use conversation_memory::proto::{
    CompactConversationRequest, Consistency, GetHistoryRequest, Message, Role,
};

use crate::{
    compare::{Call, Caller, Times, alternate, heading, micros, row},
    conversation,
};
use test_support::{
    new_user,
    requests::{history, message, new_conversation, save, tool_call, tool_result},
    sidecar::{Form, Memory, Sidecar},
};

const LENGTHS: [(u32, &str); 2] = [(10, "10"), (1_000_000, "1,000,000")];

/// Compares histories with and without each feature, in both forms.
pub(crate) async fn histories(rounds: usize) {
    for (form, label) in [
        (Form::servers(), "PostgreSQL + Redis"),
        (Form::embedded(), "embedded"),
    ] {
        let sidecar = Sidecar::start(&form).await;
        heading(
            &format!("histories: {label}"),
            &["plain", "with it", "ratio"],
        );
        for (length, name) in LENGTHS {
            let id = conversation::of_length(&form, &sidecar, length).await;
            budgets(rounds, &sidecar, &id, name).await;
        }
        features(rounds, &sidecar).await;
        compaction(rounds, &form, &sidecar).await;
        drop(sidecar);
        token_counts(rounds, &form).await;
    }
}

/// Compares reads with and without a token budget, cached and from the store.
async fn budgets(rounds: usize, sidecar: &Sidecar, id: &str, length: &str) {
    for (consistency, source) in [
        (Consistency::Cached, "cached"),
        (Consistency::Strong, "STRONG"),
    ] {
        let request = GetHistoryRequest {
            consistency: consistency.into(),
            ..history(id)
        };
        let limited = GetHistoryRequest {
            max_tokens: 4_000,
            ..request.clone()
        };
        let label = format!("max_tokens, {source}, {length} messages");
        compare(rounds, &label, sidecar, [request, limited]).await;
    }
}

/// Compares reads of conversations with and without tool calls and pinned messages.
async fn features(rounds: usize, sidecar: &Sidecar) {
    let mut memory = sidecar.memory();
    let plain = || {
        (0..12).map(|n| {
            sentence(if n % 2 == 0 {
                Role::User
            } else {
                Role::Assistant
            })
        })
    };
    let with_tools = (0..3).flat_map(|n| {
        let id = format!("call_{n}");
        [
            sentence(Role::User),
            tool_call(&[&id]),
            tool_result(&id, &sentence(Role::Tool).content),
            sentence(Role::Assistant),
        ]
    });
    let plain_id = conversation_of(&mut memory, plain().collect()).await;
    let tools_id = conversation_of(&mut memory, with_tools.collect()).await;
    let mut pinned: Vec<Message> = plain().collect();
    pinned[0].pinned = true;
    let pinned_id = conversation_of(&mut memory, pinned).await;
    for (label, id) in [("tool calls", &tools_id), ("a pinned message", &pinned_id)] {
        compare(rounds, label, sidecar, [history(&plain_id), history(id)]).await;
    }
}

/// Compares reads of a compacted conversation of 1,000,000 messages with those of a short one.
async fn compaction(rounds: usize, form: &Form, sidecar: &Sidecar) {
    let (length, _) = LENGTHS[1];
    let short = conversation::of_length(form, sidecar, 10).await;
    let long = conversation::of_length(form, sidecar, length).await;
    for (id, upto_seq) in [(&short, 5), (&long, i64::from(length) - 5)] {
        let request = CompactConversationRequest {
            conversation_id: id.clone(),
            upto_seq,
            summary: sentence(Role::System).content,
            ..CompactConversationRequest::default()
        };
        sidecar
            .memory()
            .compact_conversation(request)
            .await
            .unwrap();
    }
    let strong = |id: &str| GetHistoryRequest {
        consistency: Consistency::Strong.into(),
        ..history(id)
    };
    let label = "1,000,000 compacted messages, STRONG, of 10";
    compare(rounds, label, sidecar, [strong(&short), strong(&long)]).await;
}

/// Compares saves with estimated and with counted tokens.
async fn token_counts(rounds: usize, form: &Form) {
    let mut callers = Vec::new();
    let mut sidecars = Vec::new();
    for encoding in ["none", "o200k_base"] {
        let sidecar = Sidecar::start_with(form, &[("TOKEN_ENCODING", encoding)]).await;
        let id = new_conversation(&mut sidecar.memory(), &new_user()).await;
        callers.push(Caller::new(&sidecar, Call::save(&id)));
        sidecars.push(sidecar);
    }
    let [estimated, counted] = [callers.remove(0), callers.remove(0)];
    let times = alternate(rounds, [estimated, counted]).await;
    print("SaveMessages, tokens counted", &times);
}

async fn compare(rounds: usize, label: &str, sidecar: &Sidecar, requests: [GetHistoryRequest; 2]) {
    let callers = requests.map(|request| Caller::new(sidecar, Call::History(request)));
    print(label, &alternate(rounds, callers).await);
}

fn print(label: &str, [plain, with_it]: &[Times; 2]) {
    let cells = [
        micros(plain.median()),
        micros(with_it.median()),
        with_it.ratio(plain),
        with_it.remark(),
    ];
    row(label, &cells);
}

async fn conversation_of(memory: &mut Memory, messages: Vec<Message>) -> String {
    let id = new_conversation(memory, &new_user()).await;
    memory.save_messages(save(&id, messages)).await.unwrap();
    id
}

fn sentence(role: Role) -> Message {
    let text = "A sentence as people write them to an assistant. ".repeat(4);
    message(role, &text)
}
