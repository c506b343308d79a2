#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::path::PathBuf;

use super::{
    InvalidSetting, Secret,
    parse::{integer, non_empty, non_empty_path},
    server_url::{check_encoding, port},
};
use crate::redis::RedisTarget;

const DEFAULT_PORT: u16 = 6379;

#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_field_names,
    reason = "fields are named like their settings"
)]
#[command(next_help_heading = "Redis")]
pub(super) struct RedisArgs {
    /// URL of Redis: redis://default:password@host:6379/0, where the password is
    /// percent-encoded; rediss:// for TLS; redis-cluster:// or redis-sentinel://. Replaces
    /// REDIS_HOST, _PORT, _PASSWORD and _DB.
    #[arg(long, env, global = true, hide_env_values = true, value_name = "URL")]
    redis_url: Option<Secret>,

    /// File that contains REDIS_URL. Without such a file, Redis is not configured.
    #[arg(long, env, global = true, value_name = "FILE")]
    redis_url_file: Option<PathBuf>,

    /// CA certificates in PEM that are trusted for rediss://, in addition to the public ones.
    #[arg(long, env, global = true, value_name = "FILE")]
    redis_ca_file: Option<PathBuf>,

    /// Host of Redis. Redis is used if this or the password is set; otherwise sessions are kept
    /// in memory and histories are read from the store. [default: localhost]
    #[arg(long, env, global = true, value_name = "HOST")]
    redis_host: Option<String>,

    /// Port of Redis. [default: 6379]
    #[arg(long, env, global = true, value_name = "PORT")]
    redis_port: Option<String>,

    /// Password of Redis.
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    redis_password: Option<Secret>,

    /// File that contains REDIS_PASSWORD.
    #[arg(long, env, global = true, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,

    /// Database number of Redis. [default: 0]
    #[arg(
        long,
        env,
        global = true,
        value_parser = integer(0..=u8::MAX),
        value_name = "NUMBER"
    )]
    redis_db: Option<u8>,

    /// Prefix of every key, for a Redis that is shared with other applications.
    #[arg(long, env, global = true, value_name = "TEXT")]
    redis_key_prefix: Option<String>,
}

/// Redis server, cluster or sentinels.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Name of the setting with the address.
    pub setting: &'static str,
    /// Address and credentials.
    pub target: RedisTarget,
    /// Prefix of every key.
    pub key_prefix: String,
}

impl RedisConfig {
    /// Returns `None` if Redis is not configured.
    pub(super) fn from_args(args: &RedisArgs) -> Result<Option<Self>, InvalidSetting> {
        let Some((setting, target)) = args.target()? else {
            return Ok(None);
        };
        let target = match non_empty_path(args.redis_ca_file.as_deref()) {
            Some(file) => {
                let invalid = |problem| InvalidSetting::new("REDIS_CA_FILE", problem);
                if !target.uses_tls() {
                    return Err(invalid(
                        "requires a REDIS_URL that begins with rediss".to_owned(),
                    ));
                }
                target
                    .with_ca_file(&file)
                    .map_err(|error| invalid(error.to_string()))?
            }
            None => target,
        };
        Ok(Some(Self {
            setting,
            target,
            key_prefix: args.redis_key_prefix.clone().unwrap_or_default(),
        }))
    }
}

impl RedisArgs {
    /// Returns the path of REDIS_URL_FILE if there is no such file, as in a Kubernetes Secret
    /// without this key. A directory that cannot be read, or an empty file, is an error instead.
    pub(super) fn missing_url_file(&self) -> Option<PathBuf> {
        let has_url = self
            .redis_url
            .as_ref()
            .is_some_and(|url| !url.expose().is_empty());
        let file = non_empty_path(self.redis_url_file.as_deref())?;
        (!has_url && matches!(file.try_exists(), Ok(false))).then_some(file)
    }

    /// Returns the configured servers with the name of the setting.
    fn target(&self) -> Result<Option<(&'static str, RedisTarget)>, InvalidSetting> {
        let url_file = match self.missing_url_file() {
            Some(_) => None,
            None => self.redis_url_file.as_deref(),
        };
        let url = Secret::from_value_or_file(self.redis_url.as_ref(), url_file, "REDIS_URL")?;
        let password = Secret::from_value_or_file(
            self.redis_password.as_ref(),
            self.redis_password_file.as_deref(),
            "REDIS_PASSWORD",
        )?;
        if let Some(url) = url {
            check_encoding(url.expose(), "REDIS_URL")?;
            let target = RedisTarget::from_url(url.expose());
            return target
                .map(|target| Some(("REDIS_URL", target)))
                .map_err(|error| InvalidSetting::secret("REDIS_URL", error));
        }
        let host = non_empty(self.redis_host.as_deref());
        if host.is_none() && password.is_none() {
            return Ok(None);
        }
        let target = RedisTarget::new(
            host.unwrap_or("localhost"),
            port(self.redis_port.as_deref(), DEFAULT_PORT, "REDIS_PORT")?,
            password.map(Secret::into_inner),
            self.redis_db,
        );
        Ok(Some(("REDIS_HOST", target)))
    }
}
