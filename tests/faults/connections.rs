//! Connections of callers outlive stops of either process, and calls that are cancelled together.

use std::time::Duration;

use conversation_memory::proto::GetHistoryRequest;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use test_support::{
    new_user,
    requests::{history, new_conversation},
    sidecar::{Form, Memory, Sidecar},
};

/// Numbers of calls whose time limit passes while the sidecar is stopped.
const CANCELLED: [usize; 3] = [30, 500, 1500];

#[tokio::test]
async fn calls_cancelled_while_the_sidecar_is_stopped_do_not_end_others() {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    for count in CANCELLED {
        sidecar.signal("STOP");
        let other = read(&memory, history(&conversation));
        let mut cancelled = JoinSet::new();
        for _ in 0..count {
            let mut request = Request::new(history(&conversation));
            request.set_timeout(Duration::from_millis(100));
            let mut memory = memory.clone();
            cancelled.spawn(async move { memory.get_history(request).await.is_err() });
        }
        assert!(cancelled.join_all().await.into_iter().all(|failed| failed));
        sidecar.signal("CONT");
        assert_answered(&other.await.unwrap());
    }
}

#[tokio::test]
async fn many_calls_that_arrive_together_share_a_connection() {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    sidecar.signal("STOP");
    let calls: Vec<_> = (0..1000)
        .map(|_| read(&memory, history(&conversation)))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    sidecar.signal("CONT");
    for call in calls {
        assert_answered(&call.await.unwrap());
    }
}

/// Requires a response of the service. A busy service may answer UNAVAILABLE, with details; a call
/// whose connection was closed has none.
fn assert_answered(outcome: &Result<(), Status>) {
    if let Err(error) = outcome {
        assert!(error.get_details_retry_info().is_some(), "{error:?}");
    }
}

fn read(memory: &Memory, request: GetHistoryRequest) -> JoinHandle<Result<(), Status>> {
    let mut memory = memory.clone();
    TaskTracker::new().spawn(async move { memory.get_history(request).await.map(drop) })
}
