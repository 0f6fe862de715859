//! What is wrong with settings in TOML: the line, the key, and what must stand there.

use toml::de::Error;

/// A text that is not what it should be, in one line: where, which key, and what would be right.
///
/// Nothing of strings that stand there is told: they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// The line, from 1 on.
    pub line: usize,
    /// The key, if it is one that is wrong, and why.
    pub what: String,
}

impl SyntaxError {
    /// What an error in a text says.
    pub fn new(text: &str, mut error: Error) -> SyntaxError {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        // Without the text it tells the key in place of the line, after the message.
        error.set_input(None);
        let told = error.to_string();
        let key =
            told.strip_prefix(error.message()).and_then(|rest| rest.trim().strip_prefix("in `"));
        let key = key.and_then(|key| key.strip_suffix('`')).unwrap_or_default();
        let what = wanted(&hidden(error.message()), key);
        let what = if key.is_empty() { what } else { format!("{key}: {what}") };
        SyntaxError { line, what: crate::plain(&what) }
    }
}

/// The line of a byte of a text, from 1 on.
pub fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// A message without the value that it quotes.
fn hidden(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"...\"{}", &text[..first], &text[last + 1..])
        }
        _ => text.into(),
    }
}

/// A message that says what is expected in words of the file, not in those of the program.
fn wanted(message: &str, key: &str) -> String {
    // Beyond 64 bits there is no key for which it would be right.
    let is_wider = message.contains("` as i128") || message.contains("` as u128");
    if is_wider || message == "integer number overflowed" {
        return "this number is too large".into();
    }
    if message == "invalid socket address syntax" {
        return "this is no address: write IP:PORT, for example 127.0.0.1:9100".into();
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.into() };
    if !found.starts_with("invalid ") {
        return message.into();
    }
    let unit = match key.rsplit_once('_') {
        Some((_, "s")) => " of seconds",
        Some((_, "ms")) => " of milliseconds",
        Some((_, "mib")) => " of MiB",
        Some((_, "kib")) => " of KiB",
        Some((_, "kbit")) => " of kbit/s",
        Some((_, "mbit")) => " of Mbit/s",
        _ => "",
    };
    let expected = match expected {
        "u16" | "u32" | "u64" | "usize" => format!("a whole number{unit}, 0 or more"),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list in [ ]".into(),
        "path string" => "a path in quotes".into(),
        "a map" => "a table".into(),
        table if table.starts_with("struct ") => "a table".into(),
        other => other.into(),
    };
    format!("{found}, expected {expected}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        hold_s: u64,
        off: bool,
        paths: Vec<std::path::PathBuf>,
        inner: BTreeMap<String, Inner>,
        listed: Vec<toml::Spanned<Inner>>,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        mib: Option<u64>,
        spool_mib: Option<u64>,
        listen: Option<std::net::SocketAddr>,
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = toml::from_str::<File>(text).expect_err(text);
        assert_eq!(SyntaxError::new(text, error).to_string(), expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_its_key_and_what_is_right() {
        let seconds = "expected a whole number of seconds, 0 or more";
        check("\nhold_s = -3", &format!("line 2: hold_s: invalid value: integer `-3`, {seconds}"));
        check(
            "hold_s = 1.5",
            &format!("line 1: hold_s: invalid type: floating point `1.5`, {seconds}"),
        );
        check(
            "hold_s = 'hush'",
            &format!("line 1: hold_s: invalid type: string \"...\", {seconds}"),
        );
        for huge in ["18446744073709551616", &"9".repeat(60)] {
            check(&format!("hold_s = {huge}"), "line 1: hold_s: this number is too large");
        }
        let off = "line 1: off: invalid type: integer `1`, expected true or false";
        check("off = 1", off);
        let list = "line 1: paths: invalid type: string \"...\", expected a list in [ ]";
        check("paths = 'hush'", list);
        check("paths = 128", &list.replace("string \"...\"", "integer `128`"));
        let table = "line 1: inner.a: invalid type: integer `3`, expected a table";
        check("inner.a = 3", table);
        let mib = "expected a whole number of MiB, 0 or more";
        let spool = format!("line 2: inner.a.spool_mib: invalid type: boolean `true`, {mib}");
        check("[inner.a]\nspool_mib = true", &spool);
        let address = "line 2: listed.listen: this is no address: write IP:PORT, for example \
                       127.0.0.1:9100";
        check("[[listed]]\nlisten = 'hush'", address);
        let unknown = "line 2: inner.a: unknown field `x`, expected one of `mib`, `spool_mib`, \
                       `listen`";
        check("[inner.a]\nx = 'hush'", unknown);
    }

    #[test]
    fn what_is_cut_off_is_told_with_its_line_and_without_what_stands_there() {
        let text = "hold_s = 3\n[inner.a]\nlisten = '1.2.3.4:5'\n";
        let mut refused = 0;
        for end in 0..text.len() {
            let cut = &text[..end];
            let Err(error) = toml::from_str::<File>(cut) else { continue };
            let told = SyntaxError::new(cut, error);
            assert_eq!(told.line, line_of(cut, end), "{cut:?}: {told}");
            assert!(!told.what.contains("1.2") && !told.what.contains('\n'), "{told}");
            refused += 1;
        }
        assert!(refused > 20, "{refused}");
    }
}
