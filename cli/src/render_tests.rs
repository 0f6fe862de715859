//! Tests of `render`.

use super::*;
use crate::gathered::testing::answer;
use crate::screen::testing::screen;

pub(crate) fn order(targets: &str) -> OrderInfo {
    OrderInfo {
        stopped: None,
        retries: None,
        id: "7".repeat(32),
        short: "7k3q".into(),
        kind: "run".into(),
        what: "uname -r".into(),
        targets: targets.into(),
        count: sets::expand(targets).expect("a set").len() as u64,
        issued_ms: 0,
        closed_ms: 0,
        states: BTreeMap::new(),
        cancels: None,
        push: None,
        stage: None,
        stays_until_ms: 0,
        output_limit: None,
        given_by: None,
        by: String::new(),
        superseded: Vec::new(),
    }
}

fn check(view: &View, answers: &[Answer], out: &str, err: &str) {
    let mut all = Gathered::default();
    for answer in answers {
        all.add(answer.clone());
    }
    let (mut screen, stdout, stderr) = screen(false);
    gathered(&mut screen, view, &order("n[1-9]"), &all).expect("written");
    assert_eq!((stdout.text().as_str(), stderr.text().as_str()), (out, err));
}

fn gather() -> View {
    View { gather: true, ..View::default() }
}

#[test]
fn gathers_as_clush_does() {
    let mut noisy = answer("n9", "ok", None, "x\n");
    noisy.stderr = "oops".into();
    let answers = [
        answer("n5", "failed", Some(3), ""),
        answer("n1", "ok", None, "a\nb\n"),
        answer("n[3-4,2]", "ok", None, "a\nc"),
        noisy,
    ];
    let rule = "---------------\n";
    let out = format!("{rule}n[2-4] (3)\n{rule}a\nc\n{rule}n1\n{rule}a\nb\n{rule}n9\n{rule}x\n");
    check(&gather(), &answers, &out, "n9: oops\nbarid: n5: exited with 3\n");
    let merged = out.clone() + "oops\n";
    check(&View { merge: true, ..gather() }, &answers, &merged, "barid: n5: exited with 3\n");
    let bare = "a\nc\na\nb\nx\n";
    let view = View { unlabelled: true, ..gather() };
    check(&view, &answers, bare, "oops\nbarid: n5: exited with 3\n");
}

#[test]
fn equal_output_of_unequal_states_stays_apart() {
    let answers = [answer("n[1-2]", "ok", None, "a"), answer("n3", "failed", Some(1), "a")];
    let rule = "---------------\n";
    let out = format!("{rule}n[1-2] (2)\n{rule}a\n{rule}n3\n{rule}a\n");
    check(&gather(), &answers, &out, "barid: n3: exited with 1\n");
}

#[test]
fn by_host_and_by_line() {
    let answers = [answer("n[1,3]", "ok", None, "a\nb\n"), answer("n2", "ok", None, "a\nc")];
    let view = View { gather: false, lines: true, ..gather() };
    check(&view, &answers, "n1: a\nn1: b\nn2: a\nn2: c\nn3: a\nn3: b\n", "");
    let view = View { lines: true, ..gather() };
    check(&view, &answers, "n[1-3]: a\nn[1,3]: b\nn2: c\n", "");
}

#[test]
fn failures_are_folded_with_their_remedy() {
    let answers = [
        answer("n[1-3]", "timed-out", None, ""),
        Answer { stdout_size: 9, ..answer("n4", "ok", None, "abcd\n") },
        answer("n[5-6]", "relay-lost", None, ""),
    ];
    let out = "---------------\nn4\n---------------\nabcd\n";
    let err = "barid: n4: stdout was cut: 5 B of 9 B are shown\n\
        barid: n[1-3] (3): timed out and was killed\n  \
        help: `barid retry 7k3q --state timeout -u TIME` gives it more time\n\
        barid: n[5-6] (2): the way to it was lost; what became of it is not known yet\n  \
        help: a later answer replaces this: `barid runs show 7k3q`\n";
    check(&gather(), &answers, out, err);
}

#[test]
fn live_lines_have_names_and_say_only_what_is_certain() {
    let (mut screen, out, err) = screen(false);
    let noisy = Answer { stderr: "no\n".into(), ..answer("n1", "failed", Some(3), "a\nb") };
    let mut shown = Shown::new(9);
    live(&mut screen, &View::default(), &mut shown, "x", (&noisy, &["n1".into()]))
        .expect("written");
    let lost = answer("n2", "not-reached", None, "");
    live(&mut screen, &View::default(), &mut shown, "x", (&lost, &["n2".into()])).expect("written");
    assert_eq!(out.text(), "n1: a\nn1: b\n");
    assert_eq!(err.text(), "n1: no\nbarid: n1: exited with 3\n");
    let mut all = Gathered::default();
    all.add(noisy);
    all.add(lost);
    unheard(&mut screen, &View::default(), &order("n[1-2]"), &all).expect("written");
    assert!(err.text().contains("barid: n2: not reached in time\n"), "{}", err.text());
    assert_eq!(exit(&all, false), Exit::Failed);
    assert_eq!(exit(&all, true), Exit::Remote(3));
}

#[test]
fn the_last_line() {
    let mut all = Gathered::default();
    all.add(answer("n[1-6]", "ok", None, "a"));
    all.add(answer("n7", "timed-out", None, ""));
    let took = Duration::from_millis(2_100);
    assert_eq!(
        summary(&order("n[1-7]"), &all, took),
        "run 7k3q  7 targets: 6 ok, 1 timed-out (n7)  2.1 s"
    );
    assert_eq!(
        summary(&order("n[1-9]"), &all, took),
        "run 7k3q  9 targets: 6 ok, 2 pending (n[8-9]), 1 timed-out (n7)  2.1 s"
    );
    assert_eq!(pending(&order("n[1-9]"), &all), ["n8", "n9"]);
}

#[test]
fn long_sets_are_cut_within_a_sentence() {
    let names: Vec<String> = (0..100).map(|i| format!("{}-x", "a".repeat(i + 1))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(short_fold(&names).len(), SET_IN_LINE + 3);
}

#[test]
fn tables_are_aligned() {
    let rows = [vec!["a".to_string(), "long".to_string()], vec!["bcd".into(), String::new()]];
    assert_eq!(table(&["X", "YY"], &rows), "X    YY\na    long\nbcd\n");
}

/// The whole way of a large run, well below what a person notices even when unoptimised.
#[test]
fn fifty_thousand_hosts_gather_quickly() {
    let began = std::time::Instant::now();
    let mut all = Gathered::default();
    for site in 0..50 {
        let mut answer = answer("n1", "ok", None, "5.14.0-503\n");
        answer.hosts = (0..1_000).map(|i| format!("site{site}-host{i:04}")).collect();
        all.add(answer);
    }
    let (mut screen, out, _) = screen(false);
    gathered(&mut screen, &gather(), &order("n1"), &all).expect("written");
    assert!(out.text().contains("(50000)"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn groups_stand_above_their_output() {
    let group = |name: &str, set: &str| SetGroup {
        name: name.into(),
        hosts: sets::expand(set).expect("a set"),
    };
    let groups = [group("@odd", "n[1,3,5]"), group("@all", "n[1-9]")].into();
    let view = View { regroup: true, groups, ..gather() };
    let answers = [
        answer("n[1-3,5]", "ok", None, "a\n"),
        answer("n4", "ok", None, "b\n"),
        answer("n[6-9]", "failed", Some(1), ""),
    ];
    let rule = "---------------\n";
    let out = format!("{rule}@odd,n2 (4)\n{rule}a\n{rule}n4\n{rule}b\n");
    check(&view, &answers, &out, "barid: n[6-9] (4): exited with 1\n");
}
