use std::fmt;

use uuid::Uuid;

use super::InvalidValue;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Parses the hyphenated form of 36 characters, in upper or lower case.
            ///
            /// # Errors
            ///
            /// Fails with [`InvalidValue`] if the text is not a UUID in this form.
            pub fn parse(text: &str) -> Result<Self, InvalidValue> {
                parse_uuid(text).map(Self)
            }

            /// Wraps a UUID that this program generated or stored.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
    };
}

id! {
    /// Id of a conversation.
    ConversationId
}
id! {
    /// Id of a message, unique among the messages of its conversation.
    MessageId
}
id! {
    /// Id of a session.
    SessionId
}
id! {
    /// Id of a checkpoint, unique in its namespace. Checkpoints are ordered by it.
    CheckpointId
}

fn parse_uuid(text: &str) -> Result<Uuid, InvalidValue> {
    // Uuid::try_parse also accepts braces, "urn:uuid:" and 32 digits without hyphens. One
    // spelling for each value keeps ids comparable as text wherever they are logged.
    let is_hyphenated = text.len() == 36;
    match Uuid::try_parse(text) {
        Ok(uuid) if is_hyphenated => Ok(uuid),
        _ => Err(InvalidValue::new(
            "must be a UUID such as 0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_hyphenated_form_in_either_case() {
        let id = "0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f";
        assert_eq!(ConversationId::parse(id).unwrap().to_string(), id);
        assert_eq!(
            ConversationId::parse(&id.to_uppercase())
                .unwrap()
                .to_string(),
            id
        );
        for bad in [
            "",
            "x",
            "{0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f}",
            "0198a2f07c4e7b1e9d5a3f1c2b4d5e6f",
            "urn:uuid:0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f",
            "0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6g",
        ] {
            assert!(ConversationId::parse(bad).is_err(), "{bad}");
        }
    }
}
