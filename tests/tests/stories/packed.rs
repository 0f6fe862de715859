//! Files packed by xz: what has changed in them travels, and hosts pack them again bit for bit.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::{Fleet, listing, noise};

use crate::order;

/// Half a megabyte packed, of which no place is like another.
pub(crate) fn text(seed: u64) -> Vec<u8> {
    let lines = noise(seed, 500_000);
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    lines.chunks(30).flat_map(|bytes| (line(bytes) + "\n").into_bytes()).collect()
}

/// The same with a line more near its beginning, so that all that is packed after it differs.
pub(crate) fn changed(mut text: Vec<u8>) -> Vec<u8> {
    text.splice(6_100..6_100, *b"one line more\n");
    text
}

pub(crate) fn xz(plain: &[u8], args: &[&str]) -> Result<Vec<u8>> {
    let mut child = Command::new("xz")
        .args(["--compress", "--stdout", "--threads=1"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    let plain = plain.to_vec();
    let feed = std::thread::spawn(move || input.write_all(&plain));
    let output = child.wait_with_output()?;
    feed.join().expect("it only writes")?;
    ensure!(output.status.success(), "xz {args:?}: {}", output.status);
    Ok(output.stdout)
}

/// An archive by `ar`, as Debian packages are.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let head =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, bytes.len());
        file.extend_from_slice(head.as_bytes());
        file.extend_from_slice(bytes);
        file.extend(std::iter::repeat_n(b'\n', bytes.len() % 2));
    }
    file
}

/// An archive by `tar` of one file.
fn tar(folder: &Path, plain: &[u8]) -> Result<Vec<u8>> {
    fs::write(folder.join("inside"), plain)?;
    let args = ["--create", "--mtime=@0", "--owner=0", "--group=0", "--directory"];
    let output = Command::new("tar").args(args).arg(folder).arg("inside").output()?;
    ensure!(output.status.success(), "tar: {}", output.status);
    Ok(output.stdout)
}

/// Writes a module, an archive and a package; `edit` is made in each of them. Returns their bytes.
fn write(source: &Path, scratch: &Path, edit: fn(Vec<u8>) -> Vec<u8>) -> Result<u64> {
    let [module, archived, control, data] = [1, 2, 3, 4].map(|seed| edit(text(seed)));
    let data = xz(&tar(scratch, &data)?, &["-6"])?;
    let control = xz(&tar(scratch, &control[..3_000])?, &["-6"])?;
    let files = [
        ("module.ko.xz", xz(&module, &["--check=crc32", "--lzma2=dict=1MiB"])?),
        ("source.tar.xz", xz(&tar(scratch, &archived)?, &["-6"])?),
        (
            "package.deb",
            archive(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar.xz", &control),
                ("data.tar.xz", &data),
            ]),
        ),
    ];
    for (name, bytes) in &files {
        fs::write(source.join(name), bytes)?;
    }
    Ok(files.iter().map(|(_, bytes)| bytes.len() as u64).sum())
}

/// All bytes that the controller has sent over its one link, orders included, by its own count.
fn sent(fleet: &Fleet) -> Result<u64> {
    let tree = fleet.json(&["tree", "--json"])?.to_string();
    let rest = tree.split("\"wire_sent\":").nth(1).context("a link")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).context("an end")?;
    Ok(rest[..digits].parse()?)
}

#[test]
fn what_is_packed_by_xz_travels_as_what_changed_in_it() -> Result<()> {
    for tool in ["xz", "tar"] {
        if let Err(error) = Command::new(tool).arg("--version").output() {
            println!("skipped: {tool}: {error}");
            return Ok(());
        }
    }
    let fleet = Fleet::tree(1, 2)?;
    let (source, scratch) = (fleet.path().join("source"), fleet.path().join("scratch"));
    fs::create_dir_all(&source)?;
    fs::create_dir_all(&scratch)?;
    let push = |bytes: u64| -> Result<(u64, u64)> {
        let before = sent(&fleet)?;
        let from = source.to_str().context("a plain path")?;
        let args = ["push", from, "--dest", "/srv/packed", "-a", "--async", "--json"];
        fleet.wait_states(&order(&fleet, &args)?, &[("ok", 2)])?;
        for host in ["site1-host1", "site1-host2"] {
            assert_eq!(listing(&fleet.at(host, "/srv/packed"))?, listing(&source)?, "{host}");
        }
        Ok((sent(&fleet)? - before, bytes))
    };
    let (over, bytes) = push(write(&source, &scratch, |text| text)?)?;
    assert!(over >= bytes, "the first time all of it travels: {over} of {bytes}");

    let (over, bytes) = push(write(&source, &scratch, changed)?)?;
    assert!(over < bytes / 10, "{over} of {bytes}");

    // What a host would need too much memory for stays closed. Else this would show nothing: as
    // they are, two such files have little in common.
    let large = source.join("large.xz");
    fs::write(&large, xz(&text(5), &["-9"])?)?;
    push(0)?;
    let closed = xz(&changed(text(5)), &["-9"])?;
    fs::write(&large, &closed)?;
    let (over, bytes) = push(closed.len() as u64)?;
    assert!(over > bytes / 2, "{over} of {bytes}");
    Ok(())
}
