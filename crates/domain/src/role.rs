use super::InvalidValue;

/// Author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user.
    User,
    /// The agent.
    Assistant,
    /// Instructions to the model.
    System,
    /// Result of a tool call.
    Tool,
}

impl Role {
    /// Name under which the role is stored and exported.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Tool => "tool",
        }
    }

    /// Parses the name of a role.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if no role has this name.
    pub fn parse(name: &str) -> Result<Self, InvalidValue> {
        [Self::User, Self::Assistant, Self::System, Self::Tool]
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| InvalidValue::new("must be user, assistant, system or tool"))
    }
}
