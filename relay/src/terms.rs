//! The terms of a push in the words of the installer.

use content::{PatternError, Patterns, Rules};
use protos::{Delete, MaxDelete, Terms};

/// How these terms have a tree put in place.
pub(crate) fn rules(terms: &Terms) -> Result<Rules, PatternError> {
    Ok(Rules {
        exclude: Patterns::new(&terms.exclude)?,
        delete: match terms.delete {
            Delete::Nothing => content::Delete::Nothing,
            Delete::Installed => content::Delete::Installed,
            Delete::All => content::Delete::All,
        },
        max_delete: match terms.max_delete {
            MaxDelete::Usual => content::MaxDelete::Usual,
            MaxDelete::Entries(n) => content::MaxDelete::Entries(n),
            MaxDelete::Percent(n) => content::MaxDelete::Percent(n),
        },
        content_only: terms.content_only,
        keep_newer: terms.keep_newer,
        save: terms.save.to_vec(),
    })
}
