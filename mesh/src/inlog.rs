//! The reader's side of a link's log: what has come in, and what of it is durable.
//!
//! A peer that restarts writes a new log; its first number is taken as it comes, since whatever
//! was acknowledged before is not sent again.

/// What is known of one peer's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inlog {
    /// The log, 0 if none was seen.
    pub(crate) log: u64,
    /// The last number that came in.
    received: u64,
    /// The last number that is durable here.
    pub(crate) held: u64,
}

impl Inlog {
    /// Takes note of an entry. Returns whether it is new; an old one is merely acknowledged again.
    pub(crate) fn accept(&mut self, log: u64, seq: u64) -> bool {
        if log != self.log {
            *self = Inlog { log, received: 0, held: 0 };
        }
        let new = seq > self.received;
        self.received = self.received.max(seq);
        new
    }

    /// Everything through this number is durable. Returns whether the log is still the same.
    pub(crate) fn saved(&mut self, log: u64, through: u64) -> bool {
        if log == self.log {
            self.held = self.held.max(through);
        }
        log == self.log
    }
}
