//! States and faults in words, and what to do about them.

use controller::types::Answer;

/// What became of a host that is not ok, as in `web1: exited with 3`. `None`: nothing to complain.
pub(crate) fn complaint(kind: &str, answer: &Answer) -> Option<String> {
    let code = answer.code.unwrap_or_default();
    let what = match answer.state.as_str() {
        "ok" => return None,
        "skipped" if answer.fault.is_empty() => return None,
        "skipped" => "skipped".into(),
        "failed" if kind == "push" || kind == "stage" => "failed".into(),
        "failed" => format!("exited with {code}"),
        "signalled" => format!("killed by signal {code}{}", signal_name(code)),
        "timed-out" => "timed out and was killed".into(),
        "interrupted" => "the host died while it ran; it was not run again".into(),
        "cancelled" => "cancelled".into(),
        "refused" => "refused".into(),
        "expired" => "not done: the order had expired when the host could have begun".into(),
        "relay-lost" => "the way to it was lost; what became of it is not known yet".into(),
        "not-reached" => "not reached in time".into(),
        other => other.to_owned(),
    };
    // What the line says already is not said twice.
    let said = format!("{kind}: ");
    let fault = answer.fault.strip_prefix(&said).unwrap_or(&answer.fault);
    let said = format!("{}: ", answer.state);
    match fault.strip_prefix(&said).unwrap_or(fault) {
        "" => Some(what),
        fault => Some(format!("{what}: {}", fault.trim_end())),
    }
}

/// What to do about it, if that can be said.
pub(crate) fn remedy(kind: &str, answer: &Answer, set: &str) -> Option<String> {
    let fault = answer.fault.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| fault.contains(word));
    match answer.state.as_str() {
        "timed-out" if kind == "run" => {
            Some("`barid retry ID --state timeout -u TIME` gives it more time".into())
        }
        "timed-out" => Some("-u gives it more time".into()),
        "not-reached" if kind == "push" || kind == "stage" => {
            Some("it is done as soon as they are back: `barid runs show ID`".into())
        }
        "not-reached" if kind == "cancel" => {
            Some("they are told as soon as they are back: `barid runs show ID`".into())
        }
        "not-reached" => Some(format!("`barid hosts -w {set}` shows whether they are up")),
        "relay-lost" => Some("a later answer replaces this: `barid runs show ID`".into()),
        "interrupted" => Some("look at the host before you run it again".into()),
        "failed" | "refused" if has(&["no space", "enospc", "storage full"]) => {
            Some("free some space there, then push again: what arrived is kept".into())
        }
        "failed" | "refused" if has(&["read-only"]) => {
            Some(format!("remount it, or leave them out: -x {set}"))
        }
        "failed" | "refused" if has(&["permission denied", "not permitted"]) => {
            Some("the node there runs as a user who may not do this".into())
        }
        "failed" if kind == "run" && answer.code == Some(127) => {
            let text = "is it installed there, and in PATH? A file of --with is {file} in the \
                        command, and `barid run ... --shell` uses /bin/sh";
            Some(text.into())
        }
        _ => None,
    }
}

/// ` (KILL)` and the like.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        4 => " (ILL)",
        6 => " (ABRT)",
        7 => " (BUS)",
        8 => " (FPE)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        14 => " (ALRM)",
        15 => " (TERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::testing::answer;

    #[test]
    fn complaints_name_state_and_fault() {
        let check = |kind: &str, state: &str, code, fault: &str, expected: Option<&str>| {
            let answer = Answer { fault: fault.into(), ..answer("n1", state, code, "") };
            assert_eq!(complaint(kind, &answer).as_deref(), expected);
        };
        check("run", "ok", None, "", None);
        check("run", "skipped", None, "", None);
        let superseded = Some("skipped: superseded: by 7k3q2a");
        check("push", "skipped", None, "push: superseded: by 7k3q2a", superseded);
        check("run", "failed", Some(3), "", Some("exited with 3"));
        check("run", "signalled", Some(9), "", Some("killed by signal 9 (KILL)"));
        check("run", "signalled", Some(34), "", Some("killed by signal 34"));
        check("push", "failed", Some(1), "apply: io: disk", Some("failed: apply: io: disk"));
        check("run", "of-tomorrow", None, "", Some("of-tomorrow"));
        check("run", "refused", None, "run: refused: no user x", Some("refused: no user x"));
        check(
            "run",
            "refused",
            None,
            "store: full: no space",
            Some("refused: store: full: no space"),
        );
        check(
            "run",
            "failed",
            Some(127),
            "run: not found: x",
            Some("exited with 127: not found: x"),
        );
    }

    #[test]
    fn remedies() {
        let full = Answer {
            fault: "apply: io: No space left".into(),
            ..answer("n1", "failed", Some(1), "")
        };
        assert!(remedy("push", &full, "n1").is_some_and(|text| text.contains("space")));
        assert_eq!(remedy("run", &answer("n1", "failed", Some(1), ""), "n1"), None);
        let away = answer("n[1-2]", "not-reached", None, "");
        assert!(remedy("run", &away, "n[1-2]").is_some_and(|text| text.contains("-w n[1-2]")));
    }
}
