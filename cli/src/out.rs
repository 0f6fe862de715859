//! `barid out`: what commands have written in full, from the hosts that ran them.
//!
//! An answer has the beginning of an output; the host keeps all of it for a while. Of hosts that
//! wrote the same only one is asked. Bytes come as they were written and are checked against the
//! hash in the answer; what breaks off goes on where it was, here and, with `--outdir`, also the
//! next time.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use controller::sets::{fold, natural_cmp};
use controller::types::{Answer, KeptOutput, OrderDetail};
use serde_json::json;

use crate::client::{Client, Pieces, is_broken, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::gathered::{stderr, stdout};
use crate::render::{RULE, is_supposed};
use crate::save::{SaveArgs, safe};
use crate::screen::{Screen, To};
use crate::targets::{TargetArgs, resolve};
use crate::units::show_bytes;

/// Of how many hosts that wrote the same one after the other is asked.
const HOSTS: usize = 8;

/// Options of `barid out`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The id of the run, its short form, or `last`
    #[arg(value_name = "RUN")]
    id: String,
    #[command(flatten)]
    targets: TargetArgs,
    /// Standard error instead of standard output
    #[arg(long, help_heading = "View")]
    stderr: bool,
    /// A file for each host in this folder; what an earlier try has left there is gone on with
    #[arg(long, value_name = "DIR", help_heading = "View")]
    outdir: Option<PathBuf>,
}

/// Hosts that have written the same.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    hosts: Vec<String>,
    /// What their answer has of it.
    known: Vec<u8>,
    /// How much they wrote.
    size: u64,
    /// What they keep of it, if the answer has not all.
    kept: Option<KeptOutput>,
}

/// What one part is fetched for.
struct Fetch<'a> {
    client: &'a Client,
    order: &'a str,
    stream: &'static str,
}

/// Shows or saves full outputs.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if screen.json && args.outdir.is_none() {
        let help = "--outdir DIR puts it into files, and --json then says which";
        return Err(Failure::usage("output is bytes, not JSON", help));
    }
    let save = SaveArgs { outdir: args.outdir.clone(), errdir: None };
    save.ready()?;
    let wanted = match args.targets.is_empty() {
        true => None,
        false => {
            let targets = args.targets.targets(screen)?;
            Some(resolve(client, &targets).await?.hosts.into_iter().collect::<BTreeSet<_>>())
        }
    };
    let detail: OrderDetail = client.get(&format!("/v1/orders/{}", segment(&args.id)?)).await?;
    if detail.order.kind != "run" {
        let message = format!("a {} writes nothing that is kept", detail.order.kind);
        return Err(Failure::usage(message, "barid runs show"));
    }
    let parts = parts(&detail.answers, wanted.as_ref(), args.stderr);
    let stream = if args.stderr { "stderr" } else { "stdout" };
    let fetch = Fetch { client, order: &detail.order.id, stream };
    let mut exit = Exit::Ok;
    for part in &parts {
        let done = match &args.outdir {
            Some(dir) => fetch.save(part, dir, screen).await,
            None => fetch.show(part, parts.len() > 1, screen).await,
        };
        match done {
            Ok(()) => screen.flush()?,
            Err(failure) if failure.is_broken_pipe() => return Err(failure),
            Err(failure) => {
                screen.fail(&failure)?;
                exit = worse(exit, failure.exit);
            }
        }
    }
    let heard: BTreeSet<&String> = parts.iter().flat_map(|part| &part.hosts).collect();
    let silent: Vec<&String> =
        wanted.iter().flatten().filter(|host| !heard.contains(host)).collect();
    if !silent.is_empty() {
        screen.warn(&format!("{}: no answer to this run is known", fold(&silent)))?;
        exit = worse(exit, Exit::Missed);
    }
    Ok(exit)
}

/// How it all ends, if one part has ended so: a failure tells more than a host that is away.
fn worse(exit: Exit, part: Exit) -> Exit {
    if part == Exit::Missed && exit != Exit::Failed { Exit::Missed } else { Exit::Failed }
}

/// What hosts have written, the same together, the largest group first.
fn parts(answers: &[Answer], wanted: Option<&BTreeSet<String>>, is_err: bool) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for answer in answers.iter().filter(|answer| !is_supposed(answer)) {
        let hosts = answer.hosts.iter().filter(|host| wanted.is_none_or(|all| all.contains(*host)));
        let hosts: Vec<String> = hosts.cloned().collect();
        let (known, size, kept) = match is_err {
            true => (stderr(answer), answer.stderr_size, &answer.stderr_kept),
            false => (stdout(answer), answer.stdout_size, &answer.stdout_kept),
        };
        let (known, kept) = (known.into_owned(), kept.clone());
        let same = |part: &&mut Part| part.known == known && part.size == size && part.kept == kept;
        match parts.iter_mut().find(same) {
            Some(part) => part.hosts.extend(hosts),
            None => parts.push(Part { hosts, known, size, kept }),
        }
    }
    parts.retain(|part| !part.hosts.is_empty());
    for part in &mut parts {
        part.hosts.sort_by(|a, b| natural_cmp(a, b));
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.hosts.len()));
    parts
}

impl Part {
    /// Whether the answer has all of it.
    fn is_whole(&self) -> bool {
        self.known.len() as u64 >= self.size
    }

    /// What hosts keep of it, or why that is nothing.
    fn kept(&self) -> Result<&KeptOutput, Failure> {
        self.kept.as_ref().ok_or_else(|| {
            let (known, size) = (show_bytes(self.known.len() as u64), show_bytes(self.size));
            let message = format!(
                "{}: of {size} only the {known} in the answer were kept: the host had no room, or \
                 is older",
                fold(&self.hosts)
            );
            let help = "`barid runs show` has them; run it again with the output into a file";
            Failure::new(Exit::Failed, "output-gone", message).with_help(help)
        })
    }

    /// Says if the host itself has cut it.
    fn remark(&self, screen: &mut Screen) -> Result<(), Failure> {
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.bytes < self.size) {
            let (bytes, size) = (show_bytes(kept.bytes), show_bytes(self.size));
            let hosts = fold(&self.hosts);
            screen.warn(&format!("{hosts}: the host's spool had room for {bytes} of {size}"))?;
        }
        Ok(())
    }
}

impl Fetch<'_> {
    async fn show(&self, part: &Part, many: bool, screen: &mut Screen) -> Result<(), Failure> {
        if many {
            let (hosts, count) = (fold(&part.hosts), part.hosts.len());
            screen.label(To::Out, &format!("{RULE}{hosts} ({count})\n{RULE}"))?;
        }
        if part.is_whole() {
            return Ok(screen.remote(To::Out, &part.known)?);
        }
        let kept = part.kept()?;
        let mut tail = Vec::new();
        let mut shown = |bytes: &[u8]| {
            // A character is not torn by where a piece happens to end.
            tail.extend_from_slice(bytes);
            let whole = whole_characters(&tail);
            screen.remote(To::Out, &tail[..whole])?;
            tail.drain(..whole);
            Ok(())
        };
        self.fetch(part, kept, blake3::Hasher::new(), 0, &mut shown).await?;
        screen.remote(To::Out, &tail)?;
        part.remark(screen)
    }

    async fn save(&self, part: &Part, dir: &Path, screen: &mut Screen) -> Result<(), Failure> {
        let cannot = |path: &Path, error: &io::Error| {
            let message = format!("{}: cannot be written: {error}", path.display());
            Failure::new(Exit::Failed, "output", message).with_help("what has come stays there")
        };
        let at = |host: &String| dir.join(safe(host));
        let first = at(&part.hosts[0]);
        if part.is_whole() {
            place(&first, &part.known).map_err(|error| cannot(&first, &error))?;
        } else {
            let kept = part.kept()?;
            let rest = dir.join(format!(".{}.{}.part", safe(&part.hosts[0]), self.order));
            let begun = begin(&rest, kept.bytes).map_err(|error| cannot(&rest, &error))?;
            let (mut file, hash, from) = begun;
            let mut write = |bytes: &[u8]| file.write_all(bytes);
            let fetched = self.fetch(part, kept, hash, from, &mut write).await;
            if fetched.as_ref().is_err_and(|failure| failure.error.code == "output-wrong") {
                fs::remove_file(&rest).ok();
            }
            fetched?;
            file.sync_all().map_err(|error| cannot(&rest, &error))?;
            fs::rename(&rest, &first).map_err(|error| cannot(&first, &error))?;
        }
        for host in &part.hosts[1..] {
            let path = at(host);
            fs::remove_file(&path).ok();
            fs::copy(&first, &path).map_err(|error| cannot(&path, &error))?;
        }
        if screen.json {
            let bytes = part.kept.as_ref().map_or(part.size, |kept| kept.bytes);
            screen.json(&json!({
                "hosts": part.hosts, "stream": self.stream, "bytes": bytes, "size": part.size,
                "file": first.display().to_string(),
            }))?;
        }
        part.remark(screen)
    }

    /// Fetches from `from` on; `hash` has seen what comes before. One host after the other is asked
    /// until all is here; a way that breaks is tried again as long as it brings something.
    async fn fetch(
        &self,
        part: &Part,
        kept: &KeptOutput,
        mut hash: blake3::Hasher,
        mut from: u64,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut last = None;
        for host in part.hosts.iter().take(HOSTS) {
            loop {
                let before = from;
                match self.try_host(host, kept.bytes, &mut hash, &mut from, take).await {
                    Ok(()) if from == kept.bytes => return check(part, kept, &hash),
                    Ok(()) => last = Some(short(host, from, kept.bytes)),
                    Err(failure) if is_broken(&failure) || failure.exit == Exit::Missed => {
                        last = Some(failure);
                    }
                    Err(failure) if failure.error.code == "output-gone" => last = Some(failure),
                    Err(failure) => return Err(failure),
                }
                if from == before {
                    break;
                }
            }
        }
        Err(last.unwrap_or_else(|| short("nobody", from, kept.bytes)))
    }

    async fn try_host(
        &self,
        host: &str,
        end: u64,
        hash: &mut blake3::Hasher,
        from: &mut u64,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let (order, stream) = (self.order, self.stream);
        let path = format!("/v1/orders/{order}/output/{host}?stream={stream}&offset={from}");
        let mut pieces: Pieces = self.client.get_pieces(&path).await?;
        while *from < end
            && let Some(piece) = pieces.next().await?
        {
            let left = usize::try_from(end - *from).unwrap_or(usize::MAX);
            let piece = &piece[..piece.len().min(left)];
            take(piece)?;
            hash.update(piece);
            *from += piece.len() as u64;
        }
        Ok(())
    }
}

fn check(part: &Part, kept: &KeptOutput, hash: &blake3::Hasher) -> Result<(), Failure> {
    if hash.finalize().to_hex().as_str() == kept.hash {
        return Ok(());
    }
    let message = format!("{}: what came is not what the host wrote", fold(&part.hosts));
    let help = "its spool was damaged, as by a loss of power; the answer has the beginning";
    Err(Failure::new(Exit::Failed, "output-wrong", message).with_help(help))
}

fn short(host: &str, have: u64, all: u64) -> Failure {
    let (have, all) = (show_bytes(have), show_bytes(all));
    let message = format!("{host}: only {have} of {all} are there");
    Failure::new(Exit::Failed, "output-gone", message)
        .with_help("the host's spool was damaged, as by a loss of power")
}

/// How much of some bytes ends with a whole character, or is none anyway.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// Opens what an earlier try has left of a file, or begins it. The hash has seen what is there.
fn begin(path: &Path, most: u64) -> io::Result<(File, blake3::Hasher, u64)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    let mut hash = blake3::Hasher::new();
    if file.metadata()?.len() > most {
        file.set_len(0)?;
    }
    let (mut buffer, mut from) = (vec![0; 64 << 10], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((file, hash, from));
        }
        hash.update(&buffer[..read]);
        from += read as u64;
    }
}

/// A whole file, in the place of whatever was there.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::remove_file(path).ok();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::testing::answer;

    fn kept(bytes: u64) -> Option<KeptOutput> {
        Some(KeptOutput { bytes, hash: "aa".into() })
    }

    #[test]
    fn hosts_that_wrote_the_same_are_asked_once() {
        let cut = |hosts: &str, bytes| Answer {
            stdout_size: bytes,
            stdout_kept: kept(bytes),
            ..answer(hosts, "ok", None, "abc")
        };
        let answers = [
            cut("n[1-3]", 9),
            Answer { state: "failed".into(), code: Some(1), ..cut("n[4-5]", 9) },
            cut("n6", 8),
            answer("n7", "not-reached", None, ""),
        ];
        let hosts = |parts: Vec<Part>| -> Vec<String> {
            parts.iter().map(|part| fold(&part.hosts)).collect()
        };
        assert_eq!(hosts(parts(&answers, None, false)), ["n[1-5]", "n6"]);
        let wanted = ["n2", "n6", "n7", "n9"].map(String::from).into_iter().collect();
        assert_eq!(hosts(parts(&answers, Some(&wanted), false)), ["n2", "n6"]);
        assert_eq!(hosts(parts(&answers, None, true)), ["n[1-6]"]);
    }

    #[test]
    fn what_was_not_kept_says_so() {
        let answers = [Answer { stdout_size: 9, ..answer("n1", "ok", None, "abc") }];
        let parts = parts(&answers, None, false);
        assert!(!parts[0].is_whole());
        let failure = parts[0].kept().expect_err("nothing is kept");
        assert!(failure.text().contains("n1: of 9 B only the 3 B"), "{}", failure.text());
    }

    #[test]
    fn an_earlier_try_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(".n1.part");
        fs::write(&path, "abc").expect("written");
        let (mut file, hash, from) = begin(&path, 5).expect("opened");
        assert_eq!((from, hash.finalize()), (3, blake3::hash(b"abc")));
        file.write_all(b"de").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"abcde");
        let (_, _, from) = begin(&path, 4).expect("opened");
        assert_eq!(from, 0, "it was another output's");
    }

    #[test]
    fn characters_are_not_torn() {
        let text = "aé".as_bytes();
        assert_eq!(whole_characters(text), 3);
        assert_eq!(whole_characters(&text[..2]), 1);
        assert_eq!(whole_characters(b"a\xff"), 2);
        assert_eq!(whole_characters(b""), 0);
    }
}
