//! Looking whether the files of distributions are as they should be. Nothing is changed by it.
//!
//! Each file is compared as a push with `verify` compares it, and one that a later order has put
//! in place is left out: of that this order knows nothing. What differs is said twice: for people
//! in lines with the paths at the host, and for the controller by the files' places in the order.

use mesh::{OrderId, State};
use protos::{Answer, Dist, Push};
use tokio::runtime::Handle;

use crate::dist::Done;
use crate::exec::failed;
use crate::install::{InstallError, Installs};

/// How much of the lines for people is kept.
const TEXT: usize = 128 << 10;
/// So many entries of a folder are named in the word for the controller.
const NAMED: usize = 3;

/// The lines for people, as far as they are kept: always whole ones.
#[derive(Default)]
struct Text {
    kept: String,
    /// How long all of them are, in bytes.
    size: u64,
}

impl Text {
    fn add(&mut self, lines: &str) {
        for line in lines.split_inclusive('\n') {
            let is_whole = self.kept.len() as u64 == self.size;
            self.size += line.len() as u64;
            if is_whole && self.size <= TEXT as u64 {
                self.kept.push_str(line);
            }
        }
    }
}

/// Compares all files.
pub(crate) async fn verify(installs: &Installs, order: OrderId, dist: Dist) -> (State, Answer) {
    let (installs, handle) = (installs.clone(), Handle::current());
    let looked = tokio::task::spawn_blocking(move || {
        let (mut done, mut text) = (Done::default(), Text::default());
        for (n, item) in (0_u32..).zip(&dist.items) {
            match look(&installs, order, &item.push, &handle) {
                Ok(Some(answer)) => {
                    let drift = answer.push.map_or(0, |pushed| pushed.drift);
                    let said = String::from_utf8_lossy(&answer.stdout);
                    text.add(&at_host(&item.push.dest, &said));
                    done.note_drift(n, drift, || in_words(&said, drift));
                }
                Ok(None) => drop(done.note(n, Ok(None))),
                Err(error) => drop(done.note(n, Err(crate::chain(&error)))),
            }
        }
        let (state, answer) = done.answer();
        (state, Answer { stdout: text.kept.into(), stdout_size: text.size, ..answer })
    });
    match looked.await {
        Ok(found) => found,
        Err(error) => failed("install", "dist", error.to_string()),
    }
}

/// Compares one; `None` if a later order has put something there.
fn look(
    installs: &Installs,
    order: OrderId,
    push: &Push,
    handle: &Handle,
) -> Result<Option<Answer>, InstallError> {
    let newest = installs.journal.installed(&push.dest).map_err(InstallError::Journal)?;
    if newest.is_some_and(|(_, newest)| newest > order) {
        return Ok(None);
    }
    let looked = installs.install_blocking(order, push, handle)?;
    Ok(looked.map(|(answer, _)| answer))
}

/// The sign of a line, the entry it is about (`.` is the file or folder itself), and how that
/// differs.
fn parts(line: &str) -> (&str, &str, &str) {
    let (sign, rest) = line.split_at_checked(2).unwrap_or((line, ""));
    match rest.split_once(": ") {
        Some((path, what)) => (sign.trim_end(), path, what),
        None => (sign.trim_end(), rest, ""),
    }
}

/// The same lines with the paths at the host.
fn at_host(dest: &[u8], said: &str) -> String {
    let dest = String::from_utf8_lossy(dest);
    let line = |line: &str| {
        let (sign, path, what) = parts(line);
        let below = if path == "." { String::new() } else { format!("/{path}") };
        let what = if what.is_empty() { String::new() } else { format!(": {what}") };
        format!("{sign} {dest}{below}{what}\n")
    };
    said.lines().map(line).collect()
}

/// How a file or folder differs, in a line.
fn in_words(said: &str, drift: u64) -> String {
    let word = |line: &str| {
        let (sign, path, what) = parts(line);
        let what = match (sign, what) {
            ("+", _) => "missing",
            ("-", _) => "not in the source",
            ("*", "content") => "other content",
            (_, what) => what,
        };
        if path == "." { what.to_owned() } else { format!("{path}: {what}") }
    };
    let mut words: Vec<_> = said.lines().take(NAMED).map(word).collect();
    let rest = drift.saturating_sub(words.len() as u64);
    if rest > 0 {
        words.push(format!("{rest} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_with_its_path_at_the_host() {
        let said = "* .: content\n+ a/new\n~ odd: mode 0777 instead of 0644\n- old\n";
        let expected = "* /etc/x: content\n+ /etc/x/a/new\n\
            ~ /etc/x/odd: mode 0777 instead of 0644\n- /etc/x/old\n";
        assert_eq!(at_host(b"/etc/x", said), expected);
        assert_eq!(at_host(b"/etc/x", ""), "");
    }

    #[test]
    fn of_too_many_lines_the_first_ones_are_kept() {
        let line = format!("+ /etc/x/{}\n", "a".repeat(90));
        let (fit, all) = (TEXT / line.len(), 2 * TEXT / line.len());
        let mut text = Text::default();
        text.add(&line.repeat(all));
        assert_eq!(text.kept, line.repeat(fit));
        // A short one of the next file would fit; it would look as if nothing was between.
        text.add("+ /y\n");
        assert_eq!((text.kept.len(), text.size), (fit * line.len(), (all * line.len() + 5) as u64));
    }

    #[test]
    fn the_word_for_the_controller_is_one_line() {
        assert_eq!(in_words("* .: content\n", 1), "other content");
        assert_eq!(in_words("+ .\n", 1), "missing");
        assert_eq!(in_words("~ .: mode 0777\n", 1), "mode 0777");
        let folder = "+ a\n* b: content\n- c\n! d: is a directory, and is not replaced\n";
        let expected = "a: missing, b: other content, c: not in the source, 6 more";
        assert_eq!(in_words(folder, 9), expected);
        // So much that its lines were cut.
        assert_eq!(in_words("", 9), "9 more");
    }
}
