//! Events: facts that nodes notice, and how equal ones become one.
//!
//! A [`Fact`] is what equal events have in common: subject, severity, class, and the line with its
//! host names, numbers, times and addresses taken out. The hash of that is its [`Signature`], which
//! everybody computes who reads one, so that nobody can put words under another's signature.
//! [`Folded`] is any number of events of one signature: who has seen how many, when first and last,
//! and one of them in full.
//!
//! Counts fold by their maximum, not by their sum. Each host counts its own events of a signature
//! within a window upward, and says how far it has come; of two words about the same host the
//! larger one includes the smaller. So joining is commutative, associative and idempotent, and
//! neither duplicates nor detours change a count.
//!
//! Nothing here is believed to be more than text: no order, path or pattern is ever made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Digest, HostId, HostSet, OrderId, similar};

/// Within one window a host counts the events of a signature together, in milliseconds.
pub const WINDOW_MS: u64 = 300_000;
/// How long a subject may be, in bytes.
pub const SUBJECT_BYTES: usize = 64;
/// How long the line of an event may be, in bytes.
pub const LINE_BYTES: usize = 512;
/// How long the whole text of an event may be, in bytes, if it does not fit a line.
pub const TEXT_BYTES: usize = 2_048;
/// The highest count that is believed; it fits a JSON number.
pub const MOST: u64 = 1 << 53;

/// What equal events are known by: the beginning of the hash of what they have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 16]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How bad it is. What is less bad gives way first where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something is not as it should be.
    Warning,
    /// Something does not work.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Whose trouble it is, as reports tell it apart at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A client is down or cut off.
    Down,
    /// A client has no space left.
    Space,
    /// A command has failed at a client.
    Command,
    /// Something else is wrong at a client.
    Client,
    /// A relay is in trouble.
    Relay,
    /// The controller is in trouble.
    Controller,
}

/// What equal events have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The hash of all the rest.
    pub signature: Signature,
    /// What it is about: words between full stops, as in `host.disk-low`.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whose trouble it is.
    pub class: Class,
    /// The line, with a `*` for whatever may differ from host to host.
    pub like: String,
}

impl Fact {
    /// A fact whose signature is made by this hash, which must be the same at all nodes.
    pub fn new(
        subject: &str,
        severity: Severity,
        class: Class,
        like: &str,
        hash: fn(&[u8]) -> Digest,
    ) -> Fact {
        let mut bytes = Vec::with_capacity(subject.len() + like.len() + 4);
        bytes.extend_from_slice(subject.as_bytes());
        bytes.extend_from_slice(&[0, severity as u8, class as u8, 0]);
        bytes.extend_from_slice(like.as_bytes());
        let mut signature = Signature([0; 16]);
        signature.0.copy_from_slice(&hash(&bytes).0[..16]);
        Fact { signature, subject: subject.into(), severity, class, like: like.into() }
    }
}

/// Whether this is a subject: lower-case letters, digits and `-` between full stops.
pub fn is_subject(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_letter);
    text.len() <= SUBJECT_BYTES && text.split('.').all(is_word)
}

/// One event in full. Of two, the one that sorts first stands for both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// When, by the clock of its host, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who has noticed it.
    pub host: HostId,
    /// What, in one line.
    pub line: String,
    /// The whole of it, if it was more than the line.
    pub text: String,
    /// The order that it is about.
    pub order: Option<OrderId>,
}

/// Something that a host has just noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// What it is.
    pub fact: Arc<Fact>,
    /// This one in full.
    pub sample: Sample,
    /// How often.
    pub count: u64,
    /// Whether it is about events that found no room, and therefore finds some.
    pub reserved: bool,
}

/// A kind of event, before it is known what exactly has happened.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it is about.
    pub subject: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Whose trouble it is.
    pub class: Class,
}

impl Happening {
    /// An event of this kind at `host`, which is called `name`, in the words of `text`.
    pub fn new(
        kind: Kind,
        (host, name): (HostId, &str),
        at_ms: u64,
        text: &str,
        hash: fn(&[u8]) -> Digest,
    ) -> Happening {
        let (line, text) = one_line(text);
        let like = template(&line, name);
        let fact = Fact::new(kind.subject, kind.severity, kind.class, &like, hash);
        let sample = Sample { at_ms, host, line, text, order: None };
        Happening { fact: fact.into(), sample, count: 1, reserved: false }
    }
}

/// A text as one line: line ends and other control characters become blanks, runs of blanks one.
/// What is too long or had more than one line is returned whole, too, as far as there is room.
pub fn one_line(text: &str) -> (String, String) {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let is_all = line.len() <= LINE_BYTES && !text.trim_end().contains('\n');
    line.truncate(line.floor_char_boundary(LINE_BYTES));
    if is_all {
        return (line, String::new());
    }
    let kept: String =
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    (line, kept[..kept.floor_char_boundary(TEXT_BYTES)].trim_end().to_string())
}

/// The line with a `*` for whatever may differ from host to host.
pub fn template(line: &str, name: &str) -> String {
    let (template, _) = similar::split(line.as_bytes(), name.as_bytes());
    let pieces: Vec<_> = template.pieces().map(String::from_utf8_lossy).collect();
    let mut like = pieces.join("*");
    like.truncate(like.floor_char_boundary(LINE_BYTES));
    like
}

/// Events of one signature within one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The window: one that its hosts have opened for it, by their clocks.
    pub window: u32,
    /// What they have in common.
    pub fact: Arc<Fact>,
    /// One of them in full.
    pub sample: Arc<Sample>,
    /// The first of them, by the clock of its host.
    pub first_ms: u64,
    /// The last of them.
    pub last_ms: u64,
    /// How many each host has noticed.
    pub counts: BTreeMap<HostId, u64>,
}

/// What events fold by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoldKey {
    /// The signature.
    pub signature: Signature,
    /// The window.
    pub window: u32,
}

impl Folded {
    /// What it folds by.
    pub fn key(&self) -> FoldKey {
        FoldKey { signature: self.fact.signature, window: self.window }
    }

    /// How many events.
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Who has noticed it.
    pub fn hosts(&self) -> HostSet {
        self.counts.keys().copied().collect()
    }

    /// The hosts with the same count, count by count.
    pub fn lines(&self) -> BTreeMap<u64, HostSet> {
        let mut lines = BTreeMap::<u64, Vec<HostId>>::new();
        for (host, count) in &self.counts {
            lines.entry(*count).or_default().push(*host);
        }
        lines.into_iter().map(|(count, hosts)| (count, hosts.into_iter().collect())).collect()
    }

    /// Takes in what another says of the same events. Returns by how much each host's count grew.
    pub fn join(&mut self, other: &Folded) -> Vec<(HostId, u64)> {
        debug_assert_eq!(self.key(), other.key());
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        if other.sample < self.sample {
            self.sample = other.sample.clone();
        }
        let mut grown = Vec::new();
        for (host, count) in &other.counts {
            let known = self.counts.entry(*host).or_default();
            if count > known {
                grown.push((*host, count - *known));
                *known = *count;
            }
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(bytes: &[u8]) -> Digest {
        let mut digest = [0; 32];
        bytes.iter().enumerate().for_each(|(n, b)| digest[n % 32] ^= b.rotate_left(n as u32 / 32));
        Digest(digest)
    }

    fn folded() -> impl Strategy<Value = Folded> {
        let counts = proptest::collection::btree_map((0u32..12).prop_map(HostId), 1u64..9, 1..8);
        (counts, 0u64..50, 0u64..50, 0u32..12).prop_map(|(counts, a, b, host)| {
            let sample = Sample {
                at_ms: a,
                host: HostId(host),
                line: String::new(),
                text: String::new(),
                order: None,
            };
            let fact = Fact::new("host.test", Severity::Error, Class::Client, "x", hash);
            Folded {
                window: 1,
                fact: fact.into(),
                sample: sample.into(),
                first_ms: a.min(b),
                last_ms: a.max(b),
                counts,
            }
        })
    }

    fn joined(a: &Folded, b: &Folded) -> Folded {
        let mut sum = a.clone();
        sum.join(b);
        sum
    }

    proptest! {
        #[test]
        fn joining_is_a_semilattice(a in folded(), b in folded(), c in folded()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn what_has_grown_is_the_difference(a in folded(), b in folded()) {
            let mut sum = a.clone();
            let grown: u64 = sum.join(&b).iter().map(|(_, more)| more).sum();
            prop_assert_eq!(sum.total(), a.total() + grown);
            prop_assert!(sum.join(&b).is_empty());
        }

        #[test]
        fn a_line_is_one_line(text in "\\PC*|[a-z \n\t\r\u{1b}]*") {
            let (line, rest) = one_line(&text);
            prop_assert!(!line.chars().any(char::is_control) && line.len() <= LINE_BYTES);
            prop_assert!(rest.len() <= TEXT_BYTES);
            prop_assert!(!line.contains("  ") && line.trim() == line);
        }
    }

    #[test]
    fn several_lines_become_one_and_are_kept() {
        let (line, text) = one_line("tar: a: Cannot open\n  tar: Exiting\r\n\ttwo\n");
        assert_eq!(line, "tar: a: Cannot open tar: Exiting two");
        assert_eq!(text, "tar: a: Cannot open\n  tar: Exiting\n\ttwo");
        assert_eq!(one_line("just one\n"), ("just one".into(), String::new()));
        let long = "é".repeat(LINE_BYTES);
        let (line, text) = one_line(&long);
        assert_eq!((line.len(), text), (LINE_BYTES, long));
    }

    #[test]
    fn what_differs_from_host_to_host_is_not_in_the_signature() {
        let kind = Kind { subject: "host.disk", severity: Severity::Warning, class: Class::Space };
        let at = |name, text| Happening::new(kind, (HostId(1), name), 5, text, hash).fact;
        let a = at("web1", "web1: /srv is 91% full since 12:03:04, see 10.0.0.1");
        assert_eq!(a.like, "*: /srv is *% full since *, see *");
        assert_eq!(a, at("db", "db: /srv is 7% full since 1:00, see 10.9.0.1"));
        assert_ne!(a, at("db", "db: /var is 7% full since 1:00, see 10.9.0.1"));
    }

    #[test]
    fn subjects() {
        for good in ["host", "host.disk-low", "app.a1.b"] {
            assert!(is_subject(good), "{good}");
        }
        for bad in ["", ".", "host.", "Host", "a b", "a.*", "a.>", "a/b", "\u{e9}"] {
            assert!(!is_subject(bad), "{bad}");
        }
        assert!(!is_subject(&"a".repeat(SUBJECT_BYTES + 1)));
    }
}
