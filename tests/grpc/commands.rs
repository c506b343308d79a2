//! `import` and `export`, as users run them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
};

use conversation_memory::proto::{
    BranchConversationRequest, Conversation, DeleteConversationRequest, ExportFormat,
    GetConversationRequest, ListBranchesRequest, ListConversationsRequest, Message, Role,
    TruncateConversationRequest,
};
use serde_json::{Value, json};

use crate::export::{export_of, file};
use test_support::{
    eventually, new_user,
    requests::{message, new_conversation, save, save_text},
    sidecar::{Form, Memory, Sidecar, command},
    tcp_proxy::TcpProxy,
};

test_support::in_both_forms!(
    imports_an_export_of_another_product_once,
    every_sample_is_imported_or_rejected_with_a_reason,
    an_exported_user_is_restored,
    an_interrupted_import_is_completed_by_another_one,
    an_import_continues_conversations_that_have_grown,
    an_import_whose_response_is_lost_continues_what_existed_before,
    exports_to_pipes_and_links,
    what_was_removed_here_does_not_come_back,
    exports_markdown_to_standard_output,
);

/// Samples whose conversations have ids or are identified by their content.
const SAMPLES: [&str; 7] = [
    "chatgpt.json",
    "claude.json",
    "sharegpt.json",
    "openai-messages.json",
    "librechat.json",
    "librechat-recursive.json",
    "open-webui.json",
];

/// Exit status if something was rejected.
pub(crate) const PARTIAL: i32 = 3;

pub(crate) fn sample(name: &str) -> PathBuf {
    let samples = "crates/import-formats/tests/samples";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(samples)
        .join(name)
}

fn begin(sidecar: &Sidecar, user: &str, arguments: &[&str]) -> Child {
    begin_at(sidecar.address, user, arguments)
}

pub(crate) fn begin_at(address: SocketAddr, user: &str, arguments: &[&str]) -> Child {
    let mut command = command();
    command.args(arguments).args(["--user", user, "--address"]);
    command.arg(address.to_string());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

pub(crate) async fn run(sidecar: &Sidecar, user: &str, arguments: &[&str]) -> Output {
    output_of(begin(sidecar, user, arguments)).await
}

pub(crate) async fn output_of(child: Child) -> Output {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    output.await.unwrap().unwrap()
}

pub(crate) async fn import(
    sidecar: &Sidecar,
    user: &str,
    file: &Path,
) -> (Option<i32>, String, String) {
    let output = run(sidecar, user, &["import", file.to_str().unwrap()]).await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub(crate) async fn conversations(memory: &mut Memory, user: &str) -> Vec<Conversation> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListConversationsRequest {
            user_id: user.to_owned(),
            page_size: 100,
            page_token,
            ..ListConversationsRequest::default()
        };
        let page = memory
            .list_conversations(request)
            .await
            .unwrap()
            .into_inner();
        all.extend(page.conversations);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

pub(crate) async fn messages(memory: &mut Memory, id: &str) -> Vec<Message> {
    let request = GetConversationRequest {
        conversation_id: id.to_owned(),
        ..GetConversationRequest::default()
    };
    memory
        .get_conversation(request)
        .await
        .unwrap()
        .into_inner()
        .messages
}

async fn imports_an_export_of_another_product_once(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let (code, counts, reasons) = import(&sidecar, &user, &sample("chatgpt.json")).await;
    assert_eq!(code, Some(PARTIAL), "{reasons}");
    assert_eq!(
        counts,
        "4 imported, 0 continued (14 messages, 3 branches), 0 skipped because they are there already, 2 rejected\n"
    );
    assert!(reasons.contains("rejected: conversation 4 (c-empty): contains no messages"));
    assert!(reasons.contains("rejected: conversation 6: appears to be null; expected"));
    let before = conversations(&mut memory, &user).await;
    let sums = before
        .iter()
        .find(|it| it.title == "Sums" && it.parent_id.is_empty())
        .unwrap();
    let stored = messages(&mut memory, &sums.id).await;
    assert_eq!(stored.len(), 7);
    assert_eq!(stored[5].role(), Role::Tool);
    assert_eq!(sums.created_at.unwrap().seconds, 1_700_000_000);
    let branches = ListBranchesRequest {
        conversation_id: sums.id.clone(),
        ..ListBranchesRequest::default()
    };
    let branches = memory
        .list_branches(branches)
        .await
        .unwrap()
        .into_inner()
        .conversations;
    assert_eq!(branches.len(), 1);
    let branch = messages(&mut memory, &branches[0].id).await;
    assert_eq!(branch.last().unwrap().content, "5");

    let (code, counts, _) = import(&sidecar, &user, &sample("chatgpt.json")).await;
    assert_eq!(code, Some(PARTIAL));
    assert!(
        counts.starts_with("0 imported, 0 continued (0 messages, 0 branches), 4 skipped"),
        "{counts}"
    );
    assert_eq!(conversations(&mut memory, &user).await, before);

    // The zip file as it is downloaded has one of these conversations.
    let (code, counts, _) = import(&sidecar, &user, &sample("chatgpt.zip")).await;
    assert_eq!(code, Some(0));
    assert!(
        counts.starts_with("0 imported, 0 continued (0 messages, 0 branches), 1 skipped"),
        "{counts}"
    );
    let (code, counts, _) = import(&sidecar, &new_user(), &sample("chatgpt.zip")).await;
    assert_eq!(code, Some(0));
    assert!(
        counts.starts_with("1 imported, 0 continued (8 messages, 1 branches), 0 skipped"),
        "{counts}"
    );
}

async fn every_sample_is_imported_or_rejected_with_a_reason(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    for (name, code, imported, reason) in [
        ("claude.json", PARTIAL, "2 imported", "contains no messages"),
        (
            "sharegpt.json",
            PARTIAL,
            "2 imported",
            "message 1: \"narrator\" is no known author",
        ),
        ("openai-messages.json", 0, "1 imported", ""),
        (
            "openai-fine-tuning.jsonl",
            PARTIAL,
            "3 imported",
            "was probably cut off here",
        ),
        ("librechat.json", 0, "1 imported", ""),
        ("librechat-recursive.json", 0, "1 imported", ""),
        ("open-webui.json", 0, "2 imported", ""),
        ("utf-16.json", 0, "1 imported", ""),
        ("lone-surrogate.json", 0, "1 imported", ""),
        ("truncated.json", PARTIAL, "1 imported", "it was cut off"),
        ("empty-list.json", 0, "0 imported", ""),
        (
            "empty.json",
            PARTIAL,
            "0 imported",
            "the file is empty; expected a JSON",
        ),
        (
            "page.html",
            PARTIAL,
            "0 imported",
            "appears to be an HTML page; expected a JSON",
        ),
    ] {
        let (found, counts, reasons) = import(&sidecar, &new_user(), &sample(name)).await;
        assert_eq!(found, Some(code), "{name}: {counts}{reasons}");
        assert!(counts.starts_with(imported), "{name}: {counts}");
        assert!(reasons.contains(reason), "{name}: {reasons}");
    }
    for name in SAMPLES {
        let user = new_user();
        import(&sidecar, &user, &sample(name)).await;
        let (_, counts, reasons) = import(&sidecar, &user, &sample(name)).await;
        assert!(counts.starts_with("0 imported, 0 continued"), "{counts}");
        assert!(!counts.contains("changed"), "{name}: {counts}{reasons}");
    }
    let file = sample("claude.json");
    let arguments = ["import", file.to_str().unwrap(), "--format", "chatgpt"];
    let output = run(&sidecar, &new_user(), &arguments).await;
    assert_eq!(output.status.code(), Some(PARTIAL));
    let reasons = String::from_utf8(output.stderr).unwrap();
    assert!(
        reasons.contains("in the format claude; expected the format chatgpt"),
        "{reasons}"
    );
    let output = run(&sidecar, &new_user(), &["import", "/no/such/file"]).await;
    assert_eq!(output.status.code(), Some(1));
}

async fn an_exported_user_is_restored(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let mut exports = BTreeMap::new();
    for number in 0..3 {
        let conversation = new_conversation(&mut memory, &user).await;
        let texts = [format!("question {number}"), "answer".to_owned()];
        let texts = texts.map(|text| message(Role::User, &text));
        memory
            .save_messages(save(&conversation, texts.into()))
            .await
            .unwrap();
        let export = file(&mut memory, export_of(&conversation, ExportFormat::Jsonl)).await;
        exports.insert(conversation, export);
    }
    let parent = exports.keys().next().unwrap().clone();
    let branch = BranchConversationRequest {
        conversation_id: parent,
        at_seq: 1,
        ..BranchConversationRequest::default()
    };
    let branched = memory
        .branch_conversation(branch)
        .await
        .unwrap()
        .into_inner();
    let branch = branched.conversation.unwrap().id;
    let order = |all: Vec<Conversation>| all.into_iter().map(|it| it.id).collect::<Vec<_>>();
    let before = order(conversations(&mut memory, &user).await);
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("all.zip");
    let output = run(&sidecar, &user, &["export", zip.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(!folder.path().join("all.zip.partial").exists());

    let (code, counts, _) = import(&sidecar, &user, &zip).await;
    assert_eq!(code, Some(0));
    assert!(counts.contains("4 skipped"), "{counts}");
    for id in exports.keys().chain([&branch]) {
        let delete = DeleteConversationRequest {
            conversation_id: id.clone(),
            ..DeleteConversationRequest::default()
        };
        memory.delete_conversation(delete).await.unwrap();
    }
    let (code, counts, reasons) = import(&sidecar, &user, &zip).await;
    assert_eq!(code, Some(0), "{reasons}");
    assert!(
        counts.starts_with("4 imported, 0 continued (7 messages, 0 branches)"),
        "{counts}"
    );
    for (id, export) in &exports {
        let restored = file(&mut memory, export_of(id, ExportFormat::Jsonl)).await;
        assert_eq!(&restored, export);
    }
    let mut after = order(conversations(&mut memory, &user).await);
    after.sort();
    let mut before = before;
    before.sort();
    assert_eq!(after, before);

    // The ids of another user's conversations cannot be taken.
    let (code, _, reasons) = import(&sidecar, &new_user(), &zip).await;
    assert_eq!(code, Some(PARTIAL));
    assert!(
        reasons.contains("its id is in use by another user"),
        "{reasons}"
    );
}

/// A file of the form of ShareGPT with `count` conversations of 7 to 8 messages.
fn data_set(count: usize) -> String {
    let mut file = "[\n".to_owned();
    for number in 0..count {
        let turn = |turn: usize| {
            let from = if turn.is_multiple_of(2) {
                "human"
            } else {
                "gpt"
            };
            json!({"from": from, "value": format!("conversation {number}, turn {turn}")})
        };
        let turns: Vec<_> = (0..7 + number % 2).map(turn).collect();
        let conversation = json!({"id": format!("c{number}"), "conversations": turns});
        let end = if number + 1 == count { "\n]\n" } else { ",\n" };
        write!(file, "{conversation}{end}").unwrap();
    }
    file
}

async fn an_interrupted_import_is_completed_by_another_one(form: Form) {
    const COUNT: usize = 200;
    let user = new_user();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("sharegpt.json");
    fs::write(&data, data_set(COUNT)).unwrap();
    let path = data.to_str().unwrap();
    let report = folder.path().join("report.jsonl");

    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let mut first = begin(&sidecar, &user, &["import", path]);
    eventually("some conversations are imported", async || {
        conversations(&mut memory, &user).await.len() > 20
    })
    .await;
    first.kill().unwrap();
    first.wait().unwrap();
    sidecar.kill().await;

    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let arguments = ["import", path, "--report", report.to_str().unwrap()];
    let output = run(&sidecar, &user, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let all = conversations(&mut memory, &user).await;
    assert_eq!(all.len(), COUNT);
    let lengths: i64 = all.iter().map(|conversation| conversation.last_seq).sum();
    assert_eq!(lengths, i64::try_from(COUNT / 2 * (7 + 8)).unwrap());
    for conversation in all.iter().step_by(17) {
        let stored = messages(&mut memory, &conversation.id).await;
        assert_eq!(i64::try_from(stored.len()).unwrap(), conversation.last_seq);
    }
    let report = fs::read_to_string(report).unwrap();
    let outcomes: Vec<Value> = report
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(outcomes.len(), COUNT);
    let skipped = outcomes
        .iter()
        .filter(|it| it["outcome"] == "skipped")
        .count();
    assert!((20..=COUNT).contains(&skipped), "{skipped} skipped");
    assert_eq!(outcomes[0]["number"], 1);
}

/// An export of ChatGPT with one conversation. Its messages are `(id, parent)`, and those whose ids begin
/// with `u` are of the user.
pub(crate) fn chatgpt(nodes: &[(&str, &str)], current: &str) -> String {
    let mapping = nodes.iter().map(|(id, parent)| {
        let role = if id.starts_with('u') {
            "user"
        } else {
            "assistant"
        };
        let message = json!({
            "id": id,
            "author": { "role": role },
            "content": { "content_type": "text", "parts": [format!("text {id}")] },
        });
        let parent = (!parent.is_empty()).then_some(parent);
        let node = json!({ "id": id, "message": message, "parent": parent, "children": [] });
        ((*id).to_owned(), node)
    });
    let mapping: serde_json::Map<String, Value> = mapping.collect();
    json!([{
        "title": "Growing", "conversation_id": "c1", "create_time": 1_700_000_000,
        "mapping": mapping, "current_node": current,
    }])
    .to_string()
}

pub(crate) async fn texts(memory: &mut Memory, id: &str) -> Vec<String> {
    let messages = messages(memory, id).await;
    let text = |message: Message| message.content.replace("text ", "");
    messages.into_iter().map(text).collect()
}

async fn an_import_continues_conversations_that_have_grown(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conversations.json");
    let mut nodes = Vec::new();
    let mut import_grown = async |new: &[(&'static str, &'static str)], counts: &str| {
        nodes.extend_from_slice(new);
        for expected in [
            counts,
            "0 imported, 0 continued (0 messages, 0 branches), 1 skipped",
        ] {
            fs::write(&path, chatgpt(&nodes, nodes.last().unwrap().0)).unwrap();
            let (code, counts, reasons) = import(&sidecar, &user, &path).await;
            assert_eq!(code, Some(0), "{reasons}");
            assert!(counts.starts_with(expected), "{counts}");
        }
    };
    let first = [("u1", ""), ("a1", "u1"), ("u2", "a1"), ("a2", "u2")];
    import_grown(&first, "1 imported, 0 continued (4 messages, 0 branches)").await;
    let next = [("u3", "a2"), ("a3", "u3")];
    import_grown(&next, "0 imported, 1 continued (2 messages, 0 branches)").await;
    // Another answer, which the user has continued.
    let next = [("a3b", "u3"), ("u4", "a3b")];
    import_grown(&next, "0 imported, 1 continued (2 messages, 1 branches)").await;
    let next = [("a4", "u4")];
    import_grown(&next, "0 imported, 1 continued (1 messages, 0 branches)").await;
    // The first answer again.
    let next = [("u5", "a3")];
    import_grown(&next, "0 imported, 1 continued (1 messages, 0 branches)").await;
    let all = conversations(&mut memory, &user).await;
    let (branches, mains): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|it| !it.parent_id.is_empty());
    assert_eq!((mains.len(), branches.len()), (1, 1));
    let (main, branch) = (&mains[0].id, &branches[0].id);
    let expected = ["u1", "a1", "u2", "a2", "u3", "a3", "u5"];
    assert_eq!(texts(&mut memory, main).await, expected);
    let expected = ["u1", "a1", "u2", "a2", "u3", "a3b", "u4", "a4"];
    assert_eq!(texts(&mut memory, branch).await, expected);

    // Continued here, and in the other product as well.
    save_text(&mut memory, main, "here").await;
    import_grown(
        &[],
        "0 imported, 0 continued (0 messages, 0 branches), 1 skipped",
    )
    .await;
    let next = [("a5", "u5"), ("u6", "a5"), ("a5b", "u5")];
    import_grown(&next, "0 imported, 1 continued (3 messages, 2 branches)").await;
    assert_eq!(texts(&mut memory, main).await.last().unwrap(), "here");
    let all = conversations(&mut memory, &user).await;
    let mut ends = Vec::new();
    for conversation in all {
        ends.push(texts(&mut memory, &conversation.id).await.pop().unwrap());
    }
    ends.sort();
    assert_eq!(ends, ["a4", "a5b", "here", "u6"]);
}

async fn an_import_whose_response_is_lost_continues_what_existed_before(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conversations.json");
    let nodes = [("u1", ""), ("a1", "u1"), ("u2", "a1"), ("a2", "u2")];
    let proxy = TcpProxy::start(sidecar.address).await;
    let mut import_losing_a_response = async |count: usize, text: &str, expected: &str| {
        fs::write(&file, chatgpt(&nodes[..count], nodes[count - 1].0)).unwrap();
        proxy.lose_response_to(text);
        let child = begin_at(proxy.address(), &user, &["import", file.to_str().unwrap()]);
        let output = output_of(child).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let counts = String::from_utf8(output.stdout).unwrap();
        assert!(counts.starts_with(expected), "{counts}");
        let all = conversations(&mut memory, &user).await;
        let lengths: Vec<_> = all.iter().map(|it| it.last_seq).collect();
        assert_eq!(lengths, [i64::try_from(count).unwrap()]);
    };
    import_losing_a_response(2, "text u1", "1 imported, 0 continued (2 messages").await;
    import_losing_a_response(4, "text u2", "0 imported, 1 continued (2 messages").await;
}

async fn exports_to_pipes_and_links(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let id = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &id, "kept").await;
    let folder = tempfile::tempdir().unwrap();
    let [pipe, link, target, empty] =
        ["pipe", "link.zip", "target.zip", "empty.zip"].map(|it| folder.path().join(it));

    std::os::unix::fs::symlink(&target, &link).unwrap();
    fs::write(&target, "earlier").unwrap();
    let output = run(&sidecar, &user, &["export", link.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let zip = fs::read(&target).unwrap();
    assert!(zip.starts_with(b"PK"));

    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let path = pipe.clone();
    let reading = tokio::task::spawn_blocking(move || fs::read(path).unwrap());
    let output = run(&sidecar, &user, &["export", pipe.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(reading.await.unwrap(), zip);
    let path = pipe.clone();
    let writing = tokio::task::spawn_blocking(move || fs::write(path, zip).unwrap());
    let (code, counts, reasons) = import(&sidecar, &user, &pipe).await;
    assert_eq!(code, Some(0), "{counts} {reasons}");
    assert!(counts.contains("1 skipped"), "{counts}");
    writing.await.unwrap();

    // The export of a user without conversations is a zip file without entries.
    let without_conversations = new_user();
    run(
        &sidecar,
        &without_conversations,
        &["export", empty.to_str().unwrap()],
    )
    .await;
    let (_, _, reasons) = import(&sidecar, &without_conversations, &empty).await;
    assert!(reasons.contains("the zip file contains no"), "{reasons}");
}

async fn what_was_removed_here_does_not_come_back(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conversations.json");
    let nodes = [("u1", ""), ("a1", "u1"), ("u2", "a1"), ("a2", "u2")];
    fs::write(&path, chatgpt(&nodes[..3], "u2")).unwrap();
    import(&sidecar, &user, &path).await;
    let id = &conversations(&mut memory, &user).await[0].id;
    let truncation = TruncateConversationRequest {
        conversation_id: id.clone(),
        after_seq: 1,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(truncation).await.unwrap();
    fs::write(&path, chatgpt(&nodes, "a2")).unwrap();
    for expected in [&["u1"][..], &["u1", "other"]] {
        if expected.len() > 1 {
            save_text(&mut memory, id, "other").await;
        }
        let (code, counts, _) = import(&sidecar, &user, &path).await;
        assert_eq!(code, Some(0));
        assert!(counts.contains("1 skipped"), "{counts}");
        assert_eq!(texts(&mut memory, id).await, expected);
    }
    assert_eq!(conversations(&mut memory, &user).await.len(), 1);
}

async fn exports_markdown_to_standard_output(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let conversation = new_conversation(&mut memory, &user).await;
    let question = message(Role::User, "How many **days**?");
    memory
        .save_messages(save(&conversation, vec![question]))
        .await
        .unwrap();
    let output = run(&sidecar, &user, &["export", "-", "--format", "markdown"]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"PK"));
    let text = file(
        &mut memory,
        export_of(&conversation, ExportFormat::Markdown),
    )
    .await;
    assert!(text.starts_with("# "), "{text}");
    assert!(text.contains("## 1. User\n"), "{text}");
    assert!(text.contains("\nHow many **days**?\n"), "{text}");
}

#[tokio::test]
async fn the_token_of_a_file_authenticates() {
    let folder = tempfile::tempdir().unwrap();
    let hashes = folder.path().join("tokens");
    // The hash of "first".
    let hash = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
    fs::write(&hashes, format!("agent:{hash}\n")).unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "first\n").unwrap();
    let form = Form::embedded();
    let settings = [("AUTH_TOKENS_FILE", hashes.to_str().unwrap())];
    let sidecar = Sidecar::start_with(&form, &settings).await;
    let file = sample("openai-messages.json");
    let arguments = ["import", file.to_str().unwrap()];
    let rejected = run(&sidecar, "ana", &arguments).await;
    assert_eq!(rejected.status.code(), Some(1), "{rejected:?}");
    let with_token = [&arguments[..], &["--token-file", token.to_str().unwrap()]].concat();
    let accepted = run(&sidecar, "ana", &with_token).await;
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
}
