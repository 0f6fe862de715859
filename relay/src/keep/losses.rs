//! What was not kept, or went before everybody had it: counted by why; and the gaps of a stream.

use std::collections::BTreeMap;

/// Why something is lost: its word in figures and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// There were too many, or too many bytes.
    Limit,
    /// It was too old.
    Age,
    /// It came faster than it could be taken. The bus has told of it where it found no room.
    Pace,
    /// The disk has no room, or fails.
    Disk,
    /// It is longer than what can be kept.
    Size,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Why::Limit => "limit",
            Why::Age => "age",
            Why::Pace => "pace",
            Why::Disk => "disk",
            Why::Size => "size",
        }
    }
}

/// Since the node was started, by the names of what is kept.
#[derive(Default)]
pub(super) struct Losses {
    counts: BTreeMap<String, BTreeMap<Why, u64>>,
    /// What readers are still to be told of, since it could not be written down.
    gaps: BTreeMap<String, u64>,
}

impl Losses {
    pub(super) fn add(&mut self, name: &str, why: Why, count: u64) {
        if count > 0 {
            *self.counts.entry(name.to_owned()).or_default().entry(why).or_default() += count;
        }
    }

    /// How many of one name were lost, by why.
    pub(super) fn of(&self, name: &str) -> BTreeMap<String, u64> {
        let counts = self.counts.get(name).into_iter().flatten();
        counts.map(|(why, count)| (why.word().to_owned(), *count)).collect()
    }

    /// So many are missing in a stream, and it is not on disk.
    pub(super) fn leave_gap(&mut self, name: &str, count: u64) {
        *self.gaps.entry(name.to_owned()).or_default() += count;
    }

    /// How many are missing there.
    pub(super) fn gap(&self, name: &str) -> u64 {
        self.gaps.get(name).copied().unwrap_or(0)
    }

    /// It is on disk now.
    pub(super) fn close_gap(&mut self, name: &str) {
        self.gaps.remove(name);
    }

    /// These are kept from now on.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.counts.retain(|name, _| is_there(name));
        self.gaps.retain(|name, _| is_there(name));
    }
}
