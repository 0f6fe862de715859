//! Distributions: many files in one order, each to its own place, with a command for afterwards.
//!
//! Each file is a push of its own: it is put in place whole or not at all, and later orders to its
//! place win. What one host has of them it says file by file.

use bytes::Bytes;

use crate::field::{at_most, at_most_bytes, clip, ensure, no_nul, not_empty};
use crate::{FieldError, Push, Terms, pb};

/// The most files in one order.
pub const DIST_FILES: usize = 1024;
const COMMAND_LIMIT: usize = 4096;
const FREQUENCY_LIMIT: usize = 64;
const DETAIL_LIMIT: usize = 2048;
/// All details of an answer together; those that come later are cut.
const DETAILS: usize = 24 << 10;

/// Files to put in place, in this sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dist {
    /// The files, 1 to [`DIST_FILES`].
    pub items: Vec<DistItem>,
    /// How often they are distributed; empty: nobody says. At most 64 bytes.
    pub frequency: String,
    /// Who has not begun before this moment does not, in milliseconds since 1970; 0: any time.
    pub begin_by_ms: u64,
}

/// One file, or one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistItem {
    /// What goes where.
    pub push: Push,
    /// A line for the shell once something was written there; empty: nothing. At most 4 KiB.
    pub command: Bytes,
    /// How often it is distributed; empty: as the order says. At most 64 bytes.
    pub frequency: String,
}

/// What a host says of the files of a distribution, by their places in the order; of those that
/// are not named each is in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disted {
    /// Not in place, and why.
    pub failed: Vec<ItemFault>,
    /// Not put in place, since a later order has put something else there.
    pub superseded: Vec<u32>,
    /// In place, but the command has failed.
    pub commands: Vec<ItemFault>,
    /// Of a verification: not as it should be, and how it differs.
    pub drifted: Vec<ItemFault>,
}

/// What is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemFault {
    /// Its place in the order.
    pub item: u32,
    /// What is wrong; at most 2 KiB.
    pub detail: String,
}

impl Dist {
    /// Whether nothing is to be changed: hosts only say which files are not as they should be.
    pub fn verifies(&self) -> bool {
        self.items.first().is_some_and(|item| item.push.terms.verify)
    }

    pub(crate) fn to_pb(&self) -> pb::Dist {
        let item = |item: &DistItem| pb::DistItem {
            push: Some(item.push.to_pb()),
            command: item.command.clone(),
            frequency: item.frequency.clone(),
            terms: (!item.push.terms.are_usual()).then(|| item.push.terms.to_pb()),
        };
        let items = self.items.iter().map(item).collect();
        let (frequency, begin_by_ms) = (self.frequency.clone(), self.begin_by_ms);
        pb::Dist { items, frequency, begin_by_ms }
    }

    pub(crate) fn read(dist: pb::Dist) -> Result<Dist, FieldError> {
        let pb::Dist { items, frequency, begin_by_ms } = dist;
        let item = |item: pb::DistItem| {
            let push = crate::field::given("dist.push", item.push)?;
            let terms = item.terms.map(Terms::read).transpose()?.unwrap_or_default();
            let push = Push::read(push, terms)?;
            Ok(DistItem { push, command: item.command, frequency: item.frequency })
        };
        let items = items.into_iter().map(item).collect::<Result<_, FieldError>>()?;
        Ok(Dist { items, frequency, begin_by_ms })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        not_empty("dist.items", self.items.len())?;
        at_most("dist.items", self.items.len(), DIST_FILES)?;
        at_most_bytes("dist.frequency", self.frequency.len(), FREQUENCY_LIMIT)?;
        no_nul("dist.frequency", self.frequency.as_bytes())?;
        for item in &self.items {
            item.push.check()?;
            let terms = &item.push.terms;
            ensure(terms.verify == self.verifies(), "dist.terms", "only some look")?;
            ensure(!terms.preflight, "dist.terms", "asks what would happen")?;
            let looks = !terms.verify || item.command.is_empty();
            ensure(looks, "dist.command", "of what is only looked at")?;
            at_most_bytes("dist.command", item.command.len(), COMMAND_LIMIT)?;
            no_nul("dist.command", &item.command)?;
            at_most_bytes("dist_item.frequency", item.frequency.len(), FREQUENCY_LIMIT)?;
            no_nul("dist_item.frequency", item.frequency.as_bytes())?;
        }
        Ok(())
    }
}

impl Disted {
    pub(crate) fn to_pb(&self) -> pb::Disted {
        let mut room = DETAILS;
        let mut faults = |faults: &[ItemFault]| {
            let fault = |fault: &ItemFault| {
                let detail = clip(&fault.detail, DETAIL_LIMIT.min(room)).to_owned();
                room -= detail.len();
                pb::ItemFault { item: fault.item, detail }
            };
            faults.iter().take(DIST_FILES).map(fault).collect::<Vec<_>>()
        };
        pb::Disted {
            failed: faults(&self.failed),
            superseded: self.superseded.iter().copied().take(DIST_FILES).collect(),
            commands: faults(&self.commands),
            drifted: faults(&self.drifted),
        }
    }

    pub(crate) fn read(disted: pb::Disted) -> Result<Disted, FieldError> {
        let pb::Disted { failed, superseded, commands, drifted } = disted;
        at_most("disted.superseded", superseded.len(), DIST_FILES)?;
        let read = |name, faults: Vec<pb::ItemFault>| {
            at_most(name, faults.len(), DIST_FILES)?;
            let fault = |pb::ItemFault { item, detail }| {
                at_most_bytes("item.detail", detail.len(), DETAIL_LIMIT)?;
                Ok(ItemFault { item, detail })
            };
            faults.into_iter().map(fault).collect::<Result<Vec<_>, FieldError>>()
        };
        Ok(Disted {
            failed: read("disted.failed", failed)?,
            commands: read("disted.commands", commands)?,
            drifted: read("disted.drifted", drifted)?,
            superseded,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ANSWER_LIMIT, Answer, Fault, OUTPUT_LIMIT, Pushed};

    #[test]
    fn whatever_there_is_to_say_fits() {
        let long = |n: usize| "x".repeat(n);
        let fault = |item| ItemFault { item, detail: long(9_000) };
        let answer = Answer {
            stdout: Bytes::from(long(OUTPUT_LIMIT as usize)),
            stderr: Bytes::from(long(OUTPUT_LIMIT as usize)),
            fault: Some(Fault { detail: long(99_000), ..Fault::default() }),
            push: Some(Pushed { warnings: vec![long(2_000); 99], ..Pushed::default() }),
            dist: Some(Disted {
                failed: (0..9_999).map(fault).collect(),
                superseded: (0..9_999).collect(),
                commands: (0..9_999).map(fault).collect(),
                drifted: (0..9_999).map(fault).collect(),
            }),
            ..Answer::default()
        };
        let bytes = answer.encode();
        assert!(bytes.len() <= ANSWER_LIMIT, "{}", bytes.len());
        let read = Answer::decode(bytes).expect("it was encoded so").dist.expect("it came along");
        assert_eq!((read.failed.len(), read.failed[0].detail.len()), (DIST_FILES, DETAIL_LIMIT));
        assert_eq!(read.failed[DIST_FILES - 1], ItemFault { item: 1023, detail: String::new() });
    }
}
