use crate::domain::{ConversationId, DeptId, Message, Role, SearchText, Title, UserId};

/// What to search for, and where.
#[derive(Clone, Debug)]
pub struct SearchQuery {
    /// Whose messages.
    pub user_id: UserId,
    /// What they say.
    pub text: SearchText,
    /// Only those of this conversation.
    pub conversation_id: Option<ConversationId>,
    /// Only those of conversations of this department.
    pub dept_id: Option<DeptId>,
    /// Only those that were said in this role.
    pub role: Option<Role>,
    /// Go on after the hit with this key.
    pub after: Option<SearchKey>,
    /// At most this many.
    pub limit: u32,
}

/// Where a hit stands: the best rank first, and of equal ones the highest place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchKey {
    /// How well it fits. It depends on the message and the query alone, so that
    /// pages fit together whatever is saved between them.
    pub rank: f64,
    /// Its place in the order of saving.
    pub place: i64,
}

impl SearchKey {
    /// Before all hits.
    pub(super) const START: Self = Self {
        rank: f64::MAX,
        place: i64::MAX,
    };
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The message, without contexts.
    pub message: Message,
    /// What its conversation is called now.
    pub title: Option<Title>,
    /// A few of its words around what was found, which stands between ⟦ and ⟧.
    pub snippet: String,
    /// Where it stands.
    pub key: SearchKey,
}

/// A page of hits.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchPage {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Whether there are more.
    pub more: bool,
}

impl SearchPage {
    /// A page of at most so many, made of one hit more if there is one.
    pub(super) fn of(mut hits: Vec<Hit>, limit: u32) -> Self {
        let more = hits.len() > limit as usize;
        hits.truncate(limit as usize);
        Self { hits, more }
    }
}

/// About how long a snippet is, in characters.
const SNIPPET_CHARS: usize = 240;

/// How much of it may stand before the first match.
const BEFORE_CHARS: usize = 60;

/// A few words around the first match, on one line, of a text in which all matches
/// are marked. Where none is, the text's beginning.
pub(super) fn snippet(marked: &str) -> String {
    let first = marked.find('⟦').unwrap_or(0);
    let before = &marked[..first];
    let begin = if before.chars().count() <= BEFORE_CHARS {
        0
    } else {
        let near = before.char_indices().rev().take(BEFORE_CHARS);
        let spaces = near.filter(|(_, c)| c.is_whitespace());
        spaces.last().map_or(first, |(at, _)| at)
    };
    let shown = &marked[begin..];
    let Some((end, _)) = shown.char_indices().nth(SNIPPET_CHARS) else {
        return one_line(shown, begin > 0, false);
    };
    // Whole words, unless one fills it all.
    let cut = &shown[..end];
    let mut cut = match cut.rfind(char::is_whitespace) {
        Some(space) if space > 0 => cut[..space].to_owned(),
        _ => cut.to_owned(),
    };
    if cut.rfind('⟦') > cut.rfind('⟧') {
        cut.push('⟧');
    }
    one_line(&cut, begin > 0, true)
}

fn one_line(text: &str, before: bool, after: bool) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    if before {
        line.insert(0, '…');
    }
    if after {
        line.push('…');
    }
    line
}

/// Defines how a page is searched for on a kind of connection. Beside it stand the
/// row types of that database.
macro_rules! search_rows {
    ($row:ty, $id:ty) => {
        /// A hit's row: the message's columns, and what it was found by.
        fn hit(row: &$row) -> Result<$crate::store::Hit, $crate::store::failure::OperationError> {
            use sqlx::{FromRow as _, Row as _};
            let conversation: $id = row.try_get("conversation_id")?;
            let conversation =
                $crate::domain::ConversationId::from_uuid(uuid::Uuid::from(conversation));
            Ok($crate::store::Hit {
                message: super::MessageRow::from_row(row)?.read(conversation)?,
                title: $crate::store::rows::title(row.try_get("title")?)?,
                snippet: $crate::store::search::snippet(row.try_get("marked")?),
                key: $crate::store::SearchKey {
                    rank: row.try_get("rank")?,
                    place: row.try_get("place")?,
                },
            })
        }
    };
}
pub(super) use search_rows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_is_one_line_around_the_first_match() {
        assert_eq!(snippet("a\n ⟦match⟧\there"), "a ⟦match⟧ here");
        assert_eq!(snippet("no match"), "no match");
        assert_eq!(snippet(""), "");
        let late = format!("{}⟦match⟧{}", "before ".repeat(90), " after".repeat(90));
        let shown = snippet(&late);
        assert!(shown.starts_with("…before before"), "{shown}");
        assert!(shown.contains("before ⟦match⟧ after"), "{shown}");
        assert!(shown.ends_with("after after…"), "{shown}");
        assert!(shown.chars().count() <= SNIPPET_CHARS + 2);
    }

    #[test]
    fn a_snippet_of_one_long_word_shows_a_part_of_it() {
        let long = snippet(&format!("⟦{}⟧", "é".repeat(9_000)));
        assert!(long.starts_with("⟦é") && long.ends_with("é⟧…"), "{long}");
        assert_eq!(long.chars().count(), SNIPPET_CHARS + 2);
        let late = format!("{} ⟦match⟧ x", "é".repeat(9_000));
        assert_eq!(snippet(&late), "…⟦match⟧ x");
        let glued = format!("{}⟦match⟧", "é".repeat(9_000));
        assert_eq!(snippet(&glued), "…⟦match⟧");
    }
}
