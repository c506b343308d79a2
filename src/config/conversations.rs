use std::time::Duration;

use super::parse::{integer, minutes};
use crate::{
    memory::Memory,
    text_analysis::{Language, Languages},
    tokens::TokenEncoding,
};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Conversations")]
pub(super) struct ConversationArgs {
    /// Lifetime of a session after its last use. May be a fraction.
    #[arg(
        long,
        env,
        global = true,
        default_value = "30",
        value_parser = minutes,
        value_name = "MINUTES"
    )]
    session_ttl_minutes: Duration,

    /// Maximum number of live sessions of a user. A further one ends the session that was not used
    /// for the longest time.
    #[arg(
        long,
        env,
        global = true,
        default_value = "1000",
        value_parser = integer(1..=100_000_u32),
        value_name = "NUMBER"
    )]
    max_sessions_per_user: u32,

    /// Number of messages in a history if the request sets no limit.
    #[arg(
        long,
        env,
        global = true,
        default_value = "6",
        value_parser = integer(1..=Memory::MAX_LIMIT),
        value_name = "NUMBER"
    )]
    max_history_messages: u32,

    /// Encoding that determines the number of tokens of a message whose caller does not give it:
    /// that of the model. `none` estimates one token per four bytes. The others load tables when
    /// they are first used: 70 MiB of memory for `o200k_base`, 35 MiB for `cl100k_base`, half of
    /// it reclaimable.
    #[arg(
        long,
        env,
        global = true,
        default_value = "o200k_base",
        value_parser = token_encoding,
        value_name = "o200k_base|cl100k_base|none"
    )]
    token_encoding: TokenEncoding,

    /// Number of tokens since the last summary above which responses say that the conversation
    /// should be compacted. 0 disables this.
    #[arg(
        long,
        env,
        global = true,
        default_value = "0",
        value_parser = integer(0..=1_000_000_000_u64),
        value_name = "NUMBER"
    )]
    compaction_tokens: u64,

    /// Languages of the messages, separated by commas, at most four; `none` for none. The search
    /// finds different forms of their words, such as "policies" and "policy". Words of all other
    /// languages are found as they are written. After a change, run the subcommand `reindex`; until
    /// then, messages that were saved before are found by their words as they are written.
    /// [default: english]
    #[arg(
        long,
        env,
        global = true,
        value_parser = languages,
        value_name = "LANGUAGE,…"
    )]
    text_search_languages: Option<Languages>,

    /// Former name of the languages: `english`, or `simple` for `none`.
    #[arg(
        long,
        env,
        global = true,
        hide = true,
        value_parser = text_search_config,
        value_name = "english|simple"
    )]
    text_search_config: Option<Languages>,
}

/// Sessions, histories and search.
#[derive(Clone, Copy, Debug)]
pub struct ConversationConfig {
    /// Lifetime of a session after its last use.
    pub session_ttl: Duration,
    /// Upper bound on the live sessions of a user.
    pub sessions_per_user: u32,
    /// Number of messages in a history if the request sets no limit.
    pub history_messages: u32,
    /// Encoding that determines the number of tokens of a message.
    pub token_encoding: TokenEncoding,
    /// Number of tokens without a summary above which a compaction is due; 0 for never.
    pub compaction_tokens: u64,
    /// Languages of the message search.
    pub search_languages: Languages,
}

impl ConversationConfig {
    pub(super) fn from_args(args: &ConversationArgs) -> Self {
        Self {
            session_ttl: args.session_ttl_minutes,
            sessions_per_user: args.max_sessions_per_user,
            history_messages: args.max_history_messages,
            token_encoding: args.token_encoding,
            compaction_tokens: args.compaction_tokens,
            search_languages: args
                .text_search_languages
                .or(args.text_search_config)
                .unwrap_or_default(),
        }
    }
}

fn token_encoding(text: &str) -> Result<TokenEncoding, &'static str> {
    TokenEncoding::from_name(text).ok_or("must be o200k_base, cl100k_base or none")
}

fn languages(text: &str) -> Result<Languages, String> {
    Languages::from_names(text).ok_or_else(|| {
        let names: Vec<_> = Language::names().collect();
        format!(
            "must be none, or at most {} of {}",
            Languages::MAX,
            names.join(", ")
        )
    })
}

fn text_search_config(text: &str) -> Result<Languages, &'static str> {
    match text {
        "english" => Ok(Languages::default()),
        "simple" => Ok(Languages::NONE),
        _ => Err("must be english or simple"),
    }
}
