//! Tests of `store`.

use super::*;

fn bytes(seed: u64, len: usize) -> (ContentId, Vec<u8>) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (ContentId::of(&bytes), bytes)
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path()).expect("the store opens")
}

fn check(store: &Store, objects: &[(ContentId, Vec<u8>)]) {
    for (id, bytes) in objects {
        assert_eq!(store.get(id).expect("reads").as_ref(), Some(bytes));
    }
    let sum = objects.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let expected = Usage { objects: objects.len() as u64, bytes: sum };
    assert_eq!(store.usage().expect("usage"), expected);
}

#[test]
fn what_is_put_is_found_also_after_reopening() {
    let dir = tempfile::tempdir().expect("temp");
    let sizes = [0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 1 << 20];
    let objects: Vec<_> = sizes.iter().zip(0..).map(|(len, seed)| bytes(seed, *len)).collect();
    let store = open(&dir);
    let mut batch = store.batch();
    for (id, bytes) in objects.iter().chain(&objects) {
        batch.put(*id, bytes).expect("puts");
    }
    assert!(!store.has(&objects[1].0).expect("has"), "not before the commit");
    batch.commit().expect("commits");
    check(&store, &objects);
    drop(store);
    check(&open(&dir), &objects);
}

#[test]
fn wrong_and_too_long_objects_are_refused() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let (id, _) = bytes(1, 10);
    assert!(matches!(store.put(id, b"other"), Err(StoreError::Mismatch { .. })));
    let long = vec![0; MAX_OBJECT + 1];
    assert!(matches!(store.put(id, &long), Err(StoreError::TooLarge { .. })));
    check(&store, &[]);
}

#[test]
fn a_dropped_batch_leaves_nothing() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let (id, large) = bytes(1, LARGE);
    let mut batch = store.batch();
    batch.put(id, &large).expect("puts");
    drop(batch);
    check(&store, &[]);
    assert!(list(&dir.path().join("tmp")).expect("lists").is_empty());
}

#[test]
fn a_check_finds_every_flipped_bit_and_removes_what_it_is_in() {
    let temp = tempfile::tempdir().expect("temp");
    let store = Store::open(temp.path()).expect("opens");
    let bytes = |n: u8, len: usize| vec![n; len];
    let all = [bytes(1, 100), bytes(2, 5_000), bytes(3, LARGE), bytes(4, LARGE + 9)];
    let ids: Vec<_> = all.iter().map(|bytes| ContentId::of(bytes)).collect();
    for (id, bytes) in ids.iter().zip(&all) {
        store.put(*id, bytes).expect("puts");
    }
    let good = store.check().expect("checks");
    let sum: usize = all.iter().map(Vec::len).sum();
    assert_eq!(good, Checked { good: 4, bytes: sum as u64, damaged: Vec::new() });
    let flip = |path: &Path, at: u64| {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("reads");
        file.write_all_at(&[byte[0] ^ 0x10], at).expect("writes");
    };
    flip(&store.volume_path(0), 50);
    flip(&store.object_path(&ids[3]), LARGE as u64);
    let mut found = store.check().expect("checks");
    found.damaged.sort();
    let mut expected = vec![ids[0], ids[3]];
    expected.sort();
    assert_eq!((found.good, found.damaged), (2, expected));
    assert_eq!(store.check().expect("checks").good, 2);
    store.put(ids[0], &all[0]).expect("it can be put again");
    assert_eq!(store.check().expect("checks").good, 3);
}

#[test]
fn damaged_objects_are_absent_and_can_be_put_again() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let objects = [bytes(1, 500), bytes(2, 600), bytes(3, LARGE), bytes(4, 700)];
    objects.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    let volume = OpenOptions::new().write(true).open(store.volume_path(0)).expect("opens");
    volume.write_all_at(&[objects[0].1[9] ^ 4], 9).expect("flips");
    volume.set_len(1500).expect("cuts into the third");
    fs::write(store.object_path(&objects[2].0), b"short").expect("damages");
    for damaged in [&objects[0], &objects[2], &objects[3]] {
        assert_eq!(store.get(&damaged.0).expect("reads"), None);
        assert!(!store.has(&damaged.0).expect("has"));
    }
    check(&store, &objects[1..2]);
    objects.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    objects.iter().for_each(|(id, bytes)| {
        assert_eq!(store.get(id).expect("reads").as_ref(), Some(bytes));
    });
}

#[test]
fn what_a_crash_leaves_is_cleared_and_strangers_are_not_touched() {
    let dir = tempfile::tempdir().expect("temp");
    let objects = [bytes(1, 500), bytes(2, LARGE)];
    let store = open(&dir);
    objects.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    // Killed after the data and before the index: a longer volume, a new volume, a new file.
    let tail = [objects[0].1.as_slice(), b"appended but never committed"].concat();
    fs::write(store.volume_path(0), tail).expect("writes");
    fs::write(store.volume_path(1), b"begun but never committed").expect("writes");
    let (orphan, orphan_bytes) = bytes(9, LARGE);
    let orphan_path = store.object_path(&orphan);
    fs::create_dir_all(orphan_path.parent().expect("parent")).expect("dir");
    fs::write(&orphan_path, orphan_bytes).expect("writes");
    let temp = dir.path().join("tmp/new-7");
    fs::write(&temp, b"half").expect("writes");
    let strangers = ["tmp/news", "tmp/new-", "volumes/1.bak", "objects/README"];
    strangers.iter().for_each(|name| fs::write(dir.path().join(name), b"").expect("writes"));
    drop(store);

    let store = open(&dir);
    assert!(!temp.exists() && !orphan_path.exists() && !store.volume_path(1).exists());
    assert_eq!(fs::metadata(store.volume_path(0)).expect("stat").len(), 500);
    assert!(strangers.iter().all(|name| dir.path().join(name).exists()));
    check(&store, &objects);
    let (id, more) = bytes(3, 100);
    store.put(id, &more).expect("puts");
    check(&store, &[objects[0].clone(), objects[1].clone(), (id, more)]);
}

#[test]
fn a_volume_that_lost_its_end_is_read_but_not_continued() {
    let dir = tempfile::tempdir().expect("temp");
    let objects = [bytes(1, 500), bytes(2, 500)];
    let store = open(&dir);
    objects.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    let path = store.volume_path(0);
    drop(store);
    OpenOptions::new().write(true).open(&path).expect("opens").set_len(700).expect("cuts");
    let store = open(&dir);
    store.put(objects[1].0, &objects[1].1).expect("the index still has it");
    assert_eq!(store.get(&objects[1].0).expect("reads"), None);
    store.put(objects[1].0, &objects[1].1).expect("puts");
    assert!(store.volume_path(1).exists());
    check(&store, &objects);
}

#[test]
fn dead_volumes_and_removed_files_give_their_space_back() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let objects = [bytes(1, 500), bytes(2, 500), bytes(3, LARGE)];
    objects.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    store.remove(&[objects[0].0, ContentId([0; 32])]).expect("removes");
    assert!(store.volume_path(0).exists());
    store.remove(&[objects[1].0, objects[2].0]).expect("removes");
    assert!(!store.volume_path(0).exists() && !store.object_path(&objects[2].0).exists());
    check(&store, &[]);
    store.put(objects[0].0, &objects[0].1).expect("puts");
    check(&store, &objects[..1]);
}

#[test]
fn volumes_rotate_and_batches_commit_when_they_are_large() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let objects: Vec<_> = (0..1100).map(|seed| bytes(seed, LARGE - 1)).collect();
    let mut batch = store.batch();
    objects.iter().for_each(|(id, bytes)| batch.put(*id, bytes).expect("puts"));
    assert!(store.has(&objects[0].0).expect("has"), "committed by itself");
    batch.commit().expect("commits");
    assert!(store.volume_path(1).exists());
    assert!(fs::metadata(store.volume_path(0)).expect("stat").len() <= VOLUME);
    check(&store, &objects);
}

#[test]
fn threads_share_it_and_a_second_process_does_not() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let objects: Vec<_> = (0..200).map(|seed| bytes(seed, 1000 + 400 * seed as usize)).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut batch = store.batch();
                objects.iter().for_each(|(id, bytes)| batch.put(*id, bytes).expect("puts"));
                batch.commit().expect("commits");
            });
        }
    });
    check(&store, &objects);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Index { .. })));
}

#[test]
fn retain_removes_what_nobody_wants() {
    let dir = tempfile::tempdir().expect("temp");
    let store = open(&dir);
    let objects = [bytes(1, 500), bytes(2, LARGE), bytes(3, 500), bytes(4, LARGE)];
    objects.iter().for_each(|(id, bytes)| store.put(*id, bytes).expect("puts"));
    let kept = &objects[..2];
    let keep = |id: &ContentId| kept.iter().any(|(kept, _)| kept == id);
    assert_eq!(store.retain(&keep).expect("retains"), 2);
    check(&store, kept);
    assert!(!store.object_path(&objects[3].0).exists());
}
