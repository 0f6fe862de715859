//! What commands have left running: of a node that was killed, and of a command that was ended.
//!
//! Each command has its order's id and its node's name in its environment, and so have the
//! processes that it starts. A node that finds at its start that it had begun an order and not
//! ended it looks for such processes and ends them, before it says that the order was interrupted:
//! then nothing of it goes on. It does the same with a command that has run too long or was taken
//! back, for whatever has left its process group. A control group would say more surely what a
//! command has started, but entering one costs each command more than all the rest of it.

use std::collections::BTreeSet;
use std::path::Path;

use mesh::{HostId, OrderId, Saved};
use rustix::process::{Pid, Signal, kill_process};
use tracing::{info, warn};

/// The variable with the order's id.
pub(crate) const ORDER: &str = "BARID_ORDER";
/// The variable with the node's name.
pub(crate) const NODE: &str = "BARID_NODE";
/// How often to look again for what those processes have started meanwhile.
const LOOKS: usize = 20;

/// The orders that a node had begun and not ended, other than those that may begin again.
pub(crate) fn interrupted(saved: &Saved, me: HostId) -> BTreeSet<OrderId> {
    let answered = saved.answers.iter().filter(|report| {
        report.tally.outcome(me).is_some_and(|outcome| !outcome.state.is_provisional())
    });
    let answered: BTreeSet<_> = answered.map(|report| report.order).collect();
    let again = saved.orders.iter().filter(|order| order.again);
    let again: BTreeSet<_> = again.map(|order| order.id).collect();
    let begun = saved.intents.iter().copied();
    begun.filter(|id| !answered.contains(id) && !again.contains(id)).collect()
}

/// Ends what is left of these orders at this node. Blocks.
pub(crate) fn end(node: &str, orders: &BTreeSet<OrderId>) {
    if orders.is_empty() {
        return;
    }
    let marks: Vec<String> = orders.iter().map(|id| format!("{ORDER}={id}")).collect();
    let node = format!("{NODE}={node}");
    for _ in 0..LOOKS {
        let left = find(Path::new("/proc"), &node, &marks);
        if left.is_empty() {
            return;
        }
        for pid in left {
            info!(pid = pid.as_raw_nonzero(), "ending what a command has left running");
            if let Err(error) = kill_process(pid, Signal::KILL) {
                // It may have ended by itself.
                info!(pid = pid.as_raw_nonzero(), %error, "it is not there any more");
            }
        }
    }
    warn!("what a command has left running does not end");
}

/// The processes with this node and one of these orders in their environment.
fn find(proc: &Path, node: &str, marks: &[String]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.filter(|pid: &i32| {
        // What is gone, or is another account's, is none of ours.
        let environ = std::fs::read(proc.join(pid.to_string()).join("environ"));
        let environ = environ.unwrap_or_default();
        let has = |what: &str| environ.split(|b| *b == 0).any(|entry| entry == what.as_bytes());
        has(node) && marks.iter().any(|mark| has(mark))
    });
    found.filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use mesh::{HostSet, Outcome, Report, State};

    use super::*;

    fn order(n: u8) -> OrderId {
        OrderId([n; 16])
    }

    #[test]
    fn what_was_begun_and_not_ended_was_interrupted() {
        let me = HostId(4);
        let answer = |n, state| {
            let mut report = Report::new(order(n));
            report.tally.record(Outcome::bare(state), &HostSet::one(me));
            report
        };
        let saved = Saved {
            intents: vec![order(1), order(2), order(3)],
            answers: vec![answer(1, State::Ok), answer(2, State::RelayLost)],
            ..Saved::default()
        };
        assert_eq!(interrupted(&saved, me), BTreeSet::from([order(2), order(3)]));
    }

    #[test]
    fn only_processes_of_the_node_and_the_order_are_ended() {
        let sleeper = |node: &str, n| {
            let mut command = Command::new("sleep");
            command.arg("300").stdin(Stdio::null());
            command.env_clear().env(NODE, node).env(ORDER, order(n).to_string());
            command.spawn().expect("it starts")
        };
        let me = format!("test-{}", std::process::id());
        let mut ours = sleeper(&me, 7);
        let mut others = [sleeper(&me, 8), sleeper("another", 7)];
        end(&me, &BTreeSet::from([order(7)]));
        assert!(!ours.wait().expect("it has ended").success());
        for other in &mut others {
            assert_eq!(other.try_wait().expect("it can be asked"), None);
            other.kill().expect("it runs");
            other.wait().expect("it has ended");
        }
    }
}
