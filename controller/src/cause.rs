//! What an error probably comes from, and what to do about it: a table of what is well known.
//!
//! It looks for the words of the system's own messages and for exit codes that shells give a
//! meaning. Of what it does not know it says nothing; it never guesses from the name of a program.

use mesh::{Class, Fact};

/// Words of an error, and what they mean. The first that fits counts.
const WORDS: &[(&str, &str)] = &[
    ("no space left on device", "a file system is full: find what grows (`df -h`, `du -xhd1 /`)"),
    ("short of room", "the state disk is full: make room, it goes on by itself"),
    ("disk quota exceeded", "a quota is used up: raise it, or make room"),
    ("read-only file system", "the file system went read-only, often after disk errors: see dmesg"),
    ("input/output error", "a disk or its connection fails: see dmesg, then replace it"),
    ("too many open files", "the limit of open files is reached: `ulimit -n`"),
    ("cannot allocate memory", "there is no memory left: see who uses it"),
    ("out of memory", "there is no memory left: see who uses it"),
    ("command not found", "the program is not installed there, or not in PATH"),
    ("no such file or directory", "a path does not exist there"),
    ("permission denied", "rights are missing, or a security module denies it"),
    ("operation not permitted", "rights are missing, or a security module denies it"),
    ("connection refused", "nobody listens there: the service is down"),
    ("connection timed out", "nothing answers: a network or firewall is in the way"),
    ("no route to host", "there is no way to that network"),
    ("network is unreachable", "there is no way to that network"),
    ("name or service not known", "the name cannot be resolved: DNS, or a typing error"),
    ("temporary failure in name resolution", "DNS does not answer"),
    ("certificate has expired", "a certificate has expired: renew it"),
    ("certificate verify failed", "a certificate is not trusted there"),
    ("could not get lock", "another package manager runs there: try again later"),
    ("device or resource busy", "something is in use there"),
    ("text file busy", "the program runs there and cannot be overwritten in place"),
];

/// Beginnings of the lines by which the controller describes outcomes.
const BEGINNINGS: &[(&str, &str)] = &[
    ("exit 127", "the program is not installed there, or not in PATH"),
    ("exit 126", "it is there but cannot be executed: its rights, or its format"),
    ("killed by signal 9", "killed from outside, often for want of memory: see dmesg"),
    ("killed by signal 11", "the program has crashed"),
    ("killed by signal 6", "the program has ended itself: see what it printed"),
    ("timed out", "it took longer than it was allowed to: -u gives it more"),
    ("not reached", "the host was away: off, cut off, or its agent does not run"),
    ("relay lost", "the relay was lost while the host had the order: see the relay first"),
    ("interrupted", "the host or its agent stopped in the middle of it"),
];

/// By what it is about.
const SUBJECTS: &[(&str, &str)] = &[
    ("link.lost", "the other end stopped, or the network between broke"),
    ("beat.stale", "the controller is down, or the way to it is broken further up"),
    ("push.content", "content was cleaned away or damaged: push again"),
    ("push.altered", "a node sends what it should not: see whether it is well, and yours"),
    ("host.events-dropped", "something floods: see what else this host reports"),
];

/// The probable cause of an error, or nothing.
pub(crate) fn cause(fact: &Fact, line: &str) -> &'static str {
    let lower = line.to_ascii_lowercase();
    let word = WORDS.iter().find(|(words, _)| lower.contains(words));
    let beginning = BEGINNINGS.iter().find(|(begin, _)| {
        let rest = lower.strip_prefix(begin);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let subject = SUBJECTS.iter().find(|(subject, _)| *subject == fact.subject);
    word.or(beginning).or(subject).map_or("", |(_, cause)| cause)
}

/// Whose trouble a failed command is.
pub(crate) fn class(line: &str) -> Class {
    let lower = line.to_ascii_lowercase();
    let full = ["no space left on", "not enough room at", "disk quota exceeded", "short of room"];
    match full.iter().any(|words| lower.contains(words)) {
        true => Class::Space,
        false => Class::Command,
    }
}

#[cfg(test)]
mod tests {
    use mesh::Severity;

    use super::*;

    #[test]
    fn well_known_errors_have_causes_and_others_have_none() {
        let check = |subject: &str, line: &str, begins: &str| {
            let fact = Fact::new(subject, Severity::Error, Class::Command, line, relay::hash);
            let cause = cause(&fact, line);
            assert!(cause.starts_with(begins) && cause.is_empty() == begins.is_empty(), "{cause}");
        };
        check("run.failed", "exit 1: tar: x: No space left on device", "a file system is full");
        check("run.failed", "exit 127: sh: foo: command not found", "the program is not");
        check("run.failed", "exit 127", "the program is not");
        check("run.failed", "exit 1271", "");
        check("run.failed", "exit 3: frobnication failed", "");
        check("link.lost", "lost the link with host web1", "the other end stopped");
        assert_eq!(class("exit 1: cp: No space left on device"), Class::Space);
        assert_eq!(class("not enough room at /opt: 65536 bytes needed, 0 free"), Class::Space);
        assert_eq!(class("exit 1: no"), Class::Command);
    }
}
