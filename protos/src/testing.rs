//! What the tests of all messages are made of: random values, and random damage.

use std::fmt::Debug;

use bytes::Bytes;
use damage::{Random, damage};
use mesh::{Digest, HostSet};
use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers of hosts, many of them where arithmetic ends.
pub(crate) fn edgy() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..8, 1 => any::<u32>(), 1 => (0u32..4).prop_map(|n| u32::MAX - n)]
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0u64..300, any::<u64>(), Just(u64::MAX - 1), Just(u64::MAX)]
}

pub(crate) fn hosts() -> impl Strategy<Value = HostSet> {
    let range = (edgy(), 0u32..6).prop_map(|(first, more)| (first, first.saturating_add(more)));
    vec(range, 0..8).prop_map(HostSet::from_ranges)
}

pub(crate) fn some_hosts() -> impl Strategy<Value = HostSet> {
    (hosts(), edgy()).prop_map(|(hosts, one)| hosts.union(&HostSet::from_ranges([(one, one)])))
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

pub(crate) fn signature() -> impl Strategy<Value = [u8; 64]> {
    any::<[[u8; 32]; 2]>().prop_map(|halves| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&halves[0]);
        signature[32..].copy_from_slice(&halves[1]);
        signature
    })
}

pub(crate) fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=most).prop_map(Bytes::from)
}

pub(crate) fn some_bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..=most).prop_map(Bytes::from)
}

/// Bytes without NUL and `=`.
pub(crate) fn words(lengths: impl Into<proptest::collection::SizeRange>) -> BoxedStrategy<Bytes> {
    let byte = (1u8..).prop_filter("not =", |&byte| byte != b'=');
    vec(byte, lengths).prop_map(Bytes::from).boxed()
}

/// Text of up to `most` characters of up to four bytes.
pub(crate) fn text(most: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=most).prop_map(String::from_iter)
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    vec(proptest::char::range('a', 'z'), 1..12).prop_map(String::from_iter)
}

/// Bytes that nobody sent: encoded values damaged, with pieces of others in them, and now and then
/// plain noise.
pub(crate) fn mangle<T: Debug + 'static, B: AsRef<[u8]> + 'static>(
    values: impl Strategy<Value = T> + 'static,
    encode: fn(&T) -> B,
) -> impl Strategy<Value = Bytes> {
    let encoded = values.prop_map(move |value| encode(&value).as_ref().to_vec()).boxed();
    let seed = any::<u64>().no_shrink();
    let mangled = (encoded.clone(), encoded, seed).prop_map(|(mut bytes, other, seed)| {
        damage(&mut bytes, &other, &mut Random::new(seed));
        Bytes::from(bytes)
    });
    prop_oneof![5 => mangled, 1 => bytes(80)]
}
