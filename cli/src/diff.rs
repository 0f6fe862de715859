//! `--diff`: how answers differ from the one that most have given.
//!
//! The answer that others are compared with is clush's: of those with the smallest exit code the
//! one that most hosts have given. What is shown is bounded, in time as well: answers that have
//! little in common are compared roughly, as if more had changed than has.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use controller::types::Answer;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};

use crate::gathered::{Group, join};
use crate::render::{View, text_of};
use crate::screen::{Screen, To};
use crate::units::show_count;

/// How many lines around a change are shown.
const CONTEXT: usize = 3;
/// How many lines of one difference are shown.
const LINES_SHOWN: usize = 1_000;
/// How many other answers are compared.
const ANSWERS_SHOWN: usize = 200;
/// How long all comparisons may take before they become rough.
pub(crate) const TIME: Duration = Duration::from_secs(3);

/// Shows the differences, the most frequent first.
pub(crate) fn show(screen: &mut Screen, view: &View, groups: &[Group<'_>]) -> io::Result<()> {
    // Who has said nothing because it was never asked, or did not end, is told of elsewhere.
    let has_said = |group: &&Group<'_>| {
        let ended = ["ok", "failed", "signalled"].contains(&group.answer.state.as_str());
        ended || !text_of(view, group.answer).is_empty()
    };
    let said: Vec<Group<'_>> = groups.iter().filter(has_said).map(Group::clone).collect();
    let mut codes: HashMap<Cow<'_, [u8]>, i32> = HashMap::new();
    for group in &said {
        let least = codes.entry(text_of(view, group.answer)).or_insert(i32::MAX);
        *least = code(group.answer).min(*least);
    }
    // `join` puts the largest first, and of equals the first is the least.
    let texts = join(&said, |answer| text_of(view, answer));
    let Some(at) = (0..texts.len()).min_by_key(|at| codes[&texts[*at].0]) else { return Ok(()) };
    let (reference, majority) = &texts[at];
    let others: Vec<_> = texts.iter().enumerate().filter(|(i, _)| *i != at).collect();
    if others.is_empty() {
        let count = majority.hosts.len() as u64;
        return screen.say(&format!("all {} answers are equal", show_count(count)));
    }
    let until = Instant::now() + TIME;
    for (_, (text, group)) in others.iter().take(ANSWERS_SHOWN) {
        screen.label(To::Out, &format!("--- {}\n", view.counted(&majority.hosts)))?;
        screen.label(To::Out, &format!("+++ {}\n", view.counted(&group.hosts)))?;
        let (lines, more) = unified(reference, text, until);
        screen.remote(To::Out, &lines)?;
        if more > 0 {
            let more = show_count(more as u64);
            screen.label(To::Out, &format!("... {more} more lines of this difference\n"))?;
        }
    }
    if let Some(more) = others.len().checked_sub(ANSWERS_SHOWN).filter(|more| *more > 0) {
        screen.warn(&format!("{} more answers differ: -b shows them", show_count(more as u64)))?;
    }
    screen.flush()
}

/// The exit code as a shell shows it; whoever did not end by itself comes last.
fn code(answer: &Answer) -> i32 {
    match answer.state.as_str() {
        "ok" => 0,
        "failed" => answer.code.unwrap_or(1),
        "signalled" => answer.code.unwrap_or(0).saturating_add(128),
        _ => i32::MAX,
    }
}

/// The difference between two texts whose lines all end, in the unified format, and how many lines
/// of it were left out.
pub(crate) fn unified(old: &[u8], new: &[u8], until: Instant) -> (Vec<u8>, usize) {
    let lines = |text: &'_ [u8]| -> Vec<Vec<u8>> {
        text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
    };
    let (old, new) = (lines(old), lines(new));
    let changes = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(until));
    let mut shown: Vec<Vec<u8>> = Vec::new();
    for hunk in group_diff_ops(changes, CONTEXT) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let from = span(first.old_range().start, last.old_range().end);
        let to = span(first.new_range().start, last.new_range().end);
        shown.push(format!("@@ -{from} +{to} @@\n").into_bytes());
        for change in hunk {
            let (gone, come) = (&old[change.old_range()], &new[change.new_range()]);
            let sign = |sign: &[u8], line: &Vec<u8>| [sign, line].concat();
            match change {
                DiffOp::Equal { .. } => shown.extend(gone.iter().map(|line| sign(b" ", line))),
                _ => {
                    shown.extend(gone.iter().map(|line| sign(b"-", line)));
                    shown.extend(come.iter().map(|line| sign(b"+", line)));
                }
            }
        }
    }
    let more = shown.len().saturating_sub(LINES_SHOWN);
    shown.truncate(LINES_SHOWN);
    (shown.concat(), more)
}

/// A range of lines as the unified format writes it.
fn span(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        count => format!("{},{count}", start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::Gathered;
    use crate::gathered::testing::answer;
    use crate::screen::testing;

    fn shown(answers: &[(&str, &str, Option<i32>, &str)]) -> (String, String) {
        let mut gathered = Gathered::default();
        for (hosts, state, code, text) in answers {
            gathered.add(answer(hosts, state, *code, text));
        }
        let (mut screen, out, err) = testing::screen(false);
        let view = View { diff: true, ..View::default() };
        show(&mut screen, &view, &gathered.groups()).expect("written");
        (out.text(), err.text())
    }

    #[test]
    fn others_are_compared_with_the_majority() {
        let (out, err) = shown(&[
            ("n[1-5]", "ok", None, "a\nb\nc\n"),
            ("n6", "ok", None, "a\nx\nc"),
            ("n[7-8]", "ok", None, "a\nb\n"),
            ("n9", "not-reached", None, ""),
        ]);
        assert_eq!(
            out,
            "--- n[1-5] (5)\n+++ n[7-8] (2)\n@@ -1,3 +1,2 @@\n a\n b\n-c\n\
             --- n[1-5] (5)\n+++ n6\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"
        );
        assert_eq!(err, "");
    }

    #[test]
    fn the_smallest_code_decides_before_the_number_of_hosts() {
        let (out, _) = shown(&[("n[1-5]", "failed", Some(2), "no\n"), ("n6", "ok", None, "yes\n")]);
        assert!(out.starts_with("--- n6\n+++ n[1-5] (5)\n@@ -1 +1 @@\n-yes\n+no\n"), "{out}");
        let (out, _) = shown(&[("n[1-5]", "timed-out", None, "no\n"), ("n6", "ok", None, "")]);
        assert!(out.starts_with("--- n6\n+++ n[1-5] (5)\n@@ -0,0 +1 @@\n+no\n"), "{out}");
    }

    #[test]
    fn equal_answers_are_said_to_be() {
        let (out, err) = shown(&[("n[1-3]", "ok", None, "a\n"), ("n4", "failed", Some(1), "a")]);
        assert_eq!((out.as_str(), err.as_str()), ("", "barid: all 4 answers are equal\n"));
        assert_eq!(shown(&[]), (String::new(), String::new()));
    }

    #[test]
    fn long_differences_are_cut_and_counted() {
        let text = |word: &str| (0..3_000).map(|i| format!("{word}{i}\n")).collect::<String>();
        let (a, b) = (text("a"), text("b"));
        let (lines, more) = unified(a.as_bytes(), b.as_bytes(), Instant::now() + TIME);
        assert_eq!(lines.iter().filter(|b| **b == b'\n').count(), LINES_SHOWN);
        assert_eq!(more, 6_001 - LINES_SHOWN);
        let from_nothing = unified(b"", b"a\n", Instant::now() + TIME).0;
        assert_eq!(String::from_utf8_lossy(&from_nothing), "@@ -0,0 +1 @@\n+a\n");
    }
}
