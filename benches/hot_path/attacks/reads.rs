//! Attacks by reads that cost much.

use std::{net::SocketAddr, time::Duration};

use conversation_memory::proto::{ListSessionsRequest, Role, SearchMessagesRequest};
use test_support::{
    new_user,
    requests::{message, new_conversation, save},
    sidecar::Sidecar,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{Attackers, writes::create_sessions};
use crate::searches::save_messages;

/// Number of callers that list sessions.
const LISTING: usize = 8;

pub(super) async fn large_conversation(sidecar: &Sidecar) -> String {
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    for _ in 0..3 {
        let text = "x".repeat((1 << 20) - 1024);
        let save = save(&id, vec![message(Role::User, &text)]);
        memory.save_messages(save).await.unwrap();
    }
    id
}

/// Searches texts of 16 KiB that consist of the words of the query.
pub(super) async fn search(attackers: &mut Attackers, sidecar: &Sidecar) {
    let mut memory = sidecar.memory();
    let user = new_user();
    let id = new_conversation(&mut memory, &user).await;
    let letters: Vec<_> = ('a'..='z').map(String::from).collect();
    let query = letters.join(" ");
    let text = format!("{query} ").repeat((16 << 10) / 52);
    for _ in 0..4 {
        let save = save(&id, vec![message(Role::User, &text); 25]);
        memory.save_messages(save).await.unwrap();
    }
    search_without_pause(attackers, sidecar, 12, &user, &query);
}

/// Searches many messages, all of which match.
pub(super) async fn search_many_messages(attackers: &mut Attackers, sidecar: &Sidecar) {
    let user = new_user();
    save_messages(sidecar, &user, 200).await;
    search_without_pause(attackers, sidecar, 4, &user, "projects");
}

fn search_without_pause(
    attackers: &mut Attackers,
    sidecar: &Sidecar,
    callers: usize,
    user: &str,
    query: &str,
) {
    for _ in 0..callers {
        let mut memory = attackers.memory(sidecar);
        let search = SearchMessagesRequest {
            user_id: user.to_owned(),
            query: query.to_owned(),
            ..SearchMessagesRequest::default()
        };
        attackers.spawn(async move {
            loop {
                // Rejected searches are repeated, too.
                let _ = memory.search_messages(search.clone()).await;
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

/// Lists the sessions of a user in pages without a pause.
pub(super) async fn list_sessions(attackers: &mut Attackers, sidecar: &Sidecar, sessions: usize) {
    let user = new_user();
    create_sessions(sidecar, &user, sessions).await;
    for _ in 0..LISTING {
        let (mut client, user) = (attackers.sessions(sidecar), user.clone());
        attackers.spawn(async move {
            let mut list = ListSessionsRequest {
                user_id: user,
                page_size: 100,
                ..ListSessionsRequest::default()
            };
            loop {
                // Rejected calls are repeated from the first page.
                let page = client.list_sessions(list.clone()).await;
                list.page_token =
                    page.map_or_else(|_| String::new(), |page| page.into_inner().next_page_token);
            }
        });
    }
}

/// Reads the metrics without a pause.
pub(super) fn scrape(attackers: &mut Attackers, address: SocketAddr) {
    for _ in 0..16 {
        attackers.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut buffer = vec![0; 64 << 10];
            let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
            while stream.write_all(request).await.is_ok() {
                if stream.read(&mut buffer).await.is_ok_and(|read| read == 0) {
                    stream = TcpStream::connect(address).await.unwrap();
                }
            }
        });
    }
}
