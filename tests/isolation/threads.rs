//! Requests of each method on threads of checkpoints.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    known::Kind,
    messages::{new_id, words},
    operations::{Operation, Scene},
};

/// Numbers of the checkpoints of a thread and of runs, which are the same for both users.
const CHECKPOINTS: usize = 5;
const RUNS: usize = 4;
const CHANNEL: &str = "channel";

impl Scene<'_> {
    pub(crate) fn of_threads(&mut self) -> Operation {
        match self.random.below(21) {
            0..6 => self.put_checkpoint(),
            6..8 => self.put_writes(),
            8..11 => self.put_contents(),
            11 => self.get_checkpoint(),
            12..15 => self.get_contents(),
            15 => self.list_checkpoints(),
            16 => self.get_delta_history(),
            17 => self.delete_thread(),
            18 => self.copy_thread(),
            19 => self.delete_runs(),
            _ => self.prune_threads(),
        }
    }

    fn put_checkpoint(&mut self) -> Operation {
        // Without a reference to another thread, because it would be created in its absence.
        let mut request = if self.random.one_in(4) {
            let id = new_id(self.random);
            json!({ "conversationId": id, "userId": self.user, "newThread": { "threadId": "name" } })
        } else {
            self.named()
        };
        let version = self.random.below(3).to_string();
        let text = format!("{} {}", words(self.random, 3), self.user);
        request["checkpoint"] = json!({
            "checkpointId": self.checkpoint_id(),
            "metadataJson": format!("{{\"step\":{}}}", self.random.below(3)),
            "state": data("state"),
            "channelVersions": [{ "channel": CHANNEL, "version": version }],
            "values": [{ "channel": CHANNEL, "version": version, "single": data(&text) }],
        });
        let run = self.run();
        self.maybe(&mut request, 2, "runId", run);
        self.maybe(&mut request, 4, "storedChannels", json!([CHANNEL]));
        let key = format!("message-{}", self.random.below(6));
        let message = json!({ "role": "ROLE_USER", "content": text });
        let messages = json!([{ "key": key, "message": message }]);
        self.maybe(&mut request, 2, "messages", messages);
        if self.random.one_in(2) {
            request["checkpoint"]["parentCheckpointId"] = self.checkpoint_id();
            let write = json!({ "index": 0, "channel": CHANNEL, "single": data(&text) });
            request["taskWrites"] = json!([{ "taskId": "task", "writes": [write] }]);
        }
        Operation::new("PutCheckpoint", request)
    }

    fn put_writes(&mut self) -> Operation {
        let mut request = self.named();
        request["checkpointId"] = self.checkpoint_id();
        request["taskId"] = format!("task-{}", self.random.below(3)).into();
        let text = format!("{} {}", words(self.random, 2), self.user);
        let write = json!({ "index": 0, "channel": CHANNEL, "single": data(&text) });
        request["writes"] = json!([write]);
        Operation::new("PutWrites", request)
    }

    fn put_contents(&mut self) -> Operation {
        let mut request = self.named();
        let contents = BASE64_STANDARD.encode(content());
        request["contents"] = json!([contents]);
        Operation::new("PutContents", request)
    }

    fn get_checkpoint(&mut self) -> Operation {
        let mut request = self.named();
        let id = self.checkpoint_id();
        self.maybe(&mut request, 4, "checkpointId", id);
        Operation::new("GetCheckpoint", request)
    }

    fn get_contents(&mut self) -> Operation {
        let mut request = self.named();
        let digest = Sha256::digest(content());
        request["digests"] = json!([BASE64_STANDARD.encode(&digest[..16])]);
        Operation::new("GetContents", request)
    }

    fn list_checkpoints(&mut self) -> Operation {
        let mut request = self.named();
        self.page_size(&mut request);
        self.maybe(&mut request, 3, "filterJson", "{\"step\":1}".into());
        Operation::new("ListCheckpoints", request)
    }

    fn get_delta_history(&mut self) -> Operation {
        let mut request = self.named();
        let id = self.checkpoint_id();
        self.maybe(&mut request, 2, "checkpointId", id);
        request["channels"] = json!([CHANNEL]);
        Operation::new("GetDeltaHistory", request)
    }

    fn delete_thread(&mut self) -> Operation {
        let mut request = self.named();
        // A thread that does not exist is no error.
        self.maybe(&mut request, 4, "conversationId", "x".into());
        Operation::new("DeleteThread", request)
    }

    fn copy_thread(&mut self) -> Operation {
        let mut request = self.named();
        request["targetConversationId"] = new_id(self.random).into();
        request["newThread"] = json!({ "threadId": "copy" });
        Operation::new("CopyThread", request)
    }

    fn delete_runs(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        let runs = json!([self.run()]);
        if !self.random.one_in(6) {
            request["runIds"] = runs;
        }
        Operation::new("DeleteRuns", request)
    }

    fn prune_threads(&mut self) -> Operation {
        let ids = [self.any(Kind::Conversation), self.any(Kind::Conversation)];
        let strategies = ["KEEP_LATEST", "KEEP_LATEST", "DELETE", "UNSPECIFIED"];
        let strategy = strategies[self.random.below(strategies.len())];
        let request = json!({
            "userId": self.user,
            "conversationIds": ids[self.random.below(2)..],
            "strategy": format!("PRUNE_STRATEGY_{strategy}"),
        });
        Operation::new("PruneThreads", request)
    }

    fn checkpoint_id(&mut self) -> Value {
        let number = self.random.below(CHECKPOINTS);
        match self.random.below(16) {
            0 => "x".into(),
            _ => format!("00000000-0000-4000-8000-{number:012}").into(),
        }
    }

    fn run(&mut self) -> Value {
        format!("run-{}", self.random.below(RUNS)).into()
    }
}

fn data(text: &str) -> Value {
    json!({ "type": "text", "pieces": [{ "data": BASE64_STANDARD.encode(text) }] })
}

/// Bytes that are large enough to be stored once per thread.
fn content() -> Vec<u8> {
    "content ".repeat(25).into_bytes()
}
