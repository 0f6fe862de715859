//! A push in the middle of which somebody is killed again and again: how many bytes cross each
//! link a second time for it, and whether every host has the right file in the end.
//!
//! A relay, a host, both or the controller die by SIGKILL, each time when a share of the push that
//! a seed has drawn lies on their disk, now and then while hosts install it, and are started again.
//! What a node has is what lies in its store; emulated links count what they deliver, also to the
//! dead. What was delivered and does not lie in the store below has crossed the link in vain,
//! whether it was on the wire, in the memory of who died, or sent again for no good reason. A push
//! without a death says what headers make of each byte.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wan::{Profile, UdpLink};

use crate::{Fleet, PACE, Spec, noise, show, wait_for};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The relay.
    Relay,
    /// A host, drawn each time.
    Host,
    /// The relay and such a host.
    Both,
    /// The controller.
    Controller,
}

impl Death {
    /// Whether something was still to come to who died.
    pub fn was_early(&self) -> bool {
        !self.installing && self.at < 1.0
    }
}

impl Victim {
    /// All of them.
    pub const ALL: [Victim; 4] = [Victim::Relay, Victim::Host, Victim::Both, Victim::Controller];
}

/// A figure of each link: that of the relay, then those of the hosts.
pub type Links<T> = [T; 1 + HOSTS.len()];

/// What one death has cost.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// The share of the push that was there at who died; if `installing`, the share that a host had
    /// written beside its destination or in its place.
    pub at: f64,
    /// Whether this was to come while hosts install.
    pub installing: bool,
    /// Bytes with headers that have crossed each link in vain since the death before.
    pub vain: Links<u64>,
}

/// What has become of a push.
#[derive(Clone, Debug)]
pub struct Played {
    /// In the order of dying.
    pub deaths: Vec<Death>,
    /// Bytes with headers that each link has delivered.
    pub delivered: Links<u64>,
    /// From the order until every host had it in place.
    pub took: Duration,
}

/// A controller, a relay and two hosts, each but the first behind a link that counts.
pub struct Trial {
    fleet: Fleet,
    links: Vec<UdpLink>,
    bytes: usize,
    pushes: u64,
    /// The push that is under way.
    push: Push,
    dice: u64,
    /// Bytes with headers for each byte.
    factor: Links<f64>,
}

/// A push, and what stores had of others before it.
#[derive(Default)]
struct Push {
    id: String,
    dest: String,
    bytes: u64,
    before: Links<u64>,
}

/// What a link has delivered, and what of a push is at its end.
#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    delivered: u64,
    held: u64,
}

/// When somebody is to die: at which share, while hosts install or before, and which host.
#[derive(Clone, Copy, Debug)]
struct Moment {
    installing: bool,
    at: f64,
    host: usize,
}

const RELAY: &str = "r1";
const HOSTS: [&str; 2] = ["web1", "web2"];
/// Who is at the end of each link.
const BELOW: Links<&str> = [RELAY, HOSTS[0], HOSTS[1]];
const FOLDER: &str = "/srv";
/// Parts of a push are longer, and what hosts make of them, which no link has carried, is not.
const CHUNK: u64 = 256 << 10;
/// Of so many deaths one comes while hosts install.
const LATE: usize = 8;
/// How often the controller is asked what has come of a push.
const ASK: Duration = Duration::from_secs(1);
/// How long what is on its way to the dead may take to be counted.
const DRAIN: Duration = Duration::from_secs(10);

impl Trial {
    /// Starts the fleet below `dir`. Files of so many bytes will be pushed to it; `lines` are the
    /// links of the relay and of the hosts.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(
        (binary, dir): (PathBuf, &Path),
        bytes: usize,
        lines: [&Profile; 2],
        seed: u64,
    ) -> Result<Trial> {
        let mut fleet = Fleet::placed(binary, PACE, dir, BTreeMap::new())?;
        let mut links = Vec::new();
        let mut line = |fleet: &mut Fleet, parent: &str, profile: &Profile| -> Result<()> {
            let target = fleet.listen(parent)?.parse()?;
            let link = UdpLink::start("127.0.0.1:0".parse()?, target, profile, seed)?;
            fleet.route(parent, link.address().to_string());
            links.push(link);
            Ok(())
        };
        line(&mut fleet, "controller", lines[0])?;
        fleet.add(&Spec::new("relay", RELAY, "controller").at("lyon"))?;
        for host in HOSTS {
            line(&mut fleet, RELAY, lines[1])?;
            fleet.add(&Spec::new("host", host, RELAY).at("lyon"))?;
        }
        fleet.wait_up(BELOW.len() as u64)?;
        let push = Push::default();
        let dice = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed.wrapping_mul(2).wrapping_add(1));
        Ok(Trial { fleet, links, bytes, pushes: 0, push, dice, factor: [1.0; 3] })
    }

    /// Pushes a file of so many bytes without killing anybody, and takes from it what headers make
    /// of each byte.
    ///
    /// # Errors
    /// Within `limit` it does not come to its end, or a host has another file then.
    pub fn calibrate(&mut self, bytes: usize, limit: Duration) -> Result<Links<f64>> {
        let calm = self.push(bytes, Victim::Relay, &[], limit)?;
        self.factor = calm.delivered.map(|delivered| delivered as f64 / bytes as f64);
        Ok(self.factor)
    }

    /// Pushes, and kills so many times meanwhile; fewer if the push is over before.
    ///
    /// # Errors
    /// Within `limit` it does not come to its end, or a host has another file then.
    pub fn play(&mut self, victim: Victim, kills: usize, limit: Duration) -> Result<Played> {
        let mut moments = Vec::new();
        for n in 0..kills {
            let at = self.below(10_000) as f64 / 10_000.0;
            let host = self.below(HOSTS.len());
            moments.push(Moment { installing: n < kills / LATE, at, host });
        }
        moments.sort_by(|one, other| {
            one.installing.cmp(&other.installing).then(one.at.total_cmp(&other.at))
        });
        self.push(self.bytes, victim, &moments, limit)
    }

    fn push(
        &mut self,
        bytes: usize,
        victim: Victim,
        moments: &[Moment],
        limit: Duration,
    ) -> Result<Played> {
        self.pushes += 1;
        let name = format!("large{}", self.pushes);
        let source = self.fleet.path().join(&name);
        fs::write(&source, noise(self.dice ^ self.pushes, bytes))?;
        let text = source.to_str().context("a plain path")?.to_owned();
        self.push = Push { dest: format!("{FOLDER}/{name}"), ..Push::default() };
        for n in 0..BELOW.len() {
            self.push.before[n] = self.stored(n)?;
        }
        let before = self.stands()?;
        let begun = Instant::now();
        let args =
            ["push", &text, "-w", "web[1-2]", "--dest", &self.push.dest, "--async", "--json"];
        let output = self.fleet.barid(&args)?;
        ensure!(output.status.success(), "{}", show(&output.stderr));
        let detail = self.fleet.order("last")?;
        self.push.id = detail["order"]["id"].as_str().context("an id")?.to_owned();
        self.push.bytes = bytes as u64;

        let (mut deaths, mut last) = (Vec::new(), before);
        for moment in moments {
            let left = limit.saturating_sub(begun.elapsed());
            let Some(at) = self.reaches(moment, victim, left)? else { break };
            let stands = self.kill(victim, moment.host)?;
            let vain = self.vain(&last, &stands);
            deaths.push(Death { at, installing: moment.installing, vain });
            last = stands;
        }
        let what = format!("the push to come to its end after {} deaths", deaths.len());
        let left = limit.saturating_sub(begun.elapsed());
        let mut over = self.asking();
        wait_for(&what, left, || Ok(over(self)?.then_some(())))?;
        let took = begun.elapsed();
        for host in HOSTS {
            let there = self.fleet.at(host, &self.push.dest);
            ensure!(same(&source, &there)?, "{what}: {host} has another file");
            fs::remove_file(there)?;
        }
        fs::remove_file(source)?;
        let delivered = std::array::from_fn(|n| self.delivered(n) - before[n].delivered);
        Ok(Played { deaths, delivered, took })
    }

    /// Waits for the moment to kill. The share that is there then; none: the push is over.
    fn reaches(&self, moment: &Moment, victim: Victim, limit: Duration) -> Result<Option<f64>> {
        let until = (moment.at * self.push.bytes as f64) as u64;
        let place = if victim == Victim::Host { 1 + moment.host } else { 0 };
        let mut over = self.asking();
        wait_for(&format!("{moment:?}"), limit, || {
            let come = match moment.installing {
                true => self.written(moment.host)?,
                false => self.held(place)?,
            };
            Ok(match come >= until.max(1) {
                true => Some(Some(come as f64 / self.push.bytes as f64)),
                false => over(self)?.then_some(None),
            })
        })
    }

    /// Kills, looks what has gone over the links until then, and starts again.
    fn kill(&mut self, victim: Victim, host: usize) -> Result<Links<Stand>> {
        let (victims, links): (&[&str], &[usize]) = match victim {
            Victim::Relay => (&[RELAY], &[0, 1, 2]),
            Victim::Host => (&HOSTS[host..=host], &[1 + host]),
            Victim::Both => (&[RELAY, HOSTS[host]], &[0, 1, 2]),
            Victim::Controller => (&["controller"], &[0]),
        };
        victims.iter().try_for_each(|name| self.fleet.kill(name))?;
        wait_for("the links of the dead to be empty", DRAIN, || {
            let empty = |n: &usize| self.links[*n].link().traffic().down.held.packets == 0;
            Ok(links.iter().all(empty).then_some(()))
        })?;
        let stands = self.stands()?;
        victims.iter().try_for_each(|name| self.fleet.restart(name))?;
        Ok(stands)
    }

    /// What has crossed each link in vain between two moments.
    fn vain(&self, then: &Links<Stand>, now: &Links<Stand>) -> Links<u64> {
        std::array::from_fn(|n| {
            let crossed = (now[n].delivered - then[n].delivered) as f64;
            let kept = now[n].held as f64 - then[n].held as f64;
            (crossed - self.factor[n] * kept).max(0.0) as u64
        })
    }

    fn stands(&self) -> Result<Links<Stand>> {
        let mut stands = Links::<Stand>::default();
        for (n, stand) in stands.iter_mut().enumerate() {
            *stand = Stand { delivered: self.delivered(n), held: self.held(n)? };
        }
        Ok(stands)
    }

    fn delivered(&self, link: usize) -> u64 {
        self.links[link].link().traffic().down.delivered.bytes
    }

    /// What the node at the end of a link has of the push. Hosts that have it in place drop its
    /// parts.
    fn held(&self, link: usize) -> Result<u64> {
        let stored = self.stored(link)?.saturating_sub(self.push.before[link]);
        let placed = link > 0 && self.fleet.at(BELOW[link], &self.push.dest).exists();
        Ok(if placed { self.push.bytes } else { stored })
    }

    /// Bytes of parts of pushes that lie in the store at the end of a link, whole or not.
    fn stored(&self, link: usize) -> Result<u64> {
        let store = self.fleet.state(BELOW[link]).join("store");
        let mut parts = BTreeMap::new();
        // What becomes whole meanwhile is found in its old place or in its new one.
        for (name, len) in files(&store.join("partial"))? {
            if !name.ends_with(".outline") {
                parts.insert(name, len);
            }
        }
        for folder in entries(&store.join("objects"))? {
            parts.extend(files(&folder.path())?.into_iter().filter(|(_, len)| *len > CHUNK));
        }
        Ok(parts.values().sum())
    }

    /// Bytes that a host has written beside the destination, or in its place.
    fn written(&self, host: usize) -> Result<u64> {
        let there = files(&self.fleet.at(HOSTS[host], FOLDER))?;
        Ok(there.into_iter().map(|(_, len)| len).max().unwrap_or_default())
    }

    /// Says whether every host has a push in place, as it was when the controller was last asked.
    fn asking(&self) -> impl FnMut(&Trial) -> Result<bool> + use<> {
        let mut asked = Instant::now();
        move |trial| {
            if asked.elapsed() < ASK {
                return Ok(false);
            }
            asked = Instant::now();
            // A controller that has just been started may not answer yet.
            let Ok(detail) = trial.fleet.order(&trial.push.id) else { return Ok(false) };
            let states = &detail["order"]["states"];
            ensure!(states["failed"].is_null(), "{detail:#}");
            Ok(states["ok"] == HOSTS.len())
        }
    }

    fn below(&mut self, most: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice % most as u64).unwrap_or_default()
    }
}

/// The names and lengths of the files in a folder, of which any may go meanwhile.
fn files(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in entries(folder)? {
        if let Ok(meta) = entry.metadata()
            && meta.is_file()
        {
            files.push((entry.file_name().to_string_lossy().into_owned(), meta.len()));
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.collect::<Result<_, _>>()?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", folder.display())),
    }
}

/// Whether two files hold the same.
fn same(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..read])?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
    }
}
