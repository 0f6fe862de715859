//! Events on their way to a program: lines of JSON by a channel, in their order.
//!
//! Who hands them over keeps how far the channel is, and hands them over again until it has taken
//! them: nothing waits here, and what was not answered may come twice.

use crate::message::Sender;

/// Some events, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Who speaks.
    pub from: Sender,
    /// Equal for equal events.
    pub key: String,
    /// The events.
    pub events: Vec<Exported>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Exported {
    /// When it was last heard of.
    pub at_ms: u64,
    /// How bad it is, as syslog has it.
    pub level: u8,
    /// All of it, without an end of line.
    pub json: String,
}

impl Batch {
    /// A line for each.
    pub(crate) fn lines(&self) -> Vec<u8> {
        let line = |event: &Exported| [event.json.as_bytes(), b"\n"].concat();
        self.events.iter().flat_map(line).collect()
    }
}
