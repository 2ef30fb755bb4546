//! On a port, until it is told to end.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use thiserror::Error;
use tokio::runtime;

use crate::app::{Config, Shared, router};
use crate::patient::MaxStall;

/// Threads that read and write; answers are computed by the models' own. What takes long is done elsewhere, and a second
/// one would be woken for each token to find that the first has taken it.
const N_THREADS: usize = 1;
/// Threads for templates, tokenizers and grammars, which are given up when idle.
const MAX_BLOCKING_THREADS: usize = 8;
/// Grammars are read by recursion.
const STACK_BYTES: usize = 16 << 20;
/// How many ports after a taken one are tried for a suggestion.
const N_SUGGESTED: u16 = 20;

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Tls(RustlsConfig);

impl Tls {
    /// Reads the chain and the key, both PEM.
    ///
    /// # Errors
    /// [`ServeError::Tls`], [`ServeError::Io`].
    pub fn read(cert: &Path, key: &Path) -> Result<Self, ServeError> {
        let runtime = runtime::Builder::new_current_thread().build()?;
        let config = runtime.block_on(RustlsConfig::from_pem_file(cert, key));
        let (cert, key) = (cert.to_path_buf(), key.to_path_buf());
        config.map(Self).map_err(|source| ServeError::Tls { cert, key, source })
    }
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Somebody listens there.
    #[error("{address} is in use{}", .free.map_or(String::new(), |port| format!("; try --port {port}")))]
    InUse {
        /// Where it was to be.
        address: SocketAddr,
        /// A port nearby that was free a moment ago.
        free: Option<u16>,
    },
    /// The system refused the address.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// Where it was to be.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{} and {}: {source}", .cert.display(), .key.display())]
    Tls {
        /// The file of the chain.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("the server failed: {0}")]
    Io(#[from] io::Error),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All that was begun was answered.
    Drained,
    /// It was told to end twice.
    Cut,
}

/// Takes the address; with port 0 the system chooses one.
///
/// # Errors
/// [`ServeError::InUse`], [`ServeError::Bind`].
pub fn bind(host: IpAddr, port: u16) -> Result<TcpListener, ServeError> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            let mut near = (1..=N_SUGGESTED).filter_map(|n| port.checked_add(n));
            let free = near.find(|&port| TcpListener::bind((host, port)).is_ok());
            ServeError::InUse { address, free }
        }
        _ => ServeError::Bind { address, source },
    })
}

/// Serves until the process is told to end (SIGTERM, Ctrl-C): then what was begun is answered and nothing more taken.
/// Told again, it ends at once. `on_drain` is called at the first of the two.
///
/// # Errors
/// [`ServeError::Io`].
pub fn run(
    config: Config,
    listener: TcpListener,
    tls: Option<Tls>,
    on_drain: impl FnOnce() + Send + 'static,
) -> Result<Ended, ServeError> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(N_THREADS)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_name("puna http")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config, listener, tls, on_drain));
    // A grammar that is being compiled is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(
    config: Config,
    listener: TcpListener,
    tls: Option<Tls>,
    on_drain: impl FnOnce() + Send + 'static,
) -> Result<Ended, ServeError> {
    let patience = config.patience;
    let app = Shared::new(config);
    let handle = Handle::new();
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle.clone())
        .first_request_timeout(patience.head);
    server.http_builder().http1().header_read_timeout(patience.head);
    let service = router(Arc::clone(&app)).into_make_service_with_connect_info::<SocketAddr>();
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    tokio::spawn(async move {
        told_to_end().await;
        app.drain();
        on_drain();
        handle.graceful_shutdown(None);
        told_to_end().await;
        cut.store(true, Ordering::SeqCst);
        handle.shutdown();
    });
    match tls {
        None => server.acceptor(MaxStall(patience.stall)).serve(service).await?,
        Some(Tls(config)) => {
            let acceptor = RustlsAcceptor::new(config).acceptor(MaxStall(patience.stall));
            server.acceptor(acceptor).serve(service).await?;
        }
    }
    Ok(if is_cut.load(Ordering::SeqCst) { Ended::Cut } else { Ended::Drained })
}

/// Waits for SIGTERM or Ctrl-C.
#[cfg(unix)]
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminated => {}
        _ = interrupted() => {}
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
async fn told_to_end() {
    interrupted().await;
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
