//! Names of things: one newtype for each kind, so that a host is never mistaken for a link.
//!
//! The core only compares and prints these. Who makes them is written at each type.

use std::fmt;

/// A node of the tree, be it controller, relay or host: a dense number given at enrolment.
/// The controller is number 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

impl HostId {
    /// The controller: the root of the tree.
    pub const ROOT: HostId = HostId(0);
}

/// One connection to one peer. The shell counts them; a number is never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// An order: 128 bits that sort by time. The controller's are UUIDv7; one that a relay has given
/// itself, by an authority that was delegated to it, is a UUIDv8 with the relay's number in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub [u8; 16]);

impl OrderId {
    /// The relay that has given it; none: the controller. So the two never make the same id, and
    /// no relay makes that of another.
    pub fn giver(&self) -> Option<HostId> {
        let [_, _, _, _, _, _, version, _, _, a, b, c, d, ..] = self.0;
        (version >> 4 == 8).then_some(HostId(u32::from_be_bytes([a, b, c, d])))
    }

    /// The same moment and chance, as an order of this relay.
    pub fn given_by(mut self, relay: HostId) -> OrderId {
        self.0[6] = 0x80 | (self.0[6] & 0x0f);
        // What people type is the end of an id, so that stays random.
        self.0[9..13].copy_from_slice(&relay.0.to_be_bytes());
        self
    }
}

/// The BLAKE3 hash of some bytes. The shell computes it; the core never sees the bytes of content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// A number by which the shell remembers who asked for a piece of content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("order:")?;
        hex(f, &self.0[12..])
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("digest:")?;
        hex(f, &self.0[..4])
    }
}

/// `Debug` of the numbered names: short, because traces are made of them.
macro_rules! numbered {
    ($type:ident, $letter:literal) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
numbered!(HostId, "h");
numbered!(LinkId, "l");
numbered!(RequestId, "r");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_who_has_given_it_and_keeps_its_time() {
        let id = OrderId(*b"\x01\x02\x03\x04\x05\x06\x7a\x07\x88\x09\x0a\x0b\x0c\x0d\x0e\x0f");
        assert_eq!(id.giver(), None);
        let given = id.given_by(HostId(0x0102_0304));
        assert_eq!(given.giver(), Some(HostId(0x0102_0304)));
        assert_eq!((given.0[6], &given.0[..6]), (0x8a, &id.0[..6]));
        assert_eq!(given.0[13..], id.0[13..]);
        assert_ne!(given, id.given_by(HostId(1)));
    }
}
