//! Servers of which one accepts writes: a primary and its standbys, whose roles can change.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, future::select_ok};
use sqlx::{ConnectOptions as _, Error, postgres::PgConnectOptions};

use super::session_check::SessionCheck;

/// Options of the connections to each server, and which of them is used.
#[derive(Debug)]
pub(super) struct Hosts {
    first: PgConnectOptions,
    further: Vec<PgConnectOptions>,
    /// Position of the server that is used; 0 is the first one.
    current: AtomicUsize,
}

impl Hosts {
    /// Creates a list of servers, of which the first one is used until another one is found to accept
    /// writes.
    pub(super) fn new(first: PgConnectOptions, further: Vec<PgConnectOptions>) -> Self {
        Self {
            first,
            further,
            current: AtomicUsize::new(0),
        }
    }

    /// Options of the server that is used.
    pub(super) fn current(&self) -> &PgConnectOptions {
        let position = self.current.load(Ordering::Relaxed);
        let further = position.checked_sub(1).and_then(|it| self.further.get(it));
        further.unwrap_or(&self.first)
    }

    /// Whether there is a choice.
    pub(super) fn are_several(&self) -> bool {
        !self.further.is_empty()
    }

    /// Connects to all servers at once, and uses the first one that accepts writes. Returns whether it
    /// is another one than before.
    ///
    /// # Errors
    ///
    /// Fails if no server accepts writes. This has no time limit.
    pub(super) async fn locate(&self, check: &SessionCheck) -> Result<bool, Error> {
        let all = std::iter::once(&self.first).chain(&self.further);
        let attempts = all.enumerate().map(|(position, options)| {
            let options = check.connect_options(options);
            async move {
                let mut connection = options.connect().await?;
                check.check(&mut connection).await?;
                Ok::<_, Error>(position)
            }
            .boxed()
        });
        let (found, _) = select_ok(attempts).await?;
        Ok(self.current.swap(found, Ordering::Relaxed) != found)
    }
}
