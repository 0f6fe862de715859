//! A node by itself, for tests: one input at a time, and a disk that is always quick.

use std::time::Duration;

use bytes::Bytes;

use super::Node;
use crate::{
    Config, Frame, Gate, HostId, HostSet, Input, LinkId, Order, OrderId, Output, Peer, Record,
    Saved, State, Time,
};

pub(super) const ORDER: OrderId = OrderId([1; 16]);
pub(super) const CANCEL: OrderId = OrderId([2; 16]);
pub(super) const PARENT: LinkId = LinkId(1);

pub(super) fn order(targets: &[u32]) -> Order {
    let gate = Gate {
        window: 1,
        per_child: None,
        lots: Vec::new(),
        per_lot: crate::Share::Hosts(1),
        batch: None,
        max_errors: None,
        max_missed: None,
        begin: Duration::from_secs(10),
        longest: Duration::from_secs(20),
    };
    Order {
        id: ORDER,
        targets: targets.iter().map(|host| HostId(*host)).collect(),
        needs: Vec::new(),
        reach: Duration::from_secs(5),
        hold: Duration::from_secs(600),
        ttl: Duration::from_secs(600),
        again: false,
        cancels: None,
        lapses: false,
        supersedes: Vec::new(),
        gate: Some(gate),
        body: Bytes::new(),
    }
}

/// A node, its clock, and the number of its last save, which is durable at once.
pub(super) struct Bench {
    pub(super) node: Node,
    pub(super) now: Time,
    pub(super) kept: Saved,
}

impl Bench {
    pub(super) fn new(host: u32, parents: usize, saved: Saved) -> Bench {
        let config = Config::new(HostId(host), parents, host < 10);
        let kept = Saved::default();
        Bench { node: Node::new(config, saved, 1, Time::ZERO), now: Time::ZERO, kept }
    }

    pub(super) fn host() -> Bench {
        let mut bench = Bench::new(11, 1, Saved::default());
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        bench.give(Input::LinkUp { link: PARENT, peer });
        bench
    }

    pub(super) fn child(&mut self, link: u64, host: u32) -> Vec<Output> {
        let (link, host) = (LinkId(link), HostId(host));
        let peer = Peer::Child { host, serves: false };
        let below = HostSet::one(host);
        let mut outputs = self.give(Input::LinkUp { link, peer });
        let frame = Frame::Below(crate::Subtree { up: below.clone(), below, ..Default::default() });
        outputs.extend(self.give(Input::Frame { link, frame }));
        outputs
    }

    pub(super) fn give(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(self.now, input);
        self.drain()
    }

    pub(super) fn hear(&mut self, seq: u64, order: Order) -> Vec<Output> {
        let frame = Frame::Order { log: 1, seq, order: order.into() };
        self.give(Input::Frame { link: PARENT, frame })
    }

    pub(super) fn go(&mut self, hosts: &[u32], left: u64) -> Vec<Output> {
        let hosts = hosts.iter().map(|host| HostId(*host)).collect();
        let frame = Frame::Go { order: ORDER, hosts, left: Duration::from_secs(left) };
        self.give(Input::Frame { link: PARENT, frame })
    }

    pub(super) fn wait(&mut self, secs: u64) -> Vec<Output> {
        self.now = self.now + Duration::from_secs(secs);
        self.node.handle_timeout(self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        let mut all = Vec::new();
        while let Some(output) = self.node.poll_output() {
            if let Output::Save { no, record } = &output {
                self.keep(record);
                self.node.handle(self.now, Input::Saved { through: *no });
            }
            all.push(output);
        }
        all
    }

    fn keep(&mut self, record: &Record) {
        match record {
            Record::Order(order) => self.kept.orders.push(order.clone()),
            Record::Answers(report) => self.kept.answers.push(report.clone()),
            Record::Released { order, hosts } => {
                self.kept.released.push((*order, hosts.clone()));
            }
            Record::Intent(id) => self.kept.intents.push(*id),
            _ => {}
        }
    }
}

pub(super) fn starts(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Start { .. }))
}

pub(super) fn answers(outputs: &[Output]) -> Vec<State> {
    let states = outputs.iter().filter_map(|output| match output {
        Output::Save { record: Record::Answers(report), .. } => {
            report.tally.lines().next().map(|(outcome, _)| outcome.state)
        }
        _ => None,
    });
    states.collect()
}

pub(super) fn gone(outputs: &[Output]) -> Vec<(LinkId, HostSet)> {
    let go = outputs.iter().filter_map(|output| match output {
        Output::Send { link, frame: Frame::Go { hosts, .. } } => Some((*link, hosts.clone())),
        _ => None,
    });
    go.collect()
}
