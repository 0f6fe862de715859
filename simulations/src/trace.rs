//! The trace: one line a step, or only its hash.
//!
//! The hash is taken over numbers that each step has at hand, so that a run without a reader costs
//! no formatting; two runs of a seed have the same hash, or something is not deterministic.

use std::fmt::Write as _;
use std::time::Duration;

use mesh::{Event, Frame, Input, Output};

/// Where the lines go.
#[derive(Default)]
pub enum Sink {
    /// Nowhere; only the hash is taken.
    #[default]
    Hash,
    /// To the standard output.
    Print,
    /// Into memory.
    Keep(String),
}

/// The record of a run.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    steps: u64,
    /// Where the lines go.
    pub sink: Sink,
}

impl Trace {
    /// A trace whose lines go there.
    pub fn new(sink: Sink) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, steps: 0, sink }
    }

    /// The hash of all steps so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many steps were noted.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn wants_text(&self) -> bool {
        !matches!(self.sink, Sink::Hash)
    }

    /// Notes that something happened to a node.
    pub(crate) fn step(&mut self, at: Duration, node: usize, marks: [u64; 2]) {
        self.steps += 1;
        for word in [at.as_nanos() as u64, node as u64, marks[0], marks[1]] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, at: Duration, node: usize, text: &str) {
        let line = format!("{:9.4} n{node:<3} {text}", at.as_secs_f64());
        match &mut self.sink {
            Sink::Hash => {}
            Sink::Print => write_out(&line),
            Sink::Keep(lines) => {
                lines.push_str(&line);
                lines.push('\n');
            }
        }
    }
}

/// A reader that goes away ends the trace, not the run.
fn write_out(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Two numbers that tell one input from another.
pub(crate) fn marks(input: &Input) -> [u64; 2] {
    match input {
        Input::LinkUp { link, .. } => [1, link.0],
        Input::LinkDown { link } => [2, link.0],
        Input::DialFailed { place } => [3, *place as u64],
        Input::Frame { link, frame } => [4 + (frame_mark(frame) << 8), link.0],
        Input::BadOrder { link, seq, .. } => [5 + (seq << 8), link.0],
        Input::Saved { through } => [6, *through],
        Input::Wanted { content, .. } => [7, u64::from(content.0[0])],
        Input::Unwanted { .. } => [8, 0],
        Input::Arriving { content } => [14, u64::from(content.0[0])],
        Input::Pulled { content, result } => {
            [9 + (u64::from(result.is_ok()) << 8), u64::from(content.0[0])]
        }
        Input::Ended { order, .. } => [10, u64::from(order.0[15])],
        Input::Submit(order) => [11, u64::from(order.id.0[15])],
        Input::Watch { orders } => [12, orders.len() as u64],
        Input::Restored => [20, 0],
        Input::Degraded(degraded) => [14, u64::from(*degraded)],
        Input::Parents { here, .. } => [15, here.map_or(0, |place| place as u64 + 1)],
        Input::Happened(what) => [16, u64::from(what.fact.signature.0[0])],
        Input::Profile(profile) => [17, profile.revision],
        Input::Said(said) => [13 + (said.offset << 8), u64::from(said.order.0[15])],
        Input::Subscribed(interest) => [17, interest.patterns().count() as u64],
        Input::Publish(message) => [18, message.id],
        Input::Answer(answer) => [19, answer.request],
    }
}

fn frame_mark(frame: &Frame) -> u64 {
    match frame {
        Frame::Hello { held, .. } => 1 + (held << 4),
        Frame::Beat { root, .. } => 2 + (root << 4),
        Frame::Below(subtree) => 3 + (subtree.below.len() << 4) + (subtree.up.len() << 20),
        Frame::Order { seq, .. } => 4 + (seq << 4),
        Frame::OrdersHeld { through, .. } => 5 + (through << 4),
        Frame::Report { seq, report, .. } => 6 + (seq << 4) + (report.tally.hosts().len() << 20),
        Frame::ReportsHeld { through, .. } => 7 + (through << 4),
        Frame::Watch { orders } => 8 + ((orders.len() as u64) << 4),
        Frame::Said(said) => 9 + (said.offset << 4) + (u64::from(said.host.0) << 32),
        Frame::Go { hosts, .. } => 10 + (hosts.len() << 4),
        Frame::Events { no, events } => 11 + (no << 4) + ((events.len() as u64) << 20),
        Frame::EventsHeld { no, held } => 12 + (no << 4) + ((*held as u64) << 20),
        Frame::Profiles { no, lines } => 13 + (no << 4) + ((lines.len() as u64) << 20),
        Frame::ProfilesHeld { no, held } => 14 + (no << 4) + ((*held as u64) << 20),
        Frame::Interest(interest) => 15 + ((interest.patterns().count() as u64) << 4),
        Frame::Message(message) => 16 + (message.id << 5),
        Frame::Answer(answer) => 17 + (answer.request << 5),
        Frame::Seek { hosts, .. } => 18 + (hosts.len() << 5),
        Frame::Found { report } => 19 + (report.tally.hosts().len() << 5),
    }
}

/// An input in a few words.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Frame { link, frame } => format!("<- {link:?} {}", self::frame(frame)),
        Input::Submit(order) => format!("Submit {:?} for {:?}", order.id, order.targets),
        Input::Ended { order, outcome, .. } => format!("Ended {order:?} {outcome:?}"),
        other => format!("{other:?}"),
    }
}

/// A frame in a few words.
fn frame(frame: &Frame) -> String {
    match frame {
        Frame::Hello { log, held_log, held, .. } => {
            format!("Hello log {:04x}, held {held} of {:04x}", log & 0xffff, held_log & 0xffff)
        }
        Frame::Beat { root, .. } => format!("Beat {root}"),
        Frame::Below(subtree) => format!("Below {} up {}", subtree.below, subtree.up),
        Frame::Order { seq, order, .. } => format!("Order #{seq} {:?}", order.id),
        Frame::OrdersHeld { through, .. } => format!("OrdersHeld #{through}"),
        Frame::Report { seq, report, .. } => {
            let mut text = format!("Report #{seq} {:?}", report.order);
            for (outcome, hosts) in report.tally.lines() {
                let _ = write!(text, " {:?}={hosts}", outcome.state);
            }
            text
        }
        Frame::ReportsHeld { through, .. } => format!("ReportsHeld #{through}"),
        Frame::Watch { orders } => format!("Watch {orders:?}"),
        Frame::Said(said) => format!("Said {:?} {} at {}", said.order, said.host, said.offset),
        Frame::Events { no, events } => {
            let mut text = format!("Events #{no}");
            for folded in events {
                let _ = write!(text, " {:?} {:?}", folded.key(), folded.counts);
            }
            text
        }
        Frame::EventsHeld { no, held } => format!("EventsHeld #{no} {held}"),
        Frame::Profiles { no, lines } => {
            let mut text = format!("Profiles #{no}");
            for line in lines {
                let _ = write!(text, " {}:{}", line.profile.revision, line.hosts);
            }
            text
        }
        Frame::ProfilesHeld { no, held } => format!("ProfilesHeld #{no} {held}"),
        Frame::Seek { order, hosts } => format!("Seek {order:?} {hosts}"),
        Frame::Found { report } => format!("Found {:?} {:?}", report.order, report.tally),
        Frame::Go { order, hosts, left } => format!("Go {order:?} {hosts} for {left:?}"),
        Frame::Interest(_) | Frame::Message(_) | Frame::Answer(_) => format!("{frame:?}"),
    }
}

/// An output in a few words.
pub(crate) fn output(output: &Output) -> String {
    match output {
        Output::Send { link, frame } => format!("-> {link:?} {}", self::frame(frame)),
        Output::Save { no, record } => {
            let text = match record {
                mesh::Record::Order(order) => format!("Order {:?}", order.id),
                mesh::Record::Answers(report) => {
                    format!("Answers {:?} {:?}", report.order, report.tally.hosts())
                }
                other => format!("{other:?}"),
            };
            format!("save {no} {text}")
        }
        Output::Start { order, missing } => format!("Start {:?} missing {missing:?}", order.id),
        Output::Tell(Event::Answers(report)) => {
            format!("tell {:?} {:?}", report.order, report.tally)
        }
        Output::Tell(event) => format!("tell {event:?}"),
        other => format!("{other:?}"),
    }
}
