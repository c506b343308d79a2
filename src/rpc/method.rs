use std::{collections::HashMap, sync::LazyLock};

use prost_reflect::DescriptorPool;

use crate::{proto::POOL, telemetry::call::CallKind};

/// The contract's methods by path. Whoever asks for others must not make names
/// of metrics.
static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let mut methods = HashMap::new();
    for service in POOL.iter().flat_map(DescriptorPool::services) {
        for method in service.methods() {
            let name = format!("{}/{}", service.full_name(), method.name());
            let kind = kind(service.name(), method.name());
            methods.insert(
                format!("/{name}"),
                Method {
                    name: name.into(),
                    kind,
                },
            );
        }
    }
    methods
});

static OTHER: LazyLock<Method> = LazyLock::new(|| Method {
    name: "_OTHER".into(),
    kind: kind("", ""),
});

/// A method as telemetry names it.
#[derive(Debug)]
pub(super) struct Method {
    /// `rpc.method`: the full name, without the slash that a path begins with.
    pub(super) name: std::sync::Arc<str>,
    pub(super) kind: CallKind,
}

impl Method {
    /// The method that a request's path names.
    pub(super) fn of(path: &str) -> &'static Self {
        METHODS.get(path).unwrap_or(&OTHER)
    }
}

/// A read retrieves, a write is a tool's work, and a turn is a link in a chain.
/// Sessions are no memory.
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
        "UpdateConversation" => Some("update_memory"),
        "TruncateConversation" => Some("delete_memory"),
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
    fn the_contracts_methods_have_names_and_no_others() {
        let path = "/conversation_memory.v1.ConversationMemory/GetHistory";
        let read = Method::of(path);
        assert_eq!(*read.name, path[1..]);
        assert_eq!(read.kind.run, "retriever");
        let save = Method::of("/conversation_memory.v1.ConversationMemory/SaveMessages");
        assert_eq!(save.kind.run, "tool");
        assert_eq!(save.kind.operation, Some("create_memory"));
        let turn = Method::of("/conversation_memory.v1.ConversationMemory/BeginTurn");
        assert_eq!(turn.kind.run, "chain");
        let end = Method::of("/conversation_memory.v1.SessionService/EndSession");
        assert_eq!((end.kind.run, end.kind.operation), ("tool", None));
        assert_eq!(*Method::of("/x/y").name, *"_OTHER");
        assert_eq!(Method::of("/x/y").kind.run, "chain");
    }
}
