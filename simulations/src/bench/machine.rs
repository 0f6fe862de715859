//! On what it was measured.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::proc::field;
use crate::table::{self, Spread};

/// Syncs that are timed.
const SYNCS: usize = 200;

/// Prints the machine, and how fast the disk below `dir` syncs: without that, no time of a program
/// that promises durability means anything.
pub(crate) fn print(dir: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&memory, "MemTotal:").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| tests::show(&output.stdout)).unwrap_or_default();
    let rustc = if rustc.is_empty() { "rustc is absent".into() } else { rustc };
    let syncs = syncs(dir)?;
    let row = |what: &str, is: String| vec![what.to_owned(), is];
    table::heading("The machine");
    table::print(
        &["what", "is"],
        &[
            row("cores", format!("{cores} x {model}")),
            row("memory", format!("{:.1} GiB", memory as f64 / f64::from(1 << 20))),
            row("kernel", kernel.trim().into()),
            row("compiler", rustc.trim().into()),
            row("state folders in", format!("{}, {}", parent(dir), file_system(dir))),
            row(
                "write 4 KiB and fdatasync",
                format!(
                    "p50 {}, p99 {}",
                    table::time(syncs.rank(0.5)),
                    table::time(syncs.rank(0.99))
                ),
            ),
            row("load before", load),
        ],
    );
    Ok(())
}

fn parent(dir: &Path) -> String {
    dir.parent().unwrap_or(dir).display().to_string()
}

fn file_system(dir: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output();
    output.map(|output| tests::show(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn syncs(dir: &Path) -> Result<Spread> {
    let mut file = fs::File::create(dir.join("syncs"))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(Spread::of(times))
}

/// How long something takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}

/// Waits for a process that was just started. None: it has not ended within the limit, and runs on.
pub(crate) fn limited(
    child: &mut Child,
    limit: Duration,
) -> Result<Option<(Duration, ExitStatus)>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some((begun.elapsed(), status)));
        }
        if begun.elapsed() > limit {
            return Ok(None);
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
