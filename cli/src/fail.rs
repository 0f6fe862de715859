//! Why a verb did not do what it was asked: what, why, where, what to do, and the exit code.
//!
//! The words are the API's own [`ApiError`], so that errors of the controller and errors found
//! here look the same, in text and in JSON.

use std::io;

use controller::types::ApiError;
use serde_json::json;

use crate::exit::Exit;

/// A verb that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What is said about it.
    pub(crate) error: ApiError,
}

/// Codes of the API that mean: nothing was started, because the request is wrong.
const USAGE: [&str; 5] =
    ["bad-request", "unknown-host", "unknown-group", "unknown-label", "empty-set"];

/// The code of an output that nobody reads any more.
const BROKEN_PIPE: &str = "broken-pipe";

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Failure {
        let error = ApiError { code: code.into(), message: message.into(), help: String::new() };
        Failure { exit, error }
    }

    /// The command line or a file is wrong.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, "usage", message).with_help(help)
    }

    /// Something here did not work.
    pub(crate) fn local(error: &dyn std::error::Error) -> Failure {
        Failure::new(Exit::Failed, "failed", relay::chain(error))
    }

    /// The same with advice.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.error.help = help.into();
        self
    }

    /// An error of the API. Unknown names and bad sets are usage errors: nothing was started.
    pub(crate) fn api(status: u16, error: ApiError) -> Failure {
        let word = error.code.as_str();
        let exit = match status {
            _ if USAGE.contains(&word) => Exit::Usage,
            400 | 422 => Exit::Usage,
            401 | 403 => Exit::Denied,
            503 => Exit::Missed,
            _ => Exit::Failed,
        };
        Failure { exit, error }
    }

    /// Whether this is only that whoever read our output has gone.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.error.code == BROKEN_PIPE
    }

    /// For people: `barid: what`, and what to do on a line of its own.
    pub(crate) fn text(&self) -> String {
        let ApiError { message, help, code } = &self.error;
        match help.as_str() {
            "" => format!("barid: {message}\n"),
            near if near.starts_with("did you mean") => {
                let help = match code.as_str() {
                    "unknown-group" => "`barid nodes groups` lists groups, with -s '*' all of them",
                    "unknown-label" => "`barid hosts` shows the labels of hosts",
                    _ => "`barid hosts` lists who is enrolled",
                };
                format!("barid: {message} ({near})\n  help: {help}\n")
            }
            help => format!("barid: {message}\n  help: {help}\n"),
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        format!("{}\n", json!({ "error": self.error }))
    }
}

/// Our output cannot be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            _ => "output",
        };
        Failure::new(Exit::Failed, code, format!("the output cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, help: &str) -> ApiError {
        ApiError { code: code.into(), message: "unknown host web9".into(), help: help.into() }
    }

    #[test]
    fn says_what_and_what_to_do() {
        let failure = Failure::api(404, error("unknown-host", "did you mean web8?"));
        assert_eq!(
            failure.text(),
            "barid: unknown host web9 (did you mean web8?)\n  \
             help: `barid hosts` lists who is enrolled\n"
        );
        let failure = Failure::api(404, error("unknown-host", "look"));
        assert_eq!(failure.text(), "barid: unknown host web9\n  help: look\n");
        assert_eq!(
            failure.json(),
            "{\"error\":{\"code\":\"unknown-host\",\"help\":\"look\",\
             \"message\":\"unknown host web9\"}}\n"
        );
    }

    #[test]
    fn api_errors_have_exit_codes() {
        let check = |status, code, expected| {
            assert_eq!(Failure::api(status, error(code, "")).exit, expected, "{status} {code}");
        };
        check(404, "unknown-host", Exit::Usage);
        check(404, "unknown-group", Exit::Usage);
        check(404, "empty-set", Exit::Usage);
        check(400, "bad-request", Exit::Usage);
        check(403, "denied", Exit::Denied);
        check(404, "not-found", Exit::Failed);
        check(409, "conflict", Exit::Failed);
        check(500, "internal", Exit::Failed);
    }
}
