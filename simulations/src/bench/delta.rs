//! Two versions of a folder or a file: how many bytes take one to the other, how long it takes to
//! make and to use them, beside what other tools need for the same.
//!
//! Making and using are each a process of their own, so that processor time and peak memory are
//! theirs alone. Using means decoding with the old files on disk and checking every chunk; writing
//! the new files is not in it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use content::pack::Part;
use content::{ChunkRef, ContentId, Delta, Installer, Limits, Manifest, OnDisk, Store, pack};
use serde_json::{Value, json};

use crate::delta_peers as peers;
use crate::proc::{Usage, field};
use crate::table;

/// The level of what is not a delta, as the controller has it.
const LEVEL: i32 = 9;

/// Measures one pair, and prints a table.
pub(crate) fn measure(work: &Path, old: &Path, new: &Path) -> Result<()> {
    let store = Store::open(work.join("store"))?;
    let base = ingest(old, &store)?;
    let target = ingest(new, &store)?;
    let plan = pack::plan(Some(&base), &target);
    let missing: u64 = plan.iter().map(|chunk| u64::from(chunk.len)).sum();
    for (name, manifest) in [("base", &base), ("target", &target)] {
        std::fs::write(work.join(name), manifest.encode())?;
    }
    let chunks = chunks(&plan, &store)?;
    drop(store);
    let made = step(work, "make", old, new)?;
    let used = step(work, "use", old, new)?;
    ensure!(used["bytes"] == missing, "decoded {} of {missing} bytes", used["bytes"]);

    table::heading(&format!("{} to {}", name(old), name(new)));
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (delta, manifest) = (number(&made["delta"]), number(&made["manifest"]));
    println!(
        "{} files, {}; {} in chunks that are new.\n",
        target.files(),
        table::bytes(target.bytes()),
        table::bytes(missing)
    );
    let ours = delta + manifest;
    let seconds = |value: &Value| format!("{:.2} s", value.as_f64().unwrap_or_default());
    let memory = |value: &Value| table::memory(number(value));
    let rows = [
        ("delta".into(), table::bytes(delta)),
        ("manifest".into(), table::bytes(manifest)),
        ("together".into(), table::bytes(ours)),
        ("to make: processor time".into(), seconds(&made["cpu"])),
        ("to make: time".into(), seconds(&made["wall"])),
        ("to make: peak memory".into(), memory(&made["peak"])),
        ("to use: time".into(), seconds(&used["wall"])),
        ("to use: peak memory".into(), memory(&used["peak"])),
    ];
    table::print(&["Barid", "figure"], &rows.map(|(what, figure): (String, _)| vec![what, figure]));
    println!();
    let mut rows = vec![vec!["Barid, manifest included".into(), table::bytes(ours), "1.0".into()]];
    let mut row = |what: String, bytes: Option<u64>| {
        let times = |bytes: u64| format!("{:.1}", bytes as f64 / ours as f64);
        let cells = [bytes.map(table::bytes), bytes.map(times)];
        let cells = cells.map(|cell| cell.unwrap_or_else(|| "not installed".into()));
        rows.push([vec![what], cells.into()].concat());
    };
    row("missing chunks, 8 MiB solid, zstd -9".into(), Some(chunks));
    for peer in peers::all(work, old, new)? {
        row(peer.what, peer.bytes);
    }
    table::print(&["what", "bytes", "times ours"], &rows);
    Ok(())
}

/// What a process of its own does: makes or uses the delta, and prints what that took.
pub(crate) fn run_step(work: &Path, step: &str, old: &Path) -> Result<()> {
    let store = Store::open(work.join("store"))?;
    let read = |name| -> Result<Manifest> {
        Ok(Manifest::decode(&std::fs::read(work.join(name))?, &Limits::default())?)
    };
    let (base, target) = (read("base")?, read("target")?);
    let (begun, before) = (Instant::now(), Usage::of(std::process::id())?);
    let mut said = match step {
        "make" => make(work, &base, &target, &store)?,
        _ => apply(work, &base, &target, &store, old)?,
    };
    said["wall"] = json!(begun.elapsed().as_secs_f64());
    said["cpu"] = json!(Usage::of(std::process::id())?.since(&before).own.as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status")?;
    said["peak"] = json!(field(&status, "VmHWM:"));
    println!("{said}");
    Ok(())
}

fn make(work: &Path, base: &Manifest, target: &Manifest, store: &Store) -> Result<Value> {
    let bundle = pack::encode(Some(base), target, store, LEVEL)?;
    let ids: Vec<_> = bundle.deltas.iter().map(|part| part.id.to_string()).collect();
    std::fs::write(work.join("parts"), ids.join("\n"))?;
    let sum = |parts: &[Part]| parts.iter().map(|part| u64::from(part.bytes)).sum::<u64>();
    Ok(json!({ "delta": sum(&bundle.deltas), "manifest": bundle.manifest.bytes }))
}

fn apply(
    work: &Path,
    base: &Manifest,
    target: &Manifest,
    store: &Store,
    old: &Path,
) -> Result<Value> {
    let place = std::fs::canonicalize(old)?;
    let place = place.as_os_str().as_encoded_bytes();
    let mut installed = Installer::new("/".into()).installed(place, base)?;
    let mut old = OnDisk { installed: &mut installed, store };
    let delta = Delta::new(base, target);
    let mut bytes = 0;
    for id in std::fs::read_to_string(work.join("parts"))?.lines() {
        let part = store.get(&id.parse::<ContentId>()?)?.context("it was made before")?;
        let mut count = |_: &ChunkRef, chunk: &[u8]| -> Result<()> {
            bytes += chunk.len();
            Ok(())
        };
        let decoded = delta.decode(&part, &mut old, &mut count)?;
        ensure!(decoded.wrong.is_empty(), "{} chunks came out wrong", decoded.wrong.len());
    }
    Ok(json!({ "bytes": bytes }))
}

fn step(work: &Path, step: &str, old: &Path, new: &Path) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("delta").args([old, new]).arg("--step").arg(step).arg("--work").arg(work);
    let output = command.output()?;
    ensure!(output.status.success(), "{step}: {}", tests::show(&output.stderr));
    // Libraries may print, too: the figures are the last line.
    let said = tests::show(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{step} says {last:?}"))
}

fn ingest(source: &Path, store: &Store) -> Result<Manifest> {
    Ok(content::ingest(source, &content::Patterns::default(), store, &mut |_| ())?.manifest)
}

/// What a push without deltas sends.
fn chunks(plan: &[ChunkRef], store: &Store) -> Result<u64> {
    let mut total = 0;
    let mut raw = Vec::new();
    for chunk in plan {
        if raw.len() + chunk.len as usize > pack::SEGMENT {
            total += zstd::bulk::compress(&raw, LEVEL)?.len() as u64;
            raw.clear();
        }
        raw.extend(store.get(&chunk.id)?.context("it was just read")?);
    }
    Ok(total + zstd::bulk::compress(&raw, LEVEL)?.len() as u64)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
