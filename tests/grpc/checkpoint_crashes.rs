//! Copies and removals of threads that a crash of the sidecar interrupts.

use std::time::Duration;

use conversation_memory::proto::{
    CheckpointValue, CheckpointVersion, CopyThreadRequest, DeleteRunsRequest,
    ListCheckpointsRequest, NewThread, PruneStrategy, PruneThreadsRequest, checkpoint_value,
};
use tonic::{Code, Status};

use crate::checkpoints::{Checkpoints, client, data, put};
use test_support::{
    new_id, new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    a_copy_that_a_crash_interrupts_is_complete_or_absent,
    a_prune_that_a_crash_interrupts_is_complete_or_absent,
    a_removal_of_runs_that_a_crash_interrupts_is_complete_or_absent,
);

/// Number of checkpoints of a thread whose copy and removal take many rows.
const MANY: usize = 80;

/// Stores a thread of many checkpoints, each of which has a large value. The run of all but the first is
/// the name of the user.
async fn put_many(sidecar: &Sidecar, thread: &str, user: &str) {
    let mut checkpoints = client(sidecar);
    for number in 0..MANY {
        let mut put = put(thread, user);
        let version = number.to_string();
        if number > 0 {
            user.clone_into(&mut put.run_id);
        }
        let checkpoint = put.checkpoint.as_mut().unwrap();
        checkpoint.channel_versions = vec![CheckpointVersion {
            channel: "large".to_owned(),
            version: version.clone(),
        }];
        // It cannot be compressed.
        let large: Vec<u8> = (0..1000).flat_map(|_| new_id().into_bytes()).collect();
        checkpoint.values = vec![CheckpointValue {
            channel: "large".to_owned(),
            version,
            value: Some(checkpoint_value::Value::Single(data(&large))),
        }];
        checkpoints.put_checkpoint(put).await.unwrap();
    }
}

/// Number of checkpoints of a thread, all of which can be read.
async fn count(sidecar: &Sidecar, thread: &str, user: &str) -> usize {
    let mut checkpoints = client(sidecar);
    let mut request = ListCheckpointsRequest {
        conversation_id: thread.to_owned(),
        user_id: user.to_owned(),
        ..ListCheckpointsRequest::default()
    };
    let mut found = 0;
    loop {
        let page = match checkpoints.list_checkpoints(request.clone()).await {
            Ok(page) => page.into_inner(),
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{status:?}");
                return 0;
            }
        };
        found += page.checkpoints.len();
        for each in &page.checkpoints {
            assert_eq!(each.checkpoint.as_ref().unwrap().values.len(), 1);
        }
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

/// Kills a sidecar a while after a call has begun, and starts the next one.
async fn killed_during<T: Send + 'static>(
    form: &Form,
    sidecar: Sidecar,
    delay: Duration,
    call: impl AsyncFnOnce(Checkpoints) -> Result<T, Status>,
) -> Sidecar {
    let called = call(client(&sidecar));
    let killed = async {
        tokio::time::sleep(delay).await;
        sidecar.kill().await;
    };
    // The call can end before the kill.
    let _ = tokio::join!(called, killed);
    Sidecar::start(form).await
}

async fn a_copy_that_a_crash_interrupts_is_complete_or_absent(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let (thread, user) = (new_id(), new_user());
    put_many(&sidecar, &thread, &user).await;
    for delay in [0, 3, 10, 30, 100] {
        let target = new_id();
        let copy = CopyThreadRequest {
            conversation_id: thread.clone(),
            user_id: user.clone(),
            target_conversation_id: target.clone(),
            new_thread: Some(NewThread::default()),
        };
        let interrupted = copy.clone();
        let delay = Duration::from_millis(delay);
        sidecar = killed_during(
            &form,
            sidecar,
            delay,
            async |mut checkpoints: Checkpoints| checkpoints.copy_thread(interrupted).await,
        )
        .await;
        let copied = count(&sidecar, &target, &user).await;
        assert!(copied == 0 || copied == MANY, "{copied}");
        if copied == 0 {
            client(&sidecar).copy_thread(copy).await.unwrap();
            assert_eq!(count(&sidecar, &target, &user).await, MANY);
        }
        assert_eq!(count(&sidecar, &thread, &user).await, MANY);
    }
}

async fn a_prune_that_a_crash_interrupts_is_complete_or_absent(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    for delay in [0, 10, 30] {
        let (thread, user) = (new_id(), new_user());
        put_many(&sidecar, &thread, &user).await;
        let prune = PruneThreadsRequest {
            conversation_ids: vec![thread.clone()],
            user_id: user.clone(),
            strategy: PruneStrategy::KeepLatest.into(),
        };
        let interrupted = prune.clone();
        let delay = Duration::from_millis(delay);
        sidecar = killed_during(
            &form,
            sidecar,
            delay,
            async |mut checkpoints: Checkpoints| checkpoints.prune_threads(interrupted).await,
        )
        .await;
        let left = count(&sidecar, &thread, &user).await;
        assert!(left == 1 || left == MANY, "{left}");
        client(&sidecar).prune_threads(prune).await.unwrap();
        assert_eq!(count(&sidecar, &thread, &user).await, 1);
    }
}

async fn a_removal_of_runs_that_a_crash_interrupts_is_complete_or_absent(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    for delay in [0, 10, 30] {
        let (thread, user) = (new_id(), new_user());
        put_many(&sidecar, &thread, &user).await;
        let removal = DeleteRunsRequest {
            user_id: user.clone(),
            run_ids: vec![user.clone()],
        };
        let interrupted = removal.clone();
        let delay = Duration::from_millis(delay);
        sidecar = killed_during(
            &form,
            sidecar,
            delay,
            async |mut checkpoints: Checkpoints| checkpoints.delete_runs(interrupted).await,
        )
        .await;
        let left = count(&sidecar, &thread, &user).await;
        assert!(left == 1 || left == MANY, "{left}");
        client(&sidecar).delete_runs(removal).await.unwrap();
        assert_eq!(count(&sidecar, &thread, &user).await, 1);
    }
}
