//! Profiles: hosts say what they are whenever they start, and now and then something else; in the
//! end the root knows the newest of each.
//!
//! Whatever a node tells, its host must have said, and never something older than before.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::{HostId, Input, Profile, Profiled};

use crate::checks::Violation;
use crate::sim::Sim;

/// What is known of profiles from outside.
#[derive(Default)]
pub(crate) struct Profiles {
    /// All that each host has ever said, by revision: the disk of its shell.
    said: BTreeMap<HostId, Vec<Bytes>>,
    /// The newest that each process has told of each host.
    told: BTreeMap<(HostId, HostId), u64>,
}

impl Profiles {
    /// What a host says next, or says again.
    fn next(&mut self, host: HostId, other: bool) -> Profile {
        let said = self.said.entry(host).or_default();
        if other || said.is_empty() {
            // Few texts, so that they fold, and not the same as the last one.
            let text = [host.0 as u8 % 2, said.len() as u8 % 3];
            said.push(Bytes::copy_from_slice(&text));
        }
        let text = said.last().cloned().unwrap_or_default();
        Profile { revision: said.len() as u64, text }
    }

    /// A process died.
    pub(crate) fn died(&mut self, me: HostId) {
        self.told.retain(|(teller, _), _| *teller != me);
    }

    /// A node tells profiles.
    pub(crate) fn telling(&mut self, me: HostId, lines: &[Profiled]) -> Result<(), Violation> {
        for Profiled { profile: Profile { revision, text }, hosts } in lines {
            for host in hosts.iter() {
                let no = usize::try_from(*revision).unwrap_or_default();
                let said = self.said.get(&host).and_then(|said| said.get(no.checked_sub(1)?));
                if said != Some(text) {
                    let detail = format!("{me:?} tells {text:?} of {host:?}, which said {said:?}");
                    return Err(Violation::new("a profile is true", detail));
                }
                let told = self.told.entry((me, host)).or_default();
                // What came to the root by an old way is its keeper's to tell apart.
                if revision < told && me != HostId::ROOT {
                    let detail = format!("{me:?} tells {revision} of {host:?} after {told}");
                    return Err(Violation::new("profiles do not go back", detail));
                }
                *told = *revision;
            }
        }
        Ok(())
    }

    /// Of whom the root does not know the newest.
    fn outdated(&self, known: &BTreeMap<HostId, Profile>) -> Option<String> {
        self.said.iter().find_map(|(host, said)| {
            let revision = said.len() as u64;
            let known = known.get(host).map(|profile| profile.revision);
            (known != Some(revision))
                .then(|| format!("{host:?} has said {revision}, the root knows {known:?}"))
        })
    }
}

impl Sim {
    /// A host says what it is: the same as before, or something else.
    pub(crate) fn profile(&mut self, node: usize, other: bool) -> Result<(), Violation> {
        let is_quiet = self.plan.events.is_none() || node == 0;
        if is_quiet || self.seats[node].process.is_none() {
            return Ok(());
        }
        let profile = self.checks.profiles.next(HostId(node as u32), other);
        self.feed(node, Input::Profile(profile))
    }

    /// Whose newest profile the root does not know, if there is somebody.
    pub(crate) fn outdated(&self) -> Option<String> {
        self.checks.profiles.outdated(&self.seats[0].disk.profiles())
    }
}
