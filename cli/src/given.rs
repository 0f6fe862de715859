//! Options of a run that say as whom it runs and what it is given, and the handing in of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use controller::types::{FILES_LIMIT, GivenFile, NewRun, Piece, STDIN_LIMIT};

use crate::client::Client;
use crate::fail::Failure;

/// How much is handed in at once.
const PIECE: usize = 2 << 20;

/// As whom a command runs, and what it is given.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "What the command runs as and is given")]
pub(crate) struct GivenArgs {
    /// Run as this user of each host [default: as the node, which is root as a rule]
    #[arg(short = 'l', long, value_name = "USER")]
    user: Option<String>,
    /// Working directory [default: /]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    dir: String,
    /// A variable for the command's environment, from here if without a value; may be given
    /// several times
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// Which permissions new files lack, in octal
    #[arg(long, value_name = "MODE", value_parser = parse_umask)]
    umask: Option<u32>,
    /// Give the command this file to read, or with - what is read here, up to 64 MiB
    #[arg(long, value_name = "FILE|-")]
    stdin: Option<PathBuf>,
    /// Give the command this file, in a private folder that goes with it: {file} in its words is
    /// the path of the first one, $BARID_FILE too, and $BARID_DIR the folder
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
}

impl GivenArgs {
    /// Hands in what there is to hand in, and fills in a run.
    pub(crate) async fn fill(self, run: &mut NewRun, client: &Client) -> Result<(), Failure> {
        run.user = self.user.unwrap_or_default();
        run.dir = self.dir;
        run.env = self.env.into_iter().collect();
        run.umask = self.umask;
        if let Some(path) = self.stdin {
            run.stdin = match path.as_os_str() == "-" {
                true => hand_in(client, &path, io::stdin(), STDIN_LIMIT).await?,
                false => hand_in(client, &path, open(&path)?, STDIN_LIMIT).await?,
            };
        }
        for path in self.with {
            let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let name = name.ok_or_else(|| {
                Failure::usage(format!("{} has no plain name", path.display()), "name a file")
            })?;
            let pieces = hand_in(client, &path, open(&path)?, FILES_LIMIT).await?;
            run.files.push(GivenFile { name, pieces });
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    opened.map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be read: {error}", path.display()), "nothing was run")
}

/// Gives the controller what there is to read, piece by piece.
async fn hand_in(
    client: &Client,
    path: &Path,
    mut source: impl Read,
    limit: u64,
) -> Result<Vec<Piece>, Failure> {
    let (mut pieces, mut total) = (Vec::new(), 0);
    loop {
        let mut bytes = Vec::new();
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut bytes);
        total += read.map_err(|error| unreadable(path, &error))? as u64;
        if bytes.is_empty() {
            return Ok(pieces);
        }
        if total > limit {
            let message = format!("{} is longer than {} MiB", path.display(), limit >> 20);
            return Err(Failure::usage(message, "`barid push` carries files of any size"));
        }
        pieces.push(client.post_bytes("/v1/pieces", bytes.into()).await?);
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        None if !text.is_empty() => match std::env::var(text) {
            Ok(value) => Ok((text.to_owned(), value)),
            Err(_) => Err(format!("{text} is not in the environment here: write {text}=VALUE")),
        },
        _ => Err("write NAME=VALUE, or NAME for its value here".into()),
    }
}

fn parse_umask(text: &str) -> Result<u32, String> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "write it in octal, from 0 to 777".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        assert_eq!(parse_variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(parse_variable("A="), Ok(("A".into(), String::new())));
        let path = std::env::var("PATH").expect("tests have a path");
        assert_eq!(parse_variable("PATH"), Ok(("PATH".into(), path)));
        let error = parse_variable("NO_SUCH_VARIABLE").expect_err("it is not there");
        assert!(error.contains("NO_SUCH_VARIABLE=VALUE"), "{error}");
        assert!(parse_variable("=x").is_err() && parse_variable("").is_err());
    }

    #[test]
    fn masks() {
        assert_eq!((parse_umask("027"), parse_umask("0")), (Ok(0o27), Ok(0)));
        assert!(parse_umask("8").is_err() && parse_umask("1000").is_err());
    }
}
