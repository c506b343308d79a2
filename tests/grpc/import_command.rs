//! `import` of files that are irregular, have changed, or exceed a limit.

use std::fs;

use conversation_memory::proto::{DeleteConversationRequest, ExportFormat};
use serde_json::{Value, json};

use crate::{
    commands::{PARTIAL, import},
    export::{export_of, file},
};
use test_support::{
    new_user,
    requests::{new_conversation, save_text},
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    names_the_place_of_what_is_rejected,
    restores_archives_in_other_forms,
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
