//! Delivery rate: how fast bytes come out at the other end, whatever was put in.
//!
//! The algorithm is that of draft-cheng-iccrg-delivery-rate-estimation: each packet remembers how
//! much was delivered when it was sent; its acknowledgement tells how much more is now, over the
//! longer of the time that the sending and the time that the acknowledging took. Over about one
//! round trip, bunches of acknowledgements cancel out, which the distance between two
//! acknowledgements (what quinn's own BBR looks at) never does. Packets are known by the instant
//! of their sending, because that is what quinn tells; those sent at nearly the same time share a
//! note, so that a fast link costs no more memory than a slow one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Notes at most; the oldest go first. An acknowledgement of a packet without one counts as
/// delivered, but is no sample.
const NOTES: usize = 2_048;
/// Packets of this part of a round trip share a note, and of this time at least.
const SHARE_PART: u32 = 256;
const SHARE_LEAST: Duration = Duration::from_micros(200);
/// After this many round trips, and this time at least, a note is thrown away.
const FORGET_ROUNDS: u32 = 8;
const FORGET_LEAST: Duration = Duration::from_millis(400);

/// What the sender was doing when a packet left: so that its fate is put down to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Less in flight than the path holds.
    Trough,
    /// As much as the path holds.
    Cruise,
    /// More than that, to see what happens.
    Crest,
    /// Much less than that, to see whether loss goes away.
    Trial,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    /// The state of delivery at that time.
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    limited: bool,
    load: Load,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Bytes a second; zero if the time was too short to tell.
    pub(crate) rate: u64,
    /// Round trip of the newest packet of the batch, with the peer's delay in acknowledging.
    pub(crate) rtt: Duration,
    /// When that packet was sent.
    pub(crate) sent: Instant,
    /// Whether there was too little to send for the rate to mean the link.
    pub(crate) limited: bool,
}

/// The sender's memory of what it has sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampler {
    sent: VecDeque<Sent>,
    delivered: u64,
    delivered_at: Option<Instant>,
    first_sent: Option<Instant>,
    /// Packets count as limited until this much is delivered.
    limited_until: u64,
    /// Nothing was in flight when this was last known.
    quiet: bool,
    /// The newest packet of the batch, with its note.
    newest: Option<(Instant, Sent)>,
}

impl Sampler {
    pub(crate) fn on_sent(&mut self, now: Instant, load: Load, rtt: Duration) {
        if self.quiet || self.delivered_at.is_none() {
            (self.first_sent, self.delivered_at) = (Some(now), Some(now));
        }
        let share = SHARE_LEAST.max(rtt / SHARE_PART);
        if self.sent.back().is_some_and(|last| last.load == load && now < last.at + share) {
            return;
        }
        let old = FORGET_LEAST.max(rtt * FORGET_ROUNDS);
        while self.sent.front().is_some_and(|first| {
            self.sent.len() >= NOTES || now.saturating_duration_since(first.at) > old
        }) {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at.unwrap_or(now),
            first_sent: self.first_sent.unwrap_or(now),
            limited: self.delivered < self.limited_until,
            load,
        });
    }

    /// One packet of a batch is acknowledged; what the sender was doing when it left.
    pub(crate) fn on_acked(&mut self, now: Instant, sent: Instant, bytes: u64) -> Load {
        self.quiet = false;
        self.delivered += bytes;
        self.delivered_at = Some(now);
        let Some(entry) = self.find(sent) else { return Load::Cruise };
        if self.newest.is_none_or(|(newest, _)| newest <= sent) {
            self.newest = Some((sent, entry));
        }
        entry.load
    }

    /// What the sender was doing when a packet left that was lost.
    pub(crate) fn load_at(&self, sent: Instant) -> Load {
        self.find(sent).map_or(Load::Cruise, |entry| entry.load)
    }

    /// The end of a batch of acknowledgements.
    pub(crate) fn on_end(&mut self, now: Instant, in_flight: u64, limited: bool) -> Option<Sample> {
        if limited {
            self.limited_until = self.delivered + in_flight.max(1);
        }
        self.quiet = in_flight == 0;
        let (sent, newest) = self.newest.take()?;
        self.first_sent = Some(sent);
        let rtt = now.saturating_duration_since(sent);
        let sending = sent.saturating_duration_since(newest.first_sent);
        let acking = now.saturating_duration_since(newest.delivered_at);
        let interval = sending.max(acking);
        let delivered = self.delivered - newest.delivered;
        // Less than half a round trip is a bunch and not a rate.
        let rate = if interval.is_zero() || interval < rtt / 2 {
            0
        } else {
            (u128::from(delivered) * 1_000_000_000 / interval.as_nanos()) as u64
        };
        Some(Sample { rate, rtt, sent, limited: newest.limited })
    }

    fn find(&self, sent: Instant) -> Option<Sent> {
        let place = self.sent.partition_point(|entry| entry.at <= sent);
        place.checked_sub(1).map(|place| self.sent[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends a packet of 1,000 bytes each ms over a path of 50 ms whose acknowledgements come in
    /// bunches; the rates of the second half.
    fn rates(bunch: u32, limited: bool) -> Vec<Sample> {
        let (start, mut sampler, mut samples) = (Instant::now(), Sampler::default(), Vec::new());
        for tick in 0..1_000 {
            let now = start + MS * tick;
            if tick >= 50 && tick % bunch == 0 {
                for packet in (tick - 50).saturating_sub(bunch - 1)..=tick - 50 {
                    sampler.on_acked(now, start + MS * packet, 1_000);
                }
                let sample = sampler.on_end(now, 50_000, limited).expect("a batch");
                samples.extend((tick > 500).then_some(sample));
            }
            sampler.on_sent(now, Load::Cruise, MS * 50);
        }
        samples
    }

    #[test]
    fn bunches_do_not_change_the_rate() {
        for bunch in [1, 2, 10, 25] {
            for sample in rates(bunch, false) {
                let wrong = sample.rate.abs_diff(1_000_000);
                assert!(wrong < 30_000, "{} at bunches of {bunch}", sample.rate);
                assert!(!sample.limited);
            }
        }
    }

    #[test]
    fn what_was_limited_by_the_sender_is_marked() {
        assert!(rates(2, true).iter().all(|sample| sample.limited));
    }

    #[test]
    fn a_forgotten_or_foreign_packet_is_no_sample_and_memory_is_bounded() {
        let (start, mut sampler) = (Instant::now(), Sampler::default());
        for tick in 1..100_000 {
            sampler.on_sent(start + Duration::from_micros(tick * 10), Load::Cruise, MS);
            assert!(sampler.sent.len() <= NOTES);
        }
        // 400 ms of them, five to a millisecond.
        assert!((1_990..=2_001).contains(&sampler.sent.len()), "{}", sampler.sent.len());
        for tick in 0..20_000 {
            let at = start + MS * 1_000 + Duration::from_micros(tick * 300);
            sampler.on_sent(at, Load::Cruise, MS * 600);
            assert!(sampler.sent.len() <= NOTES);
        }
        sampler.on_acked(start + MS * 7_000, start, 10);
        assert_eq!(sampler.on_end(start + MS * 7_000, 5, false), None);
        assert_eq!(sampler.delivered, 10);
        for tick in 10..100 {
            sampler.on_sent(start + Duration::from_secs(tick), Load::Cruise, MS);
        }
        assert_eq!(sampler.sent.len(), 1);
    }
}
