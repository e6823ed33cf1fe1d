//! `pocketlm serve`: a server for this machine's own programs, by OpenAI's interface and some of llama.cpp's.
//!
//! A request passes the guard, becomes [`slots::Work`] in its endpoint's file, waits in the fair queue, and is answered by a slot:
//! a thread that blocks where the engine does. What the slot says comes back through a bounded channel, and is written as a stream or
//! as one body. When the client leaves, its connection drops the response, and with it what is computed for it.

mod answering;
mod base64;
mod body;
mod chat;
mod completions;
mod connection;
mod embeddings;
mod fair;
mod fields;
mod guard;
mod kept;
mod messages;
mod metrics;
mod models;
mod native;
mod options;
mod page;
mod refusal;
mod responses;
mod slots;
mod sse;
#[cfg(test)]
mod tests;
mod usage;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use pocketlm::{Engine, Error, GenerateOptions, Kind, Model, Pooling, Prompt, Result, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::{interrupt, output};

use guard::Client;
pub(crate) use guard::Keys;
use metrics::Metrics;
use refusal::Refusal;
use slots::Slots;

/// How a server is to be.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where it listens: the first that works.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What the model is called, the first name in answers.
    pub(crate) names: Vec<String>,
    pub(crate) keys: Keys,
    /// Whose pages may ask beside its own; `*` for all.
    pub(crate) origins: Vec<String>,
    /// Requests that are answered at the same time, and that wait.
    pub(crate) slots: usize,
    pub(crate) queue: usize,
    /// What an answer is made with where a request does not say.
    pub(crate) defaults: GenerateOptions,
    pub(crate) pooling: Pooling,
    pub(crate) limits: Limits,
}

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    /// Bytes of a body.
    pub(crate) body: usize,
    /// For the headers of a request to come, and for a connection to idle.
    pub(crate) head: Duration,
    /// For its body to come.
    pub(crate) read: Duration,
    /// For what is sent to be taken.
    pub(crate) write: Duration,
    /// From a request to the end of its answer.
    pub(crate) answer: Duration,
    /// For answers under way when the server ends.
    pub(crate) grace: Duration,
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Server {
    model: Model,
    names: Vec<String>,
    keys: Keys,
    origins: Vec<String>,
    defaults: GenerateOptions,
    pooling: Pooling,
    limits: Limits,
    /// Whether it listens to this machine alone.
    is_local: bool,
    /// When it began, in seconds since 1970.
    begun: u64,
    metrics: Arc<Metrics>,
    slots: Slots,
    /// One for each connection more.
    connections: Arc<Semaphore>,
    /// One for each KiB more of bodies that are held.
    bodies: Arc<Semaphore>,
}

/// Bodies of the largest size that are held at the same time.
const BODIES: usize = 16;
/// Connections beyond the limit whose clients are waited for at the same time, so that they see why.
const TOLD: usize = 32;
/// What of an answer may wait in the system for its reader.
const SEND_BUFFER: u32 = 64 << 10;
/// How long what is stopped may take to end.
const LAST: Duration = Duration::from_secs(3);

impl Server {
    fn new(model: Model, settings: &Settings, is_local: bool) -> Self {
        let metrics = Arc::new(Metrics::default());
        let limits = settings.limits;
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            names: settings.names.clone(),
            keys: settings.keys.clone(),
            origins: settings.origins.clone(),
            defaults: settings.defaults.clone(),
            pooling: settings.pooling,
            limits,
            is_local,
            begun,
            slots: Slots::new(model.clone(), metrics.clone(), settings.slots, settings.queue),
            metrics,
            model,
            connections: Arc::new(Semaphore::new(limits.connections)),
            bodies: Arc::new(Semaphore::new(BODIES * limits.body.div_ceil(1024))),
        }
    }

    /// What the model is called in answers.
    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Refuses another model than the one that is here. Who names none means that.
    fn check_model(&self, asked: Option<&str>) -> Result<(), Refusal> {
        match asked.filter(|asked| !self.names.iter().any(|name| name == asked)) {
            None => Ok(()),
            Some(asked) => Err(Refusal::unknown_model(asked, self.name())),
        }
    }

    /// Whether pages of another origin may ask.
    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|own| own == "*" || own.as_bytes() == origin.as_bytes())
    }

    /// The tokens of a prompt that leaves room for an answer.
    async fn tokens(
        self: &Arc<Self>,
        prompt: Prompt,
        options: &GenerateOptions,
    ) -> Result<Vec<u32>, Refusal> {
        let (server, options) = (self.clone(), options.clone());
        // It may take a second, and in a template recurse deep.
        let made = tokio::task::spawn_blocking(move || server.model.tokens_with(&prompt, &options)).await;
        let tokens = made.map_err(|_| Refusal::internal("The server met a bug; its log has more."))??;
        let context = self.model.info().context;
        if tokens.len() < context as usize {
            Ok(tokens)
        } else {
            Err(Refusal::too_long(tokens.len(), context))
        }
    }

    fn now(&self) -> metrics::Now {
        let connections = self.limits.connections - self.connections.available_permits();
        metrics::Now { connections, ..self.slots.now() }
    }
}

/// Listens and answers until Ctrl-C or SIGTERM.
///
/// # Errors
/// `InvalidArgument` where it would be open to others without a key, `Io` where nothing can be listened to.
pub(crate) fn run(engine: &Engine, model: Model, settings: &Settings) -> anyhow::Result<()> {
    let io = |error: std::io::Error, at: &str| Error::new(Kind::Io, error.to_string()).at(at.to_owned());
    // The worker computes, these wait for clients and for texts to become tokens.
    let runtime = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| io(error, "starting the server"))?;
    let listener = {
        let _inside = runtime.enter();
        listen(&settings.addresses)?
    };
    let address = listener.local_addr().map_err(|error| io(error, "listening"))?;
    let server = Arc::new(Server::new(model, settings, address.ip().is_loopback()));
    let worker = Worker::start(engine)?;
    for number in 0..settings.slots {
        let server = server.clone();
        let thread = thread::Builder::new().name(format!("slot {number}"));
        thread.spawn(move || server.slots.work()).map_err(|error| io(error, "starting a slot"))?;
    }
    let (close, closing) = watch::channel(false);
    let close = Arc::new(close);
    let interrupted = close.clone();
    let _stopping = interrupt::stops(move || {
        interrupted.send_replace(true);
    });
    output::line(&format!("{} listens on http://{address}", server.name()))?;
    runtime.block_on(async {
        tokio::spawn(terminated(close));
        accept(&server, &listener, closing.clone()).await;
        drop(listener);
        finish(&server).await;
    });
    runtime.shutdown_timeout(LAST);
    drop(worker);
    Ok(())
}

/// The first address that can be listened to.
fn listen(addresses: &[SocketAddr]) -> Result<TcpListener> {
    let at = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // On Windows it would mean that others may take the address over.
        if cfg!(unix) {
            socket.set_reuseaddr(true)?;
        }
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    let mut refused = Error::new(Kind::InvalidArgument, "there is no address to listen on");
    for &address in addresses {
        match at(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                refused =
                    Error::new(Kind::Io, format!("{address}: {error}")).hint("--port 0 takes a free one");
            }
        }
    }
    Err(refused)
}

/// Ends the server where the system asks for it.
async fn terminated(close: Arc<watch::Sender<bool>>) {
    #[cfg(unix)]
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
            close.send_replace(true);
        }
        Err(error) => output::note(&format!("SIGTERM will end the server at once: {error}")),
    }
    #[cfg(not(unix))]
    drop(close);
}

async fn accept(server: &Arc<Server>, listener: &TcpListener, mut closing: watch::Receiver<bool>) {
    let router = router(server);
    let told = Arc::new(Semaphore::new(TOLD));
    for number in 1.. {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connection::closed(&mut closing) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // It left already, or there are no more handles: some will come back.
                log::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        server.metrics.connected();
        let client = Client::of(peer.ip().to_canonical(), number);
        let (server, router, closing) = (server.clone(), router.clone(), closing.clone());
        if let Ok(permit) = server.connections.clone().try_acquire_owned() {
            tokio::spawn(async move {
                connection::serve(server, router, stream, client, closing).await;
                drop(permit);
            });
        } else if let Ok(permit) = told.clone().try_acquire_owned() {
            tokio::spawn(async move {
                // However it ends, that was all there is to say.
                let _told = timeout(Duration::from_secs(1), turn_away(stream)).await;
                drop(permit);
            });
        } else if let Ok(stream) = stream.into_std() {
            // Whoever asked before it came may not see it.
            let _told = (&stream).write_all(full().as_bytes());
        }
    }
}

/// The whole response of a server with too many connections.
fn full() -> String {
    let body = Refusal::connections_full().to_json().to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Says that there are too many connections.
async fn turn_away(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(full().as_bytes()).await?;
    stream.shutdown().await?;
    // What is not read before it is closed would take the response with it.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Lets answers under way end, within bounds.
async fn finish(server: &Server) {
    server.slots.close();
    let all = u32::try_from(server.limits.connections).unwrap_or(u32::MAX);
    let now = server.now();
    if now.answering > 0 {
        output::note(&format!(
            "{} answers under way may take {} s more; Ctrl-C leaves now",
            now.answering,
            server.limits.grace.as_secs()
        ));
    }
    let ended = || server.connections.acquire_many(all);
    if timeout(server.limits.grace, ended()).await.is_err() {
        server.slots.stop();
        // Who does not take what is left of an answer has had its time.
        let _late = timeout(LAST, ended()).await;
    }
}

fn router(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
        .route("/v1/responses", post(responses::answer))
        .route("/v1/embeddings", post(embeddings::answer))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/health", get(native::health))
        .route("/v1/health", get(native::health))
        .route("/props", get(native::props))
        .route("/tokenize", post(native::tokenize))
        .route("/detokenize", post(native::detokenize))
        .route("/metrics", get(native::metrics))
        .fallback(async |request: Request| Refusal::not_found(request.uri().path()))
        .method_not_allowed_fallback(async |request: Request| {
            Refusal::wrong_method(request.method().as_str(), request.uri().path())
        })
        .layer(from_fn_with_state(server.clone(), guard::guard))
        .with_state(server.clone())
}
