//! A link at rest: what the beats of a parent and a child cost on the wire.
//!
//! Both ends are the real core over real QUIC with the settings of the relay, in virtual time; what
//! they say is encoded as the relay does. Nobody gives an order, so beats are all that there is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use mesh::{Config, Frame, HostId, Input, LinkId, Node, Output, Peer, Saved, Time};
use protos::{Beside, Incoming};
use quinn::{RecvStream, SendStream};
use relay::{Chime, End, LinkKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::flows::{Keys, connect, open};
use super::{Counters, MemoryLink, Profile};

const LINK: LinkId = LinkId(1);
/// How often nodes beat that are told nothing else.
const BEAT: Duration = Duration::from_secs(5);
/// What the two have to tell each other in the beginning is over then.
const WARM: Duration = Duration::from_secs(120);

/// What has crossed a link in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rest {
    /// Bits a second, with the headers of IP and UDP.
    pub bits: f64,
    /// Packets a minute.
    pub packets: f64,
}

/// What crosses a link of this kind, down and up, on average over so much time.
///
/// # Errors
/// No keys, a profile that makes no sense, or a link that breaks.
pub fn rest(kind: LinkKind, profile: &Profile, lasts: Duration, seed: u64) -> Result<[Rest; 2]> {
    let keys = Keys::new()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let link = MemoryLink::new(profile.clone(), seed)?;
        let (above, below) =
            connect(&link, &keys, seed, &|end: End| kind.transport(end, kind.beat(BEAT), None))
                .await?;
        let (down, down_end) = open(&below, &above, 30).await?;
        let (up, up_end) = open(&above, &below, 30).await?;
        let (parent, child) = (HostId::ROOT, HostId(1));
        let root = Config::new(parent, 0, true);
        let host = Config { uplink_interval: kind.beat(BEAT), ..Config::new(child, 1, false) };
        let peer = Peer::Child { host: child, serves: false };
        let ends = [
            tokio::spawn(live(root, peer, (down, up_end))),
            tokio::spawn(live(host, Peer::Parent { place: 0, host: parent }, (up, down_end))),
        ];
        let begun = Instant::now();
        sleep_until(begun + WARM).await;
        let before = link.counters();
        sleep(lasts).await;
        let after = link.counters();
        ensure!(ends.iter().all(|end| !end.is_finished()), "an end has stopped");
        let since = |after: Counters, before: Counters| {
            let of = |after: u64, before: u64| (after - before) as f64 / lasts.as_secs_f64();
            let (after, before) = (after.pushed, before.pushed);
            Rest {
                bits: of(after.bytes, before.bytes) * 8.0,
                packets: of(after.packets, before.packets) * 60.0,
            }
        };
        Ok([since(after.0, before.0), since(after.1, before.1)])
    })
}

/// One end, for as long as the link lives.
async fn live(
    config: Config,
    peer: Peer,
    (mut send, recv): (SendStream, RecvStream),
) -> Result<()> {
    let (begun, wall) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    let now = || Time::ZERO + begun.elapsed();
    let mut node = Node::new(config, Saved::default(), 1, now());
    let mut chime = Chime::default();
    let (heard, mut inbox) = mpsc::channel(16);
    tokio::spawn(hear(recv, heard));
    node.handle(now(), Input::LinkUp { link: LINK, peer });
    loop {
        let mut saved = None;
        while let Some(output) = node.poll_output() {
            match output {
                Output::Send { frame, .. } => {
                    let clock_s = (wall + begun.elapsed()).as_secs();
                    let body = match (&frame, peer) {
                        (Frame::Beat { .. }, Peer::Child { .. }) if chime.strikes() => {
                            protos::encode_beat(&frame, Beside { clock_s, ..Beside::default() })
                        }
                        _ => protos::encode_frame(&frame),
                    };
                    let header = protos::frame_header(body.len());
                    send.write_all(&[&header[..], &body[..]].concat()).await?;
                }
                Output::Save { no, .. } => saved = Some(no),
                Output::Hangup { reason, .. } => anyhow::bail!("hung up: {reason:?}"),
                _ => {}
            }
        }
        if let Some(through) = saved {
            node.handle(now(), Input::Saved { through });
            continue;
        }
        let (at, _) = node.poll_timeout().context("a node always waits for something")?;
        match timeout_at(begun + at.since(Time::ZERO), inbox.recv()).await {
            Ok(Some(frame)) => node.handle(now(), Input::Frame { link: LINK, frame }),
            Ok(None) => anyhow::bail!("the link broke"),
            Err(_) => node.handle_timeout(now()),
        }
    }
}

async fn hear(mut recv: RecvStream, heard: mpsc::Sender<Frame>) -> Result<()> {
    loop {
        let mut header = [0; protos::HEADER_BYTES];
        recv.read_exact(&mut header).await?;
        let mut body = BytesMut::zeroed(protos::parse_header(header)?);
        recv.read_exact(&mut body).await?;
        match protos::decode_frame(Bytes::from(body), |_| mesh::Digest([0; 32]))? {
            Incoming::Frame(frame)
            | Incoming::Beat { frame, .. }
            | Incoming::Hello { frame, .. } => heard.send(frame).await?,
            _ => {}
        }
    }
}
