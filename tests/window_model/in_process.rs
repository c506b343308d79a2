//! The model of the window in the process. There is one process, which has no connection to lose, and
//! whose data does not go back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use conversation_memory::{
    domain::ConversationId,
    recent::{RecentWindow, in_process::InProcessRecent},
};
use test_support::window::LIMIT;
use tokio::time::advance;

use crate::{RUNS_WITHOUT_GUARD, choices, model::Windows, run, sidecar::Sidecar};

/// Number of bytes at which the windows of other runs leave during a run.
const MAX_BYTES: usize = 16 << 10;

struct InProcess {
    recent: Arc<InProcessRecent>,
    sidecar: Sidecar,
}

impl Windows for InProcess {
    fn sidecar(&self, _index: usize) -> &Sidecar {
        &self.sidecar
    }

    fn disconnected(&self) -> Option<&dyn RecentWindow> {
        None
    }

    fn can_go_back(&self) -> bool {
        false
    }

    async fn expire_announcements(&self, _id: ConversationId) {
        advance(LIMIT + Duration::from_secs(1)).await;
    }

    async fn end_lease(&self, _id: ConversationId) {
        advance(Duration::from_secs(3)).await;
    }

    async fn evict(&self, id: ConversationId) {
        self.recent.evict(id);
    }

    async fn save(&self, _id: ConversationId) -> Bytes {
        Bytes::new()
    }

    async fn go_back(&self, _id: ConversationId, _saved: Bytes) {}

    async fn state(&self, _id: ConversationId) -> String {
        let (conversations, bytes) = (
            self.recent.stored_conversations(),
            self.recent.stored_bytes(),
        );
        format!("{bytes} bytes of {conversations} conversations")
    }
}

#[tokio::test(start_paused = true)]
async fn reads_contain_every_acknowledged_save() {
    let recent = Arc::new(InProcessRecent::new(10, MAX_BYTES));
    let windows = InProcess {
        sidecar: Sidecar::Present(Arc::clone(&recent) as Arc<dyn RecentWindow>),
        recent,
    };
    for seed in 0..RUNS_WITHOUT_GUARD {
        if let Err(trace) = run(&windows, &choices(seed)).await {
            panic!("a violation:\n{}", trace.join("\n"));
        }
        assert!(windows.recent.stored_bytes() <= MAX_BYTES);
    }
}
