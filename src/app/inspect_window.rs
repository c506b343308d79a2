use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{Failure, backends};
use crate::{config::Config, domain::ConversationId, os_error, recent::redis::inspect};

/// Time limit for connecting.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Prints the recent window of a conversation as JSON.
///
/// # Errors
/// Returns an error if Redis is not configured or does not reply, or if there is no window.
pub(super) async fn inspect_window(
    config: &Config,
    conversation: ConversationId,
) -> Result<(), Failure> {
    let Some(redis) = &config.redis else {
        return Err("Redis is not configured: set REDIS_URL or REDIS_HOST".into());
    };
    let redis = backends::connect(redis);
    let connected = tokio::time::timeout(TIMEOUT, redis.wait_until_available());
    connected
        .await
        .map_err(|_| "cannot connect to Redis within 2 s")?;
    let window = inspect(&redis, conversation).await?;
    let window =
        window.ok_or_else(|| format!("there is no window of the conversation {conversation}"))?;
    let written = writeln!(io::stdout(), "{window:#}");
    written.map_err(|error| format!("cannot write: {}", os_error::describe(&error)))?;
    redis.shutdown().await;
    Ok(())
}
