//! Checkpoints over gRPC: invalid requests, other users, retries, and a crash between two calls.

use conversation_memory::proto::{
    Checkpoint, CheckpointData, CheckpointList, CheckpointMessage, CheckpointPiece,
    CheckpointValue, CheckpointVersion, CheckpointWrite, CopyThreadRequest, GetCheckpointRequest,
    GetContentsRequest, NewThread, PruneThreadsRequest, PutCheckpointRequest, PutContentsRequest,
    PutWritesRequest, Role, TaskWrites, checkpoint_piece::Piece,
    checkpoint_service_client::CheckpointServiceClient, checkpoint_value, checkpoint_write,
};
use tonic::{Code, Status, transport::Channel};

use test_support::{
    new_id, new_user,
    requests::{contents, history, message, reason, rejected_field},
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    invalid_checkpoints_are_rejected_with_their_field,
    writes_of_tasks_are_validated_and_stored,
    a_new_thread_belongs_to_the_claimed_user,
    what_is_acknowledged_survives_a_crash,
    another_user_finds_no_thread,
    concurrent_puts_save_each_message_once,
);

pub(crate) type Checkpoints = CheckpointServiceClient<Channel>;

pub(crate) fn data(bytes: &[u8]) -> CheckpointData {
    CheckpointData {
        r#type: "msgpack".to_owned(),
        pieces: vec![CheckpointPiece {
            piece: Some(Piece::Data(bytes.to_vec().into())),
        }],
    }
}

pub(crate) fn put(thread: &str, user: &str) -> PutCheckpointRequest {
    PutCheckpointRequest {
        conversation_id: thread.to_owned(),
        user_id: user.to_owned(),
        new_thread: Some(NewThread {
            thread_id: "thread".to_owned(),
            ..NewThread::default()
        }),
        checkpoint: Some(Checkpoint {
            checkpoint_id: new_id(),
            metadata_json: "{}".to_owned(),
            state: Some(data(b"state")),
            ..Checkpoint::default()
        }),
        ..PutCheckpointRequest::default()
    }
}

fn get(thread: &str, user: &str) -> GetCheckpointRequest {
    GetCheckpointRequest {
        conversation_id: thread.to_owned(),
        user_id: user.to_owned(),
        ..GetCheckpointRequest::default()
    }
}

fn with_message(mut put: PutCheckpointRequest, key: &str) -> PutCheckpointRequest {
    put.messages.push(CheckpointMessage {
        key: key.to_owned(),
        message: Some(message(Role::User, key)),
    });
    put
}

fn list_of(base: &str, items: Vec<CheckpointData>) -> CheckpointValue {
    CheckpointValue {
        channel: "list".to_owned(),
        version: "2".to_owned(),
        value: Some(checkpoint_value::Value::List(CheckpointList {
            base_version: base.to_owned(),
            base_items: 1,
            items,
        })),
    }
}

pub(crate) fn client(sidecar: &Sidecar) -> Checkpoints {
    CheckpointServiceClient::new(sidecar.channel())
}

type Change = fn(&mut Checkpoint);

async fn invalid_checkpoints_are_rejected_with_their_field(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut checkpoints = client(&sidecar);
    let (thread, user) = (new_id(), new_user());
    let changes: [(&str, Change); 9] = [
        ("checkpoint.checkpoint_id", |c| c.checkpoint_id.clear()),
        ("checkpoint.parent_checkpoint_id", |c| {
            c.parent_checkpoint_id = "first".to_owned();
        }),
        ("checkpoint.namespace", |c| c.namespace = "n".repeat(1025)),
        ("checkpoint.namespace", |c| c.namespace = "a\0b".to_owned()),
        ("checkpoint.metadata_json", |c| c.metadata_json.clear()),
        ("checkpoint.metadata_json", |c| {
            c.metadata_json = "[1]".to_owned();
        }),
        ("checkpoint.channel_versions[0].channel", |c| {
            c.channel_versions.push(CheckpointVersion::default());
        }),
        ("checkpoint.values[0].single", |c| {
            c.values.push(CheckpointValue {
                channel: "c".to_owned(),
                ..CheckpointValue::default()
            });
        }),
        ("checkpoint.values[0].single.pieces[0]", |c| {
            c.values.push(CheckpointValue {
                channel: "c".to_owned(),
                version: "1".to_owned(),
                value: Some(checkpoint_value::Value::Single(data(&vec![
                    7;
                    (1 << 20) + 1
                ]))),
            });
        }),
    ];
    for (field, change) in changes {
        let mut put = put(&thread, &user);
        change(put.checkpoint.as_mut().unwrap());
        let rejected = checkpoints.put_checkpoint(put).await.unwrap_err();
        assert_eq!(rejected.code(), Code::InvalidArgument, "{field}");
        assert_eq!(rejected_field(&rejected), field);
    }
    let none = checkpoints.get_checkpoint(get(&thread, &user)).await;
    assert_eq!(reason(&none.unwrap_err()), "CONVERSATION_NOT_FOUND");

    let mut unknown = put(&thread, &user);
    let list = list_of("1", vec![data(b"item")]);
    unknown.checkpoint.as_mut().unwrap().values.push(list);
    let rejected = checkpoints.put_checkpoint(unknown).await.unwrap_err();
    assert_eq!(rejected.code(), Code::FailedPrecondition);
    assert_eq!(reason(&rejected), "BASE_VERSION_MISSING");
    let none = checkpoints.get_checkpoint(get(&thread, &user)).await;
    assert_eq!(reason(&none.unwrap_err()), "CHECKPOINT_NOT_FOUND");

    let without_user = PutCheckpointRequest {
        user_id: String::new(),
        ..put(&new_id(), "")
    };
    let rejected = checkpoints.put_checkpoint(without_user).await.unwrap_err();
    assert_eq!(rejected.code(), Code::NotFound);
    let prune = PruneThreadsRequest {
        conversation_ids: vec![thread],
        ..PruneThreadsRequest::default()
    };
    let rejected = checkpoints.prune_threads(prune).await.unwrap_err();
    assert_eq!(rejected_field(&rejected), "strategy");
}

async fn writes_of_tasks_are_validated_and_stored(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut checkpoints = client(&sidecar);
    let (thread, user) = (new_id(), new_user());
    let writes = TaskWrites {
        task_id: "task".to_owned(),
        writes: vec![CheckpointWrite {
            channel: "channel".to_owned(),
            value: Some(checkpoint_write::Value::Single(data(b"written"))),
            ..CheckpointWrite::default()
        }],
        ..TaskWrites::default()
    };
    let too_many = vec![writes.clone(); 101];
    let nameless = TaskWrites {
        task_id: String::new(),
        ..writes.clone()
    };
    for (parent, task_writes, field) in [
        ("", vec![writes.clone()], "checkpoint.parent_checkpoint_id"),
        ("parent", too_many, "task_writes"),
        (
            "parent",
            vec![writes.clone(), nameless],
            "task_writes[1].task_id",
        ),
        (
            "parent",
            vec![TaskWrites {
                writes: Vec::new(),
                ..writes.clone()
            }],
            "task_writes[0].writes",
        ),
    ] {
        let mut put = PutCheckpointRequest {
            task_writes,
            ..put(&thread, &user)
        };
        if !parent.is_empty() {
            put.checkpoint.as_mut().unwrap().parent_checkpoint_id = new_id();
        }
        let rejected = checkpoints.put_checkpoint(put).await.unwrap_err();
        assert_eq!(rejected_field(&rejected), field);
    }
    let parent = put(&thread, &user);
    let parent_id = parent.checkpoint.as_ref().unwrap().checkpoint_id.clone();
    checkpoints.put_checkpoint(parent).await.unwrap();
    let mut next = put(&thread, &user);
    next.task_writes = vec![writes];
    next.checkpoint.as_mut().unwrap().parent_checkpoint_id = parent_id.clone();
    let stored = checkpoints.put_checkpoint(next).await.unwrap();
    assert_eq!(stored.into_inner().stored_task_writes, 1);
    let found = checkpoints.get_checkpoint(GetCheckpointRequest {
        checkpoint_id: parent_id,
        ..get(&thread, &user)
    });
    let found = found.await.unwrap().into_inner();
    assert_eq!(found.writes[0].task_id, "task");
}

async fn a_new_thread_belongs_to_the_claimed_user(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut checkpoints = client(&sidecar);
    let (thread, user) = (new_id(), new_user());
    let for_other = Some(NewThread {
        user_id: new_user(),
        ..NewThread::default()
    });
    let put = PutCheckpointRequest {
        new_thread: for_other.clone(),
        ..put(&thread, &user)
    };
    let contents = PutContentsRequest {
        conversation_id: thread.clone(),
        user_id: user.clone(),
        new_thread: for_other.clone(),
        contents: vec![vec![0; 200].into()],
    };
    let copy = CopyThreadRequest {
        conversation_id: thread.clone(),
        user_id: user.clone(),
        target_conversation_id: new_id(),
        new_thread: for_other,
    };
    let rejected = [
        checkpoints.put_checkpoint(put).await.map(drop),
        checkpoints.put_contents(contents).await.map(drop),
        checkpoints.copy_thread(copy).await.map(drop),
    ];
    for rejected in rejected.map(Result::unwrap_err) {
        assert_eq!(rejected.code(), Code::InvalidArgument);
        assert_eq!(rejected_field(&rejected), "new_thread.user_id");
    }
}

async fn what_is_acknowledged_survives_a_crash(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut checkpoints = client(&sidecar);
    let (thread, user) = (new_id(), new_user());
    let large = vec![b'x'; 700 << 10];
    let upload = PutContentsRequest {
        conversation_id: thread.clone(),
        user_id: user.clone(),
        new_thread: Some(NewThread::default()),
        contents: vec![large.clone().into(); 2],
    };
    checkpoints.put_contents(upload.clone()).await.unwrap();
    checkpoints.put_contents(upload).await.unwrap();
    let put = with_message(put(&thread, &user), "question");
    let checkpoint_id = put.checkpoint.as_ref().unwrap().checkpoint_id.clone();
    let stored = checkpoints.put_checkpoint(put.clone()).await.unwrap();
    assert_eq!(stored.into_inner().saved_messages, 1);
    let writes = PutWritesRequest {
        conversation_id: thread.clone(),
        user_id: user.clone(),
        checkpoint_id: checkpoint_id.clone(),
        task_id: "task".to_owned(),
        writes: vec![CheckpointWrite {
            channel: "channel".to_owned(),
            value: Some(checkpoint_write::Value::Single(data(&large))),
            ..CheckpointWrite::default()
        }],
        ..PutWritesRequest::default()
    };
    checkpoints.put_writes(writes.clone()).await.unwrap();
    sidecar.kill().await;

    let sidecar = Sidecar::start(&form).await;
    let mut checkpoints = client(&sidecar);
    // The retry of a caller that has lost the responses changes nothing.
    let repeated = checkpoints.put_checkpoint(put).await.unwrap().into_inner();
    assert_eq!((repeated.last_seq, repeated.saved_messages), (1, 0));
    checkpoints.put_writes(writes).await.unwrap();
    let found = checkpoints.get_checkpoint(get(&thread, &user)).await;
    let found = found.unwrap().into_inner();
    assert_eq!(found.checkpoint.unwrap().checkpoint_id, checkpoint_id);
    assert_eq!(found.writes.len(), 1);
    let read = sidecar.memory().get_history(history(&thread)).await;
    assert_eq!(contents(&read.unwrap().into_inner().messages), ["question"]);
}

async fn another_user_finds_no_thread(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut checkpoints = client(&sidecar);
    let (thread, user, other) = (new_id(), new_user(), new_user());
    let stored = put(&thread, &user);
    checkpoints.put_checkpoint(stored).await.unwrap();
    let is_missing = |status: Status| {
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(reason(&status), "CONVERSATION_NOT_FOUND");
    };
    let foreign = checkpoints.put_checkpoint(put(&thread, &other)).await;
    is_missing(foreign.unwrap_err());
    let foreign = checkpoints.get_checkpoint(get(&thread, &other)).await;
    is_missing(foreign.unwrap_err());
    let read = GetContentsRequest {
        conversation_id: thread.clone(),
        user_id: other.clone(),
        digests: vec![vec![0; 16]],
    };
    is_missing(checkpoints.get_contents(read).await.unwrap_err());
    let prune = PruneThreadsRequest {
        conversation_ids: vec![thread.clone()],
        user_id: other,
        strategy: 2,
    };
    checkpoints.prune_threads(prune).await.unwrap();
    checkpoints
        .get_checkpoint(get(&thread, &user))
        .await
        .unwrap();
}

async fn concurrent_puts_save_each_message_once(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (thread, user) = (new_id(), new_user());
    let writers = (0..4).map(|writer| {
        let (mut checkpoints, thread, user) = (client(&sidecar), thread.clone(), user.clone());
        tokio::spawn(async move {
            for number in 0..10 {
                let shared = with_message(put(&thread, &user), &format!("shared {number}"));
                let own = with_message(shared, &format!("{writer} {number}"));
                checkpoints.put_checkpoint(own).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut request = history(&thread);
    request.limit = 100;
    let read = sidecar.memory().get_history(request).await.unwrap();
    let read = read.into_inner();
    assert_eq!((read.last_seq, read.messages.len()), (50, 50));
    let mut texts = contents(&read.messages);
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 50);
}
