//! What this host is, as it says to the controller: system, hardware, and what an operator has put
//! into the file `facts` of the state folder.
//!
//! It is looked at once a minute and told when it has changed. The revision, by which everybody
//! knows the newer of two, is the hour at which that was noticed, or one more than the last: so
//! hosts that came in the same hour fold, and a clock that is wrong never makes an old profile of
//! a new one. Once a week the same is told anew, which heals what a lost state folder and a wrong
//! clock together can spoil. What changes all the time is told once an hour after a while, so that
//! the revision stays near the hour: the controller takes none that is far beyond the present.
//!
//! Nothing here is asked of other programs, and nothing of it is needed for anything but choosing
//! hosts by it: what cannot be found is left out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh::{Class, HostId, Input, Kind, PROFILE_BYTES, Profile, Severity};
use protos::{FACTS, Facts, check_fact, encode_facts};
use tokio::sync::mpsc;
use tracing::warn;

use crate::drive::Arrival;
use crate::notice;

/// How much of a file is read.
const FILE_BYTES: u64 = 64 << 10;
/// The operator's file in the state folder.
const FILE: &str = "facts";
/// Where the last profile is noted in the state folder.
const LAST: &str = "facts.last";
/// After so many hours the same is told anew.
const ANEW_HOURS: u64 = 7 * 24;
/// So many changes are told as they come, and one more for each hour.
const CHANGES: u64 = 60;
const HOUR: Duration = Duration::from_secs(3_600);

/// Who looks.
pub(crate) struct Census {
    pub(crate) state: PathBuf,
    pub(crate) who: (HostId, String),
    pub(crate) every: Duration,
    pub(crate) inbox: mpsc::Sender<Arrival>,
}

impl Census {
    /// Tells what this host is until the node ends.
    pub(crate) async fn run(self) {
        let (mut told, mut wrong) = (None, String::new());
        let (begun, mut changes) = (Instant::now(), 0);
        loop {
            let state = self.state.clone();
            let looked = tokio::task::spawn_blocking(move || look(Path::new("/"), &state)).await;
            let (profile, faults) = looked.expect("looking does not panic");
            if faults != wrong && !faults.is_empty() {
                warn!(file = %self.state.join(FILE).display(), %faults, "not all of it is a fact");
                let kind = Kind {
                    subject: "host.facts",
                    severity: Severity::Warning,
                    class: Class::Client,
                };
                let text = format!("of the facts file not all can be told: {faults}");
                let happening = notice::make((self.who.0, &self.who.1), kind, &text);
                let input = Arrival::Input(Input::Happened(happening));
                if self.inbox.send(input).await.is_err() {
                    return;
                }
            }
            wrong = faults;
            if told.as_ref() != Some(&profile) {
                let input = Arrival::Input(Input::Profile(profile.clone()));
                if self.inbox.send(input).await.is_err() {
                    return;
                }
                told = Some(profile);
                changes += 1;
            }
            let pause = pause(self.every, changes, begun.elapsed());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inbox.closed() => return,
            }
        }
    }
}

/// How long until the next look, after so many changes in this time.
fn pause(every: Duration, changes: u64, since: Duration) -> Duration {
    let often = changes > CHANGES + since.as_secs() / HOUR.as_secs();
    if often { every.max(HOUR) } else { every }
}

/// What this host is now, with what is wrong in the operator's file.
fn look(root: &Path, state: &Path) -> (Profile, String) {
    let mut facts = found(root);
    let faults = match fs::symlink_metadata(state.join(FILE)) {
        Ok(_) => read_own(&state.join(FILE), &mut facts),
        Err(_) => String::new(),
    };
    let text = encode_facts(&facts);
    let last = read(&state.join(LAST)).and_then(|bytes| parse_last(&bytes));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let profile = revised(last.as_ref(), text, since.as_secs() / 3_600);
    if last.as_ref() != Some(&profile) {
        let mut bytes = profile.revision.to_be_bytes().to_vec();
        bytes.extend_from_slice(&profile.text);
        let path = state.join(LAST);
        if let Err(error) = certs::files::replace_secret(&path, &bytes) {
            // It is told all the same; at worst it is told once more after the next start.
            warn!(path = %path.display(), error = %crate::chain(&error), "not noted");
        }
    }
    (profile, faults)
}

/// The profile with this text, newer than the last one unless that is still good.
fn revised(last: Option<&Profile>, text: Bytes, hour: u64) -> Profile {
    match last {
        Some(last) if last.text == text && hour < last.revision.saturating_add(ANEW_HOURS) => {
            last.clone()
        }
        Some(last) => Profile { revision: hour.max(last.revision.saturating_add(1)), text },
        None => Profile { revision: hour, text },
    }
}

fn parse_last(bytes: &[u8]) -> Option<Profile> {
    let (revision, text) = bytes.split_first_chunk::<8>()?;
    let revision = u64::from_be_bytes(*revision);
    Some(Profile { revision, text: Bytes::copy_from_slice(text) })
}

/// What can be seen of the host whose file system begins here.
fn found(root: &Path) -> Facts {
    let mut facts = Facts::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.map(|value| plain(&value)).filter(|value| !value.is_empty()) {
            facts.insert(name.into(), value);
        }
    };
    let release = ["etc/os-release", "usr/lib/os-release"];
    let release = release.iter().find_map(|path| text(root, path)).unwrap_or_default();
    put("os", shell_value(&release, "ID"));
    put("os-version", shell_value(&release, "VERSION_ID"));
    put("kernel", text(root, "proc/sys/kernel/osrelease"));
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    put("arch", Some(machine));
    put("cpus", cpus(root).map(|cpus| cpus.to_string()));
    put("mem", mem_mib(root).map(magnitude));
    put("virt", virt(root));
    put("barid", Some(env!("CARGO_PKG_VERSION").into()));
    facts
}

/// Reads the operator's lines into the facts, as far as there is room. What is wrong, in words.
fn read_own(path: &Path, facts: &mut Facts) -> String {
    let Some(bytes) = read(path) else { return "it cannot be read".into() };
    let mut faults = Vec::new();
    let (mut own, text) = (BTreeSet::new(), String::from_utf8_lossy(&bytes));
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        let fault = match check_fact(name, value) {
            Err(fault) => Some(fault.to_string()),
            Ok(()) if !own.insert(name) => Some(format!("{name} is there twice")),
            Ok(()) => {
                let old = facts.insert(name.into(), value.into());
                let fits = facts.len() <= FACTS && encode_facts(facts).len() <= PROFILE_BYTES;
                if !fits {
                    match old {
                        Some(old) => facts.insert(name.into(), old),
                        None => facts.remove(name),
                    };
                }
                let limits = || format!("the limits are {FACTS} facts and {PROFILE_BYTES} bytes");
                (!fits).then(limits)
            }
        };
        faults.extend(fault.map(|fault| format!("line {}: {fault}", at + 1)));
    }
    if bytes.len() as u64 >= FILE_BYTES {
        faults.push(format!("only {FILE_BYTES} bytes of it are read"));
    }
    faults.truncate(3);
    faults.join("; ")
}

/// How many processors are switched on.
fn cpus(root: &Path) -> Option<u32> {
    let ranges = text(root, "sys/devices/system/cpu/online")?;
    let count = |range: &str| -> Option<u32> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    ranges.trim().split(',').try_fold(0u32, |sum, range| sum.checked_add(count(range)?))
}

/// How much memory is installed: whole blocks where the kernel names them, since what is left for
/// programs is always a little less than what was bought.
fn mem_mib(root: &Path) -> Option<u64> {
    let size = text(root, "sys/devices/system/memory/block_size_bytes");
    let size = size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
    let folder = fs::read_dir(root.join("sys/devices/system/memory"));
    if let (Some(size), Ok(folder)) = (size, folder) {
        let is_block =
            |name: &str| name.strip_prefix("memory").is_some_and(|no| no.parse::<u32>().is_ok());
        let names = folder.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let blocks = names.filter(|name| is_block(name)).count() as u64;
        if blocks > 0 {
            return Some(blocks.saturating_mul(size) >> 20);
        }
    }
    let info = text(root, "proc/meminfo")?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

/// As operators write it: `16G`, or `7952M`.
fn magnitude(mib: u64) -> String {
    match mib {
        1.. if mib.is_multiple_of(1 << 20) => format!("{}T", mib >> 20),
        1.. if mib.is_multiple_of(1 << 10) => format!("{}G", mib >> 10),
        _ => format!("{mib}M"),
    }
}

/// What kind of machine this is not, as far as files say: `none` is iron.
fn virt(root: &Path) -> Option<String> {
    if let Some(container) = text(root, "run/systemd/container") {
        return Some(container.trim().to_lowercase());
    }
    if root.join(".dockerenv").exists() {
        return Some("docker".into());
    }
    let names = ["sys_vendor", "product_name"];
    let names = names.map(|name| text(root, &format!("sys/class/dmi/id/{name}")));
    let names = names.into_iter().flatten().collect::<String>().to_lowercase();
    let known = [
        ("qemu", "kvm"),
        ("kvm", "kvm"),
        ("amazon ec2", "amazon"),
        ("google compute", "google"),
        ("vmware", "vmware"),
        ("virtualbox", "virtualbox"),
        ("xen", "xen"),
        ("microsoft corporation", "microsoft"),
        ("openstack", "kvm"),
    ];
    let is_guest = text(root, "proc/cpuinfo").is_some_and(|info| {
        let flags = info.lines().find(|line| line.starts_with("flags"));
        flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
    });
    let kind = known.iter().find(|(sign, _)| names.contains(sign)).map(|(_, kind)| *kind);
    // Microsoft and Amazon sell iron, too.
    match (is_guest, kind) {
        (true, kind) => Some(kind.unwrap_or("vm").into()),
        (false, Some(kind)) if !["microsoft", "amazon"].contains(&kind) => Some(kind.into()),
        (false, _) => Some("none".into()),
    }
}

/// The value of a variable in a file that a shell could read.
fn shell_value(text: &str, name: &str) -> Option<String> {
    let of = |line: &str| Some(line.trim().strip_prefix(name)?.strip_prefix('=')?.to_owned());
    let value = text.lines().find_map(of)?;
    Some(value.trim_matches(['"', '\'']).into())
}

/// A value that can be a fact, whatever it was.
fn plain(text: &str) -> String {
    let (line, _) = mesh::one_line(text);
    let line = line.replace('"', "");
    line[..line.floor_char_boundary(255)].into()
}

fn text(root: &Path, path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&read(&root.join(path))?).into_owned())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    // Nobody makes a node wait with a pipe.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_all_the_time_is_told_once_an_hour() {
        let minute = Duration::from_secs(60);
        let (mut at, mut changes) = (Duration::ZERO, 0);
        while at < 100 * HOUR {
            changes += 1;
            at += pause(minute, changes, at);
        }
        assert!((100..=CHANGES + 101).contains(&changes), "{changes}");
        assert_eq!(pause(minute, CHANGES, Duration::ZERO), minute);
    }

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    fn words(facts: &Facts) -> String {
        let word = |(name, value): (&String, &String)| format!("{name}={value}");
        let facts = facts.iter().filter(|(name, _)| !["arch", "barid"].contains(&name.as_str()));
        facts.map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_found() {
        let check = |files: &[(&str, &str)], expected: &str| {
            assert_eq!(words(&found(host(files).path())), expected);
        };
        check(
            &[
                ("etc/os-release", "NAME=x\nVERSION_ID=\"13\"\nID=debian\n"),
                ("proc/sys/kernel/osrelease", "6.12.1\u{1b}[2J\n"),
                ("sys/devices/system/cpu/online", "0-3,8\n"),
                ("sys/devices/system/memory/block_size_bytes", "8000000\n"),
                ("sys/devices/system/memory/memory0/online", "1\n"),
                ("sys/devices/system/memory/memory39/online", "1\n"),
                ("proc/meminfo", "MemTotal: 7952000 kB\n"),
                ("proc/cpuinfo", "flags\t\t: fpu hypervisor\n"),
                ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            ],
            "cpus=5 kernel=6.12.1 [2J mem=256M os=debian os-version=13 virt=kvm",
        );
        check(
            &[
                ("usr/lib/os-release", "ID='alpine'"),
                ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n"),
                ("run/systemd/container", "lxc\n"),
            ],
            "mem=16G os=alpine virt=lxc",
        );
        check(&[("sys/devices/system/cpu/online", "3-0")], "virt=none");
    }

    #[test]
    fn this_host_has_facts_that_can_be_told() {
        let facts = found(Path::new("/"));
        assert!(facts.contains_key("arch") && facts.contains_key("barid"), "{facts:?}");
        assert!(facts.iter().all(|(name, value)| check_fact(name, value).is_ok()), "{facts:?}");
    }

    #[test]
    fn the_operators_lines_win_and_wrong_ones_are_named() {
        let check = |text: &str, expected: (&str, &str)| {
            let state = host(&[("facts", text)]);
            let mut facts = Facts::from([("os".into(), "debian".into())]);
            let faults = read_own(&state.path().join(FILE), &mut facts);
            assert_eq!((words(&facts).as_str(), faults.as_str()), expected);
        };
        check("# mine\n\nrack = \"b 4\"\ngpu\nos=own\n", ("gpu= os=own rack=b 4", ""));
        let fault = "line 1: a name has up to 63 letters, digits, `.`, `_` and `-`; line 3: a is \
                     there twice";
        check("r ck=1\na=1\na=2\n", ("a=1 os=debian", fault));
        let many: String = (0..80).map(|n| format!("a{n}=1\n")).collect();
        let state = host(&[("facts", &many)]);
        let mut facts = Facts::new();
        let faults = read_own(&state.path().join(FILE), &mut facts);
        assert_eq!(facts.len(), FACTS);
        assert!(faults.starts_with("line 65: the limits are 64 facts and 4096 bytes"), "{faults}");
    }

    #[test]
    fn revisions_only_rise() {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let first = revised(None, text("a"), 1_000);
        assert_eq!(first.revision, 1_000);
        assert_eq!(revised(Some(&first), text("a"), 1_167), first);
        assert_eq!(revised(Some(&first), text("a"), 5), first, "the clock went back");
        assert_eq!(revised(Some(&first), text("b"), 5).revision, 1_001);
        assert_eq!(revised(Some(&first), text("a"), 1_168).revision, 1_168);
    }

    #[test]
    fn what_was_told_is_noted() {
        let root = host(&[("etc/os-release", "ID=debian\n")]);
        let state = tempfile::tempdir().expect("a temporary folder");
        let (first, faults) = look(root.path(), state.path());
        assert_eq!((&look(root.path(), state.path()).0, faults.as_str()), (&first, ""));
        fs::write(state.path().join(FILE), "rack=4\n").expect("written");
        let (second, _) = look(root.path(), state.path());
        assert!(second > first && second.text != first.text);
    }
}
