use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use sha1::{Digest as _, Sha1};

/// Identity of a server's data: of its process and of its replication history. A promoted replica
/// and a restarted server have another one, so that data which was written under one identity can
/// be recognized as outdated.
///
/// Consists of letters, digits and colons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerIdentity(String);

impl ServerIdentity {
    /// Returns the identity of a cluster whose masters have these identities.
    pub(super) fn of_cluster(masters: &[Self]) -> Self {
        let mut texts: Vec<&str> = masters.iter().map(Self::as_str).collect();
        texts.sort_unstable();
        let mut identity = String::from("cluster:");
        for byte in Sha1::digest(texts.join("\n")) {
            // Writing into a String cannot fail.
            let _ = write!(identity, "{byte:02x}");
        }
        Self(identity)
    }

    /// Returns the identity within a configuration of sentinels. A former master that the sentinels
    /// name again before it has become a replica has kept its history, and lacks what was written to
    /// the master between.
    pub(super) fn within(self, configuration: u64) -> Self {
        Self(format!("{}:{configuration}", self.0))
    }

    /// Creates an identity that no server and no other connection has.
    pub(super) fn random() -> Self {
        // The keys of the hasher are random.
        let [high, low] = [0, 1].map(|_| RandomState::new().build_hasher().finish());
        Self(format!("unidentified:{high:016x}{low:016x}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// State of a server that the reply to INFO describes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent fields of the reply"
)]
pub(super) struct ServerInfo {
    pub(super) is_master: bool,
    pub(super) is_loading: bool,
    pub(super) is_cluster_node: bool,
    pub(super) is_sentinel: bool,
    run_id: Option<String>,
    replication_id: Option<String>,
}

impl ServerInfo {
    /// Parses the reply to INFO. Fields of sections that were not requested are absent.
    pub(super) fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = lines.find(|(key, _)| *key == name)?;
            Some(value.trim())
        };
        let id = |name| {
            let is_valid = |id: &&str| {
                (16..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
            };
            field(name).filter(is_valid).map(str::to_owned)
        };
        // The second one is Valkey's name.
        let mode = field("redis_mode").or_else(|| field("server_mode"));
        Self {
            // A server without replication does not report a role.
            is_master: field("role").is_none_or(|role| role == "master"),
            is_loading: field("loading").is_some_and(|loading| loading != "0"),
            is_sentinel: mode == Some("sentinel"),
            is_cluster_node: mode == Some("cluster"),
            run_id: id("run_id"),
            replication_id: id("master_replid"),
        }
    }

    /// Returns the identity of the server. `None` if the server does not report its run.
    pub(super) fn identity(&self) -> Option<ServerIdentity> {
        let run_id = self.run_id.as_ref()?;
        let replication_id = self.replication_id.as_deref().unwrap_or_default();
        Some(ServerIdentity(format!("{run_id}:{replication_id}")))
    }

    /// Whether another reply describes a master with the same replication history.
    pub(super) fn is_continued_by(&self, later: &Self) -> bool {
        later.is_master && !later.is_loading && later.replication_id == self.replication_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0123456789abcdef0123456789abcdef01234567";
    const HISTORY: &str = "fedcba9876543210fedcba9876543210fedcba98";

    fn info(role: &str, run: &str, history: &str) -> ServerInfo {
        ServerInfo::parse(&format!(
            "# Server\r\nredis_version:7.0.15\r\nrun_id:{run}\r\n\r\n# Persistence\r\nloading:0\r\n\
             # Replication\r\nrole:{role}\r\nmaster_replid:{history}\r\n"
        ))
    }

    #[test]
    fn identity_changes_with_the_run_and_with_the_history() {
        let identity = |run: &str, history: &str| info("master", run, history).identity().unwrap();
        let usual = identity(RUN, HISTORY);
        assert_eq!(usual.as_str(), format!("{RUN}:{HISTORY}"));
        assert_ne!(usual, identity(HISTORY, HISTORY));
        assert_ne!(usual, identity(RUN, RUN));
        let cluster = |ids: &[ServerIdentity]| ServerIdentity::of_cluster(ids);
        let other = identity(HISTORY, RUN);
        assert_eq!(
            cluster(&[usual.clone(), other.clone()]),
            cluster(&[other.clone(), usual.clone()])
        );
        assert_ne!(
            cluster(&[usual.clone(), other]),
            cluster(std::slice::from_ref(&usual))
        );
        assert_ne!(usual.clone().within(1), usual.within(2));
    }

    #[test]
    fn servers_that_do_not_identify_themselves_have_no_identity() {
        for run in ["", "short", "\"] quoted text that is no identity"] {
            assert_eq!(info("master", run, HISTORY).identity(), None, "{run}");
        }
        assert_eq!(ServerInfo::parse("").identity(), None);
        assert!(ServerInfo::parse("").is_master);
        assert_ne!(ServerIdentity::random(), ServerIdentity::random());
    }

    #[test]
    fn a_replica_and_another_history_do_not_continue_a_master() {
        let opened = info("master", RUN, HISTORY);
        assert!(opened.is_continued_by(&info("master", "", HISTORY)));
        assert!(!opened.is_continued_by(&info("master", "", RUN)));
        assert!(!opened.is_continued_by(&info("slave", "", HISTORY)));
        assert!(ServerInfo::parse("loading:1\r\n").is_loading);
        for name in ["redis_mode", "server_mode"] {
            assert!(ServerInfo::parse(&format!("{name}:cluster\r\n")).is_cluster_node);
        }
    }
}
