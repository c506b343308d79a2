/// Analysis of texts into the terms that a search matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextSearch {
    /// English: forms of a word match each other, and stop words such as "the" are ignored.
    #[default]
    English,
    /// Any language: words match as they are written, ignoring case.
    Simple,
}

impl TextSearch {
    /// Name of the setting's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::English => "english",
            Self::Simple => "simple",
        }
    }

    /// Parses the name of a value.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::English, Self::Simple]
            .into_iter()
            .find(|search| search.as_str() == name)
    }
}
