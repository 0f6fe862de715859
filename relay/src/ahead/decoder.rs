//! What can be decoded of a push that has not begun.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use content::{
    ApplyError, ChunkRef, ContentId, Delta, Installer, Limits, Manifest, PackError, Segment, Store,
    StoreError, Unpack,
};
use mesh::{HostId, OrderId};
use protos::{Bundle, Part, Push, Work};
use tracing::{debug, info};

use super::{Ahead, Look};
use crate::journal::{Journal, JournalError};
use crate::verify::Verifier;

/// Manifests that are longer, in bytes, are left to the order itself: they are in memory once more
/// for each part that comes.
const MANIFEST: usize = 4 << 20;

/// Of manifests that are not left to the order itself.
fn limits() -> Limits {
    Limits { encoded: MANIFEST, ..Limits::default() }
}

/// Decodes ahead at one host.
#[derive(Clone)]
pub(crate) struct Decoder {
    pub(crate) host: HostId,
    pub(crate) root: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) store: Arc<Store>,
    pub(crate) verifier: Arc<Verifier>,
}

/// Why something is left to the order itself.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Decoder {
    /// Decodes what has come of an order. Blocks.
    pub(super) fn look(&self, ahead: &Ahead, id: OrderId) {
        let Some(look) = ahead.look_at(id) else { return };
        match self.verifier.check(&look.order.body, SystemTime::now()).map(|body| body.work) {
            Ok(Work::Push(push)) => self.push(&look, &push),
            _ => look.end(),
        }
    }

    /// Decodes what has come of a push.
    pub(super) fn push(&self, look: &Look, push: &Push) {
        match self.try_push(look, push) {
            Ok(true) => {}
            Ok(false) => look.end(),
            Err(error) => {
                let order = look.order.id;
                debug!(%order, error = %crate::chain(&error), "nothing more is decoded ahead");
                look.end();
            }
        }
    }

    /// Whether it is worth another look when more has come.
    fn try_push(&self, look: &Look, push: &Push) -> Result<bool, Left> {
        if push.terms.verify || (push.terms.tree && push.terms.rollback) {
            return Ok(false);
        }
        let Some((bundle, base)) = self.bundle(push)? else { return Ok(false) };
        let parts = || bundle.segments.iter().chain(&bundle.deltas);
        // The last part begins the order.
        if parts().count() < 2 {
            return Ok(false);
        }
        let mut here = Vec::new();
        for part in parts().filter(|part| !look.has(part.id)) {
            if self.store.has(&ContentId(part.id.0))? {
                here.push(part);
            }
        }
        if here.is_empty() {
            return Ok(true);
        }
        let Some(manifest) = self.part(push, &bundle.manifest)? else { return Ok(true) };
        let canonical = base.as_ref().map(Manifest::encode);
        let target = content::pack::decode_manifest(&manifest, canonical.as_deref(), &limits())?;
        if target.root() != ContentId(push.manifest.0) {
            return Ok(false);
        }
        let plan = content::plan(base.as_ref(), &target);
        if !self.has_room(bundle, &plan)? {
            return Ok(false);
        }
        match &base {
            Some(base) => self.deltas(look, push, (base, &target), &here),
            None => self.segments(look, &plan, &here),
        }?;
        Ok(true)
    }

    /// The way that the order would take if it began now, and its base.
    fn bundle<'a>(&self, push: &'a Push) -> Result<Option<(&'a Bundle, Option<Manifest>)>, Left> {
        let find = |base| push.bundles.iter().find(|bundle| bundle.base == base);
        if let Some((root, _)) = self.journal.installed(&push.dest)?
            && let Some(bundle) = find(Some(root))
            && let Some(base) = self.store.get(&ContentId(root.0))?
            && let Ok(base) = Manifest::decode(&base, &limits())
        {
            return Ok(Some((bundle, Some(base))));
        }
        let full = push.bundles.iter().find(|b| b.base.is_none() && b.hosts.contains(self.host));
        // What is there may be right already, and to find out is the installer's work.
        let dest = push.dest.strip_prefix(b"/").unwrap_or(&push.dest);
        let is_new = self.root.join(OsStr::from_bytes(dest)).symlink_metadata().is_err();
        Ok(full.filter(|_| is_new).map(|bundle| (bundle, None)))
    }

    fn part(&self, push: &Push, part: &Part) -> Result<Option<Vec<u8>>, StoreError> {
        let id = ContentId(part.id.0);
        match push.inline.iter().find(|inline| ContentId::of(inline) == id) {
            Some(inline) => Ok(Some(inline.to_vec())),
            None => self.store.get(&id),
        }
    }

    /// Whether as much room is left as the whole push takes, once it is here.
    fn has_room(&self, bundle: &Bundle, plan: &[ChunkRef]) -> Result<bool, StoreError> {
        let parts = bundle.segments.iter().chain(&bundle.deltas);
        let parts = parts.map(|part| (ContentId(part.id.0), part.bytes));
        let all: Vec<_> = parts.chain(plan.iter().map(|chunk| (chunk.id, chunk.len))).collect();
        let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        let absent = self.store.absent(&ids)?;
        let absent = all.iter().filter(|(id, _)| absent.contains(id));
        let wanted: u64 = absent.map(|(_, len)| u64::from(*len)).sum();
        Ok(self.store.would_fit(wanted.saturating_mul(2)).is_ok())
    }

    /// Decodes segments that are made of the files of the base.
    fn deltas(
        &self,
        look: &Look,
        push: &Push,
        (base, target): (&Manifest, &Manifest),
        here: &[&Part],
    ) -> Result<(), Left> {
        let delta = Delta::new(base, target);
        let installed = Installer::new(self.root.clone()).installed(&push.dest, base)?;
        let store = &*self.store;
        let mut unpack = Unpack { base, target, deltas: &[], installed, store };
        let brings = |bytes: &[u8]| delta.chunks(bytes);
        self.each(look, here, brings, |bytes| Ok(unpack.ahead(&delta, bytes)?))
    }

    /// Decodes segments of chunks as they are.
    fn segments(&self, look: &Look, plan: &[ChunkRef], here: &[&Part]) -> Result<(), Left> {
        let brings = |bytes: &[u8]| Ok(Segment::chunks(bytes, plan)?.to_vec());
        self.each(look, here, brings, |bytes| {
            let mut batch = self.store.batch();
            Segment::decode(bytes, plan, &mut |chunk, bytes| {
                batch.put(chunk.id, bytes).map_err(Left::Store)
            })?;
            Ok(batch.commit()?)
        })
    }

    /// Decodes these parts, one after the other. `brings` says which chunks are in one.
    fn each(
        &self,
        look: &Look,
        here: &[&Part],
        brings: impl Fn(&[u8]) -> Result<Vec<ChunkRef>, PackError>,
        mut decode: impl FnMut(&[u8]) -> Result<(), Left>,
    ) -> Result<(), Left> {
        for part in here {
            if look.is_over() {
                break;
            }
            let Some(bytes) = self.store.get(&ContentId(part.id.0))? else { continue };
            let brings: Vec<_> = brings(&bytes)?.iter().map(|chunk| chunk.id).collect();
            let absent = self.store.absent(&brings)?;
            let done = if absent.is_empty() { Ok(()) } else { decode(&bytes) };
            // Also if it went wrong half way.
            let left = self.store.absent(&brings)?;
            let chunks: BTreeSet<_> = absent.difference(&left).copied().collect();
            info!(order = %look.order.id, part = %part.id, chunks = chunks.len(), "decoded ahead");
            look.decoded(part.id, chunks);
            done?;
        }
        Ok(())
    }
}
