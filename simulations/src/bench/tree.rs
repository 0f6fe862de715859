//! Something to push: a seeded tree that looks like sources, and the size of a tree under zstd.
//!
//! Text is words of a fixed vocabulary, the frequent ones first (Zipf), with each file's own names
//! and each folder's own licence, since real sources repeat themselves both nearby and afar.
//! Binaries
//! are half tables that compress and half noise that does not, as programs and pictures are.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Files in the generated tree.
pub(crate) const FILES: usize = 6_000;
/// Of them, one in so many is a binary.
const BINARY: usize = 100;
/// Words that all files share.
const WORDS: usize = 6_000;
/// Names that a file repeats.
const OWN_WORDS: usize = 24;
/// Characters after which a line ends.
const LINE: usize = 72;
const EXTENSIONS: [&str; 6] = ["rs", "c", "h", "toml", "md", "json"];

/// Writes the tree. Returns how many bytes it holds.
pub(crate) fn generate(dir: &Path, seed: u64) -> Result<u64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let vocabulary: Vec<_> = (0..WORDS).map(|_| word(&mut rng)).collect();
    let (mut folder, mut licence, mut total) = (PathBuf::new(), String::new(), 0);
    for number in 0..FILES {
        if number % 20 == 0 {
            let parts: Vec<_> = (0..rng.random_range(1..4)).map(|_| word(&mut rng)).collect();
            folder = dir.join(parts.join("/")).join(format!("part{}", number / 20));
            fs::create_dir_all(&folder)?;
            licence = text(&mut rng, &vocabulary, 700);
        }
        // Most files are small and a few are large: the exponent is what makes the tail.
        let size = (2_200.0 * (1.4 * normal(&mut rng)).exp() * 1.6) as usize;
        let name = format!("{}{number}", word(&mut rng));
        let (name, bytes) = match number % BINARY {
            0 => (format!("{name}.bin"), binary(&mut rng, 60_000 + 10 * size)),
            _ => {
                let end = EXTENSIONS[rng.random_range(0..EXTENSIONS.len())];
                let body = text(&mut rng, &vocabulary, size.clamp(60, 600_000));
                let whole = format!("// {}\n\n{body}", licence.replace('\n', "\n// "));
                (format!("{name}.{end}"), whole.into_bytes())
            }
        };
        total += bytes.len() as u64;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(total)
}

/// Changes one line in the middle of one file.
pub(crate) fn change(dir: &Path) -> Result<PathBuf> {
    let files = files(dir)?;
    let is_text = |path: &&PathBuf| path.extension().is_some_and(|end| end != "bin");
    let path = files.iter().filter(is_text).nth(files.len() / 2).context("a tree of files")?;
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes.splice(middle..middle, *b"\n// one line more than there was before\n");
    fs::write(path, bytes)?;
    Ok(path.clone())
}

/// A tree as one file in the manner of tar: for each file in the order of their paths a header of
/// 512 bytes and the bytes, filled up to a multiple of 512.
pub(crate) fn tar(dir: &Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::MetadataExt;
    let mut tar = Vec::new();
    for path in files(dir)? {
        let (meta, bytes) = (fs::symlink_metadata(&path)?, fs::read(&path)?);
        let name = path.strip_prefix(dir)?.as_os_str().as_encoded_bytes();
        let mut header = [0; 512];
        let kept = name.len().min(255);
        header[..kept].copy_from_slice(&name[..kept]);
        let numbers =
            format!("{:07o}\0{:011o}\0{:011o}\0ustar", meta.mode(), bytes.len(), meta.mtime());
        header[256..256 + numbers.len()].copy_from_slice(numbers.as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(&bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    Ok(tar)
}

/// How long some bytes are under zstd.
pub(crate) fn zstd_size(bytes: &[u8], level: i32) -> Result<u64> {
    let mut encoder = zstd::Encoder::new(Counted::new(std::io::sink()), level)?;
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.count)
}

/// Regular files below a folder, by path.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A writer that only counts.
pub(crate) struct Counted<W> {
    inner: W,
    pub(crate) count: u64,
}

impl<W: Write> Counted<W> {
    /// Nothing yet.
    pub(crate) fn new(inner: W) -> Counted<W> {
        Counted { inner, count: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn word(rng: &mut SmallRng) -> String {
    const SYLLABLES: [&str; 24] = [
        "ba", "con", "de", "er", "fi", "get", "in", "ka", "len", "map", "nod", "or", "pre", "qu",
        "re", "set", "ti", "un", "val", "wri", "ex", "yte", "zo", "st",
    ];
    let parts = rng.random_range(1..4);
    (0..=parts).map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())]).collect()
}

/// Lines of words, indented as code is.
fn text(rng: &mut SmallRng, vocabulary: &[String], size: usize) -> String {
    let own: Vec<_> = (0..OWN_WORDS).map(|_| zipf(rng, vocabulary.len())).collect();
    let (mut text, mut line, mut indent) = (String::with_capacity(size + 2 * LINE), 0, 0);
    while text.len() < size {
        if line == 0 {
            text.extend(std::iter::repeat_n("    ", indent));
        }
        let before = text.len();
        match rng.random_range(0..100) {
            0..4 => text.push_str(&rng.random_range(0..4096_u32).to_string()),
            4..50 => text.push_str(&vocabulary[own[zipf(rng, OWN_WORDS)]]),
            _ => text.push_str(&vocabulary[zipf(rng, vocabulary.len())]),
        }
        text.push_str([" ", " ", " ", "(", ", ", ".", " = ", "::"][rng.random_range(0..8)]);
        line += text.len() - before;
        if line > rng.random_range(8..LINE) {
            text.push_str([";\n", "\n", " {\n", ")\n"][rng.random_range(0..4)]);
            (line, indent) = (0, rng.random_range(0..4));
        }
    }
    text
}

/// Half a table of small numbers, half noise.
fn binary(rng: &mut SmallRng, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    let mut at = 0x0040_0000_u64;
    while bytes.len() < size / 2 {
        at += rng.random_range(0..64) * 8;
        bytes.extend_from_slice(&at.to_le_bytes());
    }
    while bytes.len() < size {
        bytes.extend_from_slice(&rng.random::<u64>().to_le_bytes());
    }
    bytes
}

/// An index below `count`, small ones far more often: the n-th about 1/n as often as the first.
fn zipf(rng: &mut SmallRng, count: usize) -> usize {
    let index = (count as f64).powf(rng.random_range(0.0..1.0)) as usize;
    (index - 1).min(count - 1)
}

/// About a normal distribution: the sum of twelve.
fn normal(rng: &mut SmallRng) -> f64 {
    (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0
}
