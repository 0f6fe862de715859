//! Reports as they cross a link: outputs that are alike cost little more than what differs in them.
//!
//! The outputs of a thousand hosts often differ only in names, numbers and times. A [`Packer`]
//! takes the outputs of a report apart into templates and values ([`mesh::similar`]), puts each
//! value into a column with those of the other hosts, and writes all of it to one zstd stream that
//! lasts as long as the link: a template that went over it before costs a few bytes, a column that
//! equals another one byte, and a column of names that count up not much more. The [`Unpacker`] at
//! the other end gives back every byte. What fits no template is a template without gaps, so
//! nothing is lost by it and zstd still finds what is alike.
//!
//! Nothing of this is seen outside of a link: reports join as they do, and are stored as they are.
//! Whoever does not say in its hello that it can unpack gets plain reports.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use bytes::Bytes;
use mesh::similar::split;
use mesh::{Digest, Frame, HostSet, Outcome, Report};
use prost::Message;

use crate::field::{at_most, ensure, given};
use crate::pb::frame::Kind;
use crate::wire::{LINES, decode_report, decode_state, decode_tally, encode_report, encode_state};
use crate::{FRAME_LIMIT, FieldError, FrameError, hosts, pb, shape};

/// Outputs of less than this are not worth it.
const WORTH: usize = 512;
/// How much of the past zstd looks back at; each end of a link holds about as much.
const WINDOW_LOG: u32 = 18;
const LEVEL: i32 = 3;
/// What one packed report may become: all outputs of a plain one, and what says whose they are.
const UNPACKED: usize = 2 * FRAME_LIMIT;

/// A packed report as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed(pub(crate) pb::Packed);

/// It has no numbers that are not equal to themselves.
impl Eq for Packed {}

/// The sending end of a link.
pub struct Packer(zstd::stream::write::Encoder<'static, Vec<u8>>);

/// The receiving end of a link.
pub struct Unpacker(zstd::stream::write::Decoder<'static, Bounded>);

/// One output on its way, with whose it is.
struct Entry<'a> {
    outcome: Outcome,
    hosts: &'a HostSet,
    values: Vec<Bytes>,
}

/// What outputs that are alike have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    /// The answer but for its texts; none: the whole body is one text.
    rest: Option<Bytes>,
    /// What stands outside of the gaps of stdout, and of stderr.
    pieces: [Vec<Bytes>; 2],
}

impl Default for Packer {
    fn default() -> Packer {
        let mut encoder =
            zstd::stream::write::Encoder::new(Vec::new(), LEVEL).expect("there is such a level");
        encoder.window_log(WINDOW_LOG).expect("zstd has such windows");
        Packer(encoder)
    }
}

impl Packer {
    /// The bytes of a report's frame, unless it is as well sent as it is. What was packed must be
    /// sent, in this sequence, to the same [`Unpacker`].
    pub fn pack(&mut self, log: u64, seq: u64, report: &Report) -> Option<Bytes> {
        if report.bodies.values().map(Bytes::len).sum::<usize>() < WORTH {
            return None;
        }
        let mut groups = BTreeMap::<Common, Vec<Entry<'_>>>::new();
        let mut rest = Report { bodies: BTreeMap::new(), ..report.clone() };
        let mut plain = Vec::new();
        let mut taken = BTreeSet::new();
        for (outcome, hosts) in report.tally.lines() {
            match outcome.body.and_then(|digest| Some((digest, report.bodies.get(&digest)?))) {
                Some((digest, body)) if taken.insert(digest) => {
                    let (frame, values) = take_apart(body);
                    let entry = Entry { outcome: *outcome, hosts, values };
                    groups.entry(frame).or_default().push(entry);
                }
                _ => plain.push((*outcome, hosts.clone())),
            }
        }
        rest.tally = plain.into_iter().collect();
        let mut text = Vec::new();
        put(&mut text, groups.len() as u64);
        for (frame, mut entries) in groups {
            entries.sort_by_key(|entry| entry.hosts.ranges().first().copied());
            write_group(&mut text, &frame, &entries);
        }
        // In memory there is nothing that could fail.
        let written = self.0.write_all(&text).and_then(|()| self.0.flush());
        written.expect("a vector takes everything");
        let data = std::mem::take(self.0.get_mut()).into();
        let packed = pb::Packed { log, seq, report: Some(encode_report(&rest)), data };
        Some(pb::Frame { kind: Some(Kind::Packed(packed)) }.encode_to_vec().into())
    }
}

impl Default for Unpacker {
    fn default() -> Unpacker {
        let mut decoder = zstd::stream::write::Decoder::new(Bounded::default())
            .expect("a decoder needs nothing but memory");
        decoder.window_log_max(WINDOW_LOG).expect("zstd has such windows");
        Unpacker(decoder)
    }
}

impl Unpacker {
    /// The report that was packed. `hash` names its bodies. After an error nothing more of this
    /// link can be read.
    pub fn unpack(
        &mut self,
        packed: Packed,
        hash: fn(&[u8]) -> Digest,
    ) -> Result<Frame, FrameError> {
        let pb::Packed { log, seq, report, data } = packed.0;
        let unpacked = self.0.write_all(&data).and_then(|()| self.0.flush());
        ensure(unpacked.is_ok(), "packed.data", "is no zstd stream, or is too long")?;
        let text = std::mem::take(&mut self.0.get_mut().0);
        let mut report = decode_report(given("packed.report", report)?, hash)?;
        ensure(report.bodies.is_empty(), "packed.report", "has bodies of its own")?;
        let mut lines: Vec<_> =
            report.tally.lines().map(|(outcome, hosts)| (*outcome, hosts.clone())).collect();
        let mut reader =
            Reader { rest: &text, room: UNPACKED, cells: FRAME_LIMIT, steps: UNPACKED };
        for _ in 0..reader.count()? {
            for (outcome, hosts, body) in reader.group(hash)? {
                let first = report.bodies.insert(digest_of(&outcome)?, body).is_none();
                ensure(first, "packed.data", "has a body twice")?;
                lines.push((outcome, hosts));
            }
        }
        ensure(reader.rest.is_empty(), "packed.data", "goes on after its end")?;
        at_most("packed.lines", lines.len(), LINES)?;
        report.tally = decode_tally(lines)?;
        Ok(Frame::Report { log, seq, report })
    }
}

fn digest_of(outcome: &Outcome) -> Result<Digest, FieldError> {
    given("packed.body", outcome.body)
}

/// Takes a body apart: what it has in common with others, and what not.
fn take_apart(body: &Bytes) -> (Common, Vec<Bytes>) {
    let answer = shape::decode::<pb::Answer>(body.clone()).ok();
    let apart = answer.and_then(|answer| {
        let texts = [answer.stdout.clone(), answer.stderr.clone()];
        let rest = without_texts(answer)?;
        (put_together(Some(&rest), &texts).as_ref() == Some(body)).then_some((Some(rest), texts))
    });
    let (rest, texts) = apart.unwrap_or_else(|| (None, [body.clone(), Bytes::new()]));
    let mut values = Vec::new();
    let pieces = texts.map(|text| {
        let (template, found) = split(&text, b"");
        values.extend(found.iter().map(|value| text.slice_ref(value)));
        template.pieces().map(Bytes::copy_from_slice).collect()
    });
    (Common { rest, pieces }, values)
}

/// An answer without its texts; their true sizes are left out where they follow from them.
fn without_texts(mut answer: pb::Answer) -> Option<Bytes> {
    let texts = [
        (&mut answer.stdout, &mut answer.stdout_size),
        (&mut answer.stderr, &mut answer.stderr_size),
    ];
    for (text, size) in texts {
        *size = size.checked_sub(text.len() as u64)?;
        *text = Bytes::new();
    }
    Some(answer.encode_to_vec().into())
}

/// The body of which these are the parts.
fn put_together(rest: Option<&Bytes>, texts: &[Bytes; 2]) -> Option<Bytes> {
    let Some(rest) = rest else { return Some([&texts[0][..], &texts[1]].concat().into()) };
    let mut answer = shape::decode::<pb::Answer>(rest.clone()).ok()?;
    let [stdout, stderr] = texts;
    answer.stdout_size = answer.stdout_size.checked_add(stdout.len() as u64)?;
    answer.stderr_size = answer.stderr_size.checked_add(stderr.len() as u64)?;
    (answer.stdout, answer.stderr) = (stdout.clone(), stderr.clone());
    Some(answer.encode_to_vec().into())
}

fn write_group(text: &mut Vec<u8>, frame: &Common, entries: &[Entry<'_>]) {
    put(text, u64::from(frame.rest.is_some()));
    put_bytes(text, frame.rest.as_deref().unwrap_or_default());
    for pieces in &frame.pieces {
        put(text, pieces.len() as u64);
        pieces.iter().for_each(|piece| put_bytes(text, piece));
    }
    put(text, entries.len() as u64);
    let mut before = 0;
    for entry in entries {
        let (state, code) = encode_state(entry.outcome.state);
        put(text, i32::from(state) as u64);
        put(text, zigzag(code.into()));
        let mut numbers = hosts::encode(entry.hosts).into_iter();
        put(text, numbers.len() as u64);
        let first = i64::from(numbers.next().unwrap_or_default());
        put(text, zigzag(first - before));
        before = first;
        numbers.for_each(|number| put(text, number.into()));
    }
    let gaps = entries.first().map_or(0, |entry| entry.values.len());
    let column = |gap: usize| entries.iter().map(move |entry| &entry.values[gap]);
    let mut seen = BTreeMap::<Vec<&Bytes>, usize>::new();
    for gap in 0..gaps {
        let values: Vec<&Bytes> = column(gap).collect();
        if let Some(same) = seen.get(&values) {
            put(text, 1 + (gap - same) as u64);
        } else if values.windows(2).all(|pair| pair[0] == pair[1]) {
            put(text, 1);
            put_bytes(text, values[0]);
            seen.insert(values, gap);
        } else {
            put(text, 0);
            values.iter().for_each(|value| put(text, value.len() as u64));
            values.iter().for_each(|value| text.extend_from_slice(value));
            seen.insert(values, gap);
        }
    }
}

/// What is left of an unpacked text, and how many bytes of bodies may still be made of it.
struct Reader<'a> {
    rest: &'a [u8],
    room: usize,
    /// How many values may still stand in columns.
    cells: usize,
    /// How many pieces may still be put together: empty ones cost no bytes, but they cost time.
    steps: usize,
}

type Line = (Outcome, HostSet, Bytes);

impl<'a> Reader<'a> {
    fn group(&mut self, hash: fn(&[u8]) -> Digest) -> Result<Vec<Line>, FieldError> {
        let (has_rest, rest) = (self.number()? != 0, self.bytes()?);
        let rest = has_rest.then(|| Bytes::copy_from_slice(rest));
        let mut pieces: [Vec<&[u8]>; 2] = Default::default();
        for pieces in &mut pieces {
            let count = self.count()?;
            ensure(count > 0, "packed.pieces", "are none")?;
            *pieces = (0..count).map(|_| self.bytes()).collect::<Result<_, _>>()?;
        }
        let heads = self.heads()?;
        let gaps = pieces[0].len() + pieces[1].len() - 2;
        // Each value takes a byte of the text at least, or its column does.
        let mut columns: Vec<Vec<&[u8]>> = Vec::new();
        for gap in 0..gaps {
            let column = match self.number()? {
                0 => self.column(heads.len())?,
                1 => vec![self.bytes()?],
                back => {
                    let at = usize::try_from(back - 1).ok().and_then(|back| gap.checked_sub(back));
                    let at = given("packed.column", at)?;
                    columns[at].clone()
                }
            };
            let cells = self.cells.checked_sub(column.len());
            self.cells = given("packed.cells", cells)?;
            columns.push(column);
        }
        let mut lines = Vec::new();
        for (row, (state, hosts)) in heads.into_iter().enumerate() {
            let values = columns.iter().map(|column| *column.get(row).unwrap_or(&column[0]));
            let steps = self.steps.checked_sub(1 + gaps);
            self.steps = given("packed.steps", steps)?;
            let texts = self.texts(&pieces, values)?;
            self.spend(rest.as_ref().map_or(0, Bytes::len))?;
            let body = given("packed.rest", put_together(rest.as_ref(), &texts))?;
            let outcome = Outcome { state, body: Some(hash(&body)) };
            lines.push((outcome, hosts, body));
        }
        Ok(lines)
    }

    fn heads(&mut self) -> Result<Vec<(mesh::State, HostSet)>, FieldError> {
        let mut before = 0;
        let mut heads = Vec::new();
        for _ in 0..self.count()? {
            let state = i32::try_from(self.number()?).unwrap_or(-1);
            let code = i32::try_from(zagzig(self.number()?)).unwrap_or(0);
            let state = decode_state(state, code)?;
            let count = self.count()?;
            ensure(count > 0, "packed.hosts", "are none")?;
            let first = zagzig(self.number()?).checked_add(before);
            let first = given("packed.hosts", first)?;
            before = first;
            let mut numbers = vec![given("packed.hosts", u32::try_from(first).ok())?];
            for _ in 1..count {
                numbers.push(given("packed.hosts", u32::try_from(self.number()?).ok())?);
            }
            heads.push((state, hosts::decode("packed.hosts", &numbers)?));
        }
        Ok(heads)
    }

    fn column(&mut self, rows: usize) -> Result<Vec<&'a [u8]>, FieldError> {
        let lengths: Vec<u64> = (0..rows).map(|_| self.number()).collect::<Result<_, _>>()?;
        lengths.into_iter().map(|length| self.take(length)).collect()
    }

    fn texts<'v>(
        &mut self,
        pieces: &[Vec<&[u8]>; 2],
        mut values: impl Iterator<Item = &'v [u8]>,
    ) -> Result<[Bytes; 2], FieldError> {
        let mut texts: [Bytes; 2] = Default::default();
        for (text, pieces) in texts.iter_mut().zip(pieces) {
            let mut whole = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                let value = if at == 0 { &[][..] } else { values.next().unwrap_or_default() };
                self.spend(value.len() + piece.len())?;
                whole.extend_from_slice(value);
                whole.extend_from_slice(piece);
            }
            *text = whole.into();
        }
        Ok(texts)
    }

    /// Before anything is made, it must have room: a few bytes can stand for many.
    fn spend(&mut self, bytes: usize) -> Result<(), FieldError> {
        let room = self.room.checked_sub(bytes);
        self.room = given("packed.room", room)?;
        Ok(())
    }

    /// A number of things each of which takes a byte at least.
    fn count(&mut self) -> Result<usize, FieldError> {
        let count = usize::try_from(self.number()?).ok().filter(|n| *n <= self.rest.len());
        given("packed.count", count)
    }

    fn bytes(&mut self) -> Result<&'a [u8], FieldError> {
        let length = self.number()?;
        self.take(length)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FieldError> {
        let length = usize::try_from(length).ok();
        let parts = length.and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = given("packed.bytes", parts)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, FieldError> {
        let number = prost::encoding::decode_varint(&mut self.rest).ok();
        given("packed.number", number)
    }
}

fn put(text: &mut Vec<u8>, number: u64) {
    prost::encoding::encode_varint(number, text);
}

fn put_bytes(text: &mut Vec<u8>, bytes: &[u8]) {
    put(text, bytes.len() as u64);
    text.extend_from_slice(bytes);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn zagzig(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Takes so much and no more.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > UNPACKED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
