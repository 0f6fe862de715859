//! Paths as text for errors and logs: readable, one line, and nothing a terminal would obey.
//!
//! It is for people only; no path is ever read back from this form.

use std::fmt::Write as _;

/// The path with control characters and bytes that are not UTF-8 escaped.
pub(crate) fn show(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for piece in path.utf8_chunks() {
        for c in piece.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in piece.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_a_terminal_obeys() {
        assert_eq!(super::show(b"a\x1b[2J\n\xff\xc3\xa4"), "a\\u{1b}[2J\\n\\xff\u{e4}");
    }
}
