//! Beats and dials: a beat is the root's, and nodes do not dial again all at once.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::HostId;

use super::Violation;

/// The last beat, and how long nodes wait.
#[derive(Default)]
pub(super) struct Pace {
    /// The last beat that any life of the root has made.
    last_beat: u64,
    /// How often nodes have waited for how long before they dialled again.
    waits: BTreeMap<Duration, u32>,
}

impl Pace {
    /// Only the root makes beats of the root.
    pub(super) fn beating(&mut self, me: HostId, root: u64) -> Result<(), Violation> {
        if me == HostId::ROOT {
            self.last_beat = self.last_beat.max(root);
        } else if root > self.last_beat {
            let detail =
                format!("{me:?} tells of beat {root}, the last one was {}", self.last_beat);
            return Err(Violation::new("a beat is the root's", detail));
        }
        Ok(())
    }

    /// A node dials again after such a wait. To the nanosecond, chance makes no three equal.
    pub(super) fn dialling(&mut self, me: HostId, wait: Duration) -> Result<(), Violation> {
        let equal = self.waits.entry(wait).or_default();
        *equal += 1;
        if *equal > 2 && !wait.is_zero() {
            let detail = format!("{me:?} waits {wait:?}, as {} before it did", *equal - 1);
            return Err(Violation::new("redials are spread", detail));
        }
        Ok(())
    }
}
