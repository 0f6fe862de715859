//! Tests of `manifest`.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn entry(path: &[u8], kind: Kind) -> Entry {
    let (owner, group) = (Name::from("root"), Name::from("wheel"));
    let (attributes, sparse) = (Attributes::default(), false);
    let (path, mtime) = (path.into(), (9, 7));
    Entry { path, kind, mode: 0o755, uid: 0, gid: 5, owner, group, mtime, attributes, sparse }
}

fn file(path: &[u8], lens: &[u32]) -> Entry {
    let size = lens.iter().map(|len| u64::from(*len)).sum();
    let id = |len: &u32| ContentId::of(&[path, &len.to_le_bytes()].concat());
    let chunks = lens.iter().map(|len| ChunkRef { id: id(len), len: *len }).collect();
    entry(path, Kind::File { size, chunks })
}

fn link(path: &[u8], target: &[u8]) -> Entry {
    entry(path, Kind::Symlink { target: target.into() })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("not in a name", |b| *b != 0 && *b != b'/'), 1..6)
        .prop_filter("special", |name| name != b"." && name != b"..")
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Dir),
        vec((any::<[u8; 32]>(), 1..=MAX_CHUNK as u32), 0..4).prop_map(|chunks| {
            let chunks = chunks.into_iter().map(|(id, len)| ChunkRef { id: ContentId(id), len });
            let chunks: Vec<_> = chunks.collect();
            let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
            Kind::File { size, chunks }
        }),
        vec(1_u8..255, 1..9).prop_map(|target| Kind::Symlink { target }),
    ]
}

/// Any valid manifest of a tree: names are dropped below whatever is not a directory.
fn manifest() -> impl Strategy<Value = Manifest> {
    let meta = (0_u32..0o10000, 0_u32..3, "[a-c]{0,1}", any::<i64>(), 0_u32..1_000_000_000);
    btree_map(vec(name(), 1..4), (kind(), meta), 0..12).prop_map(|names| {
        let mut entries = BTreeMap::from([(Vec::new(), entry(b"", Kind::Dir))]);
        for (components, (kind, (mode, uid, owner, secs, nanos))) in names {
            let path = components.join(&b'/');
            for depth in 1..components.len() {
                let parent = components[..depth].join(&b'/');
                entries.entry(parent.clone()).or_insert_with(|| entry(&parent, Kind::Dir));
            }
            let owner: Name = owner.into();
            let new = Entry { mode, uid, owner, mtime: (secs, nanos), ..entry(&path, kind) };
            entries.entry(path).or_insert(new);
        }
        let all: Vec<Entry> = entries.into_values().collect();
        let mut kept: Vec<Entry> = Vec::new();
        for entry in all {
            let place = (!kept.is_empty()).then(|| check_place(&kept, &entry));
            if place.is_none_or(|place| place.is_ok()) {
                kept.push(entry);
            }
        }
        Manifest { entries: kept }
    })
}

fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    Manifest::decode(bytes, &Limits::default())
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(manifest in manifest()) {
        prop_assert_eq!(decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        bytes.insert(0, 1);
        if let Ok(manifest) = decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    #[test]
    fn mutated_bytes_never_panic_and_what_is_accepted_is_canonical(
        manifest in manifest(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut bytes = manifest.encode();
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            match edit {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        if let Ok(manifest) = decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    #[test]
    fn every_truncation_is_refused(manifest in manifest(), cut in any::<prop::sample::Index>()) {
        let bytes = manifest.encode();
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn the_format_is_golden() {
    let entries = vec![
        entry(b"", Kind::Dir),
        file(b"a", &[65_536, 70_000]),
        entry(b"d", Kind::Dir),
        link(b"d/l", b"../a"),
    ];
    let manifest = Manifest { entries };
    assert_eq!((manifest.files(), manifest.bytes()), (1, 135_536));
    let root = "128e583be0eef101520ce7d62007191b72ed6c7181571b60b04e32bff76e97f3";
    assert_eq!(manifest.root().to_string(), root);
    assert_eq!(decode(&manifest.encode()), Ok(manifest));
}

#[test]
fn a_single_file_is_a_manifest() {
    let manifest = Manifest { entries: vec![file(b"", &[5])] };
    assert_eq!(decode(&manifest.encode()), Ok(manifest));
}

/// The tree, which is refused with these words, both as it is and after a decode.
fn refused(entries: Vec<Entry>, words: &str) {
    let manifest = Manifest { entries };
    let err = manifest.check(&Limits::default()).expect_err(words);
    assert!(err.to_string().contains(words), "{err} does not say: {words}");
    decode(&manifest.encode()).expect_err(words);
}

#[test]
fn every_rule_is_enforced() {
    let tree = |mut entries: Vec<Entry>| {
        entries.insert(0, entry(b"", Kind::Dir));
        entries
    };
    refused(vec![], "root");
    refused(vec![file(b"a", &[1])], "root");
    refused(vec![link(b"", b"x")], "root");
    refused(vec![file(b"", &[1]), file(b"a", &[1])], "not a directory");
    refused(tree(vec![file(b"b", &[1]), file(b"a", &[1])]), "not in order");
    refused(tree(vec![file(b"a", &[1]), file(b"a", &[1])]), "there twice");
    refused(tree(vec![file(b"a", &[1]), file(b"a/b", &[1])]), "not a directory");
    refused(tree(vec![link(b"a", b"/etc"), file(b"a/b", &[1])]), "not a directory");
    refused(tree(vec![file(b"a/b", &[1])]), "missing");
    refused(tree(vec![file(b"..", &[1])]), ". or ..");
    refused(tree(vec![file(b".", &[1])]), ". or ..");
    refused(tree(vec![file(b"/a", &[1])]), "empty component");
    refused(tree(vec![entry(b"a", Kind::Dir), file(b"a/", &[1])]), "empty component");
    refused(tree(vec![file(b"a\0", &[1])]), "NUL");
    refused(tree(vec![file(&[b'a'; 256], &[1])]), "255");
    refused(tree(vec![file(b"a", &[0, 1])]), "empty or longer");
    refused(tree(vec![file(b"a", &[MAX_CHUNK as u32 + 1])]), "empty or longer");
    refused(tree(vec![link(b"a", b"")]), "without a target");
    refused(tree(vec![link(b"a", b"x\0")]), "NUL");
    refused(tree(vec![Entry { mode: 0o10000, ..file(b"a", &[1]) }]), "twelve");
    refused(tree(vec![Entry { uid: u32::MAX, ..file(b"a", &[1]) }]), "-1");
    refused(tree(vec![Entry { gid: u32::MAX, ..file(b"a", &[1]) }]), "-1");
    refused(tree(vec![Entry { mtime: (0, 1_000_000_000), ..file(b"a", &[1]) }]), "nanoseconds");
    let mut short = file(b"a", &[5]);
    short.kind = Kind::File { size: 6, chunks: short.chunks().to_vec() };
    let manifest = Manifest { entries: tree(vec![short]) };
    let err = manifest.check(&Limits::default()).expect_err("sum");
    assert!(err.to_string().contains("add up"), "{err}");
}

#[test]
fn limits_hold() {
    let manifest = Manifest { entries: vec![entry(b"", Kind::Dir), file(b"abc", &[50])] };
    let bytes = manifest.encode();
    let none = Limits { encoded: bytes.len(), entries: 2, paths: 3, bytes: 50 };
    assert_eq!(Manifest::decode(&bytes, &none), Ok(manifest));
    for tight in [
        Limits { encoded: bytes.len() - 1, ..none.clone() },
        Limits { entries: 1, ..none.clone() },
        Limits { paths: 2, ..none.clone() },
        Limits { bytes: 49, ..none.clone() },
    ] {
        let err = Manifest::decode(&bytes, &tight).expect_err("over a limit");
        assert!(matches!(err, ManifestError::TooLarge { .. }), "{err}");
    }
    assert_eq!(decode(&[3, 0, 0]), Err(ManifestError::Version { found: 3 }));
}

#[test]
fn changes_tell_what_a_step_does() {
    let old = Manifest {
        entries: vec![
            entry(b"", Kind::Dir),
            file(b"a", &[5]),
            link(b"kind", b"x"),
            file(b"mode", &[7]),
            file(b"same", &[3]),
            file(b"z", &[9]),
        ],
    };
    let mut new = old.clone();
    new.entries[1] = file(b"a", &[6]);
    new.entries[2] = file(b"kind", &[4]);
    new.entries[3].mode = 0o600;
    new.entries[5] = file(b"b", &[8]);
    new.entries.sort_by(|a, b| a.path.cmp(&b.path));
    let changes = new.changes(&old, 4);
    assert_eq!(
        (changes.added, changes.changed, changes.described, changes.removed, changes.bytes),
        (1, 2, 1, 1, 18)
    );
    assert_eq!(changes.lines, ["* a", "+ b", "* kind", "~ mode"]);
    assert_eq!(new.changes(&new, 9), Changes::default());
    let all = new.changes(&Manifest { entries: Vec::new() }, 0);
    assert_eq!((all.added, all.lines.len()), (6, 0));
}

#[test]
fn what_version_1_does_not_know_makes_a_version_2() {
    let mut plain = Manifest { entries: vec![entry(b"", Kind::Dir), file(b"a", &[5])] };
    assert_eq!(plain.encode()[0], 1);
    let round = |manifest: &Manifest| {
        let bytes = manifest.encode();
        assert_eq!(bytes[0], 2);
        assert_eq!(&Manifest::decode(&bytes, &Limits::default()).expect("decodes"), manifest);
        let mut other = bytes;
        other[0] = 1;
        let error = Manifest::decode(&other, &Limits::default()).expect_err("not canonical");
        assert_eq!(error, ManifestError::NotCanonical);
    };
    let mut linked = plain.clone();
    linked.entries.push(entry(b"b", Kind::HardLink { to: b"a".to_vec() }));
    round(&linked);
    let attribute = |name: &str| (name.as_bytes().to_vec(), b"value".to_vec());
    let mut dressed = plain.clone();
    dressed.entries[1].attributes = vec![attribute("user.a"), attribute("user.b")].into();
    round(&dressed);
    plain.entries[1].sparse = true;
    round(&plain);
    plain.entries[0].sparse = true;
    refused(plain.entries, "holes in what is not a file");

    let tree = |kind| Manifest {
        entries: vec![entry(b"", Kind::Dir), file(b"b", &[1]), link(b"c", b"b"), entry(b"d", kind)],
    };
    for to in [b"".as_slice(), b"a", b"c", b"d", b"e"] {
        refused(tree(Kind::HardLink { to: to.to_vec() }).entries, "what is not an earlier file");
    }
    let mut other = tree(Kind::HardLink { to: b"b".to_vec() });
    other.entries[3].mode = 0o600;
    refused(other.entries, "described otherwise");
    let mut other = tree(Kind::HardLink { to: b"b".to_vec() });
    other.entries[3].attributes = vec![attribute("user.a")].into();
    refused(other.entries, "a link with attributes");
}
