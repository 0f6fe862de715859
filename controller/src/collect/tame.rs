//! What a host says of its files, made harmless: it is data that somebody else has chosen.
//!
//! Names cannot lead elsewhere, manifests see to that. Here goes what else could do harm in a
//! folder of the operator's: owners, setuid and setgid, attributes, and links that leave the
//! folder. A link stays if it goes up first, no further than to the top of what is collected, and
//! only down from there: whatever other links it passes stay inside in turn.

use content::{Attributes, Entry, Kind, Manifest, Name};

/// Files are readable for their owner, and folders can be written.
const FILE: u32 = 0o600;
const DIR: u32 = 0o700;
/// Neither setuid, setgid nor sticky.
const PLAIN: u32 = 0o777;

/// The manifest as it is installed here, and the paths of links that are left out. The list of
/// what a large file consists of is not held twice.
pub(super) fn tame(manifest: Manifest) -> (Manifest, Vec<Vec<u8>>) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for entry in manifest.entries {
        let mode = match &entry.kind {
            Kind::Dir => entry.mode & PLAIN | DIR,
            Kind::File { .. } | Kind::HardLink { .. } => entry.mode & PLAIN | FILE,
            Kind::Symlink { target } if stays(&entry.path, target) => entry.mode,
            Kind::Symlink { .. } => {
                left_out.push(entry.path);
                continue;
            }
        };
        entries.push(Entry {
            mode,
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            owner: Name::default(),
            group: Name::default(),
            attributes: Attributes::default(),
            ..entry
        });
    }
    (Manifest { entries }, left_out)
}

/// Whether a link with this path can only lead to something below the top.
fn stays(path: &[u8], target: &[u8]) -> bool {
    // The folder of the link is as deep as its path has slashes.
    let mut up = path.iter().filter(|byte| **byte == b'/').count();
    let mut down = false;
    if target.first() == Some(&b'/') {
        return false;
    }
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if down || up == 0 => return false,
            b".." => up -= 1,
            _ => down = true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use content::{ChunkRef, ContentId};

    use super::*;

    fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode,
            uid: 12,
            gid: 13,
            owner: Name::default(),
            group: Name::default(),
            mtime: (7, 0),
            attributes: Attributes::default(),
            sparse: false,
        }
    }

    #[test]
    fn links_stay_only_if_they_cannot_leave() {
        for target in ["b", "./b", "../b", "../../b", "../..", "..", "b/c", "../../a/./x//y"] {
            assert!(stays(b"a/b/link", target.as_bytes()), "{target}");
        }
        for target in ["/etc/passwd", "../../..", "../../../x", "b/..", "../b/../c", "/"] {
            assert!(!stays(b"a/b/link", target.as_bytes()), "{target}");
        }
        assert!(stays(b"link", b"x") && !stays(b"link", b".."));
    }

    #[test]
    fn what_could_harm_goes() {
        let file = || Kind::File { size: 0, chunks: Vec::new() };
        let link = |to: &str| Kind::Symlink { target: to.into() };
        let manifest = Manifest {
            entries: vec![
                entry("", Kind::Dir, 0o1555),
                entry("good", link("tool"), 0o777),
                entry("out", link("/etc/shadow"), 0o777),
                entry("tool", file(), 0o6511),
            ],
        };
        let (tamed, left_out) = tame(manifest);
        let modes: Vec<_> = tamed.entries.iter().map(|entry| entry.mode).collect();
        assert_eq!(modes, [0o755, 0o777, 0o711]);
        assert_eq!(left_out, [b"out".to_vec()]);
        let own = rustix::process::geteuid().as_raw();
        assert!(tamed.entries.iter().all(|entry| entry.uid == own && entry.mtime == (7, 0)));
    }
    #[test]
    fn a_list_of_pieces_is_not_held_twice() {
        let chunks = vec![ChunkRef { id: ContentId::of(b"a"), len: 1 }; 1000];
        let at = chunks.as_ptr();
        let manifest =
            Manifest { entries: vec![entry("", Kind::File { size: 1000, chunks }, 0o600)] };
        let (tamed, _) = tame(manifest);
        assert_eq!(tamed.entries[0].chunks().as_ptr(), at);
    }
}
