//! Servers of which one is used: a primary and its standbys, whose roles can change.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready, select_ok},
};
use sqlx::{ConnectOptions as _, Error, PgConnection, postgres::PgConnectOptions};

use super::session_check::SessionCheck;

/// Options of the connections to each server, and which of them is used.
#[derive(Debug)]
pub(super) struct Hosts {
    first: PgConnectOptions,
    further: Vec<PgConnectOptions>,
    /// Position of the server that is used; 0 is the first one.
    current: AtomicUsize,
}

/// Function that fails unless the server of a connection can be used.
pub(super) type Acceptance<'a> =
    dyn for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<(), Error>> + Send + Sync + 'a;

/// Accepts each server that the check of its connection accepts.
pub(super) fn accept_any(_: &mut PgConnection) -> BoxFuture<'_, Result<(), Error>> {
    ready(Ok(())).boxed()
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

    /// Connects to all servers at once, and uses the first one that `check` and `accept` accept. Returns
    /// whether it is another one than before.
    ///
    /// # Errors
    ///
    /// Fails if no server is accepted. This has no time limit.
    pub(super) async fn locate(
        &self,
        check: &SessionCheck,
        accept: &Acceptance<'_>,
    ) -> Result<bool, Error> {
        let all = std::iter::once(&self.first).chain(&self.further);
        let attempts = all.enumerate().map(|(position, options)| {
            let options = check.connect_options(options);
            async move {
                let mut connection = options.connect().await?;
                check.check(&mut connection).await?;
                accept(&mut connection).await?;
                Ok::<_, Error>(position)
            }
            .boxed()
        });
        let (found, _) = select_ok(attempts).await?;
        Ok(self.current.swap(found, Ordering::Relaxed) != found)
    }
}
