use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt as _};

use super::{MinState, operation_error::OperationError};
use crate::{
    domain::{ConversationId, DeptId, Message, MetadataFilter, Role, SearchText, Title, UserId},
    text_analysis::{Languages, Query, matches_in},
};

/// Query that searches the messages of a user.
#[derive(Clone, Debug)]
pub struct SearchQuery {
    /// Owner of the messages.
    pub user_id: UserId,
    /// Words to search for.
    pub text: SearchText,
    /// Restricts the search to this conversation.
    pub conversation_id: Option<ConversationId>,
    /// Restricts the search to conversations of this department.
    pub dept_id: Option<DeptId>,
    /// Restricts the search to messages with this role.
    pub role: Option<Role>,
    /// Restricts the search to messages that were created at this time or later.
    pub created_from: Option<DateTime<Utc>>,
    /// Restricts the search to messages that were created before this time.
    pub created_until: Option<DateTime<Utc>>,
    /// Restricts the search to messages with such metadata.
    pub metadata: Option<MetadataFilter>,
    /// Key of the last hit of the previous page; `None` for the first page.
    pub after: Option<SearchKey>,
    /// State that is searched at least: [`SearchPage::state`] of the previous page.
    pub state: MinState,
    /// Maximum number of hits.
    pub limit: u32,
}

/// Conversation that a message is stored under, and its number.
pub type MessagePlace = (ConversationId, i64);

/// Progress of [`Store::reindex`](super::Store::reindex).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reindexed {
    /// Number of messages that were examined.
    pub examined: u64,
    /// Number of messages that were analyzed again.
    pub analyzed: u64,
    /// Position after which the next step continues; `None` if none is left.
    pub next: Option<MessagePlace>,
}

/// Position of a hit in the order of the hits: descending by rank, then by place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchKey {
    /// Rank of the message for the query. It depends only on the two, so that messages that are
    /// saved between the reads of two pages do not change the order of the hits.
    pub rank: f64,
    /// Number of the message's search document. Later messages have higher numbers.
    pub place: i64,
}

impl SearchKey {
    /// Key that precedes all hits.
    pub(super) const FIRST: Self = Self {
        rank: f64::MAX,
        place: i64::MAX,
    };
}

/// Message that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchHit {
    /// Message without contexts.
    pub message: Message,
    /// Current title of its conversation.
    pub title: Option<Title>,
    /// Excerpt of the message around the first match. Matches are enclosed in ⟦ and ⟧.
    pub snippet: String,
    /// Position of the hit, from which the next page continues.
    pub key: SearchKey,
}

/// Page of search hits.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchPage {
    /// Hits, best rank first.
    pub hits: Vec<SearchHit>,
    /// Whether further hits follow.
    pub more: bool,
    /// State that the next page needs in order to continue this one.
    pub state: MinState,
}

impl SearchHit {
    /// Bytes that a response accounts for the hit, as [`Message::footprint`].
    pub fn footprint(&self) -> usize {
        let title = self.title.as_ref().map_or(0, |title| title.as_str().len());
        self.message.footprint() + self.snippet.len() + title
    }
}

impl SearchPage {
    /// Page of a query that finds nothing.
    pub(super) const EMPTY: Self = Self {
        hits: Vec::new(),
        more: false,
        state: MinState::Latest,
    };

    /// Builds a page from rows that were read up to
    /// [`limit_with_next`](super::rows::limit_with_next). It ends early if the hits are too large for
    /// a response. All rows are read, so that the connection can be used again, but those that are
    /// not part of the page are not kept.
    pub(super) async fn collect<Row>(
        mut rows: impl Stream<Item = sqlx::Result<Row>> + Unpin,
        decode: impl Fn(&Row) -> Result<SearchHit, OperationError>,
        limit: u32,
    ) -> Result<Self, OperationError> {
        let mut page = Self::EMPTY;
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await? {
            page.more = page.more || page.hits.len() == limit as usize;
            if page.more {
                continue;
            }
            let hit = decode(&row)?;
            // Marking the matches of a long text takes about a millisecond, and the rows may be ready.
            tokio::task::yield_now().await;
            bytes += hit.footprint();
            page.more = bytes > Message::MAX_BYTES_PER_RESPONSE && !page.hits.is_empty();
            if !page.more {
                page.hits.push(hit);
            }
        }
        Ok(page)
    }
}

/// Number of documents that a correction reads at once.
pub(super) const CORRECTION_CHUNK: usize = 200;

/// Marks the matches of a query in messages.
pub(super) struct Marker<'a> {
    pub(super) query: &'a Query,
    pub(super) languages: Languages,
}

impl Marker<'_> {
    /// Returns the excerpt of a message around the first match.
    pub(super) fn snippet(&self, text: &str) -> String {
        let mut marked = String::with_capacity(text.len() + 16);
        let mut end = 0;
        for range in matches_in(text, self.query, self.languages) {
            marked.extend(text[end..range.start].chars().map(replace_mark));
            marked.push('⟦');
            marked.extend(text[range.clone()].chars().map(replace_mark));
            marked.push('⟧');
            end = range.end;
        }
        marked.extend(
            text[end..]
                .chars()
                .take(SNIPPET_CHARS + 1)
                .map(replace_mark),
        );
        snippet(&marked)
    }
}

/// Replaces characters that would be mistaken for marks.
fn replace_mark(c: char) -> char {
    match c {
        '⟦' => '[',
        '⟧' => ']',
        _ => c,
    }
}

/// Maximum length of a snippet in characters, excluding the ellipses.
const SNIPPET_CHARS: usize = 240;

/// Maximum number of characters of a snippet before the first match.
const BEFORE_CHARS: usize = 60;

/// Returns the words around the first match of a text in which all matches are marked, on
/// one line. Without a match, returns the beginning of the text.
fn snippet(marked: &str) -> String {
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
    // Cut between words, unless a single word fills the snippet.
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

/// Defines `decode_hit` for a kind of row and the type of its key columns. The parent
/// module defines the row types of that database.
macro_rules! search_rows {
    ($row:ty, $id:ty) => {
        /// Decodes a row with a message's columns and those of its hit.
        fn decode_hit(
            row: &$row,
            rank: f64,
            marker: &$crate::store::search::Marker<'_>,
        ) -> Result<$crate::store::SearchHit, OperationError> {
            use sqlx::{FromRow as _, Row as _};
            let conversation: $id = row.try_get("conversation_id")?;
            let conversation =
                $crate::domain::ConversationId::from_uuid(uuid::Uuid::from(conversation));
            let message = super::MessageRow::from_row(row)?.decode(conversation)?;
            Ok($crate::store::SearchHit {
                snippet: marker.snippet(message.content.as_str()),
                message,
                title: $crate::store::rows::decode_title(row.try_get("title")?)?,
                key: $crate::store::SearchKey {
                    rank,
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
    fn a_snippet_of_one_long_word_is_cut_inside_the_word() {
        let long = snippet(&format!("⟦{}⟧", "é".repeat(9_000)));
        assert!(long.starts_with("⟦é") && long.ends_with("é⟧…"), "{long}");
        assert_eq!(long.chars().count(), SNIPPET_CHARS + 2);
        let late = format!("{} ⟦match⟧ x", "é".repeat(9_000));
        assert_eq!(snippet(&late), "…⟦match⟧ x");
        let glued = format!("{}⟦match⟧", "é".repeat(9_000));
        assert_eq!(snippet(&glued), "…⟦match⟧");
    }
}
