//! Connections to a replica that take longer to open than a read waits for them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sqlx::query_as;
use tokio::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

use super::{
    BEGIN_LIMIT,
    server::{APPLIED, Applied},
};
use crate::{
    patience::with_patience,
    store::{
        operation_error::{Cause, OperationError},
        postgres::connection::{PooledConnection, PostgresPool},
    },
};

/// Maximum time in which a connection is opened. A far server needs seven round trips with TLS.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(3);

/// Opens connections in the background, one at a time.
pub(super) struct Opener {
    pool: Arc<PostgresPool>,
    is_opening: AtomicBool,
    /// Whether the last connection took longer to open than a read waits for it.
    is_slow: AtomicBool,
    tasks: TaskTracker,
}

/// Task that opens a connection, until it is dropped.
struct Opening(Arc<Opener>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.is_opening.store(false, Ordering::Relaxed);
    }
}

impl Opener {
    pub(super) fn new(pool: Arc<PostgresPool>) -> Self {
        Self {
            pool,
            is_opening: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        }
    }

    /// Waits for a connection, for as long as a read does. If there is none, one is opened in the
    /// background; `fail` receives why that fails. Returns `None` if the server may be used nevertheless.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        fail: impl FnOnce(Cause) + Send + 'static,
    ) -> Result<Option<PooledConnection>, OperationError> {
        let must_open = !self.pool.has_idle_connection() && !self.pool.is_full();
        let waits = self.is_opening.load(Ordering::Relaxed) || self.is_slow.load(Ordering::Relaxed);
        if must_open && waits {
            self.open(fail);
            return Ok(None);
        }
        let acquiring = PooledConnection::acquire(&self.pool);
        if let Ok(acquired) = with_patience(BEGIN_LIMIT, acquiring).await {
            return Ok(Some(acquired?));
        }
        // Otherwise reads have all connections in use.
        if !self.pool.is_full() {
            self.open(fail);
        }
        Ok(None)
    }

    fn open(self: &Arc<Self>, fail: impl FnOnce(Cause) + Send + 'static) {
        if self.is_opening.swap(true, Ordering::Relaxed) {
            return;
        }
        let opening = Opening(Arc::clone(self));
        self.tasks.spawn(async move {
            let this = &opening.0;
            let started = Instant::now();
            match with_patience(OPEN_LIMIT, Box::pin(this.open_one())).await {
                Ok(Ok(())) => {
                    let is_slow = started.elapsed() > BEGIN_LIMIT;
                    this.is_slow.store(is_slow, Ordering::Relaxed);
                }
                Ok(Err(error)) => fail(error.into_cause()),
                Err(_) => fail(Cause::new("the server does not respond")),
            }
        });
    }

    /// Opens a connection, and prepares the first statement of each read.
    async fn open_one(&self) -> Result<(), OperationError> {
        let mut connection = PooledConnection::acquire(&self.pool).await?;
        let response = query_as(APPLIED).fetch_one(&mut *connection).await;
        let applied = Applied::from_response(response).map(drop);
        connection
            .release(applied.map_err(OperationError::from))
            .await
    }

    /// Waits for the connection that is being opened.
    pub(super) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
