//! The reading side of a link: from the bytes of a stream to what the drive loop is told.
//!
//! Nothing is dropped here. A node that is busy is waited for, and the peer slows down by flow
//! control. What does not belong on a stream, or is not readable, is the peer's fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mesh::{Frame, HostId, Input, Outcome, Peer};
use protos::{Allowance, Beside, Incoming, SignedRemovals, Unpacker};
use quinn::RecvStream;
use tokio::sync::mpsc;
use tracing::warn;

use super::Queued;
use super::counters::{Heard, count};
use super::framed::{LinkError, read_framed};
use super::streams::Reader;
use crate::congestion;
use crate::drive::Arrival;
use crate::hash;
use crate::skew::{self, Skew};

const WRONG_STREAM: LinkError = LinkError::Protocol("a frame on a stream of another kind");

impl Reader {
    /// Reads frames until the stream ends. Waits while the node is busy, so that the peer slows
    /// down by flow control and nothing piles up here.
    pub(super) async fn read_frames(
        &self,
        (mut recv, received): (RecvStream, &AtomicU64),
        heard: &Heard,
    ) -> Result<(), LinkError> {
        let (mut unpacker, mut clocks) = (None, Skew::default());
        while let Some(bytes) = read_framed(&mut recv).await? {
            count(received, bytes.len() + protos::HEADER_BYTES);
            heard.note();
            let incoming = protos::decode_frame(bytes, hash).map_err(LinkError::Frame)?;
            if let Peer::Parent { .. } = self.peer {
                self.removed.set_out(false);
            }
            let input = match incoming {
                Incoming::Frame(
                    Frame::Watch { .. }
                    | Frame::Said(_)
                    | Frame::Interest(_)
                    | Frame::Message(_)
                    | Frame::Answer(_),
                )
                | Incoming::Heard => return Err(WRONG_STREAM),
                Incoming::Frame(frame) => Input::Frame { link: self.id, frame },
                Incoming::Beat { frame, beside: Beside { allowance, clock_s, taken } } => {
                    self.allow(allowance);
                    self.tally.hear(taken);
                    if let Frame::Beat { interval, .. } = frame {
                        heard.note_interval(interval);
                    }
                    if let Peer::Parent { .. } = self.peer
                        && clock_s > 0
                    {
                        let (here, now) = (skew::unix_s(), std::time::Instant::now());
                        let (ahead, said) = clocks.hear(clock_s, here, now);
                        let heard = Arrival::Clock { ahead, said, parent: self.peer.host() };
                        self.inbox.send(heard).await.ok();
                    }
                    Input::Frame { link: self.id, frame }
                }
                Incoming::Hello { frame, unpacks, tails, epoch, seeks, counts, past } => {
                    if !self.meet(epoch).await {
                        // It is told why, and the link ends.
                        self.conn.closed().await;
                        return Ok(());
                    }
                    self.packs.iter().for_each(|packs| packs.store(unpacks, Ordering::Relaxed));
                    self.tails.store(tails, Ordering::Relaxed);
                    self.seeks.store(seeks, Ordering::Relaxed);
                    self.tally.meet(counts);
                    if counts {
                        let counted = Arrival::Counted { link: self.id, peer: self.peer, past };
                        self.inbox.send(counted).await.ok();
                    }
                    Input::Frame { link: self.id, frame }
                }
                Incoming::Packed(packed) => {
                    let unpacker = unpacker.get_or_insert_with(Unpacker::default);
                    let frame = unpacker.unpack(packed, hash).map_err(LinkError::Frame)?;
                    Input::Frame { link: self.id, frame }
                }
                Incoming::Order { log, seq, envelope } => self.check_order(log, seq, envelope),
                Incoming::Removals(list) => {
                    self.take_removals(list).await?;
                    continue;
                }
            };
            if self.inbox.send(Arrival::Input(input)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same for the stream of previews. One is thanked for when it has its place here.
    pub(super) async fn read_live(
        &self,
        (mut recv, received): (RecvStream, &AtomicU64),
        live: mpsc::Sender<Queued>,
    ) -> Result<(), LinkError> {
        while let Some(bytes) = read_framed(&mut recv).await? {
            count(received, bytes.len() + protos::HEADER_BYTES);
            let input = |frame| Input::Frame { link: self.id, frame };
            let sent = match protos::decode_frame(bytes, hash).map_err(LinkError::Frame)? {
                Incoming::Frame(frame @ Frame::Said(_)) => {
                    let place = self.room.place().await;
                    // For a child that does not read there will be no more room.
                    live.try_send(Queued::Heard).ok();
                    self.inbox.send(Arrival::Preview { input: input(frame), place }).await
                }
                Incoming::Frame(frame @ Frame::Watch { .. }) => {
                    self.inbox.send(Arrival::Input(input(frame))).await
                }
                Incoming::Heard => {
                    self.credit.earn();
                    Ok(())
                }
                Incoming::Frame(_)
                | Incoming::Beat { .. }
                | Incoming::Hello { .. }
                | Incoming::Packed(_)
                | Incoming::Order { .. }
                | Incoming::Removals(_) => return Err(WRONG_STREAM),
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same for the stream of the bus. Messages have few places before the drive loop, so that
    /// whoever sends many waits for it, and orders do not wait for him.
    pub(super) async fn read_bus(
        &self,
        (mut recv, received): (RecvStream, &AtomicU64),
    ) -> Result<(), LinkError> {
        while let Some(bytes) = read_framed(&mut recv).await? {
            count(received, bytes.len() + protos::HEADER_BYTES);
            let frame = match protos::decode_frame(bytes, hash).map_err(LinkError::Frame)? {
                Incoming::Frame(
                    frame @ (Frame::Interest(_) | Frame::Message(_) | Frame::Answer(_)),
                ) => frame,
                _ => return Err(WRONG_STREAM),
            };
            let place = self.bus_room.clone().acquire_owned().await;
            let _place = place.expect("it is never closed");
            let input = Input::Frame { link: self.id, frame };
            if self.inbox.send(Arrival::Bus { input, _place }).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A list of removed keys, which the authority has signed, whoever brings it.
    async fn take_removals(&self, list: SignedRemovals) -> Result<(), LinkError> {
        let (removed, peer) = (self.removed.clone(), self.peer);
        let taken = tokio::task::spawn_blocking(move || match peer {
            Peer::Parent { .. } => removed.take(&list),
            Peer::Child { .. } => removed.hear(&list),
        });
        let taken = taken.await.expect("taking a list does not panic");
        if taken.map_err(LinkError::Removals)? {
            self.inbox.send(Arrival::Input(Input::Restored)).await.ok();
        }
        Ok(())
    }

    /// A peer has said hello. Returns whether it may be heard: not if it is a controller whose
    /// epoch is over.
    async fn meet(&self, epoch: Option<u64>) -> bool {
        let Peer::Parent { host, .. } = self.peer else { return true };
        let over = self.removed.is_over(epoch.unwrap_or_default()) && host == HostId::ROOT;
        if let Some(met) = &self.met {
            met.send_replace(!over);
        }
        self.inbox.send(Arrival::Met { link: self.id, epoch }).await.ok();
        !over
    }

    /// Waits until it is known whether the peer may be heard. `false`: the link has ended.
    pub(super) async fn may_hear(&self) -> bool {
        let Some(met) = &self.met else { return true };
        let mut met = met.subscribe();
        tokio::select! {
            met = met.wait_for(|met| *met) => met.is_ok(),
            _ = self.conn.closed() => false,
        }
    }

    /// A child has said what content it is to get.
    fn allow(&self, allowance: Allowance) {
        if let Some(bulk) = &self.bulk {
            bulk.declare(allowance.rate);
            congestion::set_yields(&self.conn, allowance.yields);
        }
    }

    fn check_order(&self, log: u64, seq: u64, envelope: Bytes) -> Input {
        let link = self.id;
        match self.verifier.admit(&envelope) {
            Ok((order, rate)) => {
                self.paced.note(&order, rate);
                let order = Arc::new(order);
                Input::Frame { link, frame: Frame::Order { log, seq, order } }
            }
            Err(refused) => {
                let from = self.peer.host();
                warn!(%from, order = ?refused.id, reason = %refused.fault, "refusing an order");
                let body = refused.answer().encode();
                let outcome = Outcome { state: refused.state(), body: Some(hash(&body)) };
                let order = refused.id.unwrap_or(mesh::OrderId([0; 16]));
                let outcome = Some(outcome).filter(|_| refused.meant);
                Input::BadOrder { link, log, seq, order, outcome, body: Some(body) }
            }
        }
    }
}
