//! Text from elsewhere, made safe for a terminal.
//!
//! A host's output may hold anything: sequences that move the cursor, rename the window or hide
//! what stands before them. On a terminal every control character except newline and tab, every
//! character that changes the writing direction, and every byte that is not UTF-8 is shown as its
//! bytes, `\x1b`. Elsewhere output passes as it is: a pipe gets the bytes that the host wrote.

use std::borrow::Cow;

/// The bytes with everything made visible that could deceive; newlines and tabs stay.
pub(crate) fn escape(bytes: &[u8]) -> Cow<'_, str> {
    escape_if(bytes, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// The same for a text that must stay one line.
pub(crate) fn escape_line(text: &str) -> Cow<'_, str> {
    escape_if(text.as_bytes(), is_unsafe)
}

fn escape_if(bytes: &[u8], hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains(&hidden)
    {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match hidden(c) {
                true => push_hex(&mut shown, c.encode_utf8(&mut [0; 4]).as_bytes()),
                false => shown.push(c),
            }
        }
        push_hex(&mut shown, chunk.invalid());
    }
    Cow::Owned(shown)
}

fn push_hex(shown: &mut String, bytes: &[u8]) {
    for byte in bytes {
        shown.push_str(&format!("\\x{byte:02x}"));
    }
}

/// Control characters (C0, DEL, C1), line separators, and marks of the writing direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_deceives() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(escape(bytes), expected);
        check(b"plain\ttext\n", "plain\ttext\n");
        check("grün 日本 🦀".as_bytes(), "grün 日本 🦀");
        check(b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m");
        check(b"10%\r20%\x08\x07\x00\x7f", "10%\\x0d20%\\x08\\x07\\x00\\x7f");
        check("a\u{9b}31m".as_bytes(), "a\\xc2\\x9b31m");
        check("a\u{202e}txt\u{2066}".as_bytes(), "a\\xe2\\x80\\xaetxt\\xe2\\x81\\xa6");
        check(b"ok\xff\xfe\xc3(", "ok\\xff\\xfe\\xc3(");
        check(b"", "");
        assert!(matches!(escape(b"plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(escape_line("a\nb\tc"), "a\\x0ab\\x09c");
    }
}
