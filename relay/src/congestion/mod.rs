//! Congestion control for weak links: long, lossy, slow, with a buffer of any size.
//!
//! The usual controllers take every lost packet for a full queue. On a link that loses one packet
//! in a hundred of its own accord they use a tenth of it; on a link with a deep buffer they fill
//! it, and an order then waits behind seconds of bulk. The one here measures instead: how fast
//! bytes are delivered (`sampling`), how long a packet takes when nothing waits (`filter`), and
//! which losses grow with the sending rate (`loss`). It keeps just so much in flight as the path
//! holds and a tenth more (`control`), and becomes a CUBIC flow (`rival`) for as long as
//! somebody else keeps the queue full (`queue`).
//!
//! Whose ideas these are: model of the path by greatest delivery rate and least delay, start-up
//! until the rate no longer grows, cycle of probing up and down: BBR (draft-cardwell-iccrg-bbr-
//! congestion-control, draft-ietf-ccwg-bbr). The samples: draft-cheng-iccrg-delivery-rate-
//! estimation. Leaving start-up when the delay rises: HyStart++ (RFC 9406). A ceiling found by loss
//! and tried again in growing steps: `inflight_hi` of BBRv2. Competing only while the queue does
//! not empty: Copa (NSDI 2018), with CUBIC (RFC 9438). Starting from a remembered rate: draft-ietf-
//! tsvwg-careful-resume. Ours: loss counted apart for troughs, cruise and crests instead of a
//! fixed threshold, heavy loss on trial (`trial`), and a floor made of means instead of single
//! packets.
//!
//! A sender that is told to give way (`giveway`) takes only what nobody else wants.
//!
//! Why it is a window and not a rate: quinn 0.11 paces at 1.25 windows for each smoothed round trip
//! and asks its controllers for nothing but the window. So the window is both bound and clock, and
//! must stay close to what the path holds.

mod busiest;
mod control;
mod filter;
mod giveway;
mod loss;
mod queue;
mod quic;
mod rival;
mod sampling;
mod trial;

pub use control::Start;
pub use quic::{Wan, known};
pub(crate) use quic::{carries, is_short, set_yields, yields};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
