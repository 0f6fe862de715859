//! Output that comes in pieces before its answer, made into whole lines.
//!
//! Pieces of one host's stream may be missing, may come twice and may come after the answer. What
//! follows on what is known already is taken, and every line that is whole is given out at once;
//! the answer gives the rest. So each line is given out once, in its order, and none is missing.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::screen::To;

/// What of a stream is known without a gap from its beginning: a count of bytes that were given
/// out, and then the beginning of a line.
#[derive(Default)]
struct Stream {
    given: usize,
    held: Vec<u8>,
}

/// A host that has not answered, by its two streams, or one that has.
enum Host {
    Open { out: Stream, err: Stream },
    Done,
}

/// The output of all hosts of one order, as far as it is known.
#[derive(Default)]
pub(crate) struct Shown(HashMap<String, Host>);

impl Shown {
    /// Takes a piece of a host's output that begins after `offset` bytes of its stream. Returns the
    /// lines that are whole now.
    pub(crate) fn piece(&mut self, host: &str, to: To, offset: u64, data: &[u8]) -> Vec<u8> {
        if !self.0.contains_key(host) {
            self.0.insert(host.to_owned(), Host::new());
        }
        match (self.0.get_mut(host), to) {
            (Some(Host::Open { out, .. }), To::Out) => out.take(offset, data),
            (Some(Host::Open { err, .. }), To::Err) => err.take(offset, data),
            (Some(Host::Done) | None, _) => Vec::new(),
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
        match self.0.insert(host.to_owned(), Host::Done) {
            Some(Host::Open { out, err }) => [out.rest(stdout), err.rest(stderr)],
            Some(Host::Done) | None => [stdout, stderr],
        }
    }

    /// The lines that were begun by hosts that never answered, in the order of their names.
    pub(crate) fn unfinished(&mut self) -> Vec<(String, [Vec<u8>; 2])> {
        let open =
            std::mem::take(&mut self.0).into_iter().filter_map(|(host, state)| match state {
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
    fn take(&mut self, offset: u64, data: &[u8]) -> Vec<u8> {
        let known = (self.given + self.held.len()) as u64;
        let Some(old) = known.checked_sub(offset) else { return Vec::new() };
        let old = usize::try_from(old).unwrap_or(usize::MAX);
        let Some(new) = data.get(old..) else { return Vec::new() };
        let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (whole, begun) = new.split_at(end);
        if whole.is_empty() {
            self.held.extend_from_slice(begun);
            return Vec::new();
        }
        let mut lines = std::mem::replace(&mut self.held, begun.to_vec());
        lines.extend_from_slice(whole);
        self.given += lines.len();
        lines
    }

    /// What the answer has beyond what was given out. One that has less than was heard (the host
    /// was interrupted, or the output was lost) leaves the line that was begun.
    fn rest(self, answer: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        if answer.len() < self.given + self.held.len() {
            return Cow::Owned(self.held);
        }
        match answer {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[self.given..]),
            Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(self.given)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let mut lines = Shown::default();
        let mut piece = |offset, data: &str| {
            text(&lines.piece("a", To::Out, offset, data.as_bytes())).to_owned()
        };
        assert_eq!(piece(0, "on"), "");
        assert_eq!(piece(2, "e\ntwo\nth"), "one\ntwo\n");
        // A new viewer has come: everything again, and on.
        assert_eq!(piece(0, "one\ntwo\nthree\nfo"), "three\n");
        // A piece is missing, and comes later.
        assert_eq!(piece(20, "x\nfive\n"), "");
        assert_eq!(piece(16, "ur"), "");
        assert_eq!(rest(&mut lines, "a", "one\ntwo\nthree\nfour\nfive"), "four\nfive");
        assert!(lines.piece("a", To::Out, 0, b"one\n").is_empty(), "it has answered");
        assert_eq!(rest(&mut lines, "b", "nobody has heard this before\n").len(), 29);
    }

    #[test]
    fn hosts_and_streams_are_kept_apart() {
        let mut lines = Shown::default();
        assert!(lines.piece("a", To::Out, 0, b"a-").is_empty());
        assert!(lines.piece("b", To::Out, 0, b"b-").is_empty());
        assert_eq!(lines.piece("a", To::Err, 0, b"oops\nand"), b"oops\n");
        assert_eq!(lines.piece("b", To::Out, 2, b"out\n"), b"b-out\n");
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
        let mut lines = Shown::default();
        assert_eq!(lines.piece("a", To::Out, 0, b"one\ntw"), b"one\n");
        assert_eq!(rest(&mut lines, "a", ""), "tw");
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
            let mut lines = Shown::default();
            let mut shown = [Vec::new(), Vec::new()];
            for (second, from, length) in pieces {
                let (to, at) = if second { (To::Err, 1) } else { (To::Out, 0) };
                let output = &outputs[at];
                let from = from.min(output.len());
                let piece = &output[from..output.len().min(from + length)];
                let new = lines.piece("h", to, from as u64, piece);
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
