//! Requests parsed into domain types, and domain types rendered into replies.

mod parse;
mod render;

pub(crate) use self::{
    parse::{
        Parser, conversation, history_limit, optional, page_size, seq, session_id, strong, user_id,
    },
    render::{begun, conversation as render_conversation, messages, session, source},
};
