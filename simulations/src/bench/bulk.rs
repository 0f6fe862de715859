//! A hundred thousand small files, and one large one, to a host behind a relay: files and bytes a
//! second, and what each node needs for them.
//!
//! rsync beside it copies the same on this machine, from folder to folder without a network; it
//! syncs nothing. Barid's times are from the request to the line that closes the order: the source
//! is read and hashed, packed, sent, checked, written and synced.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::fleet::{Bench, host, relay};
use crate::machine::timed;
use crate::proc::{self, Usage};
use crate::{push, ssh, table};

const FOLDERS: usize = 1_000;
const FILES: usize = 100;
/// Bytes of a small file.
const SMALL: usize = 1_000;
const SEED: u64 = 20_261_126;
/// What has been left alone for so long is remembered once it was read, as most of what is pushed
/// anywhere would be, at the controller as at the host that was given it.
const SETTLES: Duration = Duration::from_secs(4);
/// Noise is made in pieces of this size.
const PIECE: usize = 1 << 20;

/// One push, or the copy beside it.
struct Row {
    what: String,
    files: usize,
    bytes: u64,
    took: Duration,
    /// Of the controller, the relay and the host; nothing of a copy.
    nodes: Vec<(Usage, u64)>,
    /// rsync from folder to folder.
    rsync: Option<Duration>,
}

/// Measures both; the large file has so many MiB.
pub(crate) fn measure(barid: &Path, work: &Path, mib: usize) -> Result<()> {
    let mut rows = Vec::new();
    let small = work.join("small");
    small_files(&small)?;
    let (files, bytes) = (FOLDERS * FILES, (FOLDERS * FILES * SMALL) as u64);
    let copy = work.join("copy");
    {
        let mut bench = Bench::start(barid, &[1])?;
        for what in ["small files", "the same again", "and again"] {
            sleep(SETTLES);
            rows.push(Row {
                rsync: rsync(&small, &copy)?,
                ..pushed(&mut bench, what, &small, (files, bytes))?
            });
        }
    }
    fs::remove_dir_all(&small)?;
    fs::remove_dir_all(&copy).ok();
    let large = work.join("large");
    large_file(&large, mib)?;
    let bytes = (mib as u64) << 20;
    let mut bench = Bench::start(barid, &[1])?;
    for what in ["one large file", "the same again"] {
        sleep(SETTLES);
        rows.push(Row {
            rsync: rsync(&large, &copy)?,
            ..pushed(&mut bench, what, &large, (1, bytes))?
        });
    }
    show(&rows);
    Ok(())
}

fn show(rows: &[Row]) {
    table::heading("Many files and one large one, to a host behind a relay, over loopback");
    let head = ["push", "files", "bytes", "took", "files/s", "MB/s", "rsync here", "/ rsync"];
    let cells = rows.iter().map(|row| {
        let seconds = row.took.as_secs_f64();
        vec![
            row.what.clone(),
            row.files.to_string(),
            table::bytes(row.bytes),
            table::time(row.took),
            format!("{:.0}", row.files as f64 / seconds),
            format!("{:.0}", row.bytes as f64 / 1e6 / seconds),
            row.rsync.map_or("-".into(), table::time),
            row.rsync.map_or("-".into(), |rsync| table::ratio(seconds, rsync.as_secs_f64())),
        ]
    });
    table::print(&head, &cells.collect::<Vec<_>>());
    println!("\nProcessor time, the same for each GB, and the most memory since the start:\n");
    let mut head = vec!["push"];
    for node in ["controller", "relay", "host"] {
        head.extend([node, "s/GB", "memory"]);
    }
    let cells = rows.iter().map(|row| {
        let gigabytes = row.bytes as f64 / 1e9;
        let node = |(usage, memory): &(Usage, u64)| {
            let own = usage.own;
            let share = format!("{:.2}", own.as_secs_f64() / gigabytes);
            [table::time(own), share, table::memory(*memory)]
        };
        let mut cells = vec![row.what.clone()];
        cells.extend(row.nodes.iter().flat_map(node));
        cells
    });
    table::print(&head, &cells.collect::<Vec<_>>());
}

fn pushed(
    bench: &mut Bench,
    what: &str,
    source: &Path,
    (files, bytes): (usize, u64),
) -> Result<Row> {
    let names = ["controller".to_owned(), relay(1), host(1, 1)];
    let pids = names.iter().map(|name| bench.fleet.pid(name)).collect::<Result<Vec<_>>>()?;
    let usage = || pids.iter().map(|pid| Usage::of(*pid)).collect::<Result<Vec<_>>>();
    let before = usage()?;
    let (took, ()) = timed(|| push::deliver(bench, source, &json!({ "all": true })))?;
    let mut nodes = Vec::new();
    for ((now, before), pid) in usage()?.iter().zip(&before).zip(&pids) {
        nodes.push((now.since(before), proc::peak(*pid)?));
    }
    Ok(Row { what: what.into(), files, bytes, took, nodes, rsync: None })
}

/// Copies a folder, with a look into every file.
fn rsync(from: &Path, to: &Path) -> Result<Option<Duration>> {
    if !ssh::is_program("rsync") {
        return Ok(None);
    }
    let mut command = Command::new("rsync");
    command.arg("-ac").arg(format!("{}/", from.display())).arg(to);
    let (took, status) = timed(|| Ok(command.status()?))?;
    ensure!(status.success(), "rsync: {status}");
    Ok(Some(took))
}

fn small_files(dir: &Path) -> Result<()> {
    for folder in 0..FOLDERS {
        let at = dir.join(format!("{folder:03}"));
        fs::create_dir_all(&at)?;
        for file in 0..FILES {
            let line = format!("{folder:03}/{file:02} of a tree of many small files\n");
            let mut text = line.repeat(SMALL.div_ceil(line.len()));
            text.truncate(SMALL);
            fs::write(at.join(format!("{file:02}")), text)?;
        }
    }
    Ok(())
}

fn large_file(dir: &Path, mib: usize) -> Result<()> {
    use std::io::Write;
    fs::create_dir_all(dir)?;
    let mut file = fs::File::create(dir.join("file"))?;
    for piece in 0..mib as u64 {
        file.write_all(&tests::noise(SEED + piece, PIECE))?;
    }
    Ok(())
}
