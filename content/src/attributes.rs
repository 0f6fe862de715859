//! The extended attributes that a push carries: access control lists, capabilities, and what
//! users have set.
//!
//! The idea: of these namespaces a host has exactly what the manifest says, so an entry loses
//! what it has inherited or been given besides. All others belong to the host: its security
//! labels, and what file systems keep there for themselves. They are neither read nor written.
//!
//! Users and groups within a list stand there as numbers, and travel as such.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{
    XattrFlags, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fremovexattr, fsetxattr,
};
use rustix::io::Errno;

/// Names and values, sorted by name.
pub type Attributes = Arc<[(Vec<u8>, Vec<u8>)]>;

/// No entry has more.
pub(crate) const MOST: usize = 64;
/// No value is longer: the kernel allows no more.
pub(crate) const LONGEST: usize = 64 << 10;
/// How often an attribute is read that changes meanwhile.
const TRIES: usize = 3;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// Whether a push carries the attribute.
pub(crate) fn is_carried(name: &[u8]) -> bool {
    name.starts_with(b"user.") || [ACCESS, DEFAULT, CAPABILITY].contains(&name)
}

/// Whether a manifest may say so of a directory, or of a file.
pub(crate) fn check(attributes: &Attributes, is_dir: bool) -> Result<(), &'static str> {
    if attributes.len() > MOST {
        return Err("more than 64 attributes");
    }
    let names = attributes.iter().map(|(name, _)| name);
    if names.clone().zip(names.clone().skip(1)).any(|(a, b)| a >= b) {
        return Err("attributes are not in order, or there twice");
    }
    for (name, value) in attributes.iter() {
        if name.len() > 255 || name.contains(&0) || !is_carried(name) || name == b"user." {
            return Err("an attribute of a name that is not carried");
        }
        if value.len() > LONGEST {
            return Err("an attribute is longer than 64 KiB");
        }
        if name == DEFAULT && !is_dir || name == CAPABILITY && is_dir {
            return Err("an attribute that it cannot have");
        }
    }
    Ok(())
}

/// What is carried of an open file or directory; `None` if its file system has no attributes.
pub(crate) fn read(fd: impl AsFd) -> io::Result<Option<Attributes>> {
    for _ in 0..TRIES {
        match try_read(&fd) {
            Err(Errno::RANGE | Errno::NODATA) => {}
            Err(Errno::OPNOTSUPP) => return Ok(None),
            read => return Ok(Some(read?)),
        }
    }
    Err(io::Error::other("its attributes keep changing"))
}

fn try_read(fd: impl AsFd) -> Result<Attributes, Errno> {
    let length = flistxattr_query(&fd)?;
    // Most have none.
    if length == 0 {
        return Ok(Attributes::default());
    }
    let mut list = vec![0_u8; length];
    let length = flistxattr(&fd, list.as_mut_slice())?;
    let mut found = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| is_carried(name)) {
        let length = fgetxattr_query(&fd, name)?;
        let mut value = vec![0_u8; length];
        let length = fgetxattr(&fd, name, value.as_mut_slice())?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found.into_iter().collect::<Vec<_>>().into())
}

/// Whether an open file or directory has what is wanted, as far as its file system and who we are
/// let it have it.
pub(crate) fn are(fd: impl AsFd, wanted: &Attributes, root: bool) -> io::Result<bool> {
    let Some(is) = read(fd)? else { return Ok(true) };
    let ours = |attributes: &Attributes| -> Vec<_> {
        let some = attributes.iter().filter(|(name, _)| root || name != CAPABILITY);
        some.cloned().collect()
    };
    Ok(is == *wanted || !root && ours(&is) == ours(wanted))
}

/// Gives an open file or directory what is wanted, and takes what is not. `false`: the file system
/// does not keep it, or only root may give it.
pub(crate) fn write(fd: impl AsFd, wanted: &Attributes) -> io::Result<bool> {
    let Some(is) = read(&fd)? else { return Ok(wanted.is_empty()) };
    let mut kept = true;
    let mut note = |done: Result<(), Errno>| match done {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {
            kept = false;
            Ok(())
        }
        Err(Errno::NODATA) => Ok(()),
        done => done,
    };
    for (name, _) in is.iter() {
        if wanted.binary_search_by(|(other, _)| other.cmp(name)).is_err() {
            note(fremovexattr(&fd, name.as_slice()))?;
        }
    }
    for pair in wanted.iter().filter(|pair| !is.contains(pair)) {
        note(fsetxattr(&fd, pair.0.as_slice(), &pair.1, XattrFlags::empty()))?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_and_what_a_manifest_may_say() {
        for name in ["user.x", "system.posix_acl_access", "security.capability"] {
            assert!(is_carried(name.as_bytes()), "{name}");
        }
        for name in ["security.selinux", "trusted.overlay.opaque", "system.nfs4_acl", "userx"] {
            assert!(!is_carried(name.as_bytes()), "{name}");
        }
        let refused = |pairs: &[(&str, usize)], is_dir| {
            let pair = |(name, len): &(&str, usize)| (name.as_bytes().to_vec(), vec![0; *len]);
            check(&pairs.iter().map(pair).collect::<Vec<_>>().into(), is_dir).is_err()
        };
        assert!(!refused(&[("user.a", 0), ("user.b", LONGEST)], false));
        assert!(refused(&[("user.b", 0), ("user.a", 0)], false));
        assert!(refused(&[("user.a", 0), ("user.a", 0)], false));
        assert!(refused(&[("user.a", LONGEST + 1)], false));
        assert!(refused(&[("security.selinux", 1)], false));
        assert!(refused(&[("system.posix_acl_default", 1)], false));
        assert!(refused(&[("security.capability", 1)], true));
        assert!(refused(&[("user.\0", 1)], false) && refused(&[("user.", 1)], false));
        let many: Vec<_> = (0..=MOST).map(|n| format!("user.{n:03}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        assert!(refused(&many, false) && !refused(&many[1..], false));
    }

    #[test]
    fn what_was_written_is_read_and_what_is_not_wanted_goes() {
        let file = tempfile::tempfile_in(".").expect("a file");
        let some = |names: &[&str]| -> Attributes {
            let pair = |name: &&str| (name.as_bytes().to_vec(), name.as_bytes().to_vec());
            names.iter().map(pair).collect::<Vec<_>>().into()
        };
        let first = some(&["user.a", "user.b"]);
        if read(&file).expect("read").is_none() || !write(&file, &first).expect("written") {
            println!("skipped: this file system keeps no attributes");
            return;
        }
        assert_eq!(read(&file).expect("read"), Some(first.clone()));
        assert!(are(&file, &first, true).expect("compared"));
        let second = some(&["user.b", "user.c"]);
        assert!(!are(&file, &second, true).expect("compared"));
        assert!(write(&file, &second).expect("written"));
        assert_eq!(read(&file).expect("read"), Some(second));
    }
}
