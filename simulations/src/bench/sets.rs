//! Sets of names: how long `barid nodes` takes, as a whole process, beside ClusterShell's
//! `nodeset` where it is installed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::table;

/// How often each step is done; the least time counts, since noise only adds.
const TURNS: usize = 7;
/// Names that a step must keep short for: CLI.md's table of promises.
const IRREGULAR: u64 = 10_000;

/// A question to both programs: their words for it, and what they read.
struct Step {
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    set: String,
    promised: &'static str,
}

/// Measures, and prints a table with what was promised beside it.
pub(crate) fn measure(barid: &Path) -> Result<()> {
    let irregular: Vec<String> = irregular(IRREGULAR).collect();
    let regular: Vec<String> = (1..=100_000).map(|i| format!("node{i:06}")).collect();
    let folded = ask(barid, &["nodes", "fold", "-"], &irregular.join("\n"))?.1;
    let step = |what, ours, theirs, set, promised| Step { what, ours, theirs, set, promised };
    let operators = "n[1-100000]!n[1-100000/3]&n[5000-200000]^n[90000-110000]".to_owned();
    let steps = [
        step("fold 10,000 irregular", "fold", "-f", irregular.join("\n"), "50 ms"),
        step("expand 10,000 irregular", "expand", "-e", folded, "50 ms"),
        step("count after 4 operators on 100,000", "count", "-c", operators, "100 ms"),
        step("fold 100,000 of one kind", "fold", "-f", regular.join("\n"), ""),
        step("expand 100,000 of 3 numbers", "expand", "-e", "a[1-4]r[01-50]n[001-500]".into(), ""),
        step("start and end", "count", "-c", "n1".into(), ""),
    ];
    let nodeset = Path::new("nodeset");
    let has_nodeset = Command::new(nodeset).arg("--version").output().is_ok();
    let mut rows = Vec::new();
    for Step { what, ours, theirs, set, promised } in steps {
        let time = least(|| ask(barid, &["nodes", ours, "-"], &set).map(|(time, _)| time))?;
        let other = match has_nodeset {
            true => {
                let time = least(|| ask(nodeset, &[theirs], &set).map(|(time, _)| time));
                time.map_or_else(|_| "refuses it".into(), table::time)
            }
            false => "not installed".into(),
        };
        rows.push(vec![what.into(), table::time(time), promised.into(), other]);
    }
    table::heading("Sets of names: whole processes, the least of 7");
    table::print(&["step", "barid nodes", "promised", "nodeset"], &rows);
    Ok(())
}

/// Names with three numbers each and no pattern in them.
fn irregular(count: u64) -> impl Iterator<Item = String> {
    let number = |i: u64| i * i * 7919 % 1_000_003;
    (0..count).map(move |i| format!("r{}-n{i:04}-x{}", number(i) % 97, number(i + 1) % 7))
}

/// How long a program takes that is given a set, and what it says.
fn ask(program: &Path, args: &[&str], set: &str) -> Result<(Duration, String)> {
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    let mut stdin = child.stdin.take().context("it is piped")?;
    let set = set.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(set.as_bytes()));
    let output = child.wait_with_output()?;
    let time = began.elapsed();
    writer.join().ok().context("the writer")??;
    ensure!(output.status.success(), "{}: {}", program.display(), output.status);
    Ok((time, String::from_utf8(output.stdout)?))
}

fn least(mut step: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let times = (0..TURNS).map(|_| step()).collect::<Result<Vec<_>>>()?;
    times.into_iter().min().context("there are turns")
}
