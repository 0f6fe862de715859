//! Containers packed by xz: files, kernel modules, Debian packages; made by the library and by the
//! tool, and damaged.

use std::io::Write as _;
use std::process::{Command, Stdio};

use liblzma::stream::{Action, Check, Filters, LzmaOptions, PRESET_EXTREME, Stream};
use proptest::prelude::*;

use super::containers::{kinds, module};
use super::*;
use crate::delta::encode;
use crate::delta::members::members;

/// A text and the next version of it.
fn versions(length: usize) -> [Vec<u8>; 2] {
    let old = body(3, length, false);
    let mut new = old.clone();
    new.splice(length / 3..length / 3, *b"one line more\n");
    new[length / 2] ^= 1;
    [old, new]
}

fn finish(stream: &mut Stream, plain: &[u8], action: Action, out: &mut Vec<u8>) {
    let begun = stream.total_in();
    loop {
        out.reserve(64 << 10);
        let used = (stream.total_in() - begun) as usize;
        let status = stream.process_vec(&plain[used..], out, action).expect("packs");
        if status == liblzma::stream::Status::StreamEnd {
            return;
        }
    }
}

/// An xz file of a block for each of the parts.
fn blocks(parts: &[&[u8]], mut stream: Stream) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        finish(&mut stream, part, Action::FullFlush, &mut out);
    }
    finish(&mut stream, b"", Action::Finish, &mut out);
    out
}

pub(super) fn xz(plain: &[u8], preset: u32) -> Vec<u8> {
    blocks(&[plain], Stream::new_easy_encoder(preset, Check::Crc64).expect("a preset"))
}

/// Both versions in one container: opened, and made again within so many bytes.
#[track_caller]
fn opens(path: &str, files: [Vec<u8>; 2], limit: u32) {
    let [old, new] = files;
    let plain = new.len();
    let pair = check(&one(path, old), &one(path, new), &[path], Sizes::REAL);
    assert_eq!(kinds(&pair), [3], "{path} of {plain} bytes is opened");
    assert!(size(&pair) < limit, "{path}: {}", size(&pair));
}

/// Right, and closed.
#[track_caller]
fn stays_closed(path: &str, files: [Vec<u8>; 2]) {
    let [old, new] = files;
    let pair = check(&one(path, old), &one(path, new), &[path], Sizes::REAL);
    assert!(!kinds(&pair).contains(&3), "{path} stays closed");
}

#[test]
fn every_way_to_pack_is_found() {
    for preset in (0..=6).chain([3 | PRESET_EXTREME, 6 | PRESET_EXTREME]) {
        opens(&format!("{preset:x}.txt.xz"), versions(150_000).map(|text| xz(&text, preset)), 400);
    }
    // Short, and of one chunk that is not packed.
    opens("short.xz", versions(5_000).map(|text| xz(&text, 6)), 300);
    stays_closed("noise.xz", [1, 2].map(|seed| xz(&noise(seed, 5_000), 6)));
}

#[test]
fn on_a_fast_link_it_stays_closed() {
    let files = versions(150_000).map(|text| xz(&text, 6));
    let (old, new) = (one("a.xz", files[0].clone()), one("a.xz", files[1].clone()));
    let pair = Pair::new(&old, &new, Sizes::REAL);
    let over = |rate| encode(&pair.base, &pair.target, &pair.store, rate).expect("encodes");
    let bytes = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum::<u32>();
    for slow in [None, Some(10_000)] {
        assert_eq!(over(slow), (pair.parts.clone(), false), "{slow:?}");
    }
    let (closed, is_spared) = over(Some(100_000_000));
    assert!(is_spared && bytes(&closed) > 10 * bytes(&pair.parts), "{}", bytes(&closed));
    // What is small and quickly packed again is opened whatever the link.
    let (old, new) = containers::wheels();
    let pair = Pair::new(&old, &new, Sizes::REAL);
    let fast = encode(&pair.base, &pair.target, &pair.store, Some(u64::MAX));
    assert_eq!(fast.expect("encodes"), (pair.parts.clone(), false));
}

#[test]
fn what_is_looked_at_in_vain_counts_too() {
    let plain = &versions(150_000)[0];
    // No way to pack makes such a block: its bytes are those of another's beginning.
    let mut options = LzmaOptions::new_preset(6).expect("6");
    let mut filters = Filters::new();
    filters.lzma2(options.nice_len(40));
    let odd = blocks(&[plain], Stream::new_stream_encoder(&filters, Check::Crc64).expect("fits"));
    let (length, mut work) = (plain.len() as u64, 100 * plain.len() as u64);
    let apart = |file: &[u8], work: &mut u64| {
        let (range, codec) = members(file).remove(0);
        codec.take_apart(&file[range], length, work).is_some()
    };
    assert!(!apart(&odd, &mut work));
    let spent = 100 * length - work;
    assert!((2 * length..11 * length + (10 << 16)).contains(&spent), "{spent} of {length}");
    // With too little left even what can be made again stays closed, and costs no more.
    let good = xz(plain, 6);
    assert!(apart(&good, &mut work));
    assert!(!apart(&good, &mut { length }));
    let mut none = 0;
    assert!(!apart(&good, &mut none));
    assert_eq!(none, 0);
}

#[test]
fn filters_dictionaries_and_checks_are_those_of_the_file() {
    let programs: [Vec<u8>; 2] = programs().into();
    let pack = |plain: &Vec<u8>, with: &dyn Fn(&mut Filters, &mut LzmaOptions), check| {
        let (mut filters, mut options) = (Filters::new(), LzmaOptions::new_preset(6).expect("6"));
        with(&mut filters, &mut options);
        filters.lzma2(&options);
        blocks(&[plain], Stream::new_stream_encoder(&filters, check).expect("a chain"))
    };
    type With = fn(&mut Filters, &mut LzmaOptions);
    let module: With = |_, options| {
        options.dict_size(1 << 20);
    };
    let x86: With = |filters, _| {
        filters.x86();
    };
    let arm: With = |filters, _| {
        filters.arm64();
    };
    let delta: With = |filters, _| {
        filters.delta_properties(&[3]).expect("a distance of four");
    };
    let bits: With = |_, options| {
        options.literal_context_bits(0).literal_position_bits(2).position_bits(0);
    };
    let ways = [
        ("module.ko.xz", module, Check::Crc32),
        ("x86.xz", x86, Check::Sha256),
        ("arm64.xz", arm, Check::None),
        ("delta.xz", delta, Check::Crc64),
        ("bits.xz", bits, Check::Crc32),
    ];
    for (path, with, check) in ways {
        opens(path, programs.each_ref().map(|plain| pack(plain, &with, check)), 2_500);
    }
    // Nobody's way: the nice length is none of a preset.
    let odd: With = |_, options| {
        options.nice_len(23);
    };
    let odd = |plain: &Vec<u8>| pack(plain, &odd, Check::Crc32);
    stays_closed("odd.xz", programs.each_ref().map(odd));
    // A host would need 700 MiB to pack this again.
    stays_closed("nine.xz", programs.each_ref().map(|plain| xz(plain, 9)));
}

#[test]
fn each_block_is_a_member() {
    let pack = |text: Vec<u8>| {
        let parts: Vec<_> = text.chunks(100_000).collect();
        blocks(&parts, Stream::new_easy_encoder(6, Check::Crc64).expect("a preset"))
    };
    let [old, mut new] = versions(450_000);
    opens("blocks.xz", [old.clone(), new.clone()].map(pack), 600);
    // Blocks that both have are not packed again.
    new = [&old[..300_000], &new[300_000..]].concat();
    opens("end.xz", [old, new].map(pack), 500);
}

#[test]
fn blocks_too_many_for_one_segment_are_runs() {
    let file = |new: usize| {
        let parts: Vec<_> = (0..4).map(|n| module(n, new)).collect();
        let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        one("a.xz", blocks(&parts, Stream::new_easy_encoder(1, Check::Crc64).expect("a preset")))
    };
    let sizes = Sizes { opened: 180_000, ..Sizes::REAL };
    let runs = check(&file(0), &file(40_000), &["a.xz"], sizes);
    assert_eq!(kinds(&runs), [3, 3], "not gathered into one again");
}

#[test]
fn long_members_are_packed_piece_by_piece() {
    opens("long.tar.xz", versions(4_600_000).map(|text| xz(&text, 1)), 1_000);
}

#[test]
fn packages_and_modules_are_opened() {
    opens("app.deb", versions(300_000).map(|text| deb(&text)), 1_200);
    let modules = |edit: bool| -> Files {
        let module = |n: u64| {
            let [old, new] = versions(20_000 + 100 * n as usize);
            (format!("kernel/m{n}.ko.xz"), xz(if edit { &new } else { &old }, 6))
        };
        let text = ("kernel/notes.txt".to_owned(), body(u64::from(edit), 3_000, false));
        (0..40).map(module).chain([text]).collect()
    };
    let (old, new) = (modules(false), modules(true));
    let pair = check(&old, &new, &["kernel/m7.ko.xz"], Sizes::REAL);
    let mut kinds = kinds(&pair);
    kinds.sort_unstable();
    assert_eq!(kinds, [0, 3], "one segment for all modules");
    assert!(size(&pair) < 9_000, "{}", size(&pair));
    // Of many files in one segment only the one is lost whose base is.
    let altered = BTreeSet::from(["kernel/m7.ko.xz"]);
    let [got, wrong, lost] = pair.decode(&mut Memory { files: &old, altered });
    let seven: BTreeSet<_> = pair
        .target
        .entries
        .iter()
        .filter(|e| e.path.ends_with(b"m7.ko.xz"))
        .flat_map(|entry| entry.chunks().to_vec())
        .collect();
    assert_eq!(wrong, seven);
    assert!(!lost.is_empty() && got.len() + wrong.len() == pair.layout().len());
}

#[test]
fn what_is_packed_otherwise_here_is_wrong_and_nothing_else() {
    let (old, new) = versions(200_000).map(|text| one("a.xz", xz(&text, 6))).into();
    let pair = Pair::new(&old, &new, Sizes::REAL);
    let bytes = pair.bytes(&pair.parts[0]);
    let (frame, inside) = damage::opened(&pair, &bytes);
    // As another version of the library would: another way to pack than the one that was found.
    let way = inside.windows(3).rposition(|three| three == [1, 6, 93]).expect("it is said");
    for other in [0, 5, 7] {
        let mut inside = inside.clone();
        inside[way + 1] = other;
        let mut altered = bytes[..frame].to_vec();
        altered.extend(zstd::bulk::compress(&inside, 1).expect("compresses"));
        let delta = Delta::new(&pair.base, &pair.target);
        let mut right = 0;
        let mut count = |_: &ChunkRef, _: &[u8]| -> Result<(), PackError> {
            right += 1;
            Ok(())
        };
        let mut source = Memory { files: &old, altered: BTreeSet::new() };
        let decoded = delta.decode(&altered, &mut source, &mut count).expect("it is well formed");
        assert_eq!(decoded.lost, []);
        assert!(!decoded.wrong.is_empty());
        assert_eq!(right + decoded.wrong.len(), pair.layout().len());
    }
}

#[test]
fn what_the_tool_has_packed_is_opened() {
    if Command::new("xz").arg("--version").output().is_err() {
        println!("skipped: there is no `xz` here");
        return;
    }
    let ways: [&[&str]; 8] = [
        &[],
        &["-T1"],
        &["-T2", "--block-size=100KiB"],
        &["--check=crc32", "--lzma2=dict=1MiB"],
        &["--x86", "--lzma2=dict=1MiB", "--check=crc32"],
        &["-0"],
        &["-3e"],
        &["-6e"],
    ];
    for (n, way) in ways.into_iter().enumerate() {
        opens(&format!("{n}.tar.xz"), versions(250_000).map(|text| tool("xz", way, &text)), 700);
    }
}

/// What comes out of a program when this goes in.
fn tool(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("it reads all"));
        child.wait_with_output().expect("it ends")
    });
    assert!(output.status.success());
    output.stdout
}

/// A Debian package with this text in both of its archives, the second one much longer.
pub(super) fn deb(text: &[u8]) -> Vec<u8> {
    let mut file = b"!<arch>\n".to_vec();
    let control = xz(&text[text.len() / 3 - 50..][..901], 6);
    let data = xz(text, 6);
    for (name, bytes) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", &control), ("data.tar.xz", &data)]
    {
        let header =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, bytes.len());
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(bytes);
        if file.len() % 2 == 1 {
            file.push(b'\n');
        }
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn damaged_containers_come_whole(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
        which in 0..3_usize,
        is_old in any::<bool>(),
    ) {
        let [old, new] = versions(6_000);
        let pack = |text: &[u8]| match which {
            0 => xz(text, 6),
            1 => deb(text),
            _ => blocks(
                &[&text[..3_000], b"", &text[3_000..]],
                Stream::new_easy_encoder(1, Check::Crc32).expect("a preset"),
            ),
        };
        let (whole, mut damaged) = (pack(&old), pack(&new));
        for (at, byte, edit) in edits {
            let at = at.index(damaged.len());
            match edit {
                0 => damaged[at] = byte,
                1 => damaged.truncate(at.max(1)),
                _ => damaged.insert(at, byte),
            }
        }
        let (old, new) = if is_old { (damaged, whole) } else { (whole, damaged) };
        check(&one("a", old), &one("a", new), &["a"], Sizes::REAL);
    }
}
