//! How the tools push: each as it does best on weak links.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use simulations::lab::Lab;

use crate::site::Tools;
use crate::ssh;

/// How long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    /// Until all gateways had it, if there is such a time.
    pub(crate) gateways: Option<Duration>,
    /// Until the last host had it.
    pub(crate) all: Duration,
}

/// A tool and a way to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// rsync from the root to each host, eight at a time.
    RsyncStar,
    /// rsync to the gateways, and from each to its hosts.
    RsyncTwoStep,
    /// One compressed archive to the gateways, and from each to its hosts.
    TarTwoStep,
    /// clush, which goes through the gateways by itself.
    ClushTree,
}

/// How rsync packs on the weak links.
const PACKED: &str = "-z --zc=zstd --zl=9";

impl Peer {
    /// All, the fast ones first.
    pub(crate) const ALL: [Peer; 4] =
        [Peer::TarTwoStep, Peer::RsyncTwoStep, Peer::ClushTree, Peer::RsyncStar];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::RsyncStar => "rsync to each host, 8 at a time",
            Peer::RsyncTwoStep => "rsync to the gateways, then to the hosts",
            Peer::TarTwoStep => "tar and zstd -9 to the gateways, then to the hosts",
            Peer::ClushTree => "clush --copy, tree",
        }
    }

    /// A program that it needs and that is not here.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let needs: &[&str] = match self {
            Peer::RsyncStar | Peer::RsyncTwoStep => &["rsync"],
            Peer::TarTwoStep => &["tar", "zstd"],
            Peer::ClushTree => &["clush"],
        };
        needs.iter().copied().find(|program| !ssh::is_program(program))
    }

    /// Brings a folder to every host. None: it took longer than the limit.
    pub(crate) fn push(
        self,
        lab: &Lab,
        tools: &Tools,
        new: &Path,
        limit: Duration,
    ) -> Result<Option<Took>> {
        let (steps, count) = self.steps(lab, tools, new);
        let mut all = Duration::ZERO;
        let mut gateways = None;
        for (no, step) in steps.iter().enumerate() {
            let left = limit.saturating_sub(all);
            let Some(took) = ssh::script(lab, step, &[], left)? else { return Ok(None) };
            all += took;
            if no == 0 && count == 2 {
                gateways = Some(all);
            }
        }
        Ok(Some(Took { gateways, all }))
    }

    /// Scripts for the root, one after the other, and how many there are.
    fn steps(self, lab: &Lab, tools: &Tools, new: &Path) -> (Vec<String>, usize) {
        let (new, data) = (new.display(), ssh::own(lab).join("data"));
        let data = data.display();
        let remote = format!("ssh -F {}", tools.config.display());
        let sites = || lab.sites.iter();
        let steps = match self {
            Peer::RsyncStar => {
                let hosts = sites().flat_map(|site| &site.hosts);
                let hosts: Vec<_> = hosts.map(|host| host.address.to_string()).collect();
                vec![format!(
                    "printf '%s\\n' {} | xargs -P 8 -I@ \
                     rsync -a --delete {PACKED} -e '{remote}' {new}/ @:{data}/",
                    hosts.join(" ")
                )]
            }
            Peer::RsyncTwoStep => {
                let first = sites().map(|site| {
                    let to = site.gateway.address;
                    format!("rsync -a --delete {PACKED} -e '{remote}' {new}/ {to}:{data}/")
                });
                let second = sites().map(|site| {
                    let each = site.hosts.iter().map(|host| {
                        let to = host.address;
                        format!("rsync -a --delete -e \"{remote}\" {data}/ {to}:{data}/")
                    });
                    format!("{remote} {} '{}'", site.gateway.address, parallel(each))
                });
                vec![parallel(first), parallel(second)]
            }
            Peer::TarTwoStep => {
                let packed = lab.scratch().join("new.tar.zst");
                let packed = packed.display();
                let there = ssh::own(lab).join("new.tar.zst");
                let there = there.display();
                let first = sites().map(|site| {
                    format!("{remote} {} 'cat > {there}' < {packed}", site.gateway.address)
                });
                let first = format!(
                    "tar -C {new} -cf - . | zstd -q -9 -T0 -f -o {packed}\n{}",
                    parallel(first)
                );
                let second = sites().map(|site| {
                    let each = site.hosts.iter().map(|host| {
                        format!(
                            "{remote} {} \"rm -rf {data}; mkdir {data}; \
                             zstd -qdc | tar -xf - -C {data}\" < {there}",
                            host.address
                        )
                    });
                    format!("{remote} {} '{}'", site.gateway.address, parallel(each))
                });
                vec![first, parallel(second)]
            }
            Peer::ClushTree => {
                let (set, config) = (&tools.set, tools.config.display());
                // The name of the source is the last word of the destination, as with `cp -T`.
                let staged = lab.scratch().join("clush");
                let staged = staged.display();
                vec![format!(
                    "rm -rf {staged}; mkdir {staged}; cp -a {new} {staged}/data\n\
                     clush -S -f 64 -w {set} -o '-F {config}' --topology={} \
                     --copy {staged}/data --dest {data}",
                    tools.topology.display(),
                )]
            }
        };
        let count = steps.len();
        (steps, count)
    }
}

/// Commands at the same time, all of which must succeed.
fn parallel(commands: impl Iterator<Item = String>) -> String {
    let started: String = commands.map(|command| format!("{command} & p=\"$p $!\"\n")).collect();
    format!("p=\n{started}for one in $p; do wait $one || exit 1; done")
}
