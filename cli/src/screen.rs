//! The two streams: data on stdout, everything else on stderr.
//!
//! Here is decided what a terminal gets and a pipe does not: escaping, colour, bars. What hosts
//! have written goes through [`Screen::remote`] and never anywhere else.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::escape::{escape, escape_line};

const RED: &str = "31";
const CYAN: &str = "36";
const DIM: &str = "2";

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// Data.
    Out,
    /// Everything else.
    Err,
}

impl To {
    /// What the stream is called.
    pub(crate) fn stream(self) -> &'static str {
        match self {
            To::Out => "stdout",
            To::Err => "stderr",
        }
    }
}

/// One of the two streams.
struct Stream {
    writer: Box<dyn Write>,
    is_terminal: bool,
    color: bool,
}

/// Where a verb writes.
pub(crate) struct Screen {
    out: Stream,
    err: Stream,
    /// Whether output is for programs.
    pub(crate) json: bool,
    /// Whether more is to be said than usually.
    pub(crate) verbose: bool,
    /// What stands before messages.
    label: String,
}

/// Who speaks, if nobody says otherwise.
const OWN: &str = "barid:";

impl Screen {
    /// The streams of this process.
    pub(crate) fn standard(when: ColorWhen, json: bool) -> Screen {
        let out_terminal = io::stdout().is_terminal();
        let err_terminal = io::stderr().is_terminal();
        let out = Stream {
            writer: Box::new(BufWriter::with_capacity(1 << 16, io::stdout())),
            is_terminal: out_terminal,
            color: wants_color(when, out_terminal),
        };
        let err = Stream {
            writer: Box::new(BufWriter::new(io::stderr())),
            is_terminal: err_terminal,
            color: wants_color(when, err_terminal),
        };
        Screen { out, err, json, verbose: false, label: OWN.into() }
    }

    /// From here on messages begin with this.
    pub(crate) fn speak_as(&mut self, label: &str) {
        self.label = label.into();
    }

    /// Whether people watch stderr, so that bars make sense.
    pub(crate) fn is_watched(&self) -> bool {
        self.err.is_terminal && !self.json
    }

    /// Whether stdout is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.out.is_terminal
    }

    /// Our own text to stdout, line by line.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        self.out.writer.write_all(text.as_bytes())
    }

    /// One message to stderr, `barid: ...`, in one line.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        self.message(None, None, text)
    }

    /// The same about something that went wrong.
    pub(crate) fn warn(&mut self, text: &str) -> io::Result<()> {
        self.message(None, Some(RED), text)
    }

    /// What to do about the message before.
    pub(crate) fn help(&mut self, text: &str) -> io::Result<()> {
        self.message(Some("  help:"), Some(DIM), text)
    }

    /// Without a label it begins as all messages do.
    fn message(&mut self, label: Option<&str>, color: Option<&str>, text: &str) -> io::Result<()> {
        self.out.writer.flush()?;
        let label = self.err.painted(label.unwrap_or(&self.label), color);
        writeln!(self.err.writer, "{label} {}", escape_line(text))?;
        self.err.writer.flush()
    }

    /// A failure, in the form that was asked for.
    pub(crate) fn fail(&mut self, failure: &crate::fail::Failure) -> io::Result<()> {
        self.out.writer.flush()?;
        let text = if self.json { failure.json() } else { failure.text() };
        let text =
            if self.json { Cow::Owned(text) } else { escape(text.as_bytes()).into_owned().into() };
        self.err.writer.write_all(text.as_bytes())?;
        self.err.writer.flush()
    }

    /// What a host has written: escaped on a terminal, as it is elsewhere.
    pub(crate) fn remote(&mut self, to: To, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream(to)?;
        match stream.is_terminal {
            true => stream.writer.write_all(escape(bytes).as_bytes()),
            false => stream.writer.write_all(bytes),
        }
    }

    /// Our own words around what hosts have written: labels and headers.
    pub(crate) fn label(&mut self, to: To, text: &str) -> io::Result<()> {
        let stream = self.stream(to)?;
        let text = stream.painted(text, Some(CYAN)).into_owned();
        stream.writer.write_all(text.as_bytes())
    }

    /// One JSON document in one line on stdout.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out.writer, value)?;
        self.out.writer.write_all(b"\n")?;
        self.out.writer.flush()
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.writer.flush()?;
        self.err.writer.flush()
    }

    /// The stream, after what went to the other one, so that a terminal shows both in order.
    fn stream(&mut self, to: To) -> io::Result<&mut Stream> {
        match to {
            To::Out => self.err.writer.flush()?,
            To::Err => self.out.writer.flush()?,
        }
        Ok(match to {
            To::Out => &mut self.out,
            To::Err => &mut self.err,
        })
    }
}

impl Stream {
    fn painted<'a>(&self, text: &'a str, color: Option<&str>) -> Cow<'a, str> {
        match color {
            Some(code) if self.color => format!("\x1b[{code}m{text}\x1b[0m").into(),
            _ => text.into(),
        }
    }
}

fn wants_color(when: ColorWhen, is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb(),
    }
}

/// Whether the locale can show more than ASCII.
pub(crate) fn is_utf8() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
pub(crate) mod testing {
    //! A screen whose two streams a test can read.

    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// What was written to one stream.
    #[derive(Clone, Default)]
    pub(crate) struct Caught(Rc<RefCell<Vec<u8>>>);

    impl Caught {
        /// All of it, as text.
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.borrow()).into_owned()
        }
    }

    impl Write for Caught {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A screen with what goes to its stdout and stderr.
    pub(crate) fn screen(is_terminal: bool) -> (Screen, Caught, Caught) {
        let (out, err) = (Caught::default(), Caught::default());
        let stream =
            |to: &Caught| Stream { writer: Box::new(to.clone()), is_terminal, color: false };
        let (to_out, to_err, label) = (stream(&out), stream(&err), OWN.into());
        (Screen { out: to_out, err: to_err, json: false, verbose: false, label }, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_protected_and_a_pipe_is_exact() {
        let bytes = b"a\x1b[2J\xff\n";
        let (mut pipe, out, _) = testing::screen(false);
        pipe.remote(To::Out, bytes).expect("written");
        assert_eq!(out.text(), String::from_utf8_lossy(bytes));
        let (mut terminal, out, _) = testing::screen(true);
        terminal.remote(To::Out, bytes).expect("written");
        assert_eq!(out.text(), "a\\x1b[2J\\xff\n");
    }

    #[test]
    fn messages_stay_one_line() {
        let (mut screen, out, err) = testing::screen(false);
        screen.warn("web1: no\nspace").expect("written");
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", "barid: web1: no\\x0aspace\n"));
    }

    #[test]
    fn color_can_be_forced_both_ways() {
        assert!(wants_color(ColorWhen::Always, false));
        assert!(!wants_color(ColorWhen::Never, true));
        assert!(!wants_color(ColorWhen::Auto, false));
    }
}
