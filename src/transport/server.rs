use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::Stream;
use http::{Request, Response};
use hyper::{body::Incoming, rt::Executor, service::Service as HyperService};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::Service;

use super::{
    byte_budgets::ByteBudgets,
    connection::Connection,
    connection_state::ConnectionState,
    exchange::Exchange,
    exchange_body::{DeliveredBody, ReceivedBody, RequestRejection},
    open_connections::OpenConnections,
    watch::watch,
};

/// Interval and timeout of the pings that detect dead peers, so that their streams end.
///
/// The timeout also passes while either process is stopped, and it is evaluated before the reply
/// that has arrived meanwhile is read. It is therefore longer than any stop after which a caller
/// would still use the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_mins(2);

/// Limit on the bytes of a call's metadata, and on the bytes that a connection over HTTP/1 buffers. It
/// is twice the limit of `baggage`. Decoded, many short fields take four times as much, also before a
/// call is complete.
const MAX_METADATA_BYTES: u32 = 16 << 10;

/// Time in which a connection that is closed after its exchanges must be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Limit on the concurrent exchanges of one connection over HTTP/2. The client delays further
    /// ones.
    pub max_streams: u32,
    /// Limit on the duration of an exchange, unless its handler sets another.
    pub max_exchange_time: Duration,
    /// Age at which a connection is closed after its exchanges; `None` for no limit.
    pub max_connection_age: Option<Duration>,
    /// Limits on the bytes of requests and responses.
    pub budgets: Arc<ByteBudgets>,
    /// Creates the error of a request beyond the budget.
    pub request_rejection: RequestRejection,
}

/// Serves HTTP/1 and HTTP/2 with `service` until `stop`, and then until the last connection is
/// closed. Each request has the connection's [`Peer`](crate::access::Peer) and its [`Exchange`] as
/// extensions.
pub async fn serve<S>(
    incoming: impl Stream<Item = Connection> + Send,
    connections: OpenConnections,
    service: S,
    options: ServerOptions,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let tasks = TaskTracker::new();
    let serving = async {
        {
            let mut incoming = pin!(incoming);
            let mut stopped = pin!(stop.cancelled());
            loop {
                let connection = tokio::select! {
                    () = &mut stopped => break,
                    connection = incoming.next() => connection,
                };
                let Some(connection) = connection else { break };
                let (service, options) = (service.clone(), options.clone());
                let serving =
                    serve_connection(connection, service, options, stop.clone(), tasks.clone());
                tasks.spawn(serving);
            }
            // The listeners are closed here, so that later peers are refused at once.
        }
        tasks.close();
        tasks.wait().await;
    };
    tokio::select! {
        () = serving => {}
        never = watch(&connections) => match never {},
    }
}

async fn serve_connection<S>(
    connection: Connection,
    service: S,
    options: ServerOptions,
    stop: CancellationToken,
    tasks: TaskTracker,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let state = Arc::clone(connection.state());
    let executor = StreamExecutor {
        connection: Arc::clone(&state),
        tasks,
    };
    let builder = http(executor, &options);
    let max_age = options.max_connection_age;
    let service = ConnectionService {
        inner: service,
        peer: connection.peer().clone(),
        connection: Arc::clone(&state),
        options,
    };
    let mut serving = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let aged = async {
        match max_age {
            Some(age) => sleep(age).await,
            None => std::future::pending().await,
        }
    };
    let retired = async {
        tokio::select! {
            () = stop.cancelled() => None,
            () = aged => None,
            () = state.retired.cancelled() => Some(CLOSE_TIMEOUT),
        }
    };
    let close_timeout = tokio::select! {
        // An error of the connection concerns its peer alone.
        _ = &mut serving => return,
        () = state.closed.cancelled() => return,
        timeout = retired => timeout,
    };
    serving.as_mut().graceful_shutdown();
    let expired = async {
        match close_timeout {
            Some(timeout) => sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = serving => {}
        () = state.closed.cancelled() => {}
        () = expired => {}
    }
}

fn http(executor: StreamExecutor, options: &ServerOptions) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(executor);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(options.max_streams)
        .max_pending_accept_reset_streams(2 * options.max_streams as usize)
        .max_header_list_size(MAX_METADATA_BYTES);
    builder
        .http1()
        // Without a timer there would be no limit on the time in which headers must arrive.
        .timer(TokioTimer::new())
        .max_buf_size(MAX_METADATA_BYTES as usize);
    builder
}

/// Spawns the streams of a connection, so that each can be ended.
#[derive(Clone, Debug)]
struct StreamExecutor {
    connection: Arc<ConnectionState>,
    tasks: TaskTracker,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let task = self.tasks.spawn(stream);
        // The connection calls the service and spawns the stream with its future in one step.
        if let Some(exchange) = self.connection.take_beginning() {
            exchange.set_stream(task.abort_handle());
        }
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
struct ConnectionService<S> {
    inner: S,
    peer: crate::access::Peer,
    connection: Arc<ConnectionState>,
    options: ServerOptions,
}

impl<S> HyperService<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<DeliveredBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<DeliveredBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let deadline = Instant::now() + self.options.max_exchange_time;
        let exchange = Exchange::begin(&self.connection, &self.options.budgets, deadline);
        self.connection.set_beginning(exchange.downgrade());
        let rejection = self.options.request_rejection;
        let mut request =
            request.map(|body| Body::new(ReceivedBody::new(body, exchange.clone(), rejection)));
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(exchange.clone());
        let mut service = self.inner.clone();
        let unstarted = self.connection.unstarted.add();
        Box::pin(async move {
            drop(unstarted);
            let response = service.call(request).await?;
            exchange.respond();
            Ok(response.map(|body| DeliveredBody::new(body, exchange)))
        })
    }
}
