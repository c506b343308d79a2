//! Redis Cluster in which each master has a replica.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::{
    eventually,
    redis_server::{NODE_TIMEOUT, RedisServer, repeat_request},
};

/// Hash slots of a cluster.
const SLOTS: usize = 16_384;

/// Servers that end when the value is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// First the masters, then the replica of each in the same order.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the servers, and waits until all of them work together.
    pub async fn start(masters: usize) -> Self {
        let mut nodes = Vec::new();
        for number in 1..=2 * masters {
            let options = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                NODE_TIMEOUT,
                "--repl-diskless-sync-delay",
                "0",
            ];
            let node = RedisServer::start(&options).await;
            let epoch = ["CLUSTER", "SET-CONFIG-EPOCH", &number.to_string()];
            assert_eq!(node.call(&epoch).await, "OK");
            nodes.push(node);
        }
        let cluster = Self { nodes };
        cluster.assign_slots(masters).await;
        cluster.meet().await;
        cluster.replicate(masters).await;
        cluster
    }

    async fn assign_slots(&self, masters: usize) {
        for number in 0..masters {
            let slots = number * SLOTS / masters..(number + 1) * SLOTS / masters;
            self.nodes[number].add_slots(slots).await;
        }
    }

    async fn meet(&self) {
        for node in &self.nodes[1..] {
            let port = node.port().to_string();
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port];
            assert_eq!(self.nodes[0].call(&meet).await, "OK");
        }
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        self.each_reports(&known).await;
    }

    async fn replicate(&self, masters: usize) {
        for number in 0..masters {
            let replica = &self.nodes[masters + number];
            let master = self.nodes[number].call(&["CLUSTER", "MYID"]).await;
            let replicate = ["CLUSTER", "REPLICATE", &master];
            eventually("the replica knows its master", async || {
                replica.call(&replicate).await == "OK"
            })
            .await;
            eventually("the replica is linked", async || {
                let info = replica.try_call(&["INFO", "replication"]).await;
                info.is_ok_and(|info| info.contains("master_link_status:up"))
            })
            .await;
        }
        for node in &self.nodes {
            eventually("the nodes know the replicas", async || {
                let nodes = node.call(&["CLUSTER", "NODES"]).await;
                nodes.matches("slave").count() == masters
            })
            .await;
        }
        self.each_reports("cluster_state:ok").await;
    }

    async fn each_reports(&self, line: &str) {
        for node in &self.nodes {
            eventually(line, async || {
                node.call(&["CLUSTER", "INFO"]).await.contains(line)
            })
            .await;
        }
    }

    /// URL that names the nodes as those of a cluster.
    pub fn url(&self) -> String {
        let host = |node: &RedisServer| format!("127.0.0.1:{}", node.port());
        let further = self.nodes[1..].iter().map(host);
        let further: Vec<String> = further.map(|host| format!("node={host}")).collect();
        let first = host(&self.nodes[0]);
        format!("redis-cluster://{first}?{}", further.join("&"))
    }

    /// Moves the hash slot of a random key from one master to another while both serve it, and waits until
    /// all nodes know its master. Returns whether there was a key.
    pub async fn move_slot(&self, from: usize, to: usize) -> bool {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let key = source.call(&["RANDOMKEY"]).await;
        if key.is_empty() {
            return false;
        }
        let slot = source.call(&["CLUSTER", "KEYSLOT", &key]).await;
        let source_id = source.call(&["CLUSTER", "MYID"]).await;
        let target_id = target.call(&["CLUSTER", "MYID"]).await;
        let set_slot = async |node: &RedisServer, state: &str, id: &str| {
            let set = ["CLUSTER", "SETSLOT", &slot, state, id];
            assert_eq!(node.call(&set).await, "OK", "{state}");
        };
        set_slot(target, "IMPORTING", &source_id).await;
        set_slot(source, "MIGRATING", &target_id).await;
        let port = target.port().to_string();
        loop {
            let reply = source
                .call(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
                .await;
            let keys = reply.lines().filter(|line| !line.starts_with(['$', '*']));
            let keys: Vec<&str> = keys.collect();
            if keys.is_empty() {
                break;
            }
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let moved = source.call(&[&migrate[..], &keys].concat()).await;
            assert!(["OK", "NOKEY"].contains(&&*moved), "{moved}");
        }
        set_slot(target, "NODE", &target_id).await;
        set_slot(source, "NODE", &target_id).await;
        // Nodes that do not know the last move yet can give a slot that is moved next to two masters.
        self.agrees().await;
        true
    }

    /// Waits until a node is a master of a cluster that works.
    pub async fn promoted(&self, node: usize) {
        eventually("the replica is promoted", async || {
            self.is_promoted(node).await
        })
        .await;
    }

    /// Makes a replica the master of its slots. A cluster gives up a request that takes too long; then
    /// this function repeats the request.
    pub async fn fail_over_to(&self, replica: usize) {
        repeat_request(
            "the replica is promoted on request",
            async || {
                let server = &self.nodes[replica];
                let _ = server.try_call(&["CLUSTER", "FAILOVER"]).await;
            },
            async || self.is_promoted(replica).await,
        )
        .await;
    }

    async fn is_promoted(&self, node: usize) -> bool {
        let role = self.nodes[node].try_call(&["INFO", "replication"]).await;
        let info = self.nodes[node].try_call(&["CLUSTER", "INFO"]).await;
        role.is_ok_and(|role| role.contains("role:master"))
            && info.is_ok_and(|info| info.contains("cluster_state:ok"))
    }

    /// Waits until all nodes name the same masters of the same slots.
    async fn agrees(&self) {
        eventually("the nodes agree about the slots", async || {
            let views = self.nodes.iter().map(async |node| {
                let nodes = node.call(&["CLUSTER", "NODES"]).await;
                slots_by_master(&nodes)
            });
            let views: Vec<_> = join_all(views).await;
            views.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }

    /// Waits until a node is a replica that has received everything.
    pub async fn demoted(&self, node: usize) {
        eventually("the former master is a replica", async || {
            let info = self.nodes[node].try_call(&["INFO", "replication"]).await;
            info.is_ok_and(|info| info.contains("master_link_status:up"))
        })
        .await;
    }
}

/// Slots of each master in a reply to `CLUSTER NODES`, without those that are being moved.
fn slots_by_master(nodes: &str) -> BTreeMap<String, Vec<String>> {
    let masters = nodes.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let id = fields.next()?.to_owned();
        let slots = fields.skip(7).filter(|slots| !slots.starts_with('['));
        let slots: Vec<String> = slots.map(str::to_owned).collect();
        (!slots.is_empty()).then_some((id, slots))
    });
    masters.collect()
}
