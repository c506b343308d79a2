//! Imports of conversations.

use bytes::Bytes;
use conversation_memory::proto::{
    BranchConversationRequest, DeleteConversationRequest, ExportFormat, GetConversationRequest,
    HttpBody, ImportConversationRequest, ImportConversationResponse, ListConversationsRequest,
    RetrievedContext, Role, SearchMessagesRequest, TruncateConversationRequest,
    import_conversation_request::{Options, Part},
};
use prost_types::value::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::export::{export_of, file, long_conversation};
use test_support::{
    new_user,
    requests::{
        contents, history, message, new_conversation, object, rejected_field, save, save_text,
        seqs, turn,
    },
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    an_imported_export_is_exported_unchanged,
    an_imported_conversation_is_like_any_other,
    imports_a_file_that_was_not_exported,
    an_invalid_line_rejects_the_whole_file,
    rejects_invalid_imports,
    an_import_that_keeps_the_ids_restores_a_conversation,
    an_exported_branch_is_restored_beside_its_parent,
    an_aborted_import_stores_nothing,
    imports_a_long_file_in_little_memory,
);

fn options(user: &str, format: ExportFormat) -> Part {
    Part::Options(Options {
        user_id: user.to_owned(),
        format: format.into(),
        ..Options::default()
    })
}

/// A piece of a file.
fn piece_of(data: &[u8]) -> Part {
    Part::File(HttpBody {
        data: Bytes::copy_from_slice(data),
        ..HttpBody::default()
    })
}

/// The messages of a request: the options, and the file in pieces.
fn parts(options: Part, file: &[u8], piece: usize) -> Vec<ImportConversationRequest> {
    let pieces = file.chunks(piece).map(piece_of);
    let parts = std::iter::once(options).chain(pieces);
    parts
        .map(|part| ImportConversationRequest { part: Some(part) })
        .collect()
}

async fn import(
    memory: &mut Memory,
    options: Part,
    file: &[u8],
) -> Result<ImportConversationResponse, Status> {
    let requests = tokio_stream::iter(parts(options, file, 100_000));
    let imported = memory.import_conversation(requests).await?;
    Ok(imported.into_inner())
}

/// A file without the values that an import replaces.
fn without_ids(file: &str) -> String {
    let id = "\"id\":\"";
    let mut rest = file;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(id) {
        kept.push_str(before);
        rest = &after[36..];
    }
    kept + rest
}

async fn an_imported_export_is_exported_unchanged(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let mut answer = message(Role::Assistant, "25 days,\n\"at least\" \u{1} 🏖 \u{202e}");
    answer.tokens_used = Some(7);
    answer.metadata = Some(object(&[
        ("tool", Kind::StringValue("hr".to_owned())),
        ("large", Kind::NumberValue(1e300)),
        ("odd", Kind::NumberValue(0.1)),
    ]));
    answer.contexts = vec![RetrievedContext {
        doc_id: "hr.pdf".to_owned(),
        content: "25".to_owned(),
        score: Some(0.123_456_789_012_345_67),
        ..RetrievedContext::default()
    }];
    let said = vec![message(Role::User, "How many?"), answer];
    memory
        .save_messages(save(&conversation, said))
        .await
        .unwrap();
    save_text(&mut memory, &conversation, "gone").await;
    let rewind = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: 2,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(rewind).await.unwrap();
    save_text(&mut memory, &conversation, "after a gap").await;
    for format in [ExportFormat::Json, ExportFormat::Jsonl] {
        let exported = file(&mut memory, export_of(&conversation, format)).await;
        let imported = import(&mut memory, options("", format), exported.as_bytes()).await;
        let imported = imported.unwrap();
        assert_eq!(imported.imported_messages, 3);
        let copy = imported.conversation.unwrap();
        assert_ne!(copy.id, conversation);
        assert_eq!((copy.user_id.as_str(), copy.last_seq), (user.as_str(), 4));
        let again = file(&mut memory, export_of(&copy.id, format)).await;
        assert_ne!(again, exported);
        assert_eq!(without_ids(&again), without_ids(&exported));
    }
}

async fn an_imported_conversation_is_like_any_other(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let from = new_conversation(&mut memory, &new_user()).await;
    let said = save(&from, turn("What is our vacation policy?", "25 days."));
    memory.save_messages(said).await.unwrap();
    let exported = file(&mut memory, export_of(&from, ExportFormat::Json)).await;
    let user = new_user();
    let to = Part::Options(Options {
        user_id: user.clone(),
        dept_id: "hr".to_owned(),
        ..Options::default()
    });
    let imported = import(&mut memory, to, exported.as_bytes()).await.unwrap();
    let copy = imported.conversation.unwrap();
    assert_eq!(
        (copy.user_id, copy.dept_id),
        (user.clone(), "hr".to_owned())
    );
    // From the store, and then from the recent window, if there is one.
    for _ in 0..2 {
        let read = memory.get_history(history(&copy.id)).await.unwrap();
        let read = read.into_inner();
        assert_eq!(
            contents(&read.messages),
            ["What is our vacation policy?", "25 days."]
        );
    }
    assert_eq!(save_text(&mut memory, &copy.id, "Thanks").await.last_seq, 3);
    let read = memory.get_history(history(&copy.id)).await.unwrap();
    assert_eq!(seqs(&read.into_inner().messages), [1, 2, 3]);
    let query = SearchMessagesRequest {
        user_id: user.clone(),
        query: "vacation".to_owned(),
        dept_id: "hr".to_owned(),
        ..SearchMessagesRequest::default()
    };
    let found = memory.search_messages(query).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), 1);
    let list = ListConversationsRequest {
        user_id: user,
        ..ListConversationsRequest::default()
    };
    let listed = memory.list_conversations(list).await.unwrap().into_inner();
    assert_eq!(listed.conversations[0].id, copy.id);
    assert_eq!(
        listed.conversations[0].title,
        "What is our vacation policy?"
    );
}

async fn imports_a_file_that_was_not_exported(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let lines = concat!(
        "{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\r\n",
        "{\"role\":\"user\",\"content\":\"Hello\"}\r\n",
        "{\"role\":\"assistant\",\"content\":\"Hi\"}",
    );
    let imported = import(
        &mut memory,
        options(&user, ExportFormat::Jsonl),
        lines.as_bytes(),
    );
    let copy = imported.await.unwrap().conversation.unwrap();
    let request = GetConversationRequest {
        conversation_id: copy.id,
        user_id: user,
        ..GetConversationRequest::default()
    };
    let found = memory.get_conversation(request).await.unwrap().into_inner();
    assert_eq!(contents(&found.messages), ["Hello", "Hi"]);
    let created = found.messages[0].created_at.unwrap();
    assert_eq!(Some(created), found.conversation.unwrap().updated_at);
}

/// Number of conversations of a user.
async fn conversations_of(memory: &mut Memory, user: &str) -> usize {
    let list = ListConversationsRequest {
        user_id: user.to_owned(),
        ..ListConversationsRequest::default()
    };
    let listed = memory.list_conversations(list).await.unwrap();
    listed.into_inner().conversations.len()
}

async fn an_invalid_line_rejects_the_whole_file(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let from = long_conversation(&mut memory, 1_000).await;
    let mut exported = file(&mut memory, export_of(&from, ExportFormat::Jsonl)).await;
    exported.push_str("{\"role\":\"user\",\"content\":\"secret\",\"tokens_used\":-1}\n");
    let user = new_user();
    let wanted = options(&user, ExportFormat::Jsonl);
    let refused = import(&mut memory, wanted, exported.as_bytes()).await;
    let refused = refused.unwrap_err();
    assert_eq!(rejected_field(&refused), "line 1002: seq");
    exported = exported.replace(
        "\"content\":\"secret\"",
        "\"seq\":1001,\"content\":\"secret\"",
    );
    exported = exported.replace("\"last_seq\":1000", "\"last_seq\":1001");
    let wanted = options(&user, ExportFormat::Jsonl);
    let refused = import(&mut memory, wanted, exported.as_bytes()).await;
    let refused = refused.unwrap_err();
    assert_eq!(rejected_field(&refused), "line 1002: tokens_used");
    assert_eq!(
        refused.message(),
        "line 1002: tokens_used must not be negative"
    );
    assert_eq!(conversations_of(&mut memory, &user).await, 0);
    assert!(!sidecar.log().iter().any(|line| line.contains("secret")));
}

async fn rejects_invalid_imports(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let header = b"{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\n";
    let user = "x".repeat(256);
    let refusals = [
        (
            parts(options("", ExportFormat::Jsonl), header, 9),
            "options.user_id",
        ),
        (
            parts(options(&user, ExportFormat::Jsonl), header, 9),
            "options.user_id",
        ),
        (
            parts(options("a\0", ExportFormat::Jsonl), header, 9),
            "options.user_id",
        ),
        (
            parts(options("a", ExportFormat::Csv), header, 9),
            "options.format",
        ),
        (
            parts(options("a", ExportFormat::Json), b"{}\n{}", 9),
            "line 2",
        ),
        (
            parts(options("a", ExportFormat::Jsonl), b"", 9),
            "line 1: conversation",
        ),
        (parts(piece_of(header), header, 9), "options"),
        (Vec::new(), "options"),
        (
            parts(options("a", ExportFormat::Jsonl), header, 99)
                .into_iter()
                .chain(parts(options("a", ExportFormat::Jsonl), b"", 9))
                .collect(),
            "file",
        ),
        (
            parts(
                Part::Options(Options {
                    format: 9,
                    ..Options::default()
                }),
                header,
                9,
            ),
            "options.format",
        ),
    ];
    for (requests, field) in refusals {
        let requests = tokio_stream::iter(requests);
        let refused = memory.import_conversation(requests).await.unwrap_err();
        assert_eq!(rejected_field(&refused), field);
    }
    // An endless line takes no more memory than the largest message.
    let endless = tokio_stream::StreamExt::chain(
        tokio_stream::iter(parts(options("a", ExportFormat::Jsonl), header, 99)),
        tokio_stream::iter((0..100).map(|_| ImportConversationRequest {
            part: Some(piece_of(&vec![b'x'; 1 << 20])),
        })),
    );
    let refused = memory.import_conversation(endless).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "line 2");
}

async fn an_aborted_import_stores_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let lines = concat!(
        "{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\n",
        "{\"role\":\"user\",\"content\":\"Hello\"}\n",
    );
    // There are more of them than may run at once, so each must release its permit. The senders
    // live on: a dropped one could end the file before the abort reaches the server.
    let mut senders = Vec::new();
    for _ in 0..12 {
        let (send, requests) = mpsc::channel(1);
        let mut client = memory.clone();
        let call = tokio::spawn(async move {
            client
                .import_conversation(ReceiverStream::new(requests))
                .await
        });
        for part in parts(
            options(&user, ExportFormat::Jsonl),
            lines.as_bytes(),
            1 << 10,
        ) {
            send.send(part).await.unwrap();
        }
        senders.push(send);
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    // The deadline passes while the rest of the file is awaited.
    let (send, requests) = mpsc::channel(4);
    for part in parts(
        options(&user, ExportFormat::Jsonl),
        lines.as_bytes(),
        1 << 10,
    ) {
        send.send(part).await.unwrap();
    }
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    request.set_timeout(std::time::Duration::from_millis(200));
    let late = memory.import_conversation(request).await.unwrap_err();
    // The timer of the client can fire first.
    let codes = [Code::DeadlineExceeded, Code::Cancelled];
    assert!(codes.contains(&late.code()), "{late:?}");
    assert_eq!(conversations_of(&mut memory, &user).await, 0);
    // The aborted imports do not affect a complete one.
    loop {
        let wanted = options(&user, ExportFormat::Jsonl);
        match import(&mut memory, wanted, lines.as_bytes()).await {
            Ok(_) => break,
            Err(busy) => assert_eq!(busy.code(), Code::Unavailable, "{busy:?}"),
        }
    }
    assert_eq!(conversations_of(&mut memory, &user).await, 1);
}

async fn imports_a_long_file_in_little_memory(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let from = long_conversation(&mut memory, 20_000).await;
    let exported = file(&mut memory, export_of(&from, ExportFormat::Json)).await;
    // Memory that connections and the allocator keep is allocated before.
    let short = long_conversation(&mut memory, 2_000).await;
    let short = file(&mut memory, export_of(&short, ExportFormat::Json)).await;
    let wanted = || options("", ExportFormat::Json);
    import(&mut memory, wanted(), short.as_bytes())
        .await
        .unwrap();
    let before = sidecar.peak_kib();
    let imported = import(&mut memory, wanted(), exported.as_bytes()).await;
    assert_eq!(imported.unwrap().imported_messages, 20_000);
    // The kernel rounds the peak, so that it can be lower than before.
    let grown = sidecar.peak_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for 20,000 messages");
}

async fn an_import_that_keeps_the_ids_restores_a_conversation(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let conversation = new_conversation(&mut memory, &user).await;
    let texts = ["one", "two"].map(|text| message(Role::User, text));
    memory
        .save_messages(save(&conversation, texts.into()))
        .await
        .unwrap();
    let export = file(&mut memory, export_of(&conversation, ExportFormat::Jsonl)).await;
    let keeping = || {
        Part::Options(Options {
            user_id: user.clone(),
            keep_ids: true,
            ..Options::default()
        })
    };
    let reused = import(&mut memory, keeping(), export.as_bytes())
        .await
        .unwrap_err();
    assert_eq!(reused.code(), Code::AlreadyExists);
    let delete = DeleteConversationRequest {
        conversation_id: conversation.clone(),
        ..DeleteConversationRequest::default()
    };
    memory.delete_conversation(delete).await.unwrap();
    let imported = import(&mut memory, keeping(), export.as_bytes())
        .await
        .unwrap();
    assert_eq!(imported.conversation.unwrap().id, conversation);
    let restored = file(&mut memory, export_of(&conversation, ExportFormat::Jsonl)).await;
    assert_eq!(restored, export);
    // The window of the deleted conversation is not used.
    let read = memory
        .get_history(history(&conversation))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(contents(&read.messages), ["one", "two"]);
    let without_id = br#"{"format":"conversation-memory","version":1,"conversation":{}}"#;
    let rejected = import(&mut memory, keeping(), without_id)
        .await
        .unwrap_err();
    assert_eq!(rejected_field(&rejected), "options.keep_ids");
}

async fn an_exported_branch_is_restored_beside_its_parent(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, user) = (sidecar.memory(), new_user());
    let parent = new_conversation(&mut memory, &user).await;
    let texts = ["one", "two"].map(|text| message(Role::User, text));
    memory
        .save_messages(save(&parent, texts.into()))
        .await
        .unwrap();
    let branch = BranchConversationRequest {
        conversation_id: parent.clone(),
        at_seq: 1,
        ..BranchConversationRequest::default()
    };
    let branched = memory.branch_conversation(branch).await.unwrap();
    let branch = branched.into_inner().conversation.unwrap().id;
    save_text(&mut memory, &branch, "three").await;
    let export = file(&mut memory, export_of(&branch, ExportFormat::Jsonl)).await;
    let delete = DeleteConversationRequest {
        conversation_id: branch.clone(),
        ..DeleteConversationRequest::default()
    };
    memory.delete_conversation(delete).await.unwrap();
    let keeping = Part::Options(Options {
        user_id: user,
        keep_ids: true,
        ..Options::default()
    });
    import(&mut memory, keeping, export.as_bytes())
        .await
        .unwrap();
    let mut ids = Vec::new();
    for (conversation, expected) in [(&parent, ["one", "two"]), (&branch, ["one", "three"])] {
        let read = memory.get_history(history(conversation)).await.unwrap();
        let read = read.into_inner().messages;
        assert_eq!(contents(&read), expected);
        ids.push(read[0].id.clone());
    }
    assert_eq!(ids[0], ids[1]);
}
