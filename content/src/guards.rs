//! The rules by which nobody who may write to a directory leads us out of it, each by name.
//!
//! They always hold, but in tests: there one can be taken away, to see that what it keeps off does
//! come through without it. A rule that nothing misses would be no rule.

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A directory is never reached through a link.
    NoLinkOnTheWay,
    /// A temporary file is made by us, not found.
    FreshTemporary,
    /// What is described in place is what was looked at.
    SameInode,
    /// What has other names is replaced, not described.
    SingleName,
    /// A link above the destination is followed only if nobody else can have made it.
    TrustedLink,
}

#[cfg(test)]
impl Guard {
    /// Every rule there is.
    pub(crate) const ALL: [Guard; 5] = [
        Guard::NoLinkOnTheWay,
        Guard::FreshTemporary,
        Guard::SameInode,
        Guard::SingleName,
        Guard::TrustedLink,
    ];
}

/// Whether the rule holds.
#[cfg(not(test))]
pub(crate) const fn holds(_: Guard) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static AWAY: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn holds(guard: Guard) -> bool {
    AWAY.get() != Some(guard)
}

/// Does something without one of the rules, in this thread.
#[cfg(test)]
pub(crate) fn without<T>(guard: Guard, work: impl FnOnce() -> T) -> T {
    AWAY.set(Some(guard));
    let done = work();
    AWAY.set(None);
    done
}
