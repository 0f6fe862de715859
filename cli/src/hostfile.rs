//! Sets in files: `^FILE` within a set, and `--hostfile FILE`.
//!
//! A file has a set a line; `#` begins a comment. It is read here, where the command is given, and
//! what stands in it takes its place in the set, so that the controller never opens a file that an
//! operator names. A file of nothing is a set of nobody.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};

use controller::sets::{self, Set, What, expand, fold};

use crate::fail::Failure;

/// The largest file of hosts, in bytes.
const LARGEST: u64 = 64 << 20;

/// A set with its files put in.
pub(crate) fn put_in(text: &str) -> Result<Cow<'_, str>, Failure> {
    // What is no set is for the controller to say, in the same words for everybody.
    let Ok(set) = sets::parse(text) else { return Ok(text.into()) };
    let mut files = Vec::new();
    find_files(&set, &mut files);
    let mut whole = Cow::Borrowed(text);
    for (at, path) in files.into_iter().rev() {
        let inside = format!("({})", read(path)?);
        whole.to_mut().replace_range(at..=at + path.len(), &inside);
    }
    Ok(whole)
}

/// The set that a file holds; `-` is standard input.
pub(crate) fn read(path: &str) -> Result<String, Failure> {
    let text = match path {
        "-" => text_of(io::stdin()),
        _ => File::open(path).and_then(text_of),
    };
    let name = if path == "-" { "standard input" } else { path };
    let text = text.map_err(|error| {
        Failure::usage(format!("{name}: {error}"), "a file of hosts has a set a line")
    })?;
    set_of(name, &text)
}

fn text_of(file: impl Read) -> io::Result<String> {
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        let why = format!("it is larger than {} MiB", LARGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

/// One set of all lines. Names are folded, which makes long files short.
fn set_of(name: &str, text: &str) -> Result<String, Failure> {
    let (mut names, mut others) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what: String| {
            Failure::usage(format!("{name}, line {number}: {what}"), "each line is a set of hosts")
        };
        let set = sets::parse(line).map_err(|error| wrong(error.to_string()))?;
        let mut files = Vec::new();
        find_files(&set, &mut files);
        if !files.is_empty() {
            return Err(wrong("files cannot stand in files".into()));
        }
        match expand(line) {
            Ok(found) => names.extend(found),
            Err(_) => others.push(format!("({line})")),
        }
    }
    if !names.is_empty() {
        others.insert(0, fold(names));
    }
    Ok(others.join(","))
}

/// Where files stand in a set, from left to right.
fn find_files<'a>(set: &Set<'a>, files: &mut Vec<(usize, &'a str)>) {
    for (_, term) in &set.terms {
        match &term.what {
            What::File(path) => files.push((term.at, path)),
            What::Set(set) => find_files(set, files),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, String) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let path = file.path().to_str().expect("a path").to_owned();
        (file, path)
    }

    #[test]
    fn files_take_their_place() {
        let (_one, one) = file("web2 web1\n# nobody\n\nweb[3-4]!web4 # three\n");
        let (_two, two) = file("@lyon!a1\ndb1\n/x#1/\n");
        let (_none, none) = file("# only this\n");
        let check = |text: &str, expected: &str| assert_eq!(put_in(text).as_deref(), Ok(expected));
        check(&format!("a,^{one}&b"), "a,(web[1-3])&b");
        check(&format!("(a,^{one})!^{none}"), "(a,(web[1-3]))!()");
        check("plain[1-2]", "plain[1-2]");
        check("wrong[", "wrong[");
        let found = put_in(&format!("^{two}")).expect_err("`#` begins a comment");
        assert!(found.error.message.contains("line 3"), "{found:?}");
    }

    #[test]
    fn groups_in_files_keep_their_meaning() {
        let (_file, path) = file("@lyon!a1\ndb1 db2\n");
        assert_eq!(read(&path).as_deref(), Ok("db[1-2],(@lyon!a1)"));
    }

    #[test]
    fn faults_name_file_and_line() {
        let (_file, path) = file("a1\na[1-\n");
        let error = read(&path).expect_err("a bracket").text();
        assert!(error.contains(&path) && error.contains("line 2"), "{error}");
        let (_file, path) = file("^other\n");
        assert!(read(&path).expect_err("no").text().contains("files cannot stand in files"));
        let error = read("/no/such/file").expect_err("nothing");
        assert_eq!(error.exit, crate::exit::Exit::Usage);
        assert!(error.text().contains("/no/such/file"), "{error:?}");
    }
}
