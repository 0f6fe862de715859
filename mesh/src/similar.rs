//! Texts that differ only in host names, numbers, times, addresses and ids: one template, and what
//! stands in its gaps.
//!
//! A text is read from left to right; whatever could be different at the next host without the text
//! meaning anything else becomes a gap, and the rest is the template. What becomes a gap depends on
//! the text alone (and on the name of its host), so that "has the same template" is an equivalence,
//! and a template with its values gives back every byte. Gaps have no kinds: two texts of which one
//! has `5` where the other has `10.0.0.1` are alike.
//!
//! Numbers in columns are padded with spaces. All spaces before or after a gap but one belong to
//! it, so that `a    5` and `a 12345` are alike.
//!
//! It knows nothing of words, units or languages beyond what `gap` lists, and does not compare
//! texts with each other: of `eth0` the `0` is a gap even if all have it. Whoever shows a template
//! writes what is the same everywhere as it is.

/// A text with gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template {
    /// What stands outside of the gaps.
    text: Vec<u8>,
    /// Where the gaps are in it, in rising order.
    gaps: Vec<u32>,
}

impl Template {
    /// What stands before, between and after the gaps: one piece more than there are gaps.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.gaps);
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let ends = self.gaps.iter().copied().chain([end]);
        starts.zip(ends).map(|(start, end)| &self.text[*start as usize..end as usize])
    }

    /// How many gaps it has.
    pub fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// The text with these values in the gaps. `None` if there are more or fewer of them.
    pub fn fill(&self, values: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
        if values.len() != self.gaps.len() {
            return None;
        }
        let mut text = Vec::with_capacity(self.text.len());
        let mut values = values.iter();
        for piece in self.pieces() {
            text.extend_from_slice(piece);
            if let Some(value) = values.next() {
                text.extend_from_slice(value.as_ref());
            }
        }
        Some(text)
    }
}

/// Takes a text apart: its template, and what stands in the gaps. `name` is the host's own, which
/// is a gap wherever it is a word; an empty name is none. A text of 4 GiB or more has no gaps.
pub fn split<'t>(text: &'t [u8], name: &[u8]) -> (Template, Vec<&'t [u8]>) {
    let mut found: Vec<(usize, usize)> = Vec::new();
    if u32::try_from(text.len()).is_ok() {
        find(text, name, &mut found);
    }
    let mut template = Template::default();
    let mut values = Vec::with_capacity(found.len());
    let mut at = 0;
    for (start, end) in found {
        template.text.extend_from_slice(&text[at..start]);
        template.gaps.push(u32::try_from(template.text.len()).expect("the whole text is shorter"));
        values.push(&text[start..end]);
        at = end;
    }
    template.text.extend_from_slice(&text[at..]);
    (template, values)
}

/// Finds all gaps, from left to right; none touches the next.
fn find(text: &[u8], name: &[u8], found: &mut Vec<(usize, usize)>) {
    let mut at = 0;
    while at < text.len() {
        if let Some(end) = gap(text, at, name) {
            add(found, at, end);
            at = end;
            continue;
        }
        if text[at] != b' ' {
            at += 1;
            continue;
        }
        let after = at + run(text, at, |b| b == b' ');
        let begins_line = at == 0 || text[at - 1] == b'\n';
        if let Some(end) = gap(text, after, name) {
            // One space stays, except where there may be none: at the beginning of a line.
            add(found, if begins_line { at } else { at + 1 }, end);
            at = end;
            continue;
        }
        if let Some(last) = found.last_mut().filter(|last| last.1 == at)
            && text.get(after).is_some_and(|b| *b != b'\n')
        {
            last.1 = after - 1;
        }
        at = after;
    }
}

/// Adds a gap; one that touches the last makes it longer.
fn add(found: &mut Vec<(usize, usize)>, start: usize, end: usize) {
    match found.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => found.push((start, end)),
    }
}

/// Where the gap ends that begins here, if one does: the host's name, an id, an address, the name
/// of a month or day within a date, a number.
fn gap(text: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    let first = *text.get(at)?;
    let before = at.checked_sub(1).map(|before| text[before]);
    if !before.is_some_and(is_word) {
        let found = own_name(text, at, name)
            .or_else(|| address(text, at))
            .or_else(|| id(text, at))
            .or_else(|| date_word(text, at));
        if found.is_some() {
            return found;
        }
        let is_sign = matches!(first, b'-' | b'+') && before != Some(first);
        if is_sign && text.get(at + 1).is_some_and(u8::is_ascii_digit) {
            return Some(number(text, at + 1));
        }
    }
    first.is_ascii_digit().then(|| number(text, at))
}

/// The host's name as a word of its own, in which `-` counts as a letter.
fn own_name(text: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    let is_part = |b: &u8| is_word(*b) || *b == b'-';
    let end = at + name.len();
    let fits = !name.is_empty()
        && text[at..].starts_with(name)
        && !text.get(end).is_some_and(is_part)
        && !at.checked_sub(1).is_some_and(|before| is_part(&text[before]));
    fits.then_some(end)
}

/// An address with colons (IPv6, MAC): groups of up to four hexadecimal digits. One without letters
/// that leaves nothing out is a number, as times are.
fn address(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + run(text, at, |b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
    // What follows a colon or full stop is a new clause, unless it is `::`.
    while end > at && matches!(text[end - 1], b':' | b'.') && !text[at..end].ends_with(b"::") {
        end -= 1;
    }
    let address = &text[at..end];
    let colons = address.iter().filter(|b| **b == b':').count();
    let groups = address.split(|b| *b == b':' || *b == b'.');
    let is_number =
        !address.iter().any(u8::is_ascii_alphabetic) && !address.windows(2).any(|w| w == b"::");
    let is_one = colons >= 2
        && !is_number
        && address.iter().any(u8::is_ascii_digit)
        && groups.into_iter().all(|group| group.len() <= 4)
        && !text.get(end).is_some_and(|b| is_word(*b));
    is_one.then_some(end)
}

/// A word of hexadecimal digits that no word of a language is: a UUID, a hash, a pointer.
fn id(text: &[u8], at: usize) -> Option<usize> {
    let rest = &text[at..];
    if rest.starts_with(b"0x") {
        let digits = run(text, at + 2, |b| b.is_ascii_hexdigit());
        let ends = !text.get(at + 2 + digits).is_some_and(|b| is_word(*b));
        return (digits > 0 && ends).then_some(at + 2 + digits);
    }
    const UUID: [usize; 5] = [8, 4, 4, 4, 12];
    let mut end = at;
    let is_uuid = UUID.iter().enumerate().all(|(n, length)| {
        let dash = usize::from(n > 0);
        let dashed = n == 0 || text.get(end) == Some(&b'-');
        let fits = dashed && run(text, end + dash, |b| b.is_ascii_hexdigit()) == *length;
        end += dash + length;
        fits
    });
    if is_uuid && !text.get(end).is_some_and(|b| is_word(*b)) {
        return Some(end);
    }
    let word = run(text, at, is_word);
    let word = &text[at..at + word];
    let is_hash = word.len() >= 7
        && word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_digit);
    is_hash.then_some(at + word.len())
}

/// The name of a month beside the number of a day, or that of a day before either.
fn date_word(text: &[u8], at: usize) -> Option<usize> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    const DAYS: &[u8; 21] = b"MonTueWedThuFriSatSun";
    let end = at + 3;
    let word = text.get(at..end)?;
    let is_in = |names: &[u8]| names.chunks(3).any(|name| name == word);
    if text.get(end).is_some_and(|b| is_word(*b)) {
        return None;
    }
    let between = |b: u8| matches!(b, b' ' | b'/' | b'-' | b',');
    let next = end + run(text, end, between);
    let digit_follows = next > end && text.get(next).is_some_and(u8::is_ascii_digit);
    let digit_before = at >= 2 && between(text[at - 1]) && text[at - 2].is_ascii_digit();
    if is_in(MONTHS) {
        return (digit_follows || digit_before).then_some(end);
    }
    let month_follows = || next > end && date_word(text, next).is_some();
    (is_in(DAYS) && (digit_follows || month_follows())).then_some(end)
}

/// The end of a number that begins here: digits with points, colons and commas between them, and
/// the letters of a magnitude, as in `1.5G`, `10.0.0.1`, `12:03:04,567`, `1,234`.
fn number(text: &[u8], at: usize) -> usize {
    let digits = |at| run(text, at, |b| b.is_ascii_digit());
    let mut end = at + digits(at);
    loop {
        let more = digits(end + 1);
        match text.get(end) {
            Some(b'.' | b':') if more > 0 => end += 1 + more,
            Some(b',') if more == 3 => end += 1 + more,
            _ => break,
        }
    }
    let magnitude = text.get(end).is_some_and(|b| b"KMGTPkmgtp".contains(b));
    let mut after = end + usize::from(magnitude);
    after += usize::from(magnitude && text.get(after) == Some(&b'i'));
    after += usize::from(text.get(after) == Some(&b'B'));
    if text.get(after).is_some_and(|b| is_word(*b)) { end } else { after }
}

/// How many bytes from here on are such ones.
fn run(text: &[u8], at: usize, is_one: impl Fn(u8) -> bool) -> usize {
    text.get(at..).map_or(0, |rest| rest.iter().take_while(|b| is_one(**b)).count())
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A text with its gaps marked.
    fn marked(text: &str, name: &str) -> String {
        let (template, values) = split(text.as_bytes(), name.as_bytes());
        let values: Vec<String> =
            values.iter().map(|value| format!("<{}>", String::from_utf8_lossy(value))).collect();
        String::from_utf8(template.fill(&values).expect("as many")).expect("text")
    }

    #[test]
    fn what_becomes_a_gap() {
        let check = |text: &str, expected: &str| assert_eq!(marked(text, "web1"), expected);
        check("", "");
        check("no gap at all\n", "no gap at all\n");
        check("web1 is up 5 days", "<web1> is up <5> days");
        check("web12 web1.lan web1-ib", "web<12> <web1>.lan web<1>-ib");
        check("load 0.12, 1.05", "load <0.12>, <1.05>");
        check("5.14.0-503.el9", "<5.14.0>-<503>.el<9>");
        check("eth0: 10.0.0.1/24", "eth<0>: <10.0.0.1>/<24>");
        check("at 12:03:04,567 now", "at <12:03:04,567> now");
        check("1,234 files, 12 dirs", "<1,234> files, <12> dirs");
        check("12K 1.5GiB 7MB 3B 5X", "<12K> <1.5GiB> <7MB> <3B> <5>X");
        check("-5 +3 a-5 x=-2 --5", "<-5> <+3> a-<5> x=<-2> --<5>");
        check("Nov 26 01:02:03 Mon Nov  6", "<Nov> <26> <01:02:03> <Mon> <Nov> < 6>");
        check("26/Nov/2026 2026-11-26T01:02Z", "<26>/<Nov>/<2026> <2026>-<11>-<26>T<01:02>Z");
        check("May I? Mon cher, Sat on", "May I? Mon cher, Sat on");
        check("fe80::1 ::1 52:54:00:aB:cd:ef", "<fe80::1> <::1> <52:54:00:aB:cd:ef>");
        check("fe80::1%2: 1::", "<fe80::1>%<2>: <1::>");
        check("std::vec face::b bad: 12:", "std::vec face::b bad: <12>:");
        check("0xdeadBEEF 0x 0xz", "<0xdeadBEEF> <0>x <0>xz");
        check("3f2a91b deadbeef defaced1", "<3f2a91b> deadbeef <defaced1>");
        check(
            "id 123e4567-e89b-12d3-a456-426614174000.",
            "id <123e4567-e89b-12d3-a456-426614174000>.",
        );
        check("grün1 日2", "grün<1> 日<2>");
    }

    #[test]
    fn columns_are_alike_however_wide_their_numbers() {
        let alike = |a: &str, b: &str| {
            let (x, y) = (split(a.as_bytes(), b"web1").0, split(b.as_bytes(), b"web10").0);
            assert_eq!(x, y, "{a:?} {b:?}: {} {}", marked(a, "web1"), marked(b, "web10"));
        };
        alike("a    5 b", "a 12345 b");
        alike("    5 b", "12345 b");
        alike("web1    up", "web10 up");
        alike("x 5    y", "x 12345 y");
        alike("n\n  1 n\n 22\n", "n\n333 n\n 4\n");
        alike("/dev/vda1  9.8G  1.2G  13% /", "/dev/vda2   98G   55G  57% /");
        alike("Nov  6 x", "Nov 16 x");
        let different =
            |a: &str, b: &str| assert_ne!(split(a.as_bytes(), b""), split(b.as_bytes(), b""));
        different("a  b", "a b");
        different("a 5", "b 5");
    }

    /// Bytes of which many become gaps.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[ :.,/+-]{0,3}[0-9]{0,4}[KMi]?",
            "( |web1|web-1|Nov|Mon|::|0x|a1b2c3d4|[0-9]{2}:[0-9]{2}|\n|[a-f]{0,9})",
            "\\PC{0,4}",
        ];
        let noise = prop::collection::vec(any::<u8>(), 0..4);
        let part = (piece, noise).prop_map(|(piece, noise)| [piece.as_bytes(), &noise].concat());
        prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_template_with_its_values_is_the_text(text in text(), name in "(web1|a|)") {
            let (template, values) = split(&text, name.as_bytes());
            prop_assert_eq!(template.gaps(), values.len());
            prop_assert_eq!(template.pieces().count(), values.len() + 1);
            prop_assert_eq!(template.fill(&values), Some(text.clone()));
            prop_assert!(values.iter().all(|value| !value.is_empty()));
            let more: Vec<&[u8]> = values.iter().copied().chain([&b"x"[..]]).collect();
            prop_assert_eq!(template.fill(&more), None);
        }

        /// Being alike is an equivalence, and it is exactly having the same pieces.
        #[test]
        fn alike_is_an_equivalence(a in text(), b in text(), c in text()) {
            let [x, y, z] = [&a, &b, &c].map(|text| split(text, b"web1").0);
            prop_assert_eq!(&x, &split(&a, b"web1").0);
            prop_assert_eq!(x == y, y == x);
            prop_assert!(!(x == y && y == z) || x == z);
            prop_assert_eq!(x == y, x.pieces().eq(y.pieces()));
        }

        #[test]
        fn texts_that_differ_in_numbers_only_are_alike(
            numbers in prop::array::uniform2((any::<u32>(), 0u8..24, 0u8..60, any::<u32>())),
        ) {
            let text = |(i, (load, hour, minute, hash)): (usize, (u32, u8, u8, u32))| {
                let name = format!("node{i}");
                let text = format!(
                    "{name:8} {hour:02}:{minute:02} up {load:>10} days on 10.0.{hour}.{minute}\n\
                     {load:>10} total, commit {hash:08x}1, [{minute}%]\n"
                );
                split(text.as_bytes(), name.as_bytes()).0
            };
            let [a, b] = [0, 1].map(|i| text((i, numbers[i])));
            prop_assert_eq!(a, b);
        }
    }
}
