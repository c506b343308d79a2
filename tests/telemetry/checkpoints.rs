//! Every span of a call on a thread of checkpoints contains its conversation.

use conversation_memory::proto::{
    Checkpoint, CheckpointData, CheckpointMessage, CheckpointWrite, DeleteThreadRequest,
    GetCheckpointRequest, GetDeltaHistoryRequest, ListCheckpointsRequest, NewThread,
    PutCheckpointRequest, PutContentsRequest, PutWritesRequest, Role,
    checkpoint_service_client::CheckpointServiceClient, checkpoint_write,
};
use test_support::{new_id, new_user, requests::message, sidecar::Form};

use crate::observed::{ObservedSidecar, traced};

test_support::in_both_forms!(calls_on_threads_are_traced_with_their_conversation);

/// Makes a call in a trace of its own.
macro_rules! call {
    ($calls:ident, $client:ident.$method:ident as $name:literal, $request:expr) => {{
        let (trace, request) = traced($request);
        $calls.push(($name, trace));
        $client.$method(request).await.unwrap();
    }};
}

async fn calls_on_threads_are_traced_with_their_conversation(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    // Returns when the sidecar serves.
    observed.memory().await;
    let mut client = CheckpointServiceClient::new(observed.sidecar.channel());
    let (thread, checkpoint_id) = (new_id(), new_id());
    let mut calls = Vec::new();

    let put = PutCheckpointRequest {
        conversation_id: thread.clone(),
        new_thread: Some(NewThread {
            user_id: new_user(),
            ..NewThread::default()
        }),
        checkpoint: Some(Checkpoint {
            checkpoint_id: checkpoint_id.clone(),
            metadata_json: "{}".to_owned(),
            state: Some(CheckpointData::default()),
            ..Checkpoint::default()
        }),
        messages: vec![CheckpointMessage {
            key: "first".to_owned(),
            message: Some(message(Role::User, "a question")),
        }],
        ..PutCheckpointRequest::default()
    };
    call!(calls, client.put_checkpoint as "PutCheckpoint", put);
    let writes = PutWritesRequest {
        conversation_id: thread.clone(),
        checkpoint_id,
        task_id: "task".to_owned(),
        writes: vec![CheckpointWrite {
            channel: "channel".to_owned(),
            value: Some(checkpoint_write::Value::Single(CheckpointData::default())),
            ..CheckpointWrite::default()
        }],
        ..PutWritesRequest::default()
    };
    call!(calls, client.put_writes as "PutWrites", writes);
    let contents = PutContentsRequest {
        conversation_id: thread.clone(),
        contents: vec![vec![1; 200].into()],
        ..PutContentsRequest::default()
    };
    call!(calls, client.put_contents as "PutContents", contents);
    let get = GetCheckpointRequest {
        conversation_id: thread.clone(),
        ..GetCheckpointRequest::default()
    };
    call!(calls, client.get_checkpoint as "GetCheckpoint", get);
    let list = ListCheckpointsRequest {
        conversation_id: thread.clone(),
        ..ListCheckpointsRequest::default()
    };
    call!(calls, client.list_checkpoints as "ListCheckpoints", list);
    let history = GetDeltaHistoryRequest {
        conversation_id: thread.clone(),
        channels: vec!["messages".to_owned()],
        ..GetDeltaHistoryRequest::default()
    };
    call!(calls, client.get_delta_history as "GetDeltaHistory", history);
    let delete = DeleteThreadRequest {
        conversation_id: thread.clone(),
        ..DeleteThreadRequest::default()
    };
    call!(calls, client.delete_thread as "DeleteThread", delete);

    let exported = observed.stop().await;
    exported.assert_conversation_of_calls(&calls, &thread);
}
