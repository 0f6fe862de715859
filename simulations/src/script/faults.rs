//! Faults in a script: each at its time, with the nodes that it strikes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::words::{millis, ms};
use crate::plan::Fault;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub(super) enum FaultLines {
    Kill { at_ms: u64, node: usize, down_ms: u64 },
    Cut { at_ms: u64, child: usize, noticed: bool },
    Part { at_ms: u64, from: usize, to: usize, both: bool, lasts_ms: u64 },
    Isolate { at_ms: u64, node: usize, lasts_ms: u64 },
    Clock { at_ms: u64, node: usize, by_ms: i64 },
    Restore { at_ms: u64, age_ms: u64, down_ms: u64 },
    Steer { at_ms: u64, node: usize },
    FullDisk { at_ms: u64, node: usize, lasts_ms: u64 },
    FailDisk { at_ms: u64, node: usize, down_ms: u64 },
}

impl FaultLines {
    pub(super) fn of(at: Duration, fault: &Fault) -> FaultLines {
        let at_ms = ms(at);
        match *fault {
            Fault::Kill { node, down } => FaultLines::Kill { at_ms, node, down_ms: ms(down) },
            Fault::Cut { child, noticed } => FaultLines::Cut { at_ms, child, noticed },
            Fault::Part { from, to, both, lasts } => {
                FaultLines::Part { at_ms, from, to, both, lasts_ms: ms(lasts) }
            }
            Fault::Isolate { node, lasts } => {
                FaultLines::Isolate { at_ms, node, lasts_ms: ms(lasts) }
            }
            Fault::Clock { node, by_ms } => FaultLines::Clock { at_ms, node, by_ms },
            Fault::Restore { age, down } => {
                FaultLines::Restore { at_ms, age_ms: ms(age), down_ms: ms(down) }
            }
            Fault::Steer { node } => FaultLines::Steer { at_ms, node },
            Fault::FullDisk { node, lasts } => {
                FaultLines::FullDisk { at_ms, node, lasts_ms: ms(lasts) }
            }
            Fault::FailDisk { node, down } => {
                FaultLines::FailDisk { at_ms, node, down_ms: ms(down) }
            }
        }
    }

    pub(super) fn fault(self, nodes: usize) -> Result<(Duration, Fault), String> {
        let (at_ms, fault, who) = match self {
            FaultLines::Kill { at_ms, node, down_ms } => {
                (at_ms, Fault::Kill { node, down: millis(down_ms) }, [node, node])
            }
            FaultLines::Cut { at_ms, child, noticed } => {
                (at_ms, Fault::Cut { child, noticed }, [child, child])
            }
            FaultLines::Part { at_ms, from, to, both, lasts_ms } => {
                (at_ms, Fault::Part { from, to, both, lasts: millis(lasts_ms) }, [from, to])
            }
            FaultLines::Isolate { at_ms, node, lasts_ms } => {
                (at_ms, Fault::Isolate { node, lasts: millis(lasts_ms) }, [node, node])
            }
            FaultLines::Clock { at_ms, node, by_ms } => {
                (at_ms, Fault::Clock { node, by_ms }, [node, node])
            }
            FaultLines::Restore { at_ms, age_ms, down_ms } => {
                let (age, down) = (millis(age_ms), millis(down_ms));
                (at_ms, Fault::Restore { age, down }, [0, 0])
            }
            FaultLines::Steer { at_ms, node } => (at_ms, Fault::Steer { node }, [node, node]),
            FaultLines::FullDisk { at_ms, node, lasts_ms } => {
                (at_ms, Fault::FullDisk { node, lasts: millis(lasts_ms) }, [node, node])
            }
            FaultLines::FailDisk { at_ms, node, down_ms } => {
                (at_ms, Fault::FailDisk { node, down: millis(down_ms) }, [node, node])
            }
        };
        match who.iter().find(|node| **node >= nodes) {
            Some(node) => Err(format!("a fault at {at_ms} ms names node {node} of {nodes}")),
            None => Ok((millis(at_ms), fault)),
        }
    }
}
