//! Options of other tools: what whoever typed one probably wanted.
//!
//! Where tools disagree about a letter it is not given a meaning here, since it would be the wrong
//! one for somebody. Whoever types it from habit is told how the same is done.

/// What an option that is not known here does elsewhere, and how it is done here.
pub(crate) fn hint(option: &str) -> Option<&'static str> {
    Some(match option {
        "-C" => "ansible's check mode is --plan; salt's compound match is -w 'A&B!C'",
        "--check" | "--list-hosts" | "--noop" | "-Q" => {
            "--plan shows the targets and the way there, and does nothing"
        }
        "-E" | "--pcre" => "salt's -E REGEX is -w '/REGEX/'",
        "-G" | "--grain" => {
            "hosts report no facts; labels that operators give choose: -w {os=debian}"
        }
        "-i" | "--inventory" => {
            "the inventory is the controller's: `barid hosts`; your own list is --hostfile FILE"
        }
        "-m" | "--module-name" => "there are no modules: give the command itself, after --",
        "-M" | "-R" => "there is one way to the hosts: the tree",
        "--subset" => "salt's --subset N is --pick N",
        "-K" | "--become" | "--ask-become-pass" => {
            "commands run as the user of the node; another one is -l USER"
        }
        "-k" | "--ask-pass" => "no password is needed: hosts are known by their certificates",
        "-c" | "--copy" => "clush's copy is `barid push SOURCE -w SET --dest PATH`",
        "-D" | "--diffs" => "the difference to what most have said is --diff",
        "-d" | "--debug" => "-v says more, -vv everything",
        "-P" | "--progress" => "progress shows by itself where stderr is a terminal",
        "-T" | "--tree" | "--outputdir" => "a file for each host is --outdir DIR",
        "-o" | "--one-line" => "lines with the names of hosts are what shows without -b",
        "--rerun" => "whoever failed the last time is -w @run:last/failed",
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
