//! What a node says of itself and of everybody below it.

use std::collections::BTreeMap;

use crate::{HostId, HostSet};

/// The most relays of one subtree of which it is said who their children are. Of more the rest is
/// only known to live there.
pub const BRANCHES: usize = 4_096;
/// The most ranges in all branches of one subtree.
const RANGES: usize = 32_768;

/// The subtree of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subtree {
    /// Everybody known there, the node itself included.
    pub below: HostSet,
    /// Those of them who are reachable now.
    pub up: HostSet,
    /// Those of them who cannot do all that they should, because their disk is full.
    pub degraded: HostSet,
    /// Those of them who are not reachable and have fallen silent: nobody has closed their link, or
    /// whoever would know of it is away.
    pub silent: HostSet,
    /// For each node there that has any: its own children.
    pub branches: BTreeMap<HostId, HostSet>,
}

impl Subtree {
    /// Takes in a branch, if there is room for it.
    pub(crate) fn add_branch(&mut self, room: &mut usize, parent: HostId, children: HostSet) {
        let ranges = children.ranges().len();
        if ranges > 0 && ranges <= *room && self.branches.len() < BRANCHES {
            *room -= ranges;
            self.branches.insert(parent, children);
        }
    }

    /// How many ranges all branches may have.
    pub(crate) fn room() -> usize {
        RANGES
    }
}
