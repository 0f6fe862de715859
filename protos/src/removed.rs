//! Who belongs to the mesh no more: the keys of removed nodes, in a list that the authority signs.
//!
//! The list is whole each time and has a version, so that whoever holds a later one needs no older
//! one, and an older one changes nothing. It is on its way to every node and kept there, and so it
//! also says what else of the controller's word must outlive its silence: `epoch`, `schedule`.
//! Whether the signature is good is for the caller to say.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use crate::field::{array, at_most, ensure, not_empty};
use crate::{FieldError, Malformed, Schedule, pb, shape};

/// The most keys of one list.
pub const REMOVED_KEYS: usize = 16_384;

/// A list as it travels: its bytes, and the authority's signature over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRemovals {
    /// A [`Removals`], as it was signed.
    pub body: Bytes,
    /// The signature.
    pub signature: [u8; 64],
}

/// The keys that are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// The mesh that it is about.
    pub mesh: [u8; 16],
    /// Rises with each change.
    pub version: u64,
    /// Public keys; at most [`REMOVED_KEYS`].
    pub keys: BTreeSet<[u8; 32]>,
    /// Since when the controller is the one that it is: the moment at which it was last restored
    /// from a backup, in milliseconds since 1970; 0: never. Of two controllers with the same keys
    /// the one with the higher epoch is the controller.
    pub epoch: u64,
    /// What is due when, at sites that do not hear the controller.
    pub schedule: Schedule,
}

/// Bytes that are no list of removals. Nothing has changed; the peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalsError {
    /// The bytes are no such message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl Removals {
    /// The bytes that are signed.
    pub fn encode(&self) -> Bytes {
        let keys = self.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
        let mesh = Bytes::copy_from_slice(&self.mesh);
        let (frequencies, zones) = self.schedule.to_pb();
        let (version, epoch) = (self.version, self.epoch);
        pb::Removals { mesh, version, keys, epoch, frequencies, zones }.encode_to_vec().into()
    }

    /// Reads bytes whose signature was good.
    pub fn decode(bytes: &Bytes) -> Result<Removals, RemovalsError> {
        let list = shape::decode::<pb::Removals>(bytes.clone())?;
        let mesh = array("removals.mesh", &list.mesh)?;
        at_most("removals.keys", list.keys.len(), REMOVED_KEYS)?;
        let mut keys = BTreeSet::new();
        for key in &list.keys {
            let key = array("removals.keys", key)?;
            let rising = keys.last().is_none_or(|last| *last < key);
            ensure(rising, "removals.keys", "is not in ascending order")?;
            keys.insert(key);
        }
        let schedule = Schedule::from_pb(list.frequencies, list.zones)?;
        Ok(Removals { mesh, version: list.version, keys, epoch: list.epoch, schedule })
    }
}

impl SignedRemovals {
    /// The bytes that are kept on disk.
    pub fn encode(&self) -> Bytes {
        self.to_pb().encode_to_vec().into()
    }

    /// Reads what was kept on disk.
    pub fn decode(bytes: Bytes) -> Result<SignedRemovals, RemovalsError> {
        SignedRemovals::from_pb(&shape::decode::<pb::SignedRemovals>(bytes)?).map_err(Into::into)
    }

    pub(crate) fn to_pb(&self) -> pb::SignedRemovals {
        let signature = Bytes::copy_from_slice(&self.signature);
        pb::SignedRemovals { body: self.body.clone(), signature }
    }

    pub(crate) fn from_pb(list: &pb::SignedRemovals) -> Result<SignedRemovals, FieldError> {
        not_empty("signed_removals.body", list.body.len())?;
        let signature = array("signed_removals.signature", &list.signature)?;
        Ok(SignedRemovals { body: list.body.clone(), signature })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::mangle;

    proptest! {
        #[test]
        fn round_trip(
            mesh in any::<[u8; 16]>(),
            (version, epoch) in any::<(u64, u64)>(),
            keys in proptest::collection::btree_set(any::<[u8; 32]>(), 0..5),
            schedule in crate::schedule::testing::any(),
        ) {
            let list = Removals { mesh, version, keys, epoch, schedule };
            let signed = SignedRemovals { body: list.encode(), signature: [7; 64] };
            let again = SignedRemovals::decode(signed.encode()).expect("it was encoded so");
            prop_assert_eq!(&again, &signed);
            prop_assert_eq!(Removals::decode(&again.body), Ok(list));
        }

        #[test]
        fn mangled_bytes_are_a_list_or_an_error(bytes in mangle(
            any::<u64>().prop_map(|version| Removals {
                keys: [[1; 32], [2; 32]].into(),
                version,
                schedule: crate::schedule::testing::plain(),
                ..Removals::default()
            }),
            Removals::encode,
        )) {
            if let Ok(list) = Removals::decode(&bytes) {
                prop_assert_eq!(Removals::decode(&list.encode()), Ok(list));
            }
        }
    }

    #[test]
    fn keys_come_in_one_order() {
        let (a, b) = (Bytes::from_static(&[1; 32]), Bytes::from_static(&[2; 32]));
        let mesh = Bytes::from_static(&[0; 16]);
        let list = pb::Removals { mesh, version: 1, keys: vec![b, a], ..pb::Removals::default() };
        let error = Removals::decode(&list.encode_to_vec().into()).expect_err("it is refused");
        assert_eq!(error.to_string(), "removals.keys is not in ascending order");
    }
}
