//! Sets against ClusterShell, whose language this is: what it writes is read alike, and what is
//! written here it reads alike, is not longer, and is the same text where there is one number only.
//!
//! Needs Python with the package ClusterShell: `python3`, or the one that BARID_CLUSTERSHELL names.
//! Without it nothing is compared, and the test says so.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use controller::sets::{expand, fold};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Reads a set a line, and writes its names and the set folded, with a tab between them.
const SCRIPT: &str = "
import sys
from ClusterShell.NodeSet import NodeSet
for line in sys.stdin:
    nodes = NodeSet(line.strip())
    print(' '.join(nodes), nodes, sep='\\t')
";

fn python() -> String {
    std::env::var("BARID_CLUSTERSHELL").unwrap_or_else(|_| "python3".into())
}

/// What ClusterShell makes of each text: the names, and the folded set.
fn ask(texts: &[String]) -> Vec<(BTreeSet<String>, String)> {
    let mut child = Command::new(python())
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python has run before");
    let mut stdin = child.stdin.take().expect("it is piped");
    let lines = texts.join("\n");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(output.status.success());
    let answer = String::from_utf8(output.stdout).expect("text");
    let answers: Vec<_> = answer
        .lines()
        .map(|line| {
            let (names, set) = line.split_once('\t').expect("a tab");
            (names.split_whitespace().map(str::to_owned).collect(), set.to_owned())
        })
        .collect();
    assert_eq!(answers.len(), texts.len());
    answers
}

fn is_there() -> bool {
    let import = Command::new(python()).args(["-c", "import ClusterShell"]).output();
    let there = import.is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: {} has no ClusterShell (pip install clustershell)", python());
    }
    there
}

fn some<T>(count: usize, strategy: &impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).expect("a value").current();
    (0..count).map(|_| next()).collect()
}

/// Sets of names with one number each, and with several.
fn names(name: &'static str) -> impl Strategy<Value = BTreeSet<String>> {
    let name = name.prop_filter("a name has letters", |name| !name.is_empty());
    prop::collection::btree_set(name, 1..40)
}

#[test]
fn one_number_folds_to_the_same_text() {
    if !is_there() {
        return;
    }
    let lists =
        some(1_500, &names("(n|web|db-)(0{0,2}[0-9]|[0-9]{1,2}|0?[1-9][0-9]{2}|[1-3])(|-ib)"));
    let texts: Vec<String> = lists.iter().map(list).collect();
    for (names, (_, theirs)) in lists.iter().zip(ask(&texts)) {
        assert_eq!(fold(names), theirs, "{names:?}");
    }
}

#[test]
fn several_numbers_fold_to_the_same_set_and_no_longer_text() {
    if !is_there() {
        return;
    }
    let mut lists = some(700, &names("r[1-4]n0?[1-6]"));
    lists.extend(some(700, &names("s[12]-r[1-3]-n0[1-4](|-ib)")));
    let texts: Vec<String> = lists.iter().map(list).collect();
    let theirs = ask(&texts);
    let ours: Vec<String> = lists.iter().map(fold).collect();
    let read = ask(&ours);
    let (mut sum, mut their_sum, mut equal) = (0, 0, 0);
    for (i, names) in lists.iter().enumerate() {
        assert_eq!(&read[i].0, names, "{}", ours[i]);
        let back: BTreeSet<String> = expand(&theirs[i].1).expect("a set").into_iter().collect();
        assert_eq!(&back, names, "{}", theirs[i].1);
        (sum, their_sum) = (sum + ours[i].len(), their_sum + theirs[i].1.len());
        equal += usize::from(ours[i] == theirs[i].1);
    }
    println!("{} sets: {equal} equal, {sum} bytes against {their_sum}", lists.len());
    assert!(sum <= their_sum, "{sum} bytes against {their_sum}");
}

#[test]
fn operators_mean_the_same() {
    if !is_there() {
        return;
    }
    let term = "(n\\[[1-4]-[5-9]\\]|n\\[0[1-4]-0[5-9]/[1-3]\\]|n[1-9]|m\\[1-3,7\\]x\\[[12]-3\\])";
    let text = format!("{term}([,!&^]{term}){{0,6}}");
    let texts = some(1_500, &proptest::string::string_regex(&text).expect("a regular expression"));
    for (text, (theirs, _)) in texts.iter().zip(ask(&texts)) {
        let ours: BTreeSet<String> = expand(text).expect("a set").into_iter().collect();
        assert_eq!(ours, theirs, "{text}");
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}
