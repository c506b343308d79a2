//! Conversion of requests into domain types, and of domain types into responses.

mod captured;
mod checkpoints;
pub(crate) mod items;
mod owner_scope;
mod parse;
mod render;

pub(crate) use self::{
    checkpoints::{
        CheckpointParser, channels, checkpoint_page, contents, deletes_threads, filter, namespace,
        runs,
    },
    owner_scope::OwnerScope,
    parse::{
        Parser, export_format, history_limits, import_format, message_seq, message_seqs,
        metadata_filter, optional, optional_conversation_id, optional_role, page_size, seq, strong,
        time_range, time_text, user_id,
    },
    render::{
        begun, conversation as render_conversation, conversation_page, hits, messages,
        read_history, session,
    },
};
