//! Containers (zip, gzip, wheels): what is in them is compared, and they are made again exactly.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_in_a_container_is_compared_and_the_container_made_again() {
    let (old, new) = wheels();
    let pair = check(&old, &new, &["app.whl"], Sizes::REAL);
    assert_eq!(kinds(&pair), [2]);
    assert!(size(&pair) < 3_000, "{}", size(&pair));
    let mut text = body(3, 1_000_000, false);
    let old = one("src.tar.gz", gzip(&text, 9));
    text.splice(500..500, *b"one line more\n");
    let pair = check(&old, &one("src.tar.gz", gzip(&text, 9)), &["src.tar.gz"], Sizes::REAL);
    assert_eq!(kinds(&pair), [2]);
    assert!(size(&pair) < 3_000, "{}", size(&pair));
}

#[test]
fn a_container_that_is_none_stays_closed() {
    let (old, new) = wheels();
    let bytes = &new["app.whl"];
    let directory = bytes.windows(4).rposition(|four| four == b"PK\x01\x02").expect("it is there");
    let mut damaged = vec![bytes[..bytes.len() / 2].to_vec(), bytes[..bytes.len() - 30].to_vec()];
    for at in [directory + 10, directory + 20, directory + 23, directory + 42, directory + 45, 100]
    {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x91;
        damaged.push(bytes);
    }
    damaged.push(b"PK\x03\x04".repeat(900));
    damaged.push([b"\x1f\x8b\x08\x1f".as_slice(), &noise(1, 900)].concat());
    for bytes in damaged {
        let new = one("app.whl", bytes);
        check(&old, &new, &["app.whl"], Sizes::REAL);
        check(&new, &old, &["app.whl"], Sizes::REAL);
    }
}

pub(super) fn wheels() -> (Files, Files) {
    let text = body(3, 150_000, false);
    let members = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut large = text.clone();
        edit(&mut large);
        let members = [("large.py", large), ("stored", noise(4, 900)), ("b.so", programs().0)];
        let end = noise(8, 70_000);
        zip(&[&members[..], &[("last", end), ("empty", Vec::new())]].concat(), 6)
    };
    let old = one("app.whl", members(&|_| ()));
    let new = one("app.whl", members(&|large| drop(large.splice(900..900, *b"one line more\n"))));
    (old, new)
}

/// Wheels of six modules, in each of which so many bytes are new.
fn modules(new: [usize; 6]) -> (Files, Files) {
    let wheel = |new: [usize; 6]| {
        let names = ["a.so", "stored", "c.so", "d.so", "e.so", "f.so"];
        let members = (0..6).map(|n| (names[n], module(n, new[n])));
        one("app.whl", zip(&members.collect::<Vec<_>>(), 6))
    };
    (wheel([0; 6]), wheel(new))
}

/// One of them.
pub(super) fn module(n: usize, new: usize) -> Vec<u8> {
    let mut plain = body(n as u64, 300_000, true);
    plain.splice(150_000..150_000 + new, noise(50 + n as u64, new));
    plain
}

#[test]
fn a_container_with_too_many_changes_is_opened_in_runs() {
    let (old, new) = modules([50_000, 0, 50_000, 50_000, 50_000, 50_000]);
    let whole = check(&old, &new, &["app.whl"], Sizes::REAL);
    assert_eq!(kinds(&whole), [2]);
    let runs = check(&old, &new, &["app.whl"], Sizes { opened: 300_000, ..Sizes::REAL });
    assert_eq!(kinds(&runs), [2, 2]);
    // What the end of a chunk costs that lies in the next run.
    assert!(size(&runs) < size(&whole) + 100_000, "{} {}", size(&runs), size(&whole));
    for part in &runs.parts {
        assert!(damage::opened(&runs, &runs.bytes(part)).1.len() <= 300_000);
    }
}

#[test]
fn a_member_with_too_many_changes_stays_closed() {
    let (old, new) = modules([10_000, 0, 10_000, 140_000, 10_000, 10_000]);
    let runs = check(&old, &new, &["app.whl"], Sizes { opened: 120_000, ..Sizes::REAL });
    assert_eq!(kinds(&runs), [2, 2, 1], "what is before it, what is behind it, and the member");
    let closed = check(&old, &new, &["app.whl"], Sizes { opened: 0, ..Sizes::REAL });
    assert_eq!(kinds(&closed), [0]);
    assert!(size(&runs) < size(&closed) / 4 * 3, "{} {}", size(&runs), size(&closed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn wherever_a_container_is_cut_it_comes_whole(
        members in prop::collection::vec((1_000..120_000_usize, 0..40_000_usize), 1..6),
        moved in any::<bool>(),
        opened in 1_000..150_000_usize,
    ) {
        let wheel = |edit: bool| {
            let member = |(n, (len, new)): (usize, &(usize, usize))| {
                let mut plain = body(n as u64, *len, true);
                if edit {
                    plain.splice(len / 2..len / 2, noise(n as u64, *new));
                }
                ("m", plain)
            };
            let mut all: Vec<_> = members.iter().enumerate().map(member).collect();
            if edit && moved {
                all.reverse();
            }
            one("app.whl", zip(&all, 6))
        };
        let sizes = Sizes { opened, ..Sizes::REAL };
        let pair = check(&wheel(false), &wheel(true), &["app.whl"], sizes);
        for part in pair.parts.iter().filter(|part| pair.bytes(part)[5] == 2) {
            prop_assert!(damage::opened(&pair, &pair.bytes(part)).1.len() <= opened);
        }
    }
}

/// A zip file as far as anybody needs it: deflated members, one stored, and the directory.
fn zip(members: &[(&str, Vec<u8>)], level: u8) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let two = |n: usize| u16::try_from(n).expect("short").to_le_bytes();
    let four = |n: usize| u32::try_from(n).expect("short").to_le_bytes();
    for (n, (name, plain)) in members.iter().enumerate() {
        let stored = n == 1;
        let body = match stored {
            true => plain.clone(),
            false => miniz_oxide::deflate::compress_to_vec(plain, level),
        };
        let offset = file.len();
        let method = two(if stored { 0 } else { 8 });
        // What both headers share: version, flags, method, time, checksum, lengths, name, extra.
        let sum = ContentId::of(plain).0;
        let common = [
            &two(20)[..],
            &two(0),
            &method,
            &two(7),
            &two(7),
            &sum[..4],
            &four(body.len()),
            &four(plain.len()),
            &two(name.len()),
            &two(0),
        ]
        .concat();
        file.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), &body].concat());
        directory.extend(
            [
                b"PK\x01\x02",
                &two(20)[..],
                &common,
                &two(0),
                &two(0),
                &two(0),
                &four(0),
                &four(offset),
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let (start, count) = (file.len(), two(members.len()));
    file.extend(&directory);
    file.extend(
        [
            b"PK\x05\x06",
            &two(0)[..],
            &two(0),
            &count,
            &count,
            &four(directory.len()),
            &four(start),
            &two(0),
        ]
        .concat(),
    );
    file
}

pub(super) fn gzip(plain: &[u8], level: u8) -> Vec<u8> {
    let deflated = miniz_oxide::deflate::compress_to_vec(plain, level);
    [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0", deflated.as_slice(), &[1; 8]].concat()
}

pub(super) fn kinds(pair: &Pair) -> Vec<u8> {
    pair.parts.iter().map(|part| pair.bytes(part)[5]).collect()
}
