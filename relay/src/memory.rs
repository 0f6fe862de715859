//! What the ways to children could do when they were last used, by address.
//!
//! The bulk goes down, so it is the parent that must not start from nothing: ten round trips of
//! start-up are six seconds on a satellite link. Who dials is not known when the connection's
//! controller is made, but from where is; all nodes behind one address share a way. Lost at a
//! restart, and of no consequence if wrong: the controller takes up half of it and only if the
//! round trip is the same.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::congestion::Start;

/// Ways that are remembered; the one not used for longest is forgotten.
const WAYS: usize = 4_096;

/// The memory of a serving node.
#[derive(Default)]
pub(crate) struct Memory(Mutex<VecDeque<(IpAddr, Start)>>);

impl Memory {
    pub(crate) fn recall(&self, from: IpAddr) -> Option<Start> {
        let ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ways.iter().find(|(way, _)| *way == from).map(|(_, start)| *start)
    }

    pub(crate) fn learn(&self, from: IpAddr, start: Start) {
        let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ways.retain(|(way, _)| *way != from);
        ways.truncate(WAYS - 1);
        ways.push_front((from, start));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_word_counts_and_the_oldest_goes() {
        let memory = Memory::default();
        let way = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        let start = |rate| Start { rate, rtt: Duration::from_millis(100) };
        memory.learn(way(0), start(1));
        memory.learn(way(0), start(2));
        assert_eq!(memory.recall(way(0)), Some(start(2)));
        for n in 1..=WAYS as u32 {
            memory.learn(way(n), start(3));
        }
        assert_eq!(memory.recall(way(0)), None);
        assert_eq!(memory.recall(way(1)), Some(start(3)));
    }
}
