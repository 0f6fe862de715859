//! What an operator may ask of an install beyond the manifest: what to leave alone, what to
//! delete, and how much of it at most.

use crate::patterns::Patterns;

/// How a tree is put in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is left alone.
    pub exclude: Patterns,
    /// What goes that the manifest does not name.
    pub delete: Delete,
    /// How much of it may go.
    pub max_delete: MaxDelete,
    /// Whether only content counts: what holds the right thing is left as it is, whatever its
    /// mode, owner, time and attributes.
    pub content_only: bool,
    /// Whether a file stays that was changed later than the one that would replace it.
    pub keep_newer: bool,
    /// If not empty: what is put behind the name of a file that is replaced, to keep it.
    pub save: Vec<u8>,
}

/// What is deleted below a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delete {
    /// Nothing.
    #[default]
    Nothing,
    /// What an earlier push put there, as long as nobody has changed it since.
    Installed,
    /// Everything that the manifest does not name.
    All,
}

/// How many entries may be deleted; more is an error before anything changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaxDelete {
    /// 100, or 10 % of what is there if that is more: a small tree may be turned over, and of a
    /// large one a wrong source must not take the most.
    #[default]
    Usual,
    /// So many.
    Entries(u64),
    /// So many of a hundred that are there.
    Percent(u32),
}

impl MaxDelete {
    /// How many may go where so many are now.
    pub fn allowed(self, there: u64) -> u64 {
        let percent = |n: u32| {
            let share = u128::from(there) * u128::from(n) / 100;
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        match self {
            MaxDelete::Usual => percent(10).max(100),
            MaxDelete::Entries(n) => n,
            MaxDelete::Percent(n) => percent(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_allowance_is_the_larger_of_two() {
        assert_eq!(MaxDelete::Usual.allowed(5), 100);
        assert_eq!(MaxDelete::Usual.allowed(50_000), 5_000);
        assert_eq!(MaxDelete::Entries(0).allowed(50_000), 0);
        assert_eq!(MaxDelete::Percent(1).allowed(199), 1);
        assert_eq!(MaxDelete::Percent(100).allowed(u64::MAX), u64::MAX);
    }
}
