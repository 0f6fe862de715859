//! The text form of what is distributed: a line for each file.
//!
//! `SOURCE:DEST:DOMAIN:FREQUENCY:COMMAND:EDITOR`; a colon in a field is written `\:` and a
//! backslash `\\`. The source is the name of content in the controller's store, which is not in
//! the text: it says who gets it, and how.

use super::domain::{Domain, check_path};
use super::hostdata::LineError;

/// The longest line, and the most of them.
const LINE: usize = 16 << 10;
const RECORDS: usize = 100_000;
/// The longest command.
pub(crate) const COMMAND: usize = 4 << 10;

/// A distributed file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Where it goes.
    pub dest: String,
    /// To whom.
    pub domain: Domain,
    /// Which content.
    pub source: u64,
    /// How often.
    pub frequency: String,
    /// What each client runs after an update; may be empty.
    pub command: String,
    /// What edits it.
    pub editor: String,
}

/// Writes rows, sorted.
pub fn write<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let mut rows: Vec<&Row> = rows.into_iter().collect();
    rows.sort();
    let line = |row: &&Row| {
        let fields =
            [&row.dest, &row.domain.to_string(), &row.frequency, &row.command, &row.editor];
        let fields = fields.map(|field| field.replace('\\', "\\\\").replace(':', "\\:"));
        format!("s{}:{}\n", row.source, fields.join(":"))
    };
    rows.iter().map(line).collect()
}

/// Reads rows, with the number of each one's line.
pub fn read(text: &str) -> Result<Vec<(usize, Row)>, LineError> {
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let at = |what: String| LineError { line: n + 1, what };
        if line.len() > LINE || rows.len() == RECORDS {
            return Err(at(format!("more than {RECORDS} files, or a line over {LINE} bytes")));
        }
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        rows.push((n + 1, row(line).map_err(at)?));
    }
    Ok(rows)
}

fn row(line: &str) -> Result<Row, String> {
    let fields = split(line)?;
    let [source, dest, domain, frequency, command, editor] = <[String; 6]>::try_from(fields)
        .map_err(|fields| {
            let form = "SOURCE:DEST:DOMAIN:FREQUENCY:COMMAND:EDITOR";
            format!("{} fields instead of 6: {form}", fields.len())
        })?;
    let number = source.strip_prefix('s').and_then(|number| number.parse().ok());
    let source = number.ok_or_else(|| format!("{source:?} is no source, such as s12"))?;
    check_path(&dest).map_err(|error| error.to_string())?;
    check_command(&command)?;
    let domain = domain.parse::<Domain>().map_err(|error| error.to_string())?;
    Ok(Row { dest, domain, source, frequency, command, editor })
}

/// Whether a command can be kept.
pub(crate) fn check_command(command: &str) -> Result<(), String> {
    match command.len() > COMMAND || command.contains(char::is_control) {
        true => Err(format!(
            "a command is one line of at most {COMMAND} bytes without control characters"
        )),
        false => Ok(()),
    }
}

fn split(line: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = fields.last_mut().expect("there is at least one field");
        match c {
            ':' => fields.push(String::new()),
            '\\' => match chars.next() {
                Some(c @ (':' | '\\')) => last.push(c),
                _ => return Err("after a backslash comes `:` or another".into()),
            },
            c => last.push(c),
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::domain::testing::domain;

    #[test]
    fn what_is_wrong_names_the_line() {
        let check = |line: &str, says: &str| {
            let error = read(&format!("# x\n\n{line}\n")).expect_err(line);
            assert!(error.line == 3 && error.what.contains(says), "{line}: {error}");
        };
        check("s1:/etc/motd:adm:day", "4 fields instead of 6");
        check("1:/etc/motd:adm:day::NONE", "\"1\" is no source");
        check("s1:etc/motd:adm:day::NONE", "absolute");
        check("s1:/etc/motd:a b:day::NONE", "letters");
        check("s1:/etc/motd:adm:day:\\x:NONE", "backslash");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            rows in proptest::collection::vec(
                ("(/[a-z:\\\\ ]{1,5}){1,3}", domain(4), any::<u64>(), "[a-z]{1,5}", "[^\\p{C}]{0,20}", "[A-Z/:]{1,6}"),
                0..10,
            )
        ) {
            let row = |(dest, domain, source, frequency, command, editor)| {
                Row { dest, domain, source, frequency, command, editor }
            };
            let rows: Vec<Row> = rows.into_iter().map(row).collect();
            let text = write(&rows);
            let mut sorted = rows.clone();
            sorted.sort();
            let again: Vec<Row> = read(&text).expect("read").into_iter().map(|(_, row)| row).collect();
            prop_assert_eq!(&again, &sorted);
            prop_assert_eq!(write(&again), text);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,200}") {
            read(&text).ok();
        }
    }
}
