//! A laboratory: sites behind emulated links, made of network namespaces. Needs root.
//!
//! One namespace is the root; each site has a gateway, and hosts on a LAN behind it. Root and
//! gateway see each other over a [`TunLink`], gateway and hosts over a bridge. Every program that
//! runs inside takes part through the kernel's own network stack, so whatever speaks IP can be
//! measured on the same links, and the bytes are counted at the link.
//!
//! All namespaces are on one file system. Everything ends with the [`Lab`], processes included:
//! a guard, which is a process of its own, waits for the laboratory's process to end in whatever
//! way, and sweeps all that carries its prefix.

mod guard;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

use crate::wan::{End, Link, LinkError, Profile, TunLink, Way, inside};
pub use guard::Guard;

/// Sites at most, and hosts of a site at most: what the addresses leave room for.
pub const LIMIT: usize = 200;

/// Why there is no laboratory, or why something in it does not work.
#[derive(Debug, Error)]
pub enum LabError {
    /// This machine cannot have one: no root, no TUN, no namespaces. Nothing was changed.
    #[error("no network namespaces here: {0}")]
    Absent(String),
    /// A number is out of range. Nothing was changed.
    #[error("{what}: {count} is more than {LIMIT}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        count: usize,
    },
    /// A command has failed. What was made until then is swept.
    #[error("{command}: {said}")]
    Command {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// A program could not be started.
    #[error("starting {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A link could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many sites, each behind a link of its own.
    pub sites: usize,
    /// How many hosts each has, besides its gateway.
    pub hosts: usize,
    /// What each link is like.
    pub profile: Profile,
    /// What the dice of the links begin with.
    pub seed: u64,
}

/// One machine of the laboratory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its namespace, as `ip netns` names it.
    pub namespace: String,
    /// Where the others reach it.
    pub address: Ipv4Addr,
}

impl Machine {
    /// A command that will run there.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Does something there in a thread of this process. Sockets that it opens stay there.
    ///
    /// # Errors
    /// There is no such namespace, or what the work says.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        inside(&self.namespace, work)
    }
}

/// A site.
pub struct Site {
    /// Reached by its hosts on the LAN, and by the root through the link.
    pub gateway: Machine,
    /// Behind it.
    pub hosts: Vec<Machine>,
    link: TunLink,
}

impl Site {
    /// The link between the root and this site.
    pub fn link(&self) -> &Link {
        self.link.link()
    }

    /// Puts a firewall between the hosts of this site: each reaches the gateway alone.
    ///
    /// # Errors
    /// The kernel's bridge cannot do so.
    pub fn part_hosts(&self) -> Result<(), LabError> {
        let part = |host| format!("link set h{host} type bridge_slave isolated on");
        batch(&self.gateway, &(1..=self.hosts.len()).map(part).collect::<Vec<_>>())
    }

    /// Lets no more than so many Mbit/s come to a host, counted from 1, and leave it.
    ///
    /// # Errors
    /// There is no `tc`, or the kernel has no token bucket.
    pub fn slow(&self, host: usize, mbit: u32) -> Result<(), LabError> {
        let (near, far) = (&self.hosts[host - 1], &self.gateway);
        for (machine, device) in [(near, "eth0".to_owned()), (far, format!("h{host}"))] {
            let mut command = machine.command("tc");
            command.args(["qdisc", "replace", "dev", &device, "root", "tbf"]);
            command.args(["burst", "32k", "latency", "50ms", "rate", &format!("{mbit}mbit")]);
            finish(command, None, &format!("tc qdisc replace dev {device} root tbf"))?;
        }
        Ok(())
    }
}

/// The laboratory. It ends when this is dropped.
pub struct Lab {
    /// Where the controller and the tools run.
    pub root: Machine,
    /// All sites, in order.
    pub sites: Vec<Site>,
    scratch: PathBuf,
    // Last: it sweeps what the links, dropped before, have left.
    _guard: Guard,
}

/// Whether a laboratory can be built here.
///
/// # Errors
/// The reason why not, to be printed by what is skipped.
pub fn check() -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::Absent("this needs root".into()));
    }
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    if let Err(error) = tun {
        return Err(LabError::Absent(format!("/dev/net/tun: {error}")));
    }
    // A namespace that is made and unmade says more than any list of features.
    let name = prefix();
    ip(&["netns", "add", &name]).map_err(|error| LabError::Absent(error.to_string()))?;
    ip(&["netns", "delete", &name])
}

impl Lab {
    /// Builds it.
    ///
    /// # Errors
    /// It cannot be had here, or a number is too large, or a command fails. Nothing is left behind.
    pub fn build(plan: &Plan) -> Result<Lab, LabError> {
        check()?;
        for (what, count) in [("sites", plan.sites), ("hosts of a site", plan.hosts)] {
            if count > LIMIT {
                return Err(LabError::TooMany { what, count });
            }
        }
        let prefix = prefix();
        let scratch = std::env::temp_dir().join(prefix.trim_end_matches('-'));
        std::fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(|source| {
            LabError::Start { program: format!("with the folder {}", scratch.display()), source }
        })?;
        let guard = Guard::start(&prefix, &scratch)?;
        let root =
            Machine { namespace: format!("{prefix}root"), address: Ipv4Addr::new(10, 117, 0, 1) };
        add(&root)?;
        batch(&root, &["address add 10.117.0.1/32 dev lo".into()])?;
        let sites = (1..=plan.sites).map(|no| Site::build(plan, &root, &prefix, no));
        let sites = sites.collect::<Result<Vec<_>, _>>()?;
        Ok(Lab { root, sites, scratch, _guard: guard })
    }

    /// A private folder that ends with the laboratory.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Gives every link another profile, while it runs.
    ///
    /// # Errors
    /// The profile makes no sense. Nothing has changed.
    pub fn reshape(&self, profile: &Profile) -> Result<(), LabError> {
        for link in self.sites.iter().map(Site::link) {
            link.reshape(Way::Down, profile.down.clone()).map_err(LinkError::from)?;
            link.reshape(Way::Up, profile.up.clone()).map_err(LinkError::from)?;
        }
        Ok(())
    }

    /// Every machine: the root, then site by site the gateway and its hosts.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        let sites = self.sites.iter();
        let inside = sites.flat_map(|site| std::iter::once(&site.gateway).chain(&site.hosts));
        std::iter::once(&self.root).chain(inside)
    }

    /// Pins the congestion control of TCP on every machine, for connections that begin from now on.
    ///
    /// It is pinned to the routes: as the default of a namespace the kernel takes only what the
    /// whole system allows to everybody.
    ///
    /// # Errors
    /// The kernel has none of that name.
    pub fn pin_tcp(&self, control: &str) -> Result<(), LabError> {
        let routes = |machine: &Machine, routes: &[String]| {
            let pin = |route: &String| format!("route replace {route} congctl {control}");
            batch(machine, &routes.iter().map(pin).collect::<Vec<_>>())
        };
        for (no, site) in (1..).zip(&self.sites) {
            let gateway = site.gateway.address;
            let wan = |device: &str, end: u8| {
                let from = format!("10.118.{no}.{end}");
                format!("10.118.{no}.0/30 dev {device} proto kernel scope link src {from}")
            };
            let lan = |device: &str, machine: &Machine| {
                let from = machine.address;
                format!("10.119.{no}.0/24 dev {device} proto kernel scope link src {from}")
            };
            let (down, up) = (
                format!("10.119.{no}.0/24 via 10.118.{no}.2"),
                format!("default via 10.118.{no}.1"),
            );
            routes(&self.root, &[wan(&format!("wan{no}"), 1), down])?;
            routes(&site.gateway, &[wan("wan", 2), up, lan("lan", &site.gateway)])?;
            for host in &site.hosts {
                routes(host, &[format!("default via {gateway}"), lan("eth0", host)])?;
            }
        }
        Ok(())
    }
}

impl Site {
    fn build(plan: &Plan, root: &Machine, prefix: &str, no: usize) -> Result<Site, LabError> {
        let lan = |last: usize| {
            let byte = |n: usize| u8::try_from(n).expect("both are at most LIMIT and a little");
            Ipv4Addr::new(10, 119, byte(no), byte(last))
        };
        let gateway = Machine { namespace: format!("{prefix}gw{no}"), address: lan(1) };
        add(&gateway)?;
        let end = |machine: &Machine, device: String| End {
            namespace: machine.namespace.clone(),
            device,
        };
        let (outer, inner) = (end(root, format!("wan{no}")), end(&gateway, "wan".into()));
        let seed = plan.seed.wrapping_add(no as u64 * 2);
        let link = TunLink::start(&outer, &inner, &plan.profile, seed)?;
        // Long queues at the devices: what a link cannot hold is dropped, and counted, by the link.
        batch(
            root,
            &[
                format!("link set wan{no} txqueuelen 10000 up"),
                format!("address add 10.118.{no}.1/30 dev wan{no}"),
                format!("route add 10.119.{no}.0/24 via 10.118.{no}.2"),
            ],
        )?;
        batch(
            &gateway,
            &[
                "link set wan txqueuelen 10000 up".into(),
                format!("address add 10.118.{no}.2/30 dev wan"),
                format!("route add default via 10.118.{no}.1"),
                "link add lan type bridge".into(),
                "link set lan up".into(),
                format!("address add {}/24 dev lan", gateway.address),
            ],
        )?;
        let hosts = (1..=plan.hosts).map(|host| {
            let machine =
                Machine { namespace: format!("{prefix}s{no}h{host}"), address: lan(10 + host) };
            add(&machine)?;
            let name = &machine.namespace;
            batch(
                &gateway,
                &[
                    format!("link add h{host} type veth peer name eth0 netns {name}"),
                    format!("link set h{host} master lan up"),
                ],
            )?;
            batch(
                &machine,
                &[
                    "link set eth0 up".into(),
                    format!("address add {}/24 dev eth0", machine.address),
                    format!("route add default via {}", gateway.address),
                ],
            )?;
            Ok(machine)
        });
        let hosts = hosts.collect::<Result<Vec<_>, LabError>>()?;
        Ok(Site { gateway, hosts, link })
    }
}

/// A prefix that nobody else has: the process, and how many laboratories it had before.
fn prefix() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("barid-lab-{}-{number}-", std::process::id())
}

fn add(machine: &Machine) -> Result<(), LabError> {
    ip(&["netns", "add", &machine.namespace])?;
    // Nothing but what a benchmark sends shall cross a link.
    set(machine, &["net.ipv6.conf.all.disable_ipv6=1", "net.ipv4.ip_forward=1"])?;
    batch(machine, &["link set lo up".into()])
}

/// Sets sysctls there. Whether there is IPv6 to be switched off does not matter.
fn set(machine: &Machine, settings: &[&str]) -> Result<(), LabError> {
    for setting in settings {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let script = format!("[ -e {0} ] || exit 0; echo {value} > {0}", path.display());
        let mut command = machine.command("sh");
        command.args(["-c", &script]);
        finish(command, None, setting)?;
    }
    Ok(())
}

/// Commands of `ip`, in the namespace of a machine.
fn batch(machine: &Machine, lines: &[String]) -> Result<(), LabError> {
    let mut command = Command::new("ip");
    command.args(["-netns", &machine.namespace, "-batch", "-"]);
    finish(command, Some(&lines.join("\n")), &lines.join("; "))
}

fn ip(args: &[&str]) -> Result<(), LabError> {
    let mut command = Command::new("ip");
    command.args(args);
    finish(command, None, &format!("ip {}", args.join(" ")))
}

fn finish(mut command: Command, input: Option<&str>, what: &str) -> Result<(), LabError> {
    let start = |source| LabError::Start { program: "ip".into(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input says why in its own words.
        stdin.write_all(input.unwrap_or_default().as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Command { command: what.into(), said })
}
