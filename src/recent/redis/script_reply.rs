use std::vec;

use super::window_fields::WindowFields;
use crate::{
    recent::instruments::DropReason,
    redis::{RedisError, Reply},
};

/// Reply of a window script: its outcome, the reason if it dropped the window,
/// and further values. `common.lua` defines the form.
#[derive(Debug)]
pub(super) struct ScriptReply {
    outcome: Reply,
    /// Reason why the script dropped the window. `None` if it did not.
    pub(super) drop_reason: Option<DropReason>,
    values: vec::IntoIter<Reply>,
}

impl ScriptReply {
    pub(super) fn parse(reply: Reply) -> Result<Self, RedisError> {
        let mut values = reply.list()?.into_iter();
        let outcome = values.next().ok_or(RedisError::UnexpectedReply)?;
        let reason = values.next().ok_or(RedisError::UnexpectedReply)?;
        let drop_reason = match reason.text()? {
            "" => None,
            name => Some(DropReason::from_name(name).ok_or(RedisError::UnexpectedReply)?),
        };
        Ok(Self {
            outcome,
            drop_reason,
            values,
        })
    }

    /// Outcome of the script. Empty if it is not text.
    pub(super) fn outcome(&self) -> &str {
        self.outcome.text().unwrap_or_default()
    }

    /// First of the further values, as text.
    pub(super) fn into_text(mut self) -> Option<String> {
        self.values.next()?.text().ok().map(str::to_owned)
    }

    /// First of the further values, as the fields of a window.
    pub(super) fn into_fields(mut self) -> Option<WindowFields> {
        WindowFields::parse(self.values.next()?)
    }
}
