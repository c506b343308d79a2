//! `import` of files that are irregular, have changed, or exceed a limit.

use std::{fs, fs::File};

use conversation_memory::proto::{
    DeleteConversationRequest, ExportFormat, Message, RedactMessagesRequest,
};
use serde_json::{Value, json};
use zip_files::ZipWriter;

use crate::{
    commands::{PARTIAL, begin_at, chatgpt, conversations, import, messages, output_of, texts},
    export::{export_of, file},
};
use test_support::{
    http::Http,
    new_user,
    requests::{new_conversation, save_text},
    sidecar::{Form, Sidecar},
    tcp_proxy::TcpProxy,
};

test_support::in_both_forms!(
    names_the_place_of_what_is_rejected,
    restores_archives_in_other_forms,
    reports_messages_that_were_changed_in_the_file,
    writes_nothing_of_a_conversation_with_a_message_over_a_limit,
    an_archive_that_exists_is_skipped_after_a_lost_response,
    imports_no_more_at_once_than_the_sidecar_accepts,
);

async fn names_the_place_of_what_is_rejected(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conversations.json");
    let conversation = |id: &str, author: &str, time: Value| {
        json!({"uuid": id, "chat_messages": [
            {"uuid": "m1", "sender": "human", "text": "Hi"},
            {"uuid": "m2", "sender": author, "text": "Hello", "created_at": time},
        ]})
    };
    let time = json!("2024-05-06T07:08:09Z");
    let conversations = json!([
        conversation("c1", "narrator", time.clone()),
        conversation("c2", "assistant", json!("yesterday")),
        conversation("c3", "assistant", time),
    ]);
    fs::write(&path, conversations.to_string()).unwrap();
    let (code, counts, reasons) = import(&sidecar, &new_user(), &path).await;
    assert_eq!(code, Some(PARTIAL));
    assert!(counts.starts_with("1 imported"), "{counts}");
    assert_eq!(
        reasons,
        "rejected: conversation 1 (c1): message \"m2\": \"narrator\" is no known author\n\
         rejected: conversation 2 (c2): message \"m2\": created_at is not a valid time: \"yesterday\"\n"
    );
    let zip = folder.path().join("export.zip");
    let mut writer = ZipWriter::new(File::create(&zip).unwrap());
    for name in ["conversations-1.json", "conversations-2.json"] {
        let mut entry = writer.begin(name).unwrap();
        entry.write(&fs::read(&path).unwrap()).unwrap();
        entry.finish().unwrap();
    }
    writer.finish().unwrap();
    let (_, _, reasons) = import(&sidecar, &new_user(), &zip).await;
    let last = "rejected: conversation 5 (c2) in conversations-2.json: message \"m2\": created_at";
    assert!(reasons.contains(last), "{reasons}");
}

async fn reports_messages_that_were_changed_in_the_file(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conversations.json");
    let nodes = [("u1", ""), ("a1", "u1"), ("u2", "a1"), ("u2b", "a1")];
    let original = chatgpt(&nodes, "u2");
    fs::write(&path, &original).unwrap();
    import(&sidecar, &user, &path).await;
    let all = conversations(&mut memory, &user).await;
    let main = &all.iter().find(|it| it.parent_id.is_empty()).unwrap().id;

    let edited = original
        .replace("text a1", "another text")
        .replace("text u2b", "another question");
    fs::write(&path, &edited).unwrap();
    let report = folder.path().join("report.jsonl");
    let arguments = [
        "import",
        path.to_str().unwrap(),
        "--report",
        report.to_str().unwrap(),
    ];
    let output = output_of(begin_at(sidecar.address, &user, &arguments)).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "0 imported, 0 continued (0 messages, 0 branches), 1 skipped because they are there already, \
         0 rejected, 1 with messages that were changed in the file\n"
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "changed: conversation 1 (c1): 2 of its messages differ from the stored ones, which remain\n"
    );
    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(report["changed_messages"], 2);
    assert_eq!(texts(&mut memory, main).await, ["u1", "a1", "u2"]);

    // A continued one, whose other changed message was redacted here.
    let redaction = RedactMessagesRequest {
        conversation_id: main.clone(),
        seqs: vec![2],
        ..RedactMessagesRequest::default()
    };
    memory.redact_messages(redaction).await.unwrap();
    let nodes = [&nodes[..], &[("a2", "u2")]].concat();
    let grown = chatgpt(&nodes, "a2").replace("text a1", "another text");
    fs::write(&path, grown.replace("text u1", "other")).unwrap();
    let (_, counts, reasons) = import(&sidecar, &user, &path).await;
    assert!(counts.starts_with("0 imported, 1 continued (1 messages, 0 branches)"));
    assert!(reasons.contains("1 of its messages differ"), "{reasons}");
}

/// By default, a sidecar with PostgreSQL accepts one import at a time. Each rejection delays the import.
async fn imports_no_more_at_once_than_the_sidecar_accepts(form: Form) {
    const COUNT: usize = 60;
    let mut sidecar = Sidecar::start(&form).await;
    let user = new_user();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.json");
    let conversation = |number: usize| {
        let text = format!("conversation {number}");
        json!({"conversations": [{"from": "human", "value": text}]})
    };
    let conversations: Vec<_> = (0..COUNT).map(conversation).collect();
    fs::write(&path, json!(conversations).to_string()).unwrap();
    let operations = Http::at(sidecar.operations().await);
    for expected in [format!("{COUNT} imported"), "0 imported".to_owned()] {
        let (code, counts, _) = import(&sidecar, &user, &path).await;
        assert_eq!(code, Some(0));
        assert!(counts.starts_with(&expected), "{counts}");
    }
    let metrics = operations.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let name = "conversation_memory_rejections_total{";
    let is_rejection = |line: &&str| line.starts_with(name) && line.contains("\"transfers\"");
    let rejections = metrics.lines().find(is_rejection);
    let rejections: f64 = rejections.map_or(0.0, |line| {
        line.rsplit(' ').next().unwrap().parse().unwrap()
    });
    // Each but the last of three calls at the same time is rejected once.
    assert!(rejections <= 2.0, "{rejections} calls were rejected");
    let is_call = |line: &&str| {
        line.starts_with("rpc_")
            && line.contains("duration_seconds_count{")
            && line.contains("ImportConversation")
    };
    let calls = metrics.lines().filter(is_call);
    let calls = calls.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
    let calls: usize = calls.sum();
    // Conversations that exist are not imported again to be skipped.
    assert!((COUNT..=COUNT + 2).contains(&calls), "{calls} calls");
}

/// An export of ChatGPT with one conversation of `count` messages, and one that is too large.
fn with_large(count: usize, large: usize) -> String {
    let ids: Vec<_> = (1..=count).map(|number| format!("u{number}x")).collect();
    let parent = |index: usize| {
        index
            .checked_sub(1)
            .map_or("", |before| ids[before].as_str())
    };
    let nodes: Vec<_> = (0..count)
        .map(|index| (ids[index].as_str(), parent(index)))
        .collect();
    let text = format!("text u{large}x");
    chatgpt(&nodes, nodes[count - 1].0).replace(&text, &"x".repeat(3_000))
}

async fn writes_nothing_of_a_conversation_with_a_message_over_a_limit(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONTENT_BYTES", "2000")]).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conversations.json");
    let rejection = async |count: usize, large: usize| {
        fs::write(&path, with_large(count, large)).unwrap();
        let (code, _, reasons) = import(&sidecar, &user, &path).await;
        assert_eq!(code, Some(PARTIAL), "{reasons}");
        reasons
    };
    let reasons = rejection(10, 7).await;
    let expected = "rejected: conversation 1 (c1): message 7: content ";
    assert!(reasons.starts_with(expected), "{reasons}");
    assert!(conversations(&mut memory, &user).await.is_empty());

    fs::write(folder.path().join("small.json"), with_large(10, 0)).unwrap();
    import(&sidecar, &user, &folder.path().join("small.json")).await;
    let id = conversations(&mut memory, &user).await[0].id.clone();
    // The message is in the second save.
    for (count, large) in [(250, 150), (20, 13)] {
        let reasons = rejection(count, large).await;
        let expected = format!("rejected: conversation 1 (c1): message {large}: content ");
        assert!(reasons.starts_with(&expected), "{reasons}");
        assert_eq!(messages(&mut memory, &id).await.len(), 10);
    }
    fs::write(&path, with_large(250, 0)).unwrap();
    let (_, counts, _) = import(&sidecar, &user, &path).await;
    assert!(counts.contains("1 continued (240 messages"), "{counts}");
    let stored = messages(&mut memory, &id).await;
    let text = |message: &Message| message.content.clone();
    assert_eq!(stored.last().map(text).as_deref(), Some("text u250x"));
}

async fn an_archive_that_exists_is_skipped_after_a_lost_response(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.jsonl");
    let id = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &id, "kept").await;
    let archive = file(&mut memory, export_of(&id, ExportFormat::Jsonl)).await;
    fs::write(&path, archive).unwrap();
    let proxy = TcpProxy::start(sidecar.address).await;
    for text in ["kept", id.as_str()] {
        proxy.lose_response_to(text);
        let arguments = ["import", path.to_str().unwrap()];
        let output = output_of(begin_at(proxy.address(), &user, &arguments)).await;
        let counts = String::from_utf8(output.stdout).unwrap();
        assert!(counts.contains("1 skipped"), "{counts}");
    }
}

/// Archives are recognized in a list, with `format` at the end, and in UTF-16.
async fn restores_archives_in_other_forms(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.json");
    let id = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &id, "é 😀").await;
    let json = file(&mut memory, export_of(&id, ExportFormat::Json)).await;
    let lines = file(&mut memory, export_of(&id, ExportFormat::Jsonl)).await;
    let utf_16 = |text: &str| {
        let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<_>>()
    };
    let format = "\"format\":\"conversation-memory\",";
    let reordered = json.trim_end().replacen(format, "", 1);
    let reordered = format!(
        "{},{}}}",
        reordered.strip_suffix('}').unwrap(),
        format.trim_end_matches(',')
    );
    for bytes in [
        format!("[{json}]").into_bytes(),
        format!("[\n{reordered}]").into_bytes(),
        reordered.into_bytes(),
        format!("\u{feff}{json}").into_bytes(),
        utf_16(&json),
        utf_16(&lines),
    ] {
        fs::write(&path, &bytes).unwrap();
        let (code, counts, reasons) = import(&sidecar, &user, &path).await;
        assert_eq!(code, Some(0), "{reasons}");
        assert!(counts.contains("1 skipped"), "{counts}");
        let delete = DeleteConversationRequest {
            conversation_id: id.clone(),
            ..DeleteConversationRequest::default()
        };
        memory.delete_conversation(delete).await.unwrap();
        let (code, counts, reasons) = import(&sidecar, &user, &path).await;
        assert_eq!(code, Some(0), "{reasons}");
        assert!(counts.starts_with("1 imported"), "{counts}");
        let restored = file(&mut memory, export_of(&id, ExportFormat::Jsonl)).await;
        assert_eq!(restored, lines);
    }
}
