use std::str::FromStr;

use super::CallerName;

/// Callers that may call the methods for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Every caller, also anonymous ones.
    Everyone,
    /// The callers of this name.
    Named(CallerName),
}

/// Error of a text that is not an [`Operator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be names of callers, or * for every caller")]
pub struct InvalidOperator;

impl Operator {
    pub(super) fn includes(&self, caller: Option<&CallerName>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Named(name) => caller == Some(name),
        }
    }
}

impl FromStr for Operator {
    type Err = InvalidOperator;

    fn from_str(text: &str) -> Result<Self, InvalidOperator> {
        match text.trim() {
            "*" => Ok(Self::Everyone),
            name => CallerName::parse_any(name)
                .map(Self::Named)
                .ok_or(InvalidOperator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_named_or_everyone() {
        let admin: Operator = " admin ".parse().unwrap();
        let name = CallerName::parse("admin");
        assert!(admin.includes(name.as_ref()));
        assert!(!admin.includes(CallerName::parse("admin2").as_ref()) && !admin.includes(None));
        let everyone: Operator = "*".parse().unwrap();
        assert!(everyone.includes(None) && everyone.includes(name.as_ref()));
        for invalid in ["", " ", "**", "a b", "uid:", "uid:ann"] {
            assert_eq!(
                invalid.parse::<Operator>(),
                Err(InvalidOperator),
                "{invalid}"
            );
        }
    }
}
