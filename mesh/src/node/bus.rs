//! The bus at a node: who may say what on which link, and the way of answers.

use super::Node;
use crate::bus::{Answer, Interest, Message, Subject, Wanting};
use crate::{Frame, HostId, LinkId, Output, Peer, Reason, Time};

impl Node {
    /// What programs at this node want from now on.
    pub(super) fn handle_subscribed(&mut self, now: Time, interest: Interest) {
        self.bus.handle_here(interest, now + self.config.flush);
    }

    /// The peer says what is wanted on its side.
    pub(super) fn handle_interest(&mut self, now: Time, link: LinkId, interest: Interest) {
        self.bus.handle_interest(link, interest, now + self.config.flush);
    }

    /// A program at this node has published something.
    pub(super) fn publish(&mut self, message: &Message) {
        self.bus.pass(None, message, &mut self.out);
    }

    /// A message has come by a link.
    pub(super) fn handle_message(&mut self, now: Time, link: LinkId, peer: Peer, message: Message) {
        let stranded = match self.may_speak(now, link, peer, message.from) {
            true if self.bus.pass(Some(link), &message, &mut self.out) => None,
            true => self.bus.was_wanted(now, &message.subject),
            // A relay may bring what somebody has said before he went elsewhere.
            false => {
                let relayed = matches!(peer, Peer::Child { serves: true, .. });
                (relayed && self.bus.wanting(&message.subject).is_heard()).then_some(true)
            }
        };
        if let Some(surely) = stranded {
            self.out.push(Output::Stranded { surely });
        }
    }

    /// An answer has come by a link.
    pub(super) fn handle_answer(&mut self, now: Time, link: LinkId, peer: Peer, answer: Answer) {
        if self.may_speak(now, link, peer, answer.from) {
            self.pass_answer(Some(link), answer);
        }
    }

    /// Passes an answer on towards whoever has asked; one who cannot be reached goes without.
    pub(super) fn pass_answer(&mut self, from: Option<LinkId>, answer: Answer) {
        if answer.to == self.config.host {
            return self.out.push(Output::Answered(answer));
        }
        // Who lived below this node once may have moved, and only those above know where to.
        let way = self.way_to(answer.to).or_else(|| self.uplink.link());
        if let Some(link) = way.filter(|link| from != Some(*link)) {
            self.out.send(link, Frame::Answer(answer));
        }
    }

    /// Who wants this subject, as far as this node knows.
    pub fn wanting(&mut self, subject: &Subject) -> &Wanting {
        self.bus.wanting(subject)
    }

    /// Whether a peer speaks for nobody but whom it may. A host that does is hung up; who has just
    /// moved may still be heard from where it was.
    fn may_speak(&mut self, now: Time, link: LinkId, peer: Peer, from: HostId) -> bool {
        match peer {
            Peer::Parent { .. } => true,
            Peer::Child { host, serves: false } if from != host => {
                self.hang_up(now, link, Reason::Protocol("a host spoke for others than itself"));
                false
            }
            Peer::Child { host, .. } => {
                self.routes.child(host).is_some_and(|child| child.below.contains(from))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bus::{PATTERNS, Pattern, STRAGGLE};
    use crate::{Config, HostSet, Input, Saved, Subtree};

    const PARENT: LinkId = LinkId(1);

    fn give(node: &mut Node, input: Input) -> Vec<Output> {
        node.handle(Time::ZERO, input);
        std::iter::from_fn(|| node.poll_output()).collect()
    }

    fn hear(node: &mut Node, link: u64, frame: Frame) -> Vec<Output> {
        give(node, Input::Frame { link: LinkId(link), frame })
    }

    /// A relay, with a relay that has two hosts and a host of its own.
    fn relay() -> Node {
        let config = Config::new(HostId(9), 1, true);
        let mut node = Node::new(config, Saved::default(), 1, Time::ZERO);
        let peer = Peer::Parent { place: 0, host: HostId(90) };
        give(&mut node, Input::LinkUp { link: PARENT, peer });
        for (child, serves, below) in [(10, true, &[10, 11, 12][..]), (30, false, &[30])] {
            let link = LinkId(u64::from(child));
            let peer = Peer::Child { host: HostId(child), serves };
            give(&mut node, Input::LinkUp { link, peer });
            let below: HostSet = below.iter().map(|host| HostId(*host)).collect();
            let up = below.clone();
            let subtree = Subtree { below, up, ..Subtree::default() };
            hear(&mut node, link.0, Frame::Below(subtree));
        }
        node
    }

    fn message(from: u32) -> Frame {
        Frame::Message(Message {
            id: 1,
            from: HostId(from),
            node: "n".into(),
            subject: Subject::new("a.b").expect("a subject"),
            request: Some(4),
            body: Bytes::new(),
        })
    }

    fn answer(to: u32, from: u32) -> Frame {
        let (to, from) = (HostId(to), HostId(from));
        Frame::Answer(Answer { to, request: 4, from, node: "n".into(), body: Bytes::new() })
    }

    fn interest(text: &str) -> Interest {
        Interest::of([Pattern::new(text).expect("a pattern")], PATTERNS)
    }

    fn bus_frames(outputs: &[Output]) -> Vec<u64> {
        let to = |output: &Output| match output {
            Output::Send { link, frame: Frame::Message(_) | Frame::Answer(_) } => Some(link.0),
            Output::Deliver(_) | Output::Answered(_) => Some(0),
            _ => None,
        };
        outputs.iter().filter_map(to).collect()
    }

    #[test]
    fn a_peer_speaks_only_for_those_below_it() {
        let mut node = relay();
        hear(&mut node, PARENT.0, Frame::Interest(interest(">")));
        assert_eq!(bus_frames(&hear(&mut node, 10, message(12))), [PARENT.0]);
        assert_eq!(
            hear(&mut node, 10, message(30)),
            [Output::Stranded { surely: true }],
            "it is elsewhere"
        );
        assert_eq!(bus_frames(&hear(&mut node, PARENT.0, message(77))), Vec::<u64>::new());
        let outputs = hear(&mut node, 30, message(12));
        assert!(matches!(outputs[0], Output::Hangup { link: LinkId(30), .. }), "{outputs:?}");
    }

    #[test]
    fn what_comes_for_those_behind_a_link_that_has_broken_is_told() {
        let mut node = relay();
        assert_eq!(hear(&mut node, 10, message(12)), [], "nobody has wanted it");
        hear(&mut node, PARENT.0, Frame::Interest(interest("a.*")));
        give(&mut node, Input::LinkDown { link: PARENT });
        assert_eq!(hear(&mut node, 10, message(11)), [Output::Stranded { surely: true }]);
        assert_eq!(hear(&mut node, 10, message(11)), [], "it came before");
        hear(&mut node, 30, Frame::Interest(interest("a.b")));
        assert_eq!(bus_frames(&hear(&mut node, 10, message(10))), [30], "somebody else wants it");
        node.handle_timeout(Time(STRAGGLE * 2));
        while node.poll_output().is_some() {}
        let late = Input::Frame { link: LinkId(10), frame: message(12) };
        give(&mut node, Input::LinkDown { link: LinkId(30) });
        node.handle(Time(STRAGGLE * 2), late);
        assert_eq!(node.poll_output(), None, "all have been told long ago");
    }

    #[test]
    fn what_comes_for_a_child_that_has_gone_may_reach_it_elsewhere() {
        let mut node = relay();
        hear(&mut node, 30, Frame::Interest(interest("a.b")));
        give(&mut node, Input::LinkDown { link: LinkId(30) });
        assert_eq!(hear(&mut node, PARENT.0, message(77)), [Output::Stranded { surely: false }]);
    }

    #[test]
    fn an_answer_goes_to_whoever_has_asked() {
        let mut node = relay();
        assert_eq!(bus_frames(&hear(&mut node, 10, answer(30, 11))), [30]);
        assert_eq!(bus_frames(&hear(&mut node, 10, answer(77, 11))), [PARENT.0]);
        assert_eq!(bus_frames(&hear(&mut node, 30, answer(9, 30))), [0]);
        assert_eq!(bus_frames(&hear(&mut node, PARENT.0, answer(11, 77))), [10]);
        assert!(bus_frames(&hear(&mut node, PARENT.0, answer(78, 77))).is_empty(), "never back");
        give(&mut node, Input::LinkDown { link: LinkId(30) });
        assert_eq!(bus_frames(&hear(&mut node, 10, answer(30, 11))), [PARENT.0], "it has moved");
        assert!(bus_frames(&hear(&mut node, PARENT.0, answer(30, 77))).is_empty(), "it is away");
    }

    #[test]
    fn interest_of_a_lost_child_is_forgotten_after_a_short_wait() {
        let mut node = relay();
        hear(&mut node, 10, Frame::Interest(interest("a.>")));
        let subject = Subject::new("a.b").expect("a subject");
        assert!(node.wanting(&subject).is_heard());
        let later = Time(std::time::Duration::from_secs(1));
        node.handle_timeout(later);
        let told = |node: &mut Node| {
            let outputs: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
            outputs.into_iter().find_map(|output| match output {
                Output::Send { link: PARENT, frame: Frame::Interest(told) } => Some(told),
                _ => None,
            })
        };
        assert_eq!(told(&mut node), Some(interest("a.>")));
        node.handle(later, Input::LinkDown { link: LinkId(10) });
        assert!(!node.wanting(&subject).is_heard());
        node.handle_timeout(Time(std::time::Duration::from_secs(2)));
        assert_eq!(told(&mut node), Some(Interest::default()));
    }
}
