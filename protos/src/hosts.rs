//! Host sets as packed numbers: for each range a gap and a length.
//!
//! Ranges ascend and never touch, so a gap counts from two past the end of the range before; every
//! sequence of numbers is then at most one set and every set one sequence. link.proto has the form
//! in words.

use mesh::HostSet;

use crate::FieldError;
use crate::field::{at_most, ensure};

/// The most ranges of one set.
pub(crate) const RANGES: usize = 65_536;

pub(crate) fn encode(set: &HostSet) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(set.ranges().len() * 2);
    let mut next = 0;
    for &(first, last) in set.ranges() {
        numbers.extend([first - next, last - first]);
        // Only the last range can end so high that nothing comes after it.
        next = last.saturating_add(2);
    }
    numbers
}

pub(crate) fn decode(field: &'static str, numbers: &[u32]) -> Result<HostSet, FieldError> {
    at_most(field, numbers.len() / 2, RANGES)?;
    let (pairs, odd) = numbers.as_chunks::<2>();
    ensure(odd.is_empty(), field, "ends in the middle of a range")?;
    let mut ranges = Vec::with_capacity(pairs.len());
    let mut next = 0u64;
    for &[gap, length] in pairs {
        let first = next + u64::from(gap);
        let last = first + u64::from(length);
        let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) else {
            return Err(FieldError::Wrong { field, fault: "has a host number over 4294967295" });
        };
        ranges.push((first, last));
        next = u64::from(last) + 2;
    }
    Ok(HostSet::from_ranges(ranges))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    proptest! {
        #[test]
        fn round_trip(set in testing::hosts()) {
            prop_assert_eq!(decode("set", &encode(&set)), Ok(set));
        }

        #[test]
        fn every_set_has_one_form(numbers in proptest::collection::vec(testing::edgy(), 0..12)) {
            if let Ok(set) = decode("set", &numbers) {
                prop_assert_eq!(encode(&set), numbers);
            }
        }
    }

    #[test]
    fn the_form_is_as_documented() {
        let set = HostSet::from_ranges([(3, 5), (7, 7), (10, u32::MAX)]);
        assert_eq!(encode(&set), [3, 2, 0, 0, 1, u32::MAX - 10]);
        assert_eq!(encode(&HostSet::from_ranges([(0, u32::MAX)])), [0, u32::MAX]);
    }

    #[test]
    fn limits() {
        let check = |numbers: &[u32], expected: &str| {
            assert_eq!(decode("set", numbers).expect_err("it is refused").to_string(), expected);
        };
        check(&[1], "set ends in the middle of a range");
        check(&[1, u32::MAX], "set has a host number over 4294967295");
        check(&[0, u32::MAX, 0, 0], "set has a host number over 4294967295");
        check(&[0, u32::MAX - 1, 0, 0], "set has a host number over 4294967295");
        let many = vec![0; 2 * (RANGES + 1)];
        check(&many, "set has 65537 elements; the limit is 65536");
        assert_eq!(decode("set", &many[2..]).expect("it was encoded so").ranges().len(), RANGES);
    }
}
