//! Options of other tools: what whoever typed one probably wanted.
//!
//! Where tools disagree about a letter it is not given a meaning here, since it would be the wrong
//! one for somebody. Whoever types it from habit is told how the same is done.

/// What an option that is not known here does elsewhere, and how it is done here.
pub(crate) fn hint(option: &str) -> Option<&'static str> {
    Some(match option {
        "-C" | "--check" => "ansible's check mode is --plan; salt's compound match is -w 'A&B!C'",
        "--list-hosts" | "--noop" => "--plan shows the targets and does nothing",
        "-E" | "--pcre" => "salt's -E REGEX is -w '/REGEX/'",
        "-G" | "--grain" => {
            "salt's -G chooses by facts, which hosts do not report; -g GROUP by group"
        }
        "-i" | "--inventory" => {
            "the inventory is the controller's: `barid hosts`; a list of one's own is --hostfile FILE"
        }
        "-m" | "--module-name" => "there are no modules: give the command itself, after --",
        "-M" | "-R" => "there is one way to the hosts, the tree; no -R rcmd",
        "--subset" => "salt's --subset N is --pick N",
        "--become" | "-K" | "--ask-become-pass" => {
            "commands run as the user of the node; there is nothing to become"
        }
        "-k" | "--ask-pass" => {
            "nobody is asked for a password: hosts are known by their certificates"
        }
        "-c" | "--copy" => "clush's copy is `barid push SOURCE -w SET --dest PATH`",
        "--rcopy" => "copying from hosts is not there yet",
        "-D" | "--diffs" => "the difference to what most have said is --diff",
        "-d" | "--debug" => "-v says more, -vv everything",
        "-P" | "--progress" => "progress shows by itself where stderr is a terminal",
        "-Q" => "pdsh's -Q is --plan",
        "-T" | "--tree" => "ansible's --tree DIR is --outdir DIR",
        "-o" | "--one-line" => "one line for each host is what shows without -b",
        "-e" | "--errors" => "stderr of hosts goes to stderr; its files are --errdir DIR",
        "--outputdir" => "a file for each host is --outdir DIR",
        "--rerun" | "--retry-failed" => "whoever failed the last time is -w @run:last/failed",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ansibles_check_mode_is_plan() {
        assert!(hint("-C").is_some_and(|hint| hint.contains("--plan")));
        assert_eq!(hint("-Z"), None);
    }
}
