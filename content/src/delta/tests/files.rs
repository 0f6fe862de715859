//! Any files to any others: what is not altered comes whole, and what little changed costs little.

use proptest::prelude::*;

use super::*;

#[test]
fn what_moved_or_did_not_change_costs_nothing() {
    let old: Files =
        [("a.c", 1), ("b.c", 2)].map(|(path, seed)| (path.to_owned(), noise(seed, 90_000))).into();
    let mut new = old.clone();
    let moved = new.remove("a.c").expect("it is there");
    new.insert("elsewhere/a.c".into(), moved);
    assert_eq!(check(&old, &new, &[], Sizes::REAL).parts, []);
}

#[test]
fn one_line_costs_a_line() {
    let old = one("a.txt", body(5, 50_000, false));
    let mut new = old.clone();
    new.get_mut("a.txt").expect("it is there").splice(20_000..20_000, *b"one line more\n");
    let pair = check(&old, &new, &[], Sizes::REAL);
    assert!(size(&pair) < 100, "{}", size(&pair));
}

#[test]
fn moved_addresses_cost_next_to_nothing() {
    let (old, new) = programs();
    let (old, new) = (one("p.so", old), one("p.so", new));
    let pair = check(&old, &new, &[], Sizes::REAL);
    // 10,000 addresses moved: as a prefix alone each would cost some bytes.
    assert!(size(&pair) < 2_000, "{}", size(&pair));
    let bytes = pair.bytes(&pair.parts[0]);
    assert_eq!(bytes[5], 1, "a difference is the better kind here");
}

#[test]
fn a_long_file_is_made_from_what_lies_around_its_place() {
    let (mut old, mut new) = programs();
    for seed in 0..4 {
        let more = noise(20 + seed, 300_000);
        old.extend_from_slice(&more);
        new.extend_from_slice(&more);
        let at = new.len() - 1000;
        new[at] ^= 0xff;
    }
    let pair = check(&one("vm.img", old), &one("vm.img", new), &["vm.img"], SMALL);
    assert!(size(&pair) < 60_000, "{}", size(&pair));
}

#[test]
fn a_renamed_library_has_a_base() {
    let (old, new) = programs();
    let old = one("libs/libblas64_-6bb31eeb.so", old);
    let pair = check(&old, &one("libs/libblas64_-56d6093b.so", new.clone()), &[], Sizes::REAL);
    assert!(size(&pair) < 2_000, "{}", size(&pair));
    // So has one that has another name altogether: most of its chunks are somewhere.
    let mut edited = new;
    edited[5_000] ^= 1;
    let old = one("libs/libblas64_-6bb31eeb.so", edited.clone());
    edited[300_000] ^= 1;
    let pair = check(&old, &one("etc/other", edited), &[], Sizes::REAL);
    assert!(size(&pair) < 200, "{}", size(&pair));
}

#[test]
fn what_was_renamed_and_changed_at_once_has_a_base() {
    let files = |names: &dyn Fn(u64) -> String, edit: u8| -> Files {
        let file = |n| {
            let mut bytes = body(n, 20_000, n % 2 == 0);
            bytes[..400].copy_from_slice(&noise(n, 400));
            bytes[9_000] ^= edit;
            (names(n), bytes)
        };
        (0..40).map(file).collect()
    };
    let old =
        files(&|n| format!("src/{}.c", ["one", "two"][n as usize % 2].repeat(n as usize + 1)), 0);
    let new = files(&|n| format!("lib/{}.h", "other".repeat(n as usize + 1)), 1);
    let pair = check(&old, &new, &[], Sizes::REAL);
    let alone = check(&Files::new(), &new, &[], Sizes::REAL);
    assert!(size(&pair) * 5 < size(&alone), "{} of {}", size(&pair), size(&alone));
}

#[test]
fn a_base_that_the_store_lacks_is_not_used() {
    let dir = tempfile::tempdir().expect("temp");
    let store = Store::open(dir.path()).expect("store");
    let (old, new) = (one("f", noise(1, 5_000)), one("f", noise(1, 5_001)));
    let (base, target) = (tree(&old, &store), tree(&new, &store));
    store.remove(&[base.entries[1].chunks()[0].id]).expect("removes");
    let (parts, _) = encode(&base, &target, &store, None).expect("encodes");
    let bytes = store.get(&parts[0].id).expect("reads").expect("it was stored");
    let nobody = Files::new();
    let mut none = Memory { files: &nobody, altered: BTreeSet::new() };
    let mut got = 0;
    let mut count = |_: &ChunkRef, bytes: &[u8]| -> Result<(), PackError> {
        got += bytes.len();
        Ok(())
    };
    let decoded = Delta::new(&base, &target).decode(&bytes, &mut none, &mut count);
    assert_eq!((decoded.expect("decodes"), got), (Decoded::default(), 5_001));
}

#[test]
fn only_what_is_made_of_a_wrong_file_is_wrong() {
    let files = |edit: &dyn Fn(&mut Vec<u8>)| -> Files {
        let file = |n: u64| {
            let mut bytes = noise(n, 3_000);
            edit(&mut bytes);
            (format!("f{n}"), bytes)
        };
        (0..20).map(file).collect()
    };
    let (old, new) = (files(&|_| ()), files(&|bytes| bytes.insert(1_500, b'x')));
    let pair = Pair::new(&old, &new, Sizes::REAL);
    assert_eq!(pair.parts.len(), 1, "one solid segment");
    let altered = BTreeSet::from(["f3"]);
    let [got, wrong, lost] = pair.decode(&mut Memory { files: &old, altered });
    assert_eq!((got.len(), wrong.len(), lost.len()), (19, 1, 1));
}

/// What a new version does to a file.
#[derive(Debug, Clone)]
enum Edit {
    Keep,
    Remove,
    Rename,
    Replace(u64),
    Change(Vec<(prop::sample::Index, Vec<u8>, bool)>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let change = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..20));
    let change = (change, any::<bool>()).prop_map(|((at, bytes), insert)| (at, bytes, insert));
    prop_oneof![
        1 => Just(Edit::Keep),
        1 => Just(Edit::Remove),
        1 => Just(Edit::Rename),
        1 => any::<u64>().prop_map(Edit::Replace),
        4 => prop::collection::vec(change, 1..30).prop_map(Edit::Change),
    ]
}

fn apply(edits: &[(String, Vec<u8>, Edit)]) -> (Files, Files) {
    let (mut old, mut new) = (Files::new(), Files::new());
    for (path, bytes, edit) in edits {
        if old.contains_key(path) {
            continue;
        }
        old.insert(path.clone(), bytes.clone());
        match edit {
            Edit::Keep => drop(new.insert(path.clone(), bytes.clone())),
            Edit::Remove => {}
            Edit::Rename => drop(new.insert(format!("{path}-7"), bytes.clone())),
            Edit::Replace(seed) => drop(new.insert(path.clone(), noise(*seed, bytes.len() / 2))),
            Edit::Change(changes) => {
                let mut changed = bytes.clone();
                for (at, with, insert) in changes {
                    let at = at.index(changed.len() + 1);
                    let end = if *insert { at } else { changed.len().min(at + with.len()) };
                    changed.splice(at..end, with.iter().copied());
                }
                new.insert(path.clone(), changed);
            }
        }
    }
    (old, new)
}

fn versions() -> impl Strategy<Value = (Files, Files)> {
    let name = "[ab][0-9]?(\\.c|\\.so)?";
    let len = prop_oneof![3 => 0..3_000_usize, 2 => 0..100_000_usize, 1 => 100_000..500_000_usize];
    let bytes = (0..4_u64, len, any::<bool>()).prop_map(|(seed, len, bin)| body(seed, len, bin));
    let file = (name, bytes, edit());
    prop::collection::vec(file, 1..8).prop_map(|files| apply(&files))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_files_to_any_others(
        (old, new) in versions(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let paths: Vec<_> = old.keys().map(String::as_str).collect();
        let altered: Vec<_> = picks.iter().map(|pick| *pick.get(&paths)).collect();
        check(&old, &new, &altered, SMALL);
    }
}
