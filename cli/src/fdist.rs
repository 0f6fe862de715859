//! `fdist -o COMMAND`: the commands about domains and files, with their traditional arguments.
//!
//! The binary does this when it is called `fdist`, too. The commands themselves are those of
//! `barid domain`, `file` and `host`; only the form is another: `-o` says the command, errors are
//! one line, and the exit codes are 0, 1 (it failed, or the answer is no), 2 (usage) and 3 (not
//! permitted here).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::fleet::{self, Command};
use crate::screen::Screen;

/// Commands that ask the node of this machine.
const HERE: [&str; 4] = ["request", "subscriptions", "check", "ldist"];
/// The code of what is not permitted, or not here.
const NOT_HERE: u8 = 3;

const HELP: &str = "\
fdist -o COMMAND [options] [arguments]; options may stand before or after arguments.
`fdist -o COMMAND --help` tells what a command takes.

Exit codes: 0 done, 1 failed or the answer is no, 2 usage, 3 not permitted here";

/// Options of `barid fdist`.
#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true, after_help = HELP)]
pub(crate) struct Args {
    /// -o COMMAND, its options and arguments
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// What stands behind `-o`.
#[derive(Debug, Parser)]
#[command(name = "fdist -o", no_binary_name = true, after_help = HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
    /// The controller's socket
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Output for programs
    #[arg(long, global = true)]
    json: bool,
}

/// Whether the program was called by this name.
pub(crate) fn is_named(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("fdist"))
}

/// Does what the line says. Errors are told here, in their own form.
pub(crate) fn main(args: Args, socket: Option<PathBuf>, screen: &mut Screen) -> Exit {
    let (command, words) = match split(args.args) {
        Ok(split) => split,
        Err(text) => {
            tell(screen, "fdist", &text);
            return Exit::Usage;
        }
    };
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if asked {
                error.print().ok();
                return Exit::Ok;
            }
            let text = error.render().to_string();
            let first = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
            tell(screen, &command, &first.split_whitespace().collect::<Vec<_>>().join(" "));
            return Exit::Usage;
        }
    };
    screen.json |= line.json;
    screen.speak_as(&format!("fdist: {command}:"));
    let client = Client::new(line.socket.or(socket));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(fleet::run(line.command, &client, screen)),
        Err(error) => Err(Failure::local(&error)),
    };
    let done = done.and_then(|exit| screen.flush().map(|()| exit).map_err(Failure::from));
    match done {
        Ok(Exit::Drift | Exit::Missed) => Exit::Failed,
        Ok(exit) => exit,
        Err(failure) if failure.is_broken_pipe() => Exit::Ok,
        Err(failure) => {
            let exit = exit(&failure);
            let mut text = failure.error.message.clone();
            if failure.exit == Exit::Unreachable && !HERE.contains(&command.as_str()) {
                text = format!("only on the controller ({text})");
            }
            if screen.json {
                screen.fail(&failure).ok();
            } else {
                tell(screen, &command, &text);
            }
            exit
        }
    }
}

fn exit(failure: &Failure) -> Exit {
    match failure.exit {
        Exit::Denied | Exit::Unreachable => Exit::Remote(NOT_HERE),
        _ if failure.error.code == "usage" => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn tell(screen: &mut Screen, command: &str, text: &str) {
    let what = if command == "fdist" { command.into() } else { format!("fdist: {command}") };
    // If the stream is closed there is nobody left to tell.
    screen.flush().ok();
    eprintln!("{what}: {}", escape_line(text));
}

/// The command, and the line with the command in front and without `-o`.
fn split(mut args: Vec<OsString>) -> Result<(String, Vec<OsString>), String> {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let is_help = |arg: &OsString| arg == "-h" || arg == "--help";
    let Some(at) = args[..end].iter().position(|arg| arg.as_encoded_bytes().starts_with(b"-o"))
    else {
        return match args.iter().any(is_help) {
            true => Ok(("fdist".into(), vec!["--help".into()])),
            false => Err("which command? fdist -o COMMAND [options] [arguments]".into()),
        };
    };
    let option = args.remove(at);
    let text = option.to_str().unwrap_or_default();
    let command = match text.strip_prefix("-o").unwrap_or_default() {
        "" if at < args.len() => args.remove(at),
        "" => return Err("-o wants a command".into()),
        command => OsString::from(command.trim_start_matches('=')),
    };
    // Elsewhere -v is an option of every verb.
    let v = match command.to_str() {
        Some("dist") => "--show",
        Some("check") => "--ages",
        _ => "-v",
    };
    args.iter_mut().filter(|arg| *arg == "-v").for_each(|arg| *arg = v.into());
    args.insert(0, command.clone());
    Ok((command.to_string_lossy().into_owned(), args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<String, String> {
        let args = line.split(' ').map(OsString::from).collect();
        split(args).map(|(_, words)| {
            words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        })
    }

    #[test]
    fn the_command_may_stand_anywhere() {
        assert_eq!(words("-o list a.b").as_deref(), Ok("list a.b"));
        assert_eq!(words("-F -o domain h1").as_deref(), Ok("domain -F h1"));
        assert_eq!(words("h1 -F -odomain").as_deref(), Ok("domain h1 -F"));
        assert_eq!(words("-o dist -v hour h1").as_deref(), Ok("dist --show hour h1"));
        assert_eq!(words("-o check -v").as_deref(), Ok("check --ages"));
        assert_eq!(words("-o edit -e x -- -o").as_deref(), Ok("edit -e x -- -o"));
        assert!(words("list").is_err() && words("x -o").is_err());
        assert_eq!(words("--help").as_deref(), Ok("--help"));
    }

    #[test]
    fn every_command_takes_its_traditional_arguments() {
        for line in [
            "create new.osgrp.adm",
            "delete -f osgrp.adm",
            "clone cc.adm c2.adm",
            "compare cc.adm c2.adm",
            "domain -F h1 h2",
            "hosts -F cc.adm common.adm",
            "hosts --unknown",
            "list cc.adm",
            "install ./hosts common.adm:/etc/hosts hour",
            "install -s true -e vi ./hosts common.adm:/etc/hosts hour",
            "install ./hosts common.adm:/etc/hosts hour -s true",
            "file -a /etc/motd",
            "freq cc.adm:/a day",
            "mrg cc.adm:/a osgrp.adm:/a",
            "setedit cc.adm:/a",
            "shell cc.adm:/a",
            "edit -e true cc.adm:/a",
            "unlock cc.adm:/a",
            "cat cc.adm:/a",
            "chmod 600 cc.adm:/a",
            "chown root cc.adm:/a",
            "chgrp root cc.adm:/a",
            "cmp cc.adm:/a osgrp.adm:/a",
            "cp ./a cc.adm:/a",
            "ls -l cc.adm:/a",
            "rm cc.adm:/a",
            "ldist hour",
            "ldist all -r h1 h2",
            "check -cmq",
            "check --ages --limit 75m",
            "build -d cc.adm hour",
            "build hour -f out",
            "optional cc.adm:/a --off",
            "subscribe h1 osgrp.adm:/etc/tool",
            "unsubscribe h1 osgrp.adm:/etc/tool",
            "subscriptions",
            "subscriptions cc.adm:/a",
            "request /etc/tool cc.adm:/a",
            "status",
            "status cc.adm:/a",
            "dist hour",
            "dist --wait all h1",
            "report hour",
            "report hour 8",
            "report day -1",
            "mkhost -s",
            "mkether",
            "generator cc.adm:/etc/hosts mkhost -s",
            "generator cc.adm:/etc/ethers none",
            "chslave 130.62.6 r2",
            "network r1",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in
            ["rm -r cc.adm:/a", "chmod -R 600 cc.adm:/a", "rm -i cc.adm:/a", "nosuch", "list"]
        {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Line::command().debug_assert();
    }
}
