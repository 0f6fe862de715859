//! Sockets: made at the start, and tried again when something was in the way.
//!
//! A connection has a place among so many, and little time until it asks for something. What lies
//! where a Unix socket is to be goes only if it is a socket behind which nobody listens.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::room::{Limits, Place, Room};
use crate::who::Who;

/// How long until the next try, if a socket cannot be had.
const AGAIN: Duration = Duration::from_secs(30);
/// How long until the next connection is taken, if there was no descriptor for the last one.
const BREATH: Duration = Duration::from_secs(1);
/// How long a connection may take to say what it wants next, and then to send what belongs to it.
pub(crate) const REQUEST: Duration = Duration::from_secs(30);
/// So many are told at once that there is no place, and how long each may take to hear it.
const TURNED_AWAY: usize = 32;
const FAREWELL: Duration = Duration::from_secs(2);

/// Connections to a Unix socket: each program that subscribes holds one.
const UNIX: Limits = Limits { all: 4_096, each: 1_024 };
/// Connections of collectors of metrics; nobody knows who they are.
const TCP: Limits = Limits { all: 64, each: 64 };

/// Serves on a TCP port.
pub(crate) async fn tcp(addr: SocketAddr, router: Router) {
    let listener = until_bound(&addr, "metrics are not served", || TcpListener::bind(addr)).await;
    if let Ok(addr) = listener.local_addr() {
        info!(%addr, "metrics are served");
    }
    let door = Door::new(TCP);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => door.enter(stream, None, &router),
            Err(error) => breathe(&error).await,
        }
    }
}

/// Serves on a Unix socket with this mode, and says who is at its other end.
pub(crate) async fn unix(path: PathBuf, mode: u32, router: Router) {
    let listener =
        until_bound(&path.display(), "a socket is not there", || bind(&path, mode)).await;
    let door = Door::new(UNIX);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let who = Who::of(&stream);
                door.enter(stream, Some(who), &router);
            }
            Err(error) => breathe(&error).await,
        }
    }
}

/// Makes a Unix socket with this mode.
///
/// # Errors
/// It cannot be made, or something is in the way: another file, or somebody who listens. Nothing
/// has changed then.
pub async fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            let why = "there is something else than a socket; move it or name another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(_) => match UnixStream::connect(path).await {
            // Whoever listened there is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            _ => {
                let why = "another process listens there; end it or name another path";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
            }
        },
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

async fn until_bound<T, F: Future<Output = io::Result<T>>>(
    what: &impl Display,
    not: &str,
    bind: impl Fn() -> F,
) -> T {
    let mut told = false;
    loop {
        match bind().await {
            Ok(listener) => return listener,
            Err(error) if !std::mem::replace(&mut told, true) => {
                warn!(at = %what, %error, "{not}; tried again every 30 s");
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

async fn breathe(error: &io::Error) {
    debug!(%error, "a connection is not taken");
    sleep(BREATH).await;
}

/// Who comes in, and who hears that it is full.
struct Door {
    room: Room,
    turned_away: Arc<Semaphore>,
}

impl Door {
    fn new(limits: Limits) -> Door {
        Door { room: Room::new(limits), turned_away: Arc::new(Semaphore::new(TURNED_AWAY)) }
    }

    fn enter<S>(&self, stream: S, who: Option<Who>, router: &Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let crowded = match self.room.take(who.map(|who| who.uid)) {
            Ok(place) => return admit(stream, who, place, router),
            Err(crowded) => crowded,
        };
        if let Ok(turn) = self.turned_away.clone().try_acquire_owned() {
            debug!(?who, %crowded, "a connection is turned away");
            tokio::spawn(async move {
                let full = async move || crate::bus::full(&crowded);
                timeout(FAREWELL, attend(stream, Router::new().fallback(full))).await.ok();
                drop(turn);
            });
        }
    }
}

/// Serves one who has a place.
fn admit<S>(stream: S, who: Option<Who>, place: Place, router: &Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = match who {
        Some(who) => router.clone().layer(Extension(ConnectInfo(who))),
        None => router.clone(),
    };
    tokio::spawn(async move {
        attend(stream, router).await;
        drop(place);
    });
}

/// Answers the requests of one connection. A program that has gone is no error.
async fn attend<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection has ended");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::bus::Whole;

    #[tokio::test]
    async fn only_a_socket_of_nobody_gives_way() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.sock");
        let first = bind(&path, 0o600).await.expect("there is nothing");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let error = bind(&path, 0o666).await.expect_err("somebody listens");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = bind(&path, 0o666).await.expect("nobody listens");
        assert_eq!(mode(&path), 0o666);
        drop(second);
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "mine").expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        std::fs::create_dir(dir.path().join("folder")).expect("made");
        for name in ["file", "link", "folder"] {
            let error = bind(&dir.path().join(name), 0o600).await.expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        assert_eq!(std::fs::read_to_string(&file).expect("reads"), "mine");
        assert!(std::fs::symlink_metadata(&path).is_ok(), "the link's target stays");
    }

    async fn said(mut stream: tokio::io::DuplexStream) -> String {
        let mut text = String::new();
        let read = timeout(REQUEST * 2, stream.read_to_string(&mut text)).await;
        read.expect("the connection ends").expect("it is text");
        text
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_let_go_and_who_is_too_many_is_told() {
        let door = Door::new(Limits { all: 1, each: 1 });
        let router = Router::new().fallback(async || "found");
        let request = b"GET / HTTP/1.1\r\nhost: b\r\n\r\n";
        let enter = || {
            let (mine, stream) = tokio::io::duplex(1 << 16);
            door.enter(stream, None, &router);
            mine
        };
        let mut slow = enter();
        slow.write_all(&request[..9]).await.expect("written");
        let mut late = enter();
        late.write_all(request).await.expect("written");
        let turned = said(late).await;
        assert!(
            turned.starts_with("HTTP/1.1 503") && turned.contains("has 1 connections"),
            "{turned}"
        );
        let begun = tokio::time::Instant::now();
        assert_eq!(said(slow).await, "", "it never said what it wants");
        assert!(begun.elapsed() <= REQUEST + Duration::from_secs(1), "{:?}", begun.elapsed());
        let mut next = enter();
        next.write_all(request).await.expect("written");
        assert!(said(next).await.contains("found"), "the place is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_send_the_rest_of_a_request_is_told_and_let_go() {
        let door = Door::new(Limits { all: 1, each: 1 });
        let router = Router::new().fallback(async |Whole(body): Whole| body);
        let request = b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 9\r\n\r\nall of it";
        let enter = || {
            let (mine, stream) = tokio::io::duplex(1 << 16);
            door.enter(stream, None, &router);
            mine
        };
        for sent in [request.len() - 9, request.len() - 1] {
            let mut slow = enter();
            slow.write_all(&request[..sent]).await.expect("written");
            let begun = tokio::time::Instant::now();
            let told = said(slow).await;
            assert!(told.starts_with("HTTP/1.1 408") && told.contains("slow"), "{told}");
            let took = begun.elapsed();
            assert!((REQUEST..=REQUEST + Duration::from_secs(1)).contains(&took), "{took:?}");
        }
        let mut next = enter();
        next.write_all(request).await.expect("written");
        assert!(said(next).await.contains("all of it"), "the place is free again");
    }
}
