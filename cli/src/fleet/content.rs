//! Commands that look at content, or carry it in and out.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use controller::fleet::types::{Change, EntryInfo, Origin, Question, RevisionInfo};

use super::files::PathsArgs;
use super::{absolute, ask, change, is_domainpath};
use crate::client::Client;
use crate::diff::{TIME, unified};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::{Screen, To};

/// The most bytes of a file that is compared here.
const COMPARED: u64 = 256 << 20;

/// What `cmp` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CmpArgs {
    /// One file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    one: String,
    /// The other one
    #[arg(value_name = "OTHER")]
    other: String,
}

/// What `cp` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CpArgs {
    /// Why, for the history
    #[arg(short = 'm', long, value_name = "NOTE", default_value = "")]
    note: String,
    /// A file here, or DOMAIN:PATH
    #[arg(value_name = "FROM")]
    from: String,
    /// A file here, or an existing DOMAIN:PATH
    #[arg(value_name = "TO")]
    to: String,
}

/// What `diff` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// The older revision [default: the one before the newest]
    #[arg(value_name = "OLD")]
    old: Option<u32>,
    /// The newer one [default: the newest]
    #[arg(value_name = "NEW")]
    new: Option<u32>,
}

/// The path of the API for the content of an entry.
pub(super) fn location(path: &str, revision: u32) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    let mut text = String::from("/v1/fleet/content?path=");
    for byte in path.bytes() {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text + &format!("&revision={revision}")
}

pub(crate) async fn cat(
    args: PathsArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    for path in &args.paths {
        let mut write = |bytes: &[u8]| screen.remote(To::Out, bytes).map_err(Failure::from);
        client.get_bytes(&location(path, 0), &mut write).await?;
    }
    Ok(Exit::Ok)
}

pub(crate) async fn cmp(
    args: CmpArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let CmpArgs { one, other } = args;
    let trouble = |failure: Failure| {
        let usage = failure.exit == Exit::Failed || failure.exit == Exit::Usage;
        if usage { Failure { exit: Exit::Usage, ..failure.with_code("usage") } } else { failure }
    };
    let paths = vec![one.clone(), other.clone()];
    let shown = ask::<Vec<EntryInfo>>(client, &Question::Show { paths }).await;
    let shown = shown.map_err(trouble)?;
    let [a, b] = [&shown[0].revision, &shown[1].revision];
    if a.folder || b.folder {
        let path = if a.folder { &one } else { &other };
        return Err(trouble(Failure::new(Exit::Failed, "folder", format!("{path}: is a folder"))));
    }
    if a.text != b.text {
        let kind = |text: bool| if text { "text" } else { "binary" };
        screen.print(&format!("cmp: {one} is a {} file\n", kind(a.text)))?;
        screen.print(&format!("cmp: {other} is a {} file\n", kind(b.text)))?;
        return Ok(Exit::Failed);
    }
    let old = whole(client, &one, 0, a).await.map_err(trouble)?;
    let new = whole(client, &other, 0, b).await.map_err(trouble)?;
    if old == new {
        return Ok(Exit::Ok);
    }
    if a.text {
        print_diff(screen, (&one, &old), (&other, &new))?;
    } else {
        screen.print(&first_difference((&one, &old), (&other, &new)))?;
    }
    Ok(Exit::Failed)
}

/// Where two files differ first, as `cmp` tells it.
fn first_difference((one, a): (&str, &[u8]), (other, b): (&str, &[u8])) -> String {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => {
            let line = a[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{one} {other} differ: byte {}, line {line}\n", at + 1)
        }
        None => {
            let (short, len) = if a.len() < b.len() { (one, a.len()) } else { (other, b.len()) };
            format!("cmp: EOF on {short} after byte {len}\n")
        }
    }
}

fn print_diff(
    screen: &mut Screen,
    (one, a): (&str, &[u8]),
    (other, b): (&str, &[u8]),
) -> Result<(), Failure> {
    let (lines, more) = unified(&ended(a), &ended(b), Instant::now() + TIME);
    screen.print(&format!("--- {one}\n+++ {other}\n"))?;
    screen.remote(To::Out, &lines)?;
    if more > 0 {
        screen.print(&format!("... {more} more lines of this difference\n"))?;
    }
    Ok(())
}

/// A text whose last line ends, with a word about it if it did not.
fn ended(text: &[u8]) -> Vec<u8> {
    match text.last() {
        None | Some(b'\n') => text.to_vec(),
        Some(_) => [text, b"\n\\ No newline at end of file\n"].concat(),
    }
}

/// All bytes of a revision.
async fn whole(
    client: &Client,
    path: &str,
    revision: u32,
    info: &RevisionInfo,
) -> Result<Vec<u8>, Failure> {
    if info.size > COMPARED {
        let message = format!("{path}: more than {} MiB are not compared", COMPARED >> 20);
        return Err(Failure::new(Exit::Failed, "too-large", message));
    }
    let mut bytes = Vec::new();
    let mut take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    client.get_bytes(&location(path, revision), &mut take).await?;
    Ok(bytes)
}

pub(crate) async fn diff(
    args: DiffArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let path = args.path;
    let revisions: Vec<RevisionInfo> =
        ask(client, &Question::History { path: path.clone() }).await?;
    let newest = revisions.first().map_or(0, |revision| revision.number);
    let new = args.new.unwrap_or(newest);
    let old = args.old.unwrap_or(new.saturating_sub(1));
    let find = |number: u32| {
        revisions.iter().find(|revision| revision.number == number).ok_or_else(|| {
            let message = format!("{path}: no revision {number}");
            Failure::new(Exit::Failed, "unknown-revision", message)
        })
    };
    let (a, b) = (find(old)?, find(new)?);
    let differ = a.root != b.root;
    if a.mode != b.mode || a.owner != b.owner || a.group != b.group {
        let attributes = |r: &RevisionInfo| format!("{:04o} {} {}", r.mode, r.owner, r.group);
        screen.print(&format!("{path}: {} -> {}\n", attributes(a), attributes(b)))?;
    }
    if a.folder || b.folder {
        if differ {
            screen.print(&format!("{path}: the folders differ\n"))?;
        }
    } else {
        let (from, to) = (whole(client, &path, old, a).await?, whole(client, &path, new, b).await?);
        let (one, other) = (format!("{path} {old}"), format!("{path} {new}"));
        if a.text && b.text {
            print_diff(screen, (&one, &from), (&other, &to))?;
        } else if from != to {
            screen.print(&first_difference((&one, &from), (&other, &to)))?;
        }
    }
    Ok(if differ { Exit::Failed } else { Exit::Ok })
}

pub(crate) async fn cp(
    args: CpArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let CpArgs { note, from, to } = args;
    if is_domainpath(&to) {
        let content = match is_domainpath(&from) {
            true => Origin::Entry(from),
            false => Origin::File(absolute(&from)?),
        };
        let put = Change::Put { content, path: to, lock: None, note };
        return change(client, screen, put).await;
    }
    if !is_domainpath(&from) {
        return Err(Failure::usage(
            format!("{from} and {to}: neither is a domainpath"),
            "one of them is DOMAIN:PATH",
        ));
    }
    let mut target = Path::new(&to).to_owned();
    if target.is_dir() {
        target.push(Path::new(&from).file_name().unwrap_or_default());
    }
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, "file", format!("{}: {error}", target.display()))
    };
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The whole file or none of it.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|error| failed(&error))?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(|error| failed(&error));
    client.get_bytes(&location(&from, 0), &mut write).await?;
    // A file that is there keeps its permissions, as with cp.
    if let Ok(old) = fs::metadata(&target) {
        let kept = fs::set_permissions(file.path(), old.permissions());
        kept.map_err(|error| failed(&error))?;
    }
    file.persist(&target).map_err(|error| failed(&error.error))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_as_cmp_does() {
        let check = |a: &str, b: &str| first_difference(("a", a.as_bytes()), ("b", b.as_bytes()));
        assert_eq!(check("x\ny", "x\nz"), "a b differ: byte 3, line 2\n");
        assert_eq!(check("x", "xy"), "cmp: EOF on a after byte 1\n");
    }

    #[test]
    fn paths_are_safe_in_a_request() {
        assert_eq!(
            location("cc.adm:/etc/a b&c=ä", 3),
            "/v1/fleet/content?path=cc.adm:/etc/a%20b%26c%3D%C3%A4&revision=3"
        );
    }
}
