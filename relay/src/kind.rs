//! Kinds of links, and what QUIC is told to be on each.
//!
//! One word in the settings says what the way to the parent is like; from it follow how often to
//! beat, how long to wait for a handshake's answer, and how much may be under way. The congestion
//! controller is the same everywhere and on both ends ([`crate::congestion`]): a parent does not
//! know what kind of link a child is on before the child has spoken, the bulk goes down from
//! parent to child, and a link that neither loses nor queues is only the easiest case of what that
//! controller is for.

use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, TransportConfig, VarInt};
use serde::{Deserialize, Serialize};

use crate::congestion::{Start, Wan};

/// What the way to the parents is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// The same building: round trips below a few milliseconds.
    Lan,
    /// Anything up to 50 Mbit/s and 600 ms, lossy or not.
    #[default]
    Wan,
    /// The same, but each byte is dear: beats come every 20 s.
    Weak,
}

/// Which end of a link a connection is configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that accepts children.
    Parent,
    /// The one that dials, and whether it has children itself.
    Child {
        /// Whether it passes content on.
        serves: bool,
    },
}

/// What 50 Mbit/s carry in 600 ms, and a little.
const LONG_FAT: u32 = 4 << 20;
/// What a stream of a child may send ahead; reports are small.
const UPWARD: u32 = 1 << 20;
/// Outputs that a parent may ask for at once.
const ASKED: u32 = 4;
/// Room for them in the send buffer, so that a report never waits for it.
const OUTPUTS: u64 = ASKED as u64 * UPWARD as u64;
/// Room in the send buffer for everything but content.
const ROOM: u64 = 2 << 20;
/// A binding of a network address translator is gone after 30 s in practice.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// How long a connection may be silent if the beats do not say otherwise.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// How far one object may be sent ahead of a child that passes content on, and of one that does
/// not, of which there may be thousands.
pub(crate) fn ahead(serves: bool) -> u32 {
    if serves { LONG_FAT } else { UPWARD }
}

/// What may lie in the send buffer towards a child: two objects and the bus as far as they may be
/// sent ahead, one more where two of slow orders take the place of one, and room for everything
/// else.
pub fn send_window(serves: bool) -> u64 {
    4 * u64::from(ahead(serves)) + ROOM
}

impl LinkKind {
    /// How often a child beats at least on such a link, and its parent with it.
    pub fn beat(self, usual: Duration) -> Duration {
        match self {
            LinkKind::Lan | LinkKind::Wan => usual,
            LinkKind::Weak => usual.max(Duration::from_secs(20)),
        }
    }

    /// The transport settings of one end, with what is remembered of the way to this peer.
    ///
    /// A connection outlives the beats that would find its peer stale.
    pub fn transport(self, end: End, beat: Duration, start: Option<Start>) -> TransportConfig {
        let (streams, stream_window, window, send_window) = match end {
            End::Parent => (40, UPWARD, 4 * UPWARD, send_window(false)),
            End::Child { serves: true } => {
                (ASKED, LONG_FAT, 4 * LONG_FAT, u64::from(LONG_FAT + UPWARD) + OUTPUTS)
            }
            End::Child { serves: false } => {
                (ASKED, UPWARD, 4 * UPWARD, 2 * u64::from(UPWARD) + OUTPUTS)
            }
        };
        let idle = IDLE.max(beat.saturating_mul(6)).min(Duration::from_secs(24 * 3600));
        let mut acks = AckFrequencyConfig::default();
        acks.max_ack_delay(Some(Duration::from_millis(10)));
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            // Followers are empty and nobody reads them.
            .datagram_receive_buffer_size(Some(1 << 10))
            .datagram_send_buffer_size(1 << 10)
            .stream_receive_window(VarInt::from_u32(stream_window))
            .receive_window(VarInt::from_u32(window))
            .send_window(send_window)
            // Without it a stream that was begun goes on before one of a higher priority.
            .send_fairness(true)
            .ack_frequency_config(Some(acks))
            .initial_rtt(self.initial_rtt())
            .congestion_controller_factory(Arc::new(Wan::default().start(start)))
            .max_idle_timeout(idle.try_into().ok());
        if end != End::Parent {
            config.keep_alive_interval(Some(KEEP_ALIVE.max(beat * 5 / 4)));
        }
        config
    }

    /// What it costs to fetch content over such a link, roughly: 1 ms and 100 MB/s, 100 ms and
    /// 10 Mbit/s, 600 ms and 2 Mbit/s.
    pub(crate) fn price(self) -> content::Price {
        let (trip_us, mib_us) = match self {
            LinkKind::Lan => (1_000, 10_000),
            LinkKind::Wan => (100_000, 840_000),
            LinkKind::Weak => (600_000, 4_200_000),
        };
        content::Price { trip_us, mib_us }
    }

    /// A lost packet of the handshake is sent again after three times this.
    fn initial_rtt(self) -> Duration {
        Duration::from_millis(match self {
            LinkKind::Lan => 50,
            LinkKind::Wan => 200,
            LinkKind::Weak => 333,
        })
    }
}
