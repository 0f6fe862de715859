//! Pushes, as they are signed: which tree goes where, and the ways to get there.
//!
//! The tree is named by the root of its manifest; a bundle names the parts that bring some hosts
//! there from what they have. A part is a piece of content, which travels by itself.
//!
//! Not here: on what terms it is carried out, which is in `terms`, and what stands in manifests
//! and segments.

use bytes::Bytes;
use mesh::{Digest, HostSet};

use crate::field::{array, at_most, given, not_empty, path};
use crate::order::{CONTENT_LIMIT, PATH_LIMIT};
use crate::{FieldError, Terms, hosts, pb};

const BUNDLE_LIMIT: usize = 1024;

/// Files to put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Where to: an absolute path of at most 4,096 bytes, without `.` and `..`.
    pub dest: Bytes,
    /// The root of the manifest: what is there afterwards.
    pub manifest: Digest,
    /// The manifest in full.
    pub full_manifest: Part,
    /// Ways to get there, each for some of the hosts; at most 1,024.
    pub bundles: Vec<Bundle>,
    /// Small parts that travel with the order.
    pub inline: Vec<Bytes>,
    /// How it is carried out.
    pub terms: Terms,
}

/// The parts that bring some hosts from what they have to what they shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The root of the manifest that the hosts have already, if any.
    pub base: Option<Digest>,
    /// For whom it is. Never nobody.
    pub hosts: HostSet,
    /// The manifest, perhaps as a change to that of the base.
    pub manifest: Part,
    /// The segments with the bytes of the files; with the deltas at most 4,096.
    pub segments: Vec<Part>,
    /// The segments that are made from the files of the base.
    pub deltas: Vec<Part>,
}

/// A piece of content: its name and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its hash.
    pub id: Digest,
    /// How many bytes it has.
    pub bytes: u32,
}

impl Push {
    pub(crate) fn to_pb(&self) -> pb::Push {
        let bundle = |bundle: &Bundle| pb::Bundle {
            base: bundle.base.as_ref().map(digest),
            hosts: hosts::encode(&bundle.hosts),
            manifest: Some(bundle.manifest.to_pb()),
            segments: bundle.segments.iter().copied().map(Part::to_pb).collect(),
            deltas: bundle.deltas.iter().copied().map(Part::to_pb).collect(),
        };
        pb::Push {
            dest: self.dest.clone(),
            manifest: digest(&self.manifest),
            full_manifest: Some(self.full_manifest.to_pb()),
            bundles: self.bundles.iter().map(bundle).collect(),
            inline: self.inline.clone(),
        }
    }

    pub(crate) fn read(push: pb::Push, terms: Terms) -> Result<Push, FieldError> {
        let bundle = |bundle: &pb::Bundle| -> Result<Bundle, FieldError> {
            let base = bundle.base.as_ref().map(|id| array("bundle.base", id)).transpose()?;
            let segments = bundle.segments.iter().map(|part| Part::read("bundle.segments", part));
            let deltas = bundle.deltas.iter().map(|part| Part::read("bundle.deltas", part));
            Ok(Bundle {
                base: base.map(Digest),
                hosts: hosts::decode("bundle.hosts", &bundle.hosts)?,
                manifest: read_given_part("bundle.manifest", &bundle.manifest)?,
                segments: segments.collect::<Result<_, _>>()?,
                deltas: deltas.collect::<Result<_, _>>()?,
            })
        };
        Ok(Push {
            manifest: Digest(array("push.manifest", &push.manifest)?),
            full_manifest: read_given_part("push.full_manifest", &push.full_manifest)?,
            bundles: push.bundles.iter().map(bundle).collect::<Result<_, _>>()?,
            dest: push.dest,
            inline: push.inline,
            terms,
        })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        path("push.dest", &self.dest, PATH_LIMIT)?;
        self.terms.check()?;
        at_most("push.bundles", self.bundles.len(), BUNDLE_LIMIT)?;
        for bundle in &self.bundles {
            not_empty("bundle.hosts", bundle.hosts.ranges().len())?;
            at_most("bundle.hosts", bundle.hosts.ranges().len(), hosts::RANGES)?;
        }
        let segments = |bundle: &Bundle| bundle.segments.len().saturating_add(bundle.deltas.len());
        let segments = self.bundles.iter().map(segments).sum();
        at_most("bundle.segments", segments, CONTENT_LIMIT)?;
        at_most("push.inline", self.inline.len(), CONTENT_LIMIT)?;
        self.inline.iter().try_for_each(|part| not_empty("push.inline", part.len()))
    }
}

impl Part {
    pub(crate) fn to_pb(self) -> pb::Part {
        pb::Part { id: digest(&self.id), bytes: self.bytes }
    }

    pub(crate) fn read(field: &'static str, part: &pb::Part) -> Result<Part, FieldError> {
        Ok(Part { id: Digest(array(field, &part.id)?), bytes: part.bytes })
    }
}

fn read_given_part(field: &'static str, part: &Option<pb::Part>) -> Result<Part, FieldError> {
    Part::read(field, given(field, part.as_ref())?)
}

fn digest(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(&digest.0)
}
