//! Making a push: read the source, find out what each host has, encode what each lacks.
//!
//! The controller knows what a host has at a destination, because it put it there and the host has
//! said so; the delta goes out unasked. Hosts that have nothing, or something else, get the whole
//! tree as one solid pack. Small parts travel inside the order itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use content::pack::{self, Bundle};
use content::{ContentId, Kind, Limits, Manifest, Store};
use mesh::{Digest, HostId, HostSet, Need, OrderId};
use protos::{Part, Push, Terms, Work};
use tokio::sync::mpsc;
use tracing::info;

use crate::asked::question;
use crate::fault::Failure;
use crate::orders::Draft;
use crate::packs;
use crate::rollout::row::order_id;
use crate::slowest::Slowest;
use crate::tables::Tables;
use crate::terms::terms;
use crate::types::{NewPush, PushEvent, PushInfo};

/// Parts of this size together travel inside the order.
pub(crate) const INLINE: usize = 32 << 10;
/// How many different bases get a delta of their own; hosts with rarer ones get the full pack.
const BASES: usize = 8;
/// How hard packs are compressed.
const LEVEL: i32 = 9;
/// How long installing may take on top of all waiting.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// Makes the packs of pushes.
#[derive(Clone)]
pub(crate) struct Packer {
    pub(crate) tables: Tables,
    pub(crate) store: Arc<Store>,
    pub(crate) slowest: Slowest,
}

/// What is to be put where, and how.
pub(crate) struct Step {
    pub(crate) dest: String,
    pub(crate) manifest: Manifest,
    pub(crate) skipped: Vec<String>,
    pub(crate) terms: Terms,
    /// The same in one line.
    pub(crate) what: String,
    /// The preflight in which hosts were asked what they lack.
    pub(crate) asked: Option<OrderId>,
}

/// A push that is ready to be given.
pub(crate) struct Packed {
    pub(crate) draft: Draft,
    /// What was left out because it is neither file, directory nor symlink.
    pub(crate) skipped: Vec<String>,
    pub(crate) manifest: Manifest,
    /// What hosts have now, if that is known, who they are, and the bytes that travel for them.
    pub(crate) steps: Vec<(Option<ContentId>, HostSet, u64)>,
}

impl Packer {
    /// One with tables and a store of its own, for tests.
    #[cfg(test)]
    pub(crate) fn in_folder(folder: &std::path::Path) -> Packer {
        let journal = relay::Journal::open(&folder.join("db"), 1 << 20).expect("opens");
        let tables = Tables::open(journal).expect("they are made");
        let store = Arc::new(Store::open(folder.join("store")).expect("opens"));
        Packer { tables, store, slowest: Slowest::default() }
    }

    /// Reads and packs. Blocks; progress goes to `tell`, which may lag without harm.
    pub(crate) fn pack(
        &self,
        new: &NewPush,
        targets: HostSet,
        tell: &mpsc::Sender<PushEvent>,
    ) -> Result<Packed, Failure> {
        let step = self.step(new, tell)?;
        tell.try_send(PushEvent::Packing).ok();
        self.prepare_for(new, step, targets)
    }

    /// Packs what was read for a push, as it was asked for. Blocks.
    pub(crate) fn prepare_for(
        &self,
        new: &NewPush,
        step: Step,
        targets: HostSet,
    ) -> Result<Packed, Failure> {
        // Who counts bytes wants the fewest, be they there later; and a rate of its own is the
        // slowest wherever the links are faster.
        let rate = |hosts: &HostSet| {
            let rate = self.slowest.towards(hosts).filter(|_| new.max_link_bytes.is_none())?;
            Some(rate.min(if new.rate == 0 { u64::MAX } else { new.rate / 8 }))
        };
        let mut packed = self.prepare(step, targets, (new.reach_ms, new.hold_ms), &rate)?;
        packed.draft.push.iter_mut().for_each(|push| push.rate = new.rate);
        Ok(packed)
    }

    /// Reads what is to be pushed. Blocks.
    pub(crate) fn step(
        &self,
        new: &NewPush,
        tell: &mpsc::Sender<PushEvent>,
    ) -> Result<Step, Failure> {
        let (source, dest) = check_paths(new)?;
        let (terms, exclude) = terms(new)?;
        self.store.make_room(0).map_err(|error| Failure::content(&error))?;
        let asked = asked(new)?;
        let known = match asked {
            Some(order) => self.asked_tree(order, (&source, &dest))?,
            None => None,
        };
        let (mut manifest, skipped) = match known {
            Some(manifest) => (manifest, Vec::new()),
            None => self.read(&source, &exclude, terms.content_only, tell)?,
        };
        if new.numeric_ids {
            for entry in &mut manifest.entries {
                (entry.owner, entry.group) = (content::Name::default(), content::Name::default());
            }
        }
        let what = match (new.verify, new.preflight) {
            (true, true) => question(&source, &dest),
            (true, false) => format!("verify {} -> {dest}", source.display()),
            (false, _) => format!("{} -> {dest}", source.display()),
        };
        Ok(Step { dest, manifest, skipped, terms, what, asked })
    }

    /// Keeps a tree in the store. Returns its root. Blocks.
    pub(crate) fn keep(&self, manifest: &Manifest) -> Result<ContentId, Failure> {
        let root = manifest.root();
        self.store.put(root, &manifest.encode()).map_err(|error| Failure::content(&error))?;
        Ok(root)
    }

    /// Packs what takes each of the targets to a tree that is in the store. `rate`: bytes a second
    /// of the slowest link to some of them, if that is known.
    pub(crate) fn prepare(
        &self,
        step: Step,
        targets: HostSet,
        (reach_ms, hold_ms): (u64, u64),
        rate: &dyn Fn(&HostSet) -> Option<u64>,
    ) -> Result<Packed, Failure> {
        let Step { dest, manifest, skipped, terms, what, asked } = step;
        if terms.tree && manifest.entries.first().is_none_or(|root| root.kind != Kind::Dir) {
            let message = "only a folder can be put in place as a whole";
            return Err(Failure::bad(
                message,
                "leave --tree out: a file is replaced at once anyway",
            ));
        }
        // Who only looks needs no content, and who has kept the tree neither.
        let bare = terms.verify || (terms.rollback && terms.tree);
        let root = self.keep(&manifest)?;
        let asked = match asked.filter(|_| !bare) {
            Some(order) => self.asked(order, &dest, (root, &manifest))?,
            None => None,
        };
        let mut bundles = Vec::new();
        let mut lacking = HostSet::new();
        for (base, mut hosts) in self.bases(dest.as_bytes(), &targets)? {
            let base = match base {
                Some(root) => self.manifest(root)?.map(|manifest| (root, manifest)),
                None => None,
            };
            if let (None, Some(asked)) = (&base, &asked) {
                lacking = lacking.union(&hosts.intersection(&asked.hosts));
                hosts = hosts.difference(&lacking);
                if hosts.is_empty() {
                    continue;
                }
            }
            let base = base.as_ref().map(|(root, manifest)| (*root, manifest));
            let target = (root, &manifest);
            let bundle = match bare {
                true => self.manifest_only(base, &manifest)?,
                false => {
                    let how = (LEVEL, rate(&hosts));
                    packs::bundle(&self.tables, &self.store, base, target, how)?
                }
            };
            bundles.push((bundle, hosts));
        }
        merge_unknown(&mut bundles);
        if let Some(asked) = asked.filter(|_| !lacking.is_empty()) {
            let bundle = pack::encode_missing(&manifest, &asked.runs, &self.store, LEVEL);
            bundles.push((bundle.map_err(|error| Failure::content(&error))?, lacking));
        }
        let weight = |bundle: &Bundle| bundle.parts().map(|part| u64::from(part.bytes)).sum();
        let steps = bundles.iter().map(|(b, hosts)| (b.base, hosts.clone(), weight(b))).collect();
        let full = pack::encode_manifest_part(None, &manifest, &self.store, LEVEL);
        let full = full.map_err(|error| Failure::content(&error))?;
        let (push, needs, pack_bytes) =
            self.assemble(&dest, root, full, bundles, &mut { INLINE })?;
        let info = PushInfo {
            files: manifest.files(),
            bytes: manifest.bytes(),
            pack_bytes,
            manifest: root.to_string(),
            dest: dest.clone(),
            tree: terms.tree,
            verify: terms.verify,
            rate: 0,
        };
        let push = Push { terms, ..push };
        info!(%what, files = info.files, pack_bytes, "packed");
        let draft = Draft {
            targets,
            needs,
            reach: Duration::from_millis(reach_ms),
            hold: Duration::from_millis(hold_ms.max(reach_ms)),
            longest: LONGEST,
            kind: "push",
            what,
            until: None,
            gate: None,
            run: None,
            retries: None,
            work: Work::Push(push),
            push: Some(info),
        };
        Ok(Packed { draft, skipped, manifest, steps })
    }

    /// Which base which of the targets have; those without a usable one under `None`.
    fn bases(
        &self,
        dest: &[u8],
        targets: &HostSet,
    ) -> Result<Vec<(Option<ContentId>, HostSet)>, Failure> {
        let placed = self.tables.placed(dest)?;
        let mut by_base: BTreeMap<Digest, Vec<HostId>> = BTreeMap::new();
        for (host, root) in placed {
            if targets.contains(host) {
                by_base.entry(root).or_default().push(host);
            }
        }
        let mut common: Vec<_> = by_base.into_iter().collect();
        common.sort_by_key(|(_, hosts)| std::cmp::Reverse(hosts.len()));
        let mut rest = targets.clone();
        let mut bases = Vec::new();
        for (root, hosts) in common.into_iter().take(BASES) {
            let (id, hosts): (_, HostSet) = (ContentId(root.0), hosts.into_iter().collect());
            if self.manifest(id)?.is_some() {
                rest = rest.difference(&hosts);
                bases.push((Some(id), hosts));
            }
        }
        if !rest.is_empty() {
            bases.push((None, rest));
        }
        Ok(bases)
    }

    /// What those need who only look.
    fn manifest_only(
        &self,
        base: Option<(ContentId, &Manifest)>,
        target: &Manifest,
    ) -> Result<Bundle, Failure> {
        let part =
            pack::encode_manifest_part(base.map(|(_, base)| base), target, &self.store, LEVEL);
        let manifest = part.map_err(|error| Failure::content(&error))?;
        let base = base.map(|(root, _)| root);
        Ok(Bundle { base, manifest, segments: Vec::new(), deltas: Vec::new() })
    }

    /// A tree that was pushed before, if it is still known.
    pub(crate) fn manifest(&self, root: ContentId) -> Result<Option<Manifest>, Failure> {
        let bytes = self.store.get(&root);
        let bytes = bytes.map_err(|error| Failure::internal(relay::chain(&error)))?;
        Ok(bytes.and_then(|bytes| Manifest::decode(&bytes, &Limits::default()).ok()))
    }

    /// A push of a tree that is in the store, to hosts of which is known what they have. `verify`:
    /// they only look. `room`: how much of it may travel inside the order.
    pub(crate) fn push_of(
        &self,
        dest: &str,
        target: &Manifest,
        bases: Vec<(Option<(ContentId, Manifest)>, HostSet)>,
        verify: bool,
        room: &mut usize,
    ) -> Result<(Push, Vec<Need>, u64), Failure> {
        let root = target.root();
        let mut bundles = Vec::new();
        for (base, hosts) in bases {
            let base = base.as_ref().map(|(root, manifest)| (*root, manifest));
            let bundle = match verify {
                true => self.manifest_only(base, target)?,
                false => {
                    let how = (LEVEL, self.slowest.towards(&hosts));
                    packs::bundle(&self.tables, &self.store, base, (root, target), how)?
                }
            };
            bundles.push((bundle, hosts));
        }
        let full = pack::encode_manifest_part(None, target, &self.store, LEVEL);
        let full = full.map_err(|error| Failure::content(&error))?;
        self.assemble(dest, root, full, bundles, room)
    }

    fn assemble(
        &self,
        dest: &str,
        root: ContentId,
        full: pack::Part,
        bundles: Vec<(Bundle, HostSet)>,
        room: &mut usize,
    ) -> Result<(Push, Vec<Need>, u64), Failure> {
        let parts = bundles.iter().flat_map(|(bundle, _)| bundle.parts());
        let total: u64 = parts.clone().map(|part| u64::from(part.bytes)).sum();
        let mut inline: BTreeMap<ContentId, Bytes> = BTreeMap::new();
        for part in parts {
            let bytes = part.bytes as usize;
            if bytes <= *room && !inline.contains_key(&part.id) {
                let stored = self.store.get(&part.id);
                let stored = stored.map_err(|error| Failure::internal(relay::chain(&error)))?;
                let stored = stored.ok_or_else(|| Failure::internal("a pack went missing"))?;
                *room -= bytes;
                inline.insert(part.id, stored.into());
            }
        }
        let travels = |part: &&pack::Part| !inline.contains_key(&part.id);
        let needs = bundles.iter().map(|(bundle, hosts)| {
            let content = bundle.parts().filter(travels).map(|part| Digest(part.id.0)).collect();
            Need { hosts: hosts.clone(), content }
        });
        let needs = needs.filter(|need| !need.content.is_empty()).collect();
        let bundles = bundles.iter().map(|(bundle, hosts)| protos::Bundle {
            base: bundle.base.map(|id| Digest(id.0)),
            hosts: hosts.clone(),
            manifest: part(&bundle.manifest),
            segments: bundle.segments.iter().map(part).collect(),
            deltas: bundle.deltas.iter().map(part).collect(),
        });
        let push = Push {
            dest: Bytes::copy_from_slice(dest.as_bytes()),
            manifest: Digest(root.0),
            full_manifest: part(&full),
            bundles: bundles.collect(),
            inline: inline.values().cloned().collect(),
            terms: Terms::default(),
        };
        Ok((push, needs, total))
    }
}

fn part(part: &pack::Part) -> Part {
    Part { id: Digest(part.id.0), bytes: part.bytes }
}

/// Two groups may both have ended up without a base: they share one bundle.
fn merge_unknown(bundles: &mut Vec<(Bundle, HostSet)>) {
    let (unknown, known): (Vec<_>, Vec<_>) =
        std::mem::take(bundles).into_iter().partition(|(bundle, _)| bundle.base.is_none());
    *bundles = known;
    let all = unknown.iter().fold(HostSet::new(), |all, (_, hosts)| all.union(hosts));
    if let Some((bundle, _)) = unknown.into_iter().next() {
        bundles.push((bundle, all));
    }
}

/// The preflight that the push names.
pub(crate) fn asked(new: &NewPush) -> Result<Option<OrderId>, Failure> {
    let Some(text) = new.asked.as_deref() else { return Ok(None) };
    let wrong =
        || Failure::bad(format!("`asked`: {text} is not the id of an order"), "leave it out");
    order_id(text).map(Some).ok_or_else(wrong)
}

fn check_paths(new: &NewPush) -> Result<(PathBuf, String), Failure> {
    let source = PathBuf::from(&new.source);
    if !source.is_absolute() {
        let message = format!("the source {} is not an absolute path", new.source);
        return Err(Failure::bad(message, "the controller reads it, from its own root"));
    }
    if !new.dest.starts_with('/') {
        let message = format!("the destination {} is not an absolute path", new.dest);
        return Err(Failure::bad(message, "for example --dest /srv/app"));
    }
    let trimmed = new.dest.trim_end_matches('/');
    Ok((source, if trimmed.is_empty() { "/".into() } else { trimmed.into() }))
}
