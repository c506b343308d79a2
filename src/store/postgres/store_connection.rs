//! Connection on which the statements of the store are executed.
//!
//! A pooler in transaction mode assigns a server to each transaction. What a session keeps, such as
//! settings and prepared statements, does not exist on the next server then, and the messages of one
//! statement can reach two servers outside of a transaction. Behind such a pooler, the first statement
//! of an operation therefore begins a transaction with the settings of the store, and no statement has
//! a name. Without one, statements are passed on unchanged.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _, TryFutureExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream,
};
use sqlx::{
    Arguments as _, AssertSqlSafe, Either, Encode, Error, Execute, Executor, PgConnection,
    Postgres, SqlStr, Type,
    encode::IsNull,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{PgArgumentBuffer, PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
    query, query_with, raw_sql,
};

use super::session_check::{SessionCheck, rejection};
use crate::{patience::with_patience, store::pool::Pooled};

/// Maximum time that a transaction waits for a server of the pooler. Nothing has been executed then.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(600);

/// Statement that begins a transaction, and its own settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) statement: &'static str,
    /// Statements that replace settings of the session until the transaction ends; can be empty.
    pub(super) settings: &'static str,
}

/// Transaction of an operation that is otherwise executed in autocommit mode.
const BEGIN: Begin = Begin {
    statement: "BEGIN ISOLATION LEVEL READ COMMITTED",
    settings: "",
};

/// Settings of a statement that two processes execute if the server expects that to take less time.
const PARALLEL_PLANS: &str = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), \
    set_config('max_parallel_workers_per_gather', '1', true)";

/// Begins a transaction whose statements have the settings of [`PARALLEL_PLANS`].
const BEGIN_PARALLEL_PLANS: Begin = Begin {
    statement: "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
    settings: PARALLEL_PLANS,
};

/// Connection of an operation, to PostgreSQL or to a pooler. See the documentation of the module.
pub(super) struct StoreConnection {
    connection: Pooled<PoolConnection<Postgres>>,
    /// Begins the transactions behind a pooler in transaction mode.
    pooled: Option<PooledTransactions>,
}

/// Transactions on a connection to a pooler.
struct PooledTransactions {
    check: Arc<SessionCheck>,
    state: TransactionState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransactionState {
    /// There is no transaction.
    None,
    /// All statements of the transaction have succeeded.
    Open,
    /// A statement failed. The server executes only a ROLLBACK.
    Failed,
    /// The response to the BEGIN was not read. The connection cannot be used.
    Unknown,
}

impl StoreConnection {
    /// Wraps a connection. `check` is given if it leads to a pooler in transaction mode.
    pub(super) fn new(
        connection: Pooled<PoolConnection<Postgres>>,
        check: Option<Arc<SessionCheck>>,
    ) -> Self {
        let state = TransactionState::None;
        let pooled = check.map(|check| PooledTransactions { check, state });
        Self { connection, pooled }
    }

    /// Connection of the driver. Statements are executed on the [`StoreConnection`] instead.
    pub(super) fn driver(&mut self) -> &mut Pooled<PoolConnection<Postgres>> {
        &mut self.connection
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self, begin: &Begin) -> Result<(), Error> {
        if let Some(pooled) = &mut self.pooled {
            return pooled.begin(&mut self.connection, begin).await;
        }
        let Begin {
            statement,
            settings,
        } = begin;
        let statement = AssertSqlSafe(format!("{statement}; {settings}"));
        raw_sql(statement)
            .execute(&mut *self.connection)
            .await
            .map(drop)
    }

    /// Begins the transaction of an operation, if a pooler is used and it has not begun.
    pub(super) async fn begin_if_pooled(&mut self) -> Result<(), Error> {
        match &mut self.pooled {
            Some(pooled) => pooled.begin_if_none(&mut self.connection).await,
            None => Ok(()),
        }
    }

    /// Ends a transaction with a COMMIT or ROLLBACK, which can follow other statements.
    pub(super) async fn end(&mut self, statements: String) -> Result<(), Error> {
        raw_sql(AssertSqlSafe(statements))
            .execute(&mut *self.connection)
            .await?;
        if let Some(pooled) = &mut self.pooled {
            pooled.state = TransactionState::None;
        }
        Ok(())
    }

    /// Begins to plan statements for their parameters, and to execute them in parallel. This lasts until
    /// [`Self::end_parallel_plans`] is called.
    pub(super) async fn begin_parallel_plans(&mut self) -> Result<(), Error> {
        if self.is_pooled() {
            return query(PARALLEL_PLANS).execute(self).await.map(drop);
        }
        self.begin(&BEGIN_PARALLEL_PLANS).await
    }

    /// Ends what [`Self::begin_parallel_plans`] has begun, also after a statement that failed. Behind a
    /// pooler, it ends with the transaction of the operation, which plans each statement anyway.
    pub(super) async fn end_parallel_plans(&mut self) -> Result<(), Error> {
        if self.is_pooled() {
            return Ok(());
        }
        self.end("COMMIT".to_owned()).await
    }

    /// Continues an operation in autocommit mode after a statement that failed. The statements before
    /// it have written nothing.
    pub(super) async fn continue_after_error(&mut self) -> Result<(), Error> {
        match &self.pooled {
            Some(pooled) if pooled.state == TransactionState::Failed => {
                self.end("ROLLBACK".to_owned()).await
            }
            _ => Ok(()),
        }
    }

    /// Records that the connection to a pooler was lost.
    pub(super) fn record_loss(&self) {
        if let Some(pooled) = &self.pooled {
            pooled.check.server().record_loss();
        }
    }

    /// Whether the connection leads to a pooler that assigns a server to each transaction.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// Whether an operation in autocommit mode has begun a transaction.
    pub(super) fn has_pooled_transaction(&self) -> bool {
        self.has_state(|state| state != TransactionState::None)
    }

    /// Whether a COMMIT would be executed as a ROLLBACK.
    pub(super) fn has_failed(&self) -> bool {
        self.has_state(|state| state == TransactionState::Failed)
    }

    /// Whether the response to a BEGIN was not read.
    pub(super) fn is_unknown(&self) -> bool {
        self.has_state(|state| state == TransactionState::Unknown)
    }

    fn has_state(&self, condition: impl FnOnce(TransactionState) -> bool) -> bool {
        self.pooled
            .as_ref()
            .is_some_and(|pooled| condition(pooled.state))
    }
}

impl PooledTransactions {
    async fn begin_if_none(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        match self.state {
            TransactionState::None => self.begin(connection, &BEGIN).await,
            // The server rejects a statement after one that failed.
            TransactionState::Open | TransactionState::Failed => Ok(()),
            TransactionState::Unknown => Err(rejection("the transaction did not begin")),
        }
    }

    async fn begin(&mut self, connection: &mut PgConnection, begin: &Begin) -> Result<(), Error> {
        self.state = TransactionState::Unknown;
        let begun = self.check.begin(connection, begin);
        match with_patience(BEGIN_TIMEOUT, begun).await {
            Ok(begun) => begun?,
            Err(_) => {
                return Err(rejection("the pooler did not assign a server in time"));
            }
        }
        self.state = TransactionState::Open;
        Ok(())
    }
}

impl<'c> Executor<'c> for &'c mut StoreConnection {
    type Database = Postgres;

    fn fetch_many<'e, 'q, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: Execute<'q, Postgres>,
        'q: 'e,
        E: 'q,
    {
        let StoreConnection { connection, pooled } = self;
        let connection: &'c mut PgConnection = connection;
        let Some(pooled) = pooled else {
            return connection.fetch_many(query);
        };
        let executed = async move {
            pooled.begin_if_none(connection).await?;
            let rows = connection.fetch_many(Unnamed(query));
            Ok(rows.inspect_err(|_| pooled.state = TransactionState::Failed))
        };
        Box::pin(executed.try_flatten_stream())
    }

    fn fetch_optional<'e, 'q, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: Execute<'q, Postgres>,
        'q: 'e,
        E: 'q,
    {
        let StoreConnection { connection, pooled } = self;
        let connection: &'c mut PgConnection = connection;
        let Some(pooled) = pooled else {
            return connection.fetch_optional(query);
        };
        Box::pin(async move {
            pooled.begin_if_none(connection).await?;
            let row = connection.fetch_optional(Unnamed(query)).await;
            if row.is_err() {
                pooled.state = TransactionState::Failed;
            }
            row
        })
    }

    fn prepare_with<'e>(
        self,
        _sql: SqlStr,
        _parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        async { Err(rejection("statements are prepared when they are executed")) }.boxed()
    }

    fn describe<'e>(self, _sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        async { Err(rejection("statements are not described")) }.boxed()
    }
}

impl fmt::Debug for StoreConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConnection").finish_non_exhaustive()
    }
}

/// Types of parameters and columns that the driver does not know, and looks up once per connection.
const LOOKED_UP_TYPES: [&str; 3] = ["tsvector", "_tsvector", "tsquery"];

/// Looks up the types of the statements on a connection to a pooler. The driver would do it between
/// the two messages of the first statement that has one, which removes a statement without a name.
pub(super) async fn look_up_types(connection: &mut PgConnection) -> Result<(), Error> {
    raw_sql("BEGIN").execute(&mut *connection).await?;
    let mut arguments = PgArguments::default();
    for name in LOOKED_UP_TYPES {
        arguments.add(NullOf(name)).map_err(Error::Encode)?;
    }
    query_with("SELECT 1", arguments)
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    raw_sql("COMMIT").execute(connection).await.map(drop)
}

/// Null of the type with this name.
struct NullOf(&'static str);

impl Type<Postgres> for NullOf {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("text")
    }
}

impl Encode<'_, Postgres> for NullOf {
    fn encode_by_ref(&self, _buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_name(self.0))
    }
}

/// Query whose statement has no name, so that it does not outlast its transaction.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}
