//! Converts the tree of a conversation into a conversation and its branches, with derived ids.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain::{
    AuthorName, Conversation, ConversationId, Limits, Message, MessageId, Metadata, NewMessage,
    RawMessage, Role, Title, UserId,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Branch, Format, ImportedConversation, ids, pairing,
    source::{Draft, Node, Source},
};

/// Upper bound on the branches of a conversation.
const MAX_BRANCHES: usize = 1000;

/// The service checks the sizes of texts and data, which its operator can set.
const LIMITS: Limits = Limits {
    content_bytes: 1 << 40,
    metadata_bytes: 64 << 10,
    blob_bytes: 1 << 40,
};

/// What all conversations of an import have in common.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Owner of the conversations.
    pub user_id: UserId,
    /// Time of conversations and messages that have none.
    pub now: DateTime<Utc>,
}

/// Point of the tree: a conversation, and the number of messages in it up to there.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Index among the conversations of the tree; the first one is the main conversation.
    owner: usize,
    seq: usize,
}

/// Nodes that a conversation has in addition to those that it shares.
struct Path {
    start: Option<Point>,
    nodes: Vec<usize>,
}

/// # Errors
/// Fails with the reason for which the conversation cannot be imported.
pub(crate) fn convert(
    source: Source,
    format: Format,
    content: &Value,
    options: &ImportOptions,
) -> Result<ImportedConversation, String> {
    let key = match &source.id {
        Some(id) => id.clone(),
        None => ids::content_key(content),
    };
    let root = ids::conversation(format, &options.user_id, &key);
    let header = header(&source, format, root, options)?;
    let mut tree = Tree::new(source.nodes);
    let paths = tree.paths(source.current.as_deref())?;
    let mut builder = MessageBuilder {
        root,
        default_time: header.updated_at,
        used: HashSet::new(),
    };
    let mut conversations = paths.iter().map(|path| {
        let conversation = branch_id(root, path, &tree.nodes);
        builder.messages(conversation, path, &tree.nodes)
    });
    let (messages, branch_ids) = conversations.next().ok_or("contains no messages")??;
    let mut imported = ImportedConversation {
        source_id: source.id,
        conversation: header,
        messages,
        branch_ids,
        branches: Vec::new(),
    };
    if imported.conversation.title.is_none() {
        // As that of a conversation whose messages are saved.
        let mut messages = imported.messages.iter();
        let first = messages.find(|message| message.role == Role::User);
        imported.conversation.title =
            first.and_then(|message| Title::from_content(message.content.as_str()));
    }
    imported.conversation.last_seq = i64::try_from(imported.messages.len()).unwrap_or(i64::MAX);
    for (index, messages) in conversations.enumerate() {
        let path = &paths[index + 1];
        let (messages, branch_ids) = messages?;
        let start = path.start.filter(|point| point.seq > 0);
        let (parent, at_seq) = start.map_or((root, 0), |point| {
            (
                branch_id(root, &paths[point.owner], &tree.nodes).as_uuid(),
                point.seq,
            )
        });
        imported.branches.push(Branch {
            id: branch_id(root, path, &tree.nodes),
            parent_id: ConversationId::from_uuid(parent),
            at_seq: i64::try_from(at_seq).unwrap_or(i64::MAX),
            messages,
            branch_ids,
        });
    }
    Ok(imported)
}

/// Id of the conversation that a path creates. The main conversation does not share messages.
fn branch_id(root: Uuid, path: &Path, nodes: &[Node]) -> ConversationId {
    match (&path.start, path.nodes.first()) {
        (Some(_), Some(&first)) => ids::branch(root, &nodes[first].id, 0),
        _ => ConversationId::from_uuid(root),
    }
}

fn header(
    source: &Source,
    format: Format,
    id: Uuid,
    options: &ImportOptions,
) -> Result<Conversation, String> {
    let drafts = || source.nodes.iter().flat_map(|node| &node.messages);
    let times = || drafts().filter_map(|draft| draft.created_at);
    let created_at = source
        .created_at
        .or_else(|| times().min())
        .unwrap_or(options.now);
    let updated_at = source
        .updated_at
        .or_else(|| times().max())
        .unwrap_or(options.now);
    let title = source.title.as_deref().map(|title| {
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        title.chars().take(Title::MAX_CHARS).collect::<String>()
    });
    let title = title.and_then(|title| Title::parse(title).ok());
    let mut metadata = source.metadata.clone();
    metadata.insert("imported_from".to_owned(), format.name().into());
    if let Some(id) = &source.id {
        metadata.insert("source_id".to_owned(), id.as_str().into());
    }
    Ok(Conversation {
        id: ConversationId::from_uuid(id),
        user_id: options.user_id.clone(),
        dept_id: None,
        title,
        last_seq: 0,
        created_at,
        updated_at: updated_at.max(created_at),
        metadata: Some(
            Metadata::parse(metadata, LIMITS.metadata_bytes)
                .map_err(|error| format!("metadata {error}"))?,
        ),
        parent_id: None,
        branched_at_seq: None,
        compacted_upto_seq: 0,
        uncompacted_tokens: 0,
    })
}

struct Tree {
    nodes: Vec<Node>,
    /// Index of the parent. A missing one is none.
    parents: Vec<Option<usize>>,
    /// Last child in the order of the file.
    last_children: Vec<Option<usize>>,
    points: Vec<Option<Point>>,
}

impl Tree {
    fn new(nodes: Vec<Node>) -> Self {
        let mut index = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            index.entry(node.id.as_str()).or_insert(at);
        }
        let parent = |node: &Node| index.get(node.parent.as_deref()?).copied();
        let parents: Vec<_> = nodes.iter().map(parent).collect();
        let mut last_children = vec![None; nodes.len()];
        for (at, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                last_children[parent] = Some(at);
            }
        }
        let points = vec![None; nodes.len()];
        Self {
            nodes,
            parents,
            last_children,
            points,
        }
    }

    /// The paths that together contain every node: first the one that the user saw last.
    fn paths(&mut self, current: Option<&str>) -> Result<Vec<Path>, String> {
        let count = self.nodes.len();
        let is_leaf = |at: &usize| self.last_children[*at].is_none();
        let leaves: Vec<_> = (0..count).filter(is_leaf).collect();
        let time = |at: usize| {
            let times = self.nodes[at]
                .messages
                .iter()
                .filter_map(|draft| draft.created_at);
            times.max()
        };
        let newest = || leaves.iter().copied().max_by_key(|&at| (time(at), at));
        let named = current.and_then(|id| self.nodes.iter().position(|node| node.id == id));
        let first = named.or_else(newest).map(|at| self.end_below(at));
        // What no leaf leads to is part of a cycle.
        let ends = first
            .into_iter()
            .chain(leaves.iter().copied())
            .chain((0..count).rev());
        let ends: Vec<_> = ends.collect();
        let mut paths: Vec<Path> = Vec::new();
        for end in ends {
            let nodes = self.new_nodes(end);
            let Some(&top) = nodes.first() else {
                continue;
            };
            let start = self.parents[top].and_then(|parent| self.points[parent]);
            let has_messages = nodes.iter().any(|&at| !self.nodes[at].messages.is_empty());
            let (owner, before) = match (has_messages, start) {
                (true, _) if paths.len() > MAX_BRANCHES => {
                    return Err(format!("has more than {MAX_BRANCHES} branches"));
                }
                (true, _) => (paths.len(), start.map_or(0, |point| point.seq)),
                (false, Some(point)) => (point.owner, point.seq),
                (false, None) => (0, 0),
            };
            self.pair(&nodes);
            let mut seq = before;
            for &at in &nodes {
                seq += self.nodes[at].messages.len();
                self.points[at] = Some(Point { owner, seq });
            }
            if has_messages {
                // A second root is a branch, too, which shares nothing.
                let none = Point { owner: 0, seq: 0 };
                let start = start.or((!paths.is_empty()).then_some(none));
                let is_main = paths.is_empty();
                paths.push(Path {
                    start: start.filter(|_| !is_main),
                    nodes,
                });
            }
        }
        Ok(paths)
    }

    /// The leaf that is reached from a node by the last children.
    fn end_below(&self, mut at: usize) -> usize {
        for _ in 0..self.nodes.len() {
            match self.last_children[at] {
                Some(child) => at = child,
                None => break,
            }
        }
        at
    }

    /// Nodes from the first one that no path contains yet down to `end`. A cycle ends where it
    /// begins again.
    fn new_nodes(&self, end: usize) -> Vec<usize> {
        let (mut nodes, mut visited) = (Vec::new(), HashSet::new());
        let mut next = Some(end);
        while let Some(at) = next {
            if self.points[at].is_some() || !visited.insert(at) {
                break;
            }
            nodes.push(at);
            next = self.parents[at];
        }
        nodes.reverse();
        nodes
    }

    fn pair(&mut self, path: &[usize]) {
        let is_result = |draft: &Draft| draft.role == domain::Role::Tool;
        let has_results = path
            .iter()
            .any(|&at| self.nodes[at].messages.iter().any(is_result));
        let mut shared = Vec::new();
        let mut next = path.first().and_then(|&top| self.parents[top]);
        while let Some(at) = next.filter(|&at| has_results && self.points[at].is_some()) {
            shared.push(at);
            // A cycle must not be followed twice.
            if shared.len() > self.nodes.len() {
                break;
            }
            next = self.parents[at];
        }
        shared.reverse();
        let mut messages: Vec<Vec<Draft>> = Vec::with_capacity(path.len());
        for &at in path {
            messages.push(std::mem::take(&mut self.nodes[at].messages));
        }
        let before = shared.iter().flat_map(|&at| &self.nodes[at].messages);
        let mut drafts: Vec<&mut Draft> = messages.iter_mut().flatten().collect();
        pairing::pair(before, &mut drafts);
        for (&at, messages) in path.iter().zip(messages) {
            self.nodes[at].messages = messages;
        }
    }
}

struct MessageBuilder {
    root: Uuid,
    default_time: DateTime<Utc>,
    used: HashSet<Uuid>,
}

impl MessageBuilder {
    /// Returns the messages of a path, and the ids of branches that would begin with them.
    fn messages(
        &mut self,
        conversation: ConversationId,
        path: &Path,
        nodes: &[Node],
    ) -> Result<(Vec<Message>, Vec<ConversationId>), String> {
        let (mut messages, mut branch_ids) = (Vec::new(), Vec::new());
        let before = path.start.map_or(0, |point| point.seq);
        for node in path.nodes.iter().map(|&at| &nodes[at]) {
            for (index, draft) in node.messages.iter().enumerate() {
                let id = self.message_id(&node.id, index);
                let number = before + messages.len() + 1;
                let message =
                    validate(draft, id).map_err(|error| format!("message {number}: {error}"))?;
                let seq = i64::try_from(number).unwrap_or(i64::MAX);
                messages.push(stored(message, conversation, seq, self.default_time));
                branch_ids.push(ids::branch(self.root, &node.id, index));
            }
        }
        Ok((messages, branch_ids))
    }

    /// Id of a message. Several messages of a file may have the same id.
    fn message_id(&mut self, node: &str, index: usize) -> MessageId {
        let mut attempt = 0;
        loop {
            let key = format!("{index}/{attempt}/{node}");
            let id = ids::within(self.root, "message", &key);
            if self.used.insert(id) {
                return MessageId::from_uuid(id);
            }
            attempt += 1;
        }
    }
}

fn validate(draft: &Draft, id: MessageId) -> Result<NewMessage, String> {
    let metadata = (!draft.metadata.is_empty()).then(|| metadata(&draft.metadata));
    let raw = RawMessage {
        id: Some(id),
        name: draft.name.as_deref().map(author).unwrap_or_default(),
        parts: draft.parts.clone(),
        created_at: draft.created_at,
        metadata: metadata.flatten(),
        ..RawMessage::text(draft.role, "")
    };
    let message = NewMessage::new(raw, std::iter::empty(), || id, &LIMITS);
    message.map_err(|error| error.to_string())
}

/// Details of a message that are too large are left out: the message itself is what matters.
fn metadata(details: &Map<String, Value>) -> Option<Metadata> {
    Metadata::parse(details.clone(), LIMITS.metadata_bytes).ok()
}

fn author(name: &str) -> String {
    name.chars().take(AuthorName::MAX_CHARS).collect()
}

/// The message with the data of its blobs, as a file contains it.
fn stored(
    new: NewMessage,
    conversation: ConversationId,
    seq: i64,
    default_time: DateTime<Utc>,
) -> Message {
    let parts = new.parts.clone();
    let mut message = new.into_stored(conversation, seq, default_time);
    message.parts = parts;
    message
}
