//! Subjects, interest and passing on, by themselves and over random input.

use super::*;

fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

fn interest(texts: &[&str]) -> Interest {
    Interest::of(texts.iter().map(|text| pattern(text)), PATTERNS)
}

#[test]
fn what_is_a_subject_and_what_a_pattern() {
    let check = |text: &str, as_subject, as_pattern| {
        assert_eq!(Subject::new(text).err(), as_subject, "{text:?}");
        assert_eq!(Pattern::new(text).err(), as_pattern, "{text:?}");
    };
    let both = |text: &str, error| check(text, Some(error), Some(error));
    for text in ["a", "app.web-1.state", "$x.y/z:1,_@", &["w"; 16].join(".")] {
        check(text, None, None);
    }
    for text in ["*", ">", "a.*.c", "a.>"] {
        check(text, Some(SubjectError::Wildcard), None);
    }
    for text in ["a*", "a.>.b", ">>", "**", "a.x>"] {
        both(text, SubjectError::Wildcard);
    }
    for text in ["", ".", "a.", ".a", "a..b"] {
        both(text, SubjectError::Empty);
    }
    for text in ["a b", "a\n", "\x1b[31m", "ä", "a\0", "a\t"] {
        both(text, SubjectError::Character);
    }
    both(&["w"; 17].join("."), SubjectError::TooManyWords);
    both(&"x".repeat(256), SubjectError::TooLong);
}

#[test]
fn what_matches() {
    let check = |wanted: &str, yes: &[&str], no: &[&str]| {
        for text in yes {
            assert!(pattern(wanted).matches(&subject(text)), "{wanted} {text}");
        }
        for text in no {
            assert!(!pattern(wanted).matches(&subject(text)), "{wanted} {text}");
        }
    };
    check("a.b", &["a.b"], &["a", "a.b.c", "a.c", "b.a"]);
    check("a.*", &["a.b", "a.c"], &["a", "a.b.c"]);
    check("*.b", &["a.b"], &["b", "a.b.c"]);
    check("a.>", &["a.b", "a.b.c"], &["a", "b.a"]);
    check(">", &["a", "a.b.c"], &[]);
}

#[test]
fn interest_is_small_and_becomes_coarser_where_it_must() {
    let many = (0..1_000).map(|n| pattern(&format!("cmd.web{n}.do")));
    let coarse = Interest::of(many.chain([pattern("x.y")]), PATTERNS);
    assert_eq!(coarse, interest(&["cmd.>", "x.y"]));
    let many = (0..1_000).map(|n| pattern(&format!("w{n}")));
    assert_eq!(Interest::of(many, PATTERNS), interest(&[">"]));
}

/// Lets a bus do what is due, whenever that is.
fn due(bus: &mut Bus, out: &mut Outbox) {
    if let Some((at, _)) = bus.poll_timeout() {
        bus.handle_timeout(at, out);
    }
}

/// Whom a bus tells what.
fn told(out: &mut Outbox) -> BTreeMap<LinkId, Interest> {
    let told = |output| match output {
        Output::Send { link, frame: Frame::Interest(interest) } => (link, interest),
        other => panic!("{other:?}"),
    };
    std::iter::from_fn(|| out.pop()).map(told).collect()
}

#[test]
fn each_side_is_told_what_the_others_want_and_only_what_is_new() {
    let (mut bus, mut out) = (Bus::new(9), Outbox::default());
    let (parent, a, b) = (LinkId(1), LinkId(2), LinkId(3));
    let now = Time::ZERO;
    bus.handle_up(now, parent, true);
    bus.handle_up(now, a, false);
    bus.handle_up(now, b, false);
    due(&mut bus, &mut out);
    assert_eq!(told(&mut out), BTreeMap::from([(parent, interest(&[]))]), "children speak first");
    bus.handle_interest(a, interest(&["x.>"]), now);
    bus.handle_interest(b, interest(&[]), now);
    bus.handle_here(interest(&["y"]), now);
    due(&mut bus, &mut out);
    let (all, here) = (interest(&["x.>", "y"]), interest(&["y"]));
    assert_eq!(told(&mut out), BTreeMap::from([(parent, all.clone()), (a, here), (b, all)]));
    // What both want both are told of; nobody else hears anything new.
    bus.handle_interest(b, interest(&["x.>"]), now);
    due(&mut bus, &mut out);
    assert_eq!(told(&mut out), BTreeMap::from([(a, interest(&["x.>", "y"]))]));
    assert!(bus.poll_timeout().is_none());
    bus.handle_down(b, now);
    assert!(bus.poll_timeout().is_some_and(|(at, _)| at >= now + PAUSE), "not all the time");
    due(&mut bus, &mut out);
    assert_eq!(told(&mut out), BTreeMap::from([(a, interest(&["y"]))]));
}

#[test]
fn a_message_goes_where_it_is_wanted_and_never_back_or_twice() {
    let (mut bus, mut out) = (Bus::new(2), Outbox::default());
    for (link, is_parent, wants) in [(1, true, ">"), (2, false, "a"), (3, false, "b")] {
        bus.handle_up(Time::ZERO, LinkId(link), is_parent);
        bus.handle_interest(LinkId(link), interest(&[wants]), Time::ZERO);
    }
    bus.handle_here(interest(&["a"]), Time::ZERO);
    let message = |id| Message {
        id,
        from: HostId(7),
        node: "web7".into(),
        subject: subject("a"),
        request: None,
        body: Bytes::new(),
    };
    let mut pass = |bus: &mut Bus, from: Option<u64>, id| {
        bus.pass(from.map(LinkId), &message(id), &mut out);
        let to = |output| match output {
            Output::Deliver(_) => 0,
            Output::Send { link, frame: Frame::Message(_) } => link.0,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| out.pop()).map(to).collect::<Vec<_>>()
    };
    assert_eq!(pass(&mut bus, Some(2), 1), [0, 1]);
    assert_eq!(pass(&mut bus, Some(1), 1), Vec::<u64>::new(), "by another way once more");
    assert_eq!(pass(&mut bus, None, 2), [0, 1, 2]);
    assert_eq!(pass(&mut bus, Some(1), 3), [0, 2]);
    bus.handle_down(LinkId(2), Time::ZERO);
    bus.handle_here(interest(&[]), Time::ZERO);
    assert!(bus.wanting(&subject("a")).is_heard(), "by the parent's side");
    bus.handle_down(LinkId(1), Time::ZERO);
    let [a, b] = ["a", "b"].map(|text| bus.wanting(&subject(text)).clone());
    assert!(!a.is_heard() && b.is_heard(), "{a:?} {b:?}");
    assert_eq!(pass(&mut bus, Some(3), 4), Vec::<u64>::new());
}

mod random {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// Few words, so that patterns meet subjects.
    fn words(last: &'static str) -> impl Strategy<Value = String> {
        let word = proptest::sample::select(vec!["a", "b", "c"]);
        (proptest::collection::vec(word, 1..4), 0..3).prop_map(move |(mut words, kind)| {
            match (last, kind) {
                ("", _) | (_, 0) => {}
                (_, 1) => words[0] = "*",
                _ => words.push(">"),
            }
            words.join(".")
        })
    }

    fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
        proptest::collection::vec(words(">").prop_map(|text| pattern(&text)), 0..6)
    }

    /// Nodes by their parents, each with what is wanted there. The first is the root.
    struct Tree {
        parents: Vec<usize>,
        here: Vec<Interest>,
        buses: Vec<Bus>,
        /// Links by their ends; one number for both.
        links: BTreeMap<(usize, usize), LinkId>,
        /// What is under way: from, to, frame.
        wire: VecDeque<(usize, usize, Frame)>,
        crossed: Vec<(usize, usize)>,
        delivered: Vec<usize>,
    }

    impl Tree {
        fn new(parents: &[usize], wants: &[Vec<Pattern>]) -> Tree {
            let here = wants.iter().map(|wants| Interest::of(wants.clone(), PATTERNS)).collect();
            let buses = wants.iter().map(|_| Bus::new(64)).collect();
            let mut tree = Tree {
                parents: parents.to_vec(),
                here,
                buses,
                links: BTreeMap::new(),
                wire: VecDeque::new(),
                crossed: Vec::new(),
                delivered: Vec::new(),
            };
            for child in 1..tree.parents.len() {
                tree.link(child, tree.parents[child]);
            }
            for node in 0..tree.buses.len() {
                tree.buses[node].handle_here(tree.here[node].clone(), Time::ZERO);
            }
            tree.settle();
            tree
        }

        fn link(&mut self, child: usize, parent: usize) {
            let link = LinkId(1 + (child * 100 + parent) as u64);
            self.links.insert((child, parent), link);
            self.links.insert((parent, child), link);
            self.buses[child].handle_up(Time::ZERO, link, true);
            self.buses[parent].handle_up(Time::ZERO, link, false);
        }

        /// A node goes to another parent; each end notices.
        fn rehome(&mut self, child: usize, parent: usize) {
            let old = std::mem::replace(&mut self.parents[child], parent);
            for (here, there) in [(child, old), (old, child)] {
                let link = self.links.remove(&(here, there)).expect("it was linked");
                self.buses[here].handle_down(link, Time::ZERO);
            }
            self.link(child, parent);
            self.settle();
        }

        fn drain(&mut self, node: usize, out: &mut Outbox) {
            while let Some(output) = out.pop() {
                match output {
                    Output::Deliver(_) => self.delivered.push(node),
                    Output::Send { link, frame } => {
                        let to = self.links.iter().find(|((at, _), l)| *at == node && **l == link);
                        let to = to.expect("a link of this node").0.1;
                        self.wire.push_back((node, to, frame));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn settle(&mut self) {
            let mut out = Outbox::default();
            loop {
                for node in 0..self.buses.len() {
                    due(&mut self.buses[node], &mut out);
                    self.drain(node, &mut out);
                }
                let Some((from, to, frame)) = self.wire.pop_front() else { return };
                let link = self.links[&(to, from)];
                match frame {
                    Frame::Interest(wants) => {
                        self.buses[to].handle_interest(link, wants, Time::ZERO);
                    }
                    Frame::Message(message) => {
                        self.crossed.push((from, to));
                        self.buses[to].pass(Some(link), &message, &mut out);
                        self.drain(to, &mut out);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn publish(&mut self, at: usize, id: u64, subject: &Subject) {
            let mut out = Outbox::default();
            let (from, subject) = (HostId(at as u32), subject.clone());
            let (node, request, body) = (String::new(), None, Bytes::new());
            let message = Message { id, from, node, subject, request, body };
            self.buses[at].pass(None, &message, &mut out);
            self.drain(at, &mut out);
            self.settle();
        }

        /// Who is reached from `to` without going back to `from`.
        fn behind(&self, from: usize, to: usize) -> BTreeSet<usize> {
            let mut found = BTreeSet::from([to]);
            let mut queue = vec![(from, to)];
            while let Some((before, at)) = queue.pop() {
                for (a, b) in self.links.keys() {
                    if *a == at && *b != before && found.insert(*b) {
                        queue.push((at, *b));
                    }
                }
            }
            found
        }

        fn check(&mut self, at: usize, id: u64, subject: &Subject) {
            (self.crossed, self.delivered) = (Vec::new(), Vec::new());
            self.publish(at, id, subject);
            let wants = |node: &usize| self.here[*node].matches(subject);
            let expected: Vec<usize> = (0..self.buses.len()).filter(wants).collect();
            let mut delivered = self.delivered.clone();
            delivered.sort_unstable();
            assert_eq!(delivered, expected, "each who wants it, once");
            for (from, to) in &self.crossed {
                let behind = self.behind(*from, *to);
                assert!(behind.iter().any(wants), "{from} -> {to}: nobody wants it there");
            }
        }
    }

    proptest! {
        #[test]
        fn coarser_is_never_less(
            patterns in patterns(), limit in 1usize..4, subject in words("")
        ) {
            let subject = Subject::new(&subject).expect("no wildcard in it");
            let folded = Interest::of(patterns.clone(), limit);
            prop_assert!(folded.patterns().count() <= limit);
            let wanted = patterns.iter().any(|pattern| pattern.matches(&subject));
            prop_assert!(!wanted || folded.matches(&subject));
            let exact = Interest::of(patterns.clone(), PATTERNS);
            prop_assert_eq!(exact.matches(&subject), wanted);
            for (one, other) in patterns.iter().zip(patterns.iter().skip(1)) {
                prop_assert!(
                    !one.covers(other) || !other.matches(&subject) || one.matches(&subject)
                );
            }
        }

        #[test]
        fn any_text_is_a_subject_or_an_error(text in any::<String>()) {
            if let Ok(subject) = Subject::new(&text) {
                prop_assert!(Pattern::new(&text).is_ok_and(|p| p.matches(&subject)));
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        /// In any tree a message reaches whoever wants it, once, and crosses no other link; also
        /// after somebody has moved, or wants something else.
        #[test]
        fn each_who_wants_it_once_and_no_link_for_nothing(
            parents in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
            wants in proptest::collection::vec(patterns(), 10),
            mover in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            other in patterns(),
            subject in words(""),
        ) {
            let count = parents.len() + 1;
            let parents: Vec<usize> = std::iter::once(0)
                .chain(parents.iter().enumerate().map(|(n, parent)| parent.index(n + 1)))
                .collect();
            let mut tree = Tree::new(&parents, &wants[..count]);
            let subject = Subject::new(&subject).expect("no wildcard in it");
            tree.check(at.index(count), 1, &subject);
            let (mover, to) = (mover.index(count), to.index(count));
            let old = tree.parents[mover];
            let below = tree.behind(old, mover);
            if mover > 0 && !below.contains(&to) && to != old {
                tree.rehome(mover, to);
                tree.check(at.index(count), 2, &subject);
            }
            tree.here[mover] = Interest::of(other, PATTERNS);
            tree.buses[mover].handle_here(tree.here[mover].clone(), Time::ZERO);
            tree.settle();
            tree.check(at.index(count), 3, &subject);
        }
    }
}
