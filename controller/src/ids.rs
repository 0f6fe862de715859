//! The numbers of orders.
//!
//! Of two orders that put something at the same place the one with the higher number counts,
//! wherever they meet. So those of one controller rise from one order to the next: also within a
//! millisecond, while its clock is put back, and after a restart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use mesh::OrderId;

use crate::clock::to_ms;

/// The bits of an id that are random, as far as they are in one piece.
const RANDOM: u64 = (1 << 62) - 1;

/// Gives numbers, each higher than the one before.
#[derive(Clone)]
pub(crate) struct Ids(Arc<Mutex<OrderId>>);

impl Ids {
    /// Those after this one, the newest that was given before.
    pub(crate) fn after(newest: Option<OrderId>) -> Ids {
        Ids(Arc::new(Mutex::new(newest.unwrap_or(OrderId([0; 16])))))
    }

    /// The next one: of this moment, unless the one before is later already.
    pub(crate) fn next(&self, now: SystemTime) -> OrderId {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = new_id(now).max(succeeding(*last));
        *last
    }
}

/// A UUIDv7 (RFC 9562): 48 bits of milliseconds, so that ids sort by time, and 74 random bits.
pub(crate) fn new_id(now: SystemTime) -> OrderId {
    let mut id = certs::random::<16>();
    id[..6].copy_from_slice(&to_ms(now).to_be_bytes()[2..]);
    id[6] = 0x70 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    OrderId(id)
}

/// A little above this one, by chance. The marks of version and kind stay.
fn succeeding(OrderId(mut id): OrderId) -> OrderId {
    let [high, low] =
        [&id[..8], &id[8..]].map(|half| u64::from_be_bytes(half.try_into().expect("eight bytes")));
    let step = u64::from(u32::from_be_bytes(certs::random::<4>())) + 1;
    let random = (low & RANDOM) + step;
    let high = match random > RANDOM {
        // The next millisecond, and its own random bits.
        true => ((high >> 16) + 1) << 16 | 0x7000,
        false => high,
    };
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&(1 << 63 | random & RANDOM).to_be_bytes());
    OrderId(id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_marked(id: OrderId) -> bool {
        (id.0[6] >> 4, id.0[8] >> 6) == (7, 2)
    }

    #[test]
    fn ids_sort_by_time_and_carry_the_version() {
        let now = SystemTime::now();
        let (a, b) = (new_id(now), new_id(now + Duration::from_millis(1)));
        assert!(a < b && is_marked(a));
        assert_ne!(new_id(now), new_id(now));
    }

    #[test]
    fn each_is_above_the_one_before_whatever_the_clock_says() {
        let (now, mut ids) = (SystemTime::now(), Ids::after(None));
        let mut last = ids.next(now);
        let clocks = [now, now, now - Duration::from_secs(3600), now + Duration::from_secs(1), now];
        for (n, clock) in clocks.iter().cycle().take(1_000).enumerate() {
            if n % 7 == 0 {
                // The controller was restarted.
                ids = Ids::after(Some(last));
            }
            let next = ids.next(*clock);
            assert!(last < next && is_marked(next), "{last} {next}");
            last = next;
        }
    }

    #[test]
    fn the_last_of_a_millisecond_is_followed_by_the_next() {
        let mut last = new_id(SystemTime::now());
        last.0[8..].copy_from_slice(&(u64::MAX >> 2 | 1 << 63).to_be_bytes());
        let next = succeeding(last);
        let ms = |id: OrderId| u128::from_be_bytes(id.0) >> 80;
        assert!(is_marked(next), "{next}");
        assert_eq!(ms(next), ms(last) + 1);
    }
}
