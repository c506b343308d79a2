/// How a text is taken apart into the words that it is searched by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextSearch {
    /// English: forms of a word are found by each other, and words such as "the"
    /// are left out.
    #[default]
    English,
    /// Any language: words as they are written, in either case.
    Simple,
}

impl TextSearch {
    /// The name of the setting's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::English => "english",
            Self::Simple => "simple",
        }
    }

    /// Reads the name of a value.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::English, Self::Simple]
            .into_iter()
            .find(|search| search.as_str() == name)
    }
}
