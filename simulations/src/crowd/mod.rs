//! A crowd: thousands of hosts in one process, linked by real QUIC to real relays.
//!
//! What a virtual host says and hears is what a real one does: the core is the shipped one, and so
//! are its certificate, its streams and its frames. What it lacks are a disk (what it saves counts
//! as durable at once), processes (an [`Answerer`] says what a command has printed), content and
//! previews. So a crowd shows what so many hosts cost their relays and the controller; it says
//! nothing of what a host itself costs, and it shares this machine's processors with them.
//!
//! A [`Voice`] goes further: one relay that speaks for as many hosts as there may be, none of which
//! exists. It is for whoever is above it, and for programs that show what it says.
//!
//! [`Roll`] makes the mesh: the authority, and an inventory that has everybody in it before the
//! controller starts, since to enrol ten thousand hosts one by one is not what is to be measured.

mod host;
mod roll;
mod voice;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh::{HostId, State};
use protos::{Answer, OrderBody};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use roll::{Member, Roll, enlist};
pub use voice::{Script, Voice};

/// Hosts that share a socket.
const SOCKET: usize = 250;
/// Handshakes under way at once with each parent; it refuses more than 32.
const HANDSHAKES: usize = 12;
/// Threads of the crowd.
const WORKERS: usize = 2;

/// What a command prints at a host of this name, and how it ends.
pub type Answerer = dyn Fn(&str, &OrderBody) -> (State, Answer) + Send + Sync;

/// Hosts that are linked, or try to be, until this is dropped.
pub struct Crowd {
    runtime: Option<Runtime>,
    linked: Arc<AtomicUsize>,
}

/// What all hosts of a crowd have in common.
struct Common {
    answer: Arc<Answerer>,
    beat: Duration,
    began: Instant,
    linked: Arc<AtomicUsize>,
    checked: wire::Checked,
}

impl Crowd {
    /// Starts hosts, those of one entry at one parent. They beat at least that often.
    pub fn start(
        sites: Vec<(SocketAddr, Vec<Member>)>,
        beat: Duration,
        answer: Arc<Answerer>,
    ) -> Result<Crowd> {
        let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
        let linked = Arc::new(AtomicUsize::new(0));
        let first = sites.iter().find_map(|(_, members)| members.first());
        let key = first.context("a crowd of nobody")?.credentials.order_key();
        let inside = runtime.enter();
        let common = Arc::new(Common {
            answer,
            beat,
            began: Instant::now(),
            linked: linked.clone(),
            checked: wire::Checked { key, good: Mutex::default() },
        });
        for (parent, members) in sites {
            let turns = Arc::new(Semaphore::new(HANDSHAKES));
            let mut members = members.into_iter().peekable();
            while members.peek().is_some() {
                let endpoint = quinn::Endpoint::client(([0, 0, 0, 0], 0).into());
                let endpoint = endpoint.context("a socket for a crowd")?;
                for member in members.by_ref().take(SOCKET) {
                    let way =
                        wire::Way { parent, endpoint: endpoint.clone(), turns: turns.clone() };
                    runtime.spawn(host::live(member, way, common.clone()));
                }
            }
        }
        drop(inside);
        Ok(Crowd { runtime: Some(runtime), linked })
    }

    /// How many have a link at this moment.
    pub fn linked(&self) -> usize {
        self.linked.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The number of a host, as its certificate has it.
fn number(member: &Member) -> HostId {
    HostId(member.credentials.identity().id)
}
