use std::{collections::HashMap, sync::LazyLock};

use prost_reflect::DescriptorPool;

use crate::{call::CallKind, proto::POOL};

/// Methods of the contract by path. Other paths have no entry, so that callers cannot create
/// metric attributes of their own.
static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let mut methods = HashMap::new();
    for service in POOL.iter().flat_map(DescriptorPool::services) {
        for method in service.methods() {
            let name = format!("{}/{}", service.full_name(), method.name());
            let kind = kind(service.name(), method.name());
            methods.insert(
                format!("/{name}"),
                Method {
                    name,
                    kind,
                    is_server_streaming: method.is_server_streaming(),
                },
            );
        }
    }
    methods
});

static OTHER: LazyLock<Method> = LazyLock::new(|| Method {
    name: "_OTHER".to_owned(),
    kind: kind("", ""),
    is_server_streaming: false,
});

/// Method as it appears in traces and metrics.
#[derive(Debug)]
pub(super) struct Method {
    name: String,
    pub(super) kind: CallKind,
    /// Whether the response is a stream of messages.
    pub(super) is_server_streaming: bool,
}

impl Method {
    /// Value of `rpc.method`: the path without its leading slash.
    pub(super) fn name(&'static self) -> &'static str {
        &self.name
    }

    /// Whether a call changes conversations or sessions, other than by beginning a turn.
    pub(super) fn is_write(&self) -> bool {
        self.kind.run == "tool"
    }

    /// Returns the method at `path`, or `_OTHER` if the contract has none.
    pub(super) fn of(path: &str) -> &'static Self {
        METHODS.get(path).unwrap_or(&OTHER)
    }
}

/// Returns the kind of a method's span: a read is a retriever, a write a tool and a turn a
/// chain. Operations on sessions are not operations on memory.
fn kind(service: &str, method: &str) -> CallKind {
    let is_read = ["Get", "List", "Search", "Export"]
        .iter()
        .any(|verb| method.starts_with(verb));
    let run = match method {
        _ if is_read => "retriever",
        "" | "BeginTurn" => "chain",
        _ => "tool",
    };
    let operation = match method {
        _ if service != "ConversationMemory" => None,
        "BeginTurn" => Some("search_memory"),
        "SaveMessages" => Some("create_memory"),
        "CreateConversation" => Some("create_memory_store"),
        "UpdateConversation" | "CompactConversation" | "TransferConversation" => {
            Some("update_memory")
        }
        "TruncateConversation" | "RedactMessages" => Some("delete_memory"),
        "DeleteConversation" => Some("delete_memory_store"),
        _ if is_read => Some("search_memory"),
        _ => None,
    };
    CallKind { run, operation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_of_the_contract_have_names() {
        let path = "/conversation_memory.v1.ConversationMemory/GetHistory";
        let read = Method::of(path);
        assert_eq!(read.name(), &path[1..]);
        assert_eq!(read.kind.run, "retriever");
        let save = Method::of("/conversation_memory.v1.ConversationMemory/SaveMessages");
        assert_eq!(save.kind.run, "tool");
        assert!(save.is_write() && !read.is_write());
        assert_eq!(save.kind.operation, Some("create_memory"));
        let turn = Method::of("/conversation_memory.v1.ConversationMemory/BeginTurn");
        assert_eq!(turn.kind.run, "chain");
        let end = Method::of("/conversation_memory.v1.SessionService/EndSession");
        assert_eq!((end.kind.run, end.kind.operation), ("tool", None));
        assert_eq!(Method::of("/x/y").name(), "_OTHER");
        assert_eq!(Method::of("/x/y").kind.run, "chain");
    }
}
