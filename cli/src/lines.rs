//! Output that comes in pieces before its answer, made into whole lines.
//!
//! Pieces of one host's stream may be missing, may come twice and may come after the answer. What
//! follows on what is known already is taken, and every line that is whole is given out at once;
//! the answer gives the rest. So each line is given out once, in its order, and none is missing.
//!
//! Beyond what an answer can keep there is nobody who would fill a gap: there what comes is given
//! out, and it is said how much was left out before it.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::screen::To;

/// The longest line beyond what an answer can keep; a longer one comes in several.
const LINE: usize = 64 << 10;

/// What of a stream is known without a gap from its beginning, or from what was left out of it: up
/// to where it was given out, and then the beginning of a line.
#[derive(Default)]
struct Stream {
    given: u64,
    /// How much before that was left out.
    left_out: u64,
    held: Vec<u8>,
}

/// Whole lines that can be shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The end of a line of which what follows was left out.
    pub(crate) broken: Vec<u8>,
    /// How many bytes were left out there.
    pub(crate) left_out: u64,
    /// The lines.
    pub(crate) whole: Vec<u8>,
}

/// A host that has not answered, by its two streams, or one that has.
enum Host {
    Open { out: Stream, err: Stream },
    Done,
}

/// The output of all hosts of one order, as far as it is known.
pub(crate) struct Shown {
    hosts: HashMap<String, Host>,
    /// How much of each stream an answer keeps.
    limit: u64,
}

impl Shown {
    /// Nothing of an order whose answers keep so much of each stream.
    pub(crate) fn new(limit: u64) -> Shown {
        Shown { hosts: HashMap::new(), limit }
    }

    /// How much of each stream an answer keeps.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes a piece of a host's output that begins after `offset` bytes of its stream. Returns the
    /// lines that are whole now.
    pub(crate) fn piece(&mut self, host: &str, to: To, offset: u64, data: &[u8]) -> Written {
        if !self.hosts.contains_key(host) {
            self.hosts.insert(host.to_owned(), Host::new());
        }
        let limit = self.limit;
        match (self.hosts.get_mut(host), to) {
            (Some(Host::Open { out, .. }), To::Out) => out.take(offset, data, limit),
            (Some(Host::Open { err, .. }), To::Err) => err.take(offset, data, limit),
            (Some(Host::Done) | None, _) => Written::default(),
        }
    }

    /// How much of each stream of a host was given out.
    pub(crate) fn given(&self, host: &str) -> [u64; 2] {
        match self.hosts.get(host) {
            Some(Host::Open { out, err }) => {
                [out, err].map(|stream| stream.given - stream.left_out)
            }
            Some(Host::Done) | None => [0; 2],
        }
    }

    /// A host has answered with this output, of which the rest is returned: what was not given out
    /// before. Pieces that come later count for nothing.
    pub(crate) fn rest<'a>(
        &mut self,
        host: &str,
        stdout: Cow<'a, [u8]>,
        stderr: Cow<'a, [u8]>,
    ) -> [Cow<'a, [u8]>; 2] {
        match self.hosts.insert(host.to_owned(), Host::Done) {
            Some(Host::Open { out, err }) => [out.rest(stdout), err.rest(stderr)],
            Some(Host::Done) | None => [stdout, stderr],
        }
    }

    /// The lines that were begun by hosts that never answered, in the order of their names.
    pub(crate) fn unfinished(&mut self) -> Vec<(String, [Vec<u8>; 2])> {
        let open =
            std::mem::take(&mut self.hosts).into_iter().filter_map(|(host, state)| match state {
                Host::Open { out, err } => Some((host, [out.held, err.held])),
                Host::Done => None,
            });
        let mut open: Vec<_> = open.collect();
        open.sort_by(|(a, _), (b, _)| controller::sets::natural_cmp(a, b));
        open
    }
}

impl Host {
    fn new() -> Host {
        Host::Open { out: Stream::default(), err: Stream::default() }
    }
}

impl Stream {
    fn take(&mut self, offset: u64, data: &[u8], limit: u64) -> Written {
        let known = self.given + self.held.len() as u64;
        let mut lines = Written::default();
        let Some(old) = known.checked_sub(offset) else {
            // A gap. It is filled later, unless it is beyond all that is kept.
            if known >= limit && !data.is_empty() {
                lines.left_out = offset - known;
                lines.broken = self.skip_to(offset);
                lines.whole = self.follow(data, limit);
            }
            return lines;
        };
        let new = usize::try_from(old).ok().and_then(|old| data.get(old..));
        lines.whole = self.follow(new.unwrap_or_default(), limit);
        lines
    }

    /// Leaves out what comes before this offset. Returns the line that was begun.
    fn skip_to(&mut self, offset: u64) -> Vec<u8> {
        let begun = std::mem::take(&mut self.held);
        self.left_out += offset - self.given - begun.len() as u64;
        self.given = offset;
        begun
    }

    /// Takes what follows on what is known.
    fn follow(&mut self, new: &[u8], limit: u64) -> Vec<u8> {
        let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (whole, begun) = new.split_at(end);
        let mut lines = Vec::new();
        if !whole.is_empty() {
            lines = std::mem::take(&mut self.held);
            lines.extend_from_slice(whole);
        }
        self.held.extend_from_slice(begun);
        self.given += lines.len() as u64;
        let known = self.given + self.held.len() as u64;
        if self.held.len() > LINE && known > limit {
            self.given = known;
            lines.append(&mut self.held);
        }
        lines
    }

    /// What the answer has beyond what was given out. One that has less than was heard (the host
    /// was interrupted, or the output was lost) leaves the line that was begun.
    fn rest(self, answer: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        let given = usize::try_from(self.given).unwrap_or(usize::MAX);
        if answer.len() < given.saturating_add(self.held.len()) {
            return Cow::Owned(self.held);
        }
        match answer {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[given..]),
            Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(given)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::OUTPUT_LIMIT;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("plain text")
    }

    fn rest(lines: &mut Shown, host: &str, stdout: &str) -> String {
        let [out, err] = lines.rest(host, stdout.as_bytes().into(), b"".as_slice().into());
        assert_eq!(text(&err), "");
        text(&out).to_owned()
    }

    #[test]
    fn lines_come_when_they_are_whole_and_the_answer_brings_the_rest() {
        let mut lines = Shown::new(OUTPUT_LIMIT);
        let mut piece = |offset, data: &str| {
            text(&lines.piece("a", To::Out, offset, data.as_bytes()).whole).to_owned()
        };
        assert_eq!(piece(0, "on"), "");
        assert_eq!(piece(2, "e\ntwo\nth"), "one\ntwo\n");
        // A new viewer has come: everything again, and on.
        assert_eq!(piece(0, "one\ntwo\nthree\nfo"), "three\n");
        // A piece is missing, and comes later.
        assert_eq!(piece(20, "x\nfive\n"), "");
        assert_eq!(piece(16, "ur"), "");
        assert_eq!(rest(&mut lines, "a", "one\ntwo\nthree\nfour\nfive"), "four\nfive");
        assert_eq!(lines.piece("a", To::Out, 0, b"one\n"), Written::default(), "it has answered");
        assert_eq!(rest(&mut lines, "b", "nobody has heard this before\n").len(), 29);
    }

    #[test]
    fn hosts_and_streams_are_kept_apart() {
        let mut lines = Shown::new(OUTPUT_LIMIT);
        assert_eq!(lines.piece("a", To::Out, 0, b"a-"), Written::default());
        assert_eq!(lines.piece("b", To::Out, 0, b"b-"), Written::default());
        assert_eq!(lines.piece("a", To::Err, 0, b"oops\nand").whole, b"oops\n");
        assert_eq!(lines.piece("b", To::Out, 2, b"out\n").whole, b"b-out\n");
        let [out, err] = lines.rest("a", b"a-out\n"[..].into(), b"oops\nand more\n"[..].into());
        assert_eq!((text(&out), text(&err)), ("a-out\n", "and more\n"));
        lines.piece("c10", To::Out, 0, b"half");
        lines.piece("c9", To::Err, 0, b"oh");
        let left: Vec<_> = lines.unfinished();
        let [b, c9, c10] = left.as_slice() else { panic!("{left:?}") };
        assert_eq!((b.0.as_str(), text(&b.1[0])), ("b", ""));
        assert_eq!((c9.0.as_str(), text(&c9.1[1])), ("c9", "oh"));
        assert_eq!((c10.0.as_str(), text(&c10.1[0])), ("c10", "half"));
    }

    #[test]
    fn an_answer_with_less_than_was_heard_takes_nothing_back() {
        let mut lines = Shown::new(OUTPUT_LIMIT);
        assert_eq!(lines.piece("a", To::Out, 0, b"one\ntw").whole, b"one\n");
        assert_eq!(rest(&mut lines, "a", ""), "tw");
    }

    #[test]
    fn beyond_what_is_kept_lines_go_on_and_what_is_left_out_is_counted() {
        let mut lines = Shown::new(OUTPUT_LIMIT);
        let mut piece = |offset, data: &[u8]| lines.piece("a", To::Out, offset, data);
        let kept = vec![b'\n'; OUTPUT_LIMIT as usize];
        assert_eq!(piece(OUTPUT_LIMIT + 9, b"x\n"), Written::default(), "the beginning may come");
        assert_eq!(piece(0, &kept).whole.len(), kept.len());
        let whole = |text: &[u8]| Written { whole: text.into(), ..Written::default() };
        assert_eq!(piece(OUTPUT_LIMIT, b"one\ntw"), whole(b"one\n"));
        assert_eq!(piece(OUTPUT_LIMIT + 6, b"o\nthr"), whole(b"two\n"));
        let next = Written { broken: b"thr".into(), left_out: 89, whole: b"far\n".into() };
        assert_eq!(piece(OUTPUT_LIMIT + 100, b"far\non"), next);
        // Told again from the beginning.
        assert_eq!(piece(0, &kept), Written::default());
        assert_eq!(piece(OUTPUT_LIMIT + 104, b"on and o"), Written::default());
        assert_eq!(piece(OUTPUT_LIMIT + 112, b"n\n"), whole(b"on and on\n"));
        let all = OUTPUT_LIMIT + 114;
        assert_eq!(lines.given("a"), [all - 89, 0]);
        let [out, _] = lines.rest("a", kept[..].into(), b"".as_slice().into());
        assert_eq!(text(&out), "");
    }

    #[test]
    fn an_answer_that_keeps_little_leaves_no_silence_after_it() {
        for limit in [0, 4] {
            let mut lines = Shown::new(limit);
            let mut piece = |offset, data: &[u8]| lines.piece("a", To::Out, offset, data);
            if limit > 0 {
                assert_eq!(piece(0, b"one\n").whole, b"one\n");
            }
            let next = Written { broken: Vec::new(), left_out: 100, whole: b"far\n".into() };
            assert_eq!(piece(limit + 100, b"far\non"), next, "of {limit}");
            let next = Written { broken: b"on".into(), left_out: 10, whole: b"end\n".into() };
            assert_eq!(piece(limit + 116, b"end\n"), next, "of {limit}");
            let answer = &b"one\n"[..usize::try_from(limit).expect("small")];
            let [out, _] = lines.rest("a", answer.into(), b"".as_slice().into());
            assert_eq!(text(&out), "");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_waited_for_for_ever() {
        let mut lines = Shown::new(OUTPUT_LIMIT);
        let (mut given, piece) = (0, vec![b'x'; 16 << 10]);
        for n in 0..100 {
            let offset = (n * piece.len()) as u64;
            given += lines.piece("a", To::Out, offset, &piece).whole.len();
        }
        assert!(100 * piece.len() - given <= LINE + piece.len(), "{given}");
        assert_eq!(lines.piece("a", To::Out, u64::MAX - 1, b"x").whole, b"");
    }

    /// Output of short lines, some of them empty and the last perhaps not ended.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![1 => Just(b'\n'), 3 => any::<u8>()];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn each_line_comes_once_and_whole_whatever_is_lost_or_comes_again(
            outputs in [output(), output()],
            pieces in proptest::collection::vec((any::<bool>(), 0usize..200, 1usize..60), 0..60),
        ) {
            let mut lines = Shown::new(OUTPUT_LIMIT);
            let mut shown = [Vec::new(), Vec::new()];
            for (second, from, length) in pieces {
                let (to, at) = if second { (To::Err, 1) } else { (To::Out, 0) };
                let output = &outputs[at];
                let from = from.min(output.len());
                let piece = &output[from..output.len().min(from + length)];
                let written = lines.piece("h", to, from as u64, piece);
                let Written { broken, left_out, whole: new } = written;
                prop_assert!(broken.is_empty() && left_out == 0);
                prop_assert!(new.last().is_none_or(|last| *last == b'\n'));
                shown[at].extend(new);
                prop_assert!(output.starts_with(&shown[at]));
            }
            let [out, err] = &outputs;
            let rest = lines.rest("h", out.as_slice().into(), err.as_slice().into());
            for ((output, shown), rest) in outputs.iter().zip(&shown).zip(&rest) {
                prop_assert_eq!(&[shown.as_slice(), rest].concat(), output);
            }
        }
    }
}
