//! What an operator says of how a push is carried out, as it is signed.

use bytes::Bytes;
use content::Patterns;
use protos::{Delete, MaxDelete, Terms};

use crate::fault::Failure;
use crate::types::{NewPush, Special};

/// The terms of a push, with the patterns of what it leaves out.
pub(crate) fn terms(new: &NewPush) -> Result<(Terms, Patterns), Failure> {
    let patterns = Patterns::new(&new.exclude);
    let help = "`*` and `?` stop at a slash; a backslash takes the meaning from a character";
    let patterns = patterns.map_err(|error| Failure::bad(error.to_string(), help))?;
    let delete = match new.delete.as_str() {
        "" => Delete::Nothing,
        "installed" => Delete::Installed,
        "all" => Delete::All,
        other => {
            let message = format!("there is no way to delete that is called \"{other}\"");
            return Err(Failure::bad(message, "--delete=installed or --delete=all"));
        }
    };
    let max_delete = max_delete(&new.max_delete)?;
    if delete == Delete::Nothing && max_delete != MaxDelete::Usual {
        let message = "a limit of what is deleted, and nothing is deleted";
        return Err(Failure::bad(message, "--delete deletes what the source lacks"));
    }
    // Hosts need the patterns only to know what they must not delete.
    let exclude = if delete == Delete::Nothing { Vec::new() } else { new.exclude.clone() };
    if new.tree && delete != Delete::Nothing {
        let message = "a tree that is put in place as a whole holds nothing else";
        return Err(Failure::bad(message, "leave --delete out"));
    }
    if new.tree && (new.content_only || new.keep_newer || !new.save.is_empty()) {
        let message = "a tree that is put in place as a whole takes nothing from the one before";
        return Err(Failure::bad(message, "leave --compare, --younger and --savetargets out"));
    }
    let special = |special: &Special| protos::Special {
        pattern: special.pattern.clone(),
        command: special.command.clone(),
    };
    let special: Vec<_> = new.special.iter().map(special).collect();
    let names: Vec<_> = special.iter().map(|special| special.pattern.clone()).collect();
    Patterns::new(&names).map_err(|error| Failure::bad(error.to_string(), help))?;
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let has_commands = !special.is_empty() || !new.before.is_empty() || !new.after.is_empty();
    let terms = Terms {
        exclude,
        delete,
        max_delete,
        verify: new.verify,
        preflight: new.verify && new.preflight,
        // Whether there is room for it depends on whether the old one stays beside it.
        tree: new.tree && (!new.verify || new.preflight),
        rollback: false,
        content_only: new.content_only,
        keep_newer: new.keep_newer,
        save: bytes(&new.save),
        before: new.before.clone(),
        after: new.after.clone(),
        special,
        source: if has_commands { bytes(&new.source) } else { Bytes::new() },
    };
    Ok((terms, patterns))
}

fn max_delete(text: &str) -> Result<MaxDelete, Failure> {
    if text.is_empty() {
        return Ok(MaxDelete::Usual);
    }
    let parsed = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|n| *n <= 100).map(MaxDelete::Percent),
        None => text.parse().ok().map(MaxDelete::Entries),
    };
    parsed.ok_or_else(|| {
        let message = format!("\"{text}\" is no number of entries that may be deleted");
        Failure::bad(message, "such as --max-delete 50 or --max-delete 5%")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_deleting() {
        assert_eq!(max_delete("").expect("usual"), MaxDelete::Usual);
        assert_eq!(max_delete("0").expect("a number"), MaxDelete::Entries(0));
        assert_eq!(max_delete("100%").expect("a share"), MaxDelete::Percent(100));
        for wrong in ["-1", "101%", "%", "x", "1.5", " 1"] {
            max_delete(wrong).expect_err(wrong);
        }
    }
}
