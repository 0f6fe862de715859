//! Commands about files under control.

use controller::fleet::types::{
    Change, EntryInfo, FileDomains, FileStatus, Generator, Origin, Question, RevisionInfo,
};

use super::{absolute, ask, change, is_domainpath};
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::units::show_time;

/// What `install` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// What edits it: a path, a command, EDITOR or NONE [default: EDITOR for text, else NONE]
    #[arg(short = 'e', long, value_name = "EDITOR")]
    editor: Option<String>,
    /// What each client runs after that file was updated there
    #[arg(short = 's', long, value_name = "COMMAND", default_value = "")]
    shell: String,
    /// A name or pattern to leave out of a folder, as for `barid push`
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Of a folder: what is not in it goes at the hosts, too
    #[arg(long)]
    delete_extra: bool,
    /// Only to hosts that subscribe
    #[arg(long)]
    optional: bool,
    /// A file or folder here, or another domainpath, whose content is copied
    #[arg(value_name = "FILE")]
    file: String,
    /// What it will be: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// How often: the name of a frequency
    #[arg(value_name = "FREQUENCY")]
    frequency: String,
}

/// What `file` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// Also frequency and command
    #[arg(short = 'a', long)]
    all: bool,
    /// Paths at the hosts, or domainpaths
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// One entry.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    pub(crate) path: String,
}

/// Some entries.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PathsArgs {
    /// The files: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH", required = true)]
    pub(crate) paths: Vec<String>,
}

/// What `freq` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FreqArgs {
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// The name of a frequency
    #[arg(value_name = "FREQUENCY")]
    frequency: String,
}

/// What `mrg` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// The file with the content: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    from: String,
    /// The one that shares it from now on
    #[arg(value_name = "OTHER")]
    to: String,
}

/// What `generator` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GeneratorArgs {
    /// With mkhost: hosts may have several addresses
    #[arg(short = 's')]
    several: bool,
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// What makes it
    #[arg(value_enum, value_name = "GENERATOR")]
    generator: Makes,
}

/// What makes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Makes {
    /// The hosts file, from the host records
    Mkhost,
    /// The ethers file, from the host records
    Mkether,
    /// People do
    None,
}

/// What `setedit` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SetEditArgs {
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// A path, a command, EDITOR or NONE [default: what fits the content]
    #[arg(value_name = "EDITOR")]
    editor: Option<String>,
}

/// What `shell` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ShellArgs {
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// A line for the shell [default: nothing any more]
    #[arg(value_name = "COMMAND", default_value = "")]
    command: String,
}

/// What `chmod` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChmodArgs {
    /// Octal digits, or clauses such as u+x,go-w
    #[arg(value_name = "MODE")]
    mode: String,
    #[command(flatten)]
    paths: PathsArgs,
}

/// What `chown` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChownArgs {
    /// A name or a number; OWNER:GROUP sets both
    #[arg(value_name = "OWNER")]
    owner: String,
    #[command(flatten)]
    paths: PathsArgs,
}

/// What `chgrp` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChgrpArgs {
    /// A name or a number
    #[arg(value_name = "GROUP")]
    group: String,
    #[command(flatten)]
    paths: PathsArgs,
}

/// What `ls` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// With mode, owner, group, size and time
    #[arg(short = 'l', long)]
    long: bool,
    #[command(flatten)]
    paths: PathsArgs,
}

/// What `status` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The files [default: all that somebody lacks]
    #[arg(value_name = "DOMAINPATH")]
    paths: Vec<String>,
}

/// What `rollback` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
    /// The revision, as `history` has it [default: the one before]
    #[arg(value_name = "REVISION", default_value_t = 0)]
    revision: u32,
}

pub(crate) async fn install(
    args: InstallArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let InstallArgs { editor, shell, exclude, delete_extra, optional, file, path, frequency } =
        args;
    let content = match is_domainpath(&file) {
        true => Origin::Entry(file),
        false => Origin::File(absolute(&file)?),
    };
    let command = shell;
    let new = Change::Install {
        content,
        path,
        frequency,
        editor,
        command,
        exclude,
        delete_extra,
        optional,
    };
    change(client, screen, new).await
}

pub(crate) async fn file(
    args: FileArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let files: Vec<FileDomains> = ask(client, &Question::Files { paths: args.files }).await?;
    if screen.json {
        screen.json(&files)?;
    } else {
        files.iter().try_for_each(|file| show_file(file, args.all, screen))?;
    }
    let nobody: Vec<&str> =
        files.iter().filter(|file| file.shared.is_empty()).map(|file| &*file.path).collect();
    if nobody.is_empty() {
        return Ok(Exit::Ok);
    }
    let message = format!("{}: not under control", nobody.join(", "));
    Err(Failure::new(Exit::Failed, "unknown-file", message))
}

/// To whom a file goes; those who share content stand together.
pub(crate) fn show_file(file: &FileDomains, all: bool, screen: &mut Screen) -> Result<(), Failure> {
    if file.shared.is_empty() {
        return Ok(());
    }
    screen.print(&format!("File {} is distributed to:\n", file.path))?;
    for (n, group) in file.shared.iter().enumerate() {
        if n > 0 {
            screen.print("\n")?;
        }
        for EntryInfo { path, frequency, command, .. } in group {
            match all {
                true => screen.print(format!("{path} {frequency} {command}").trim_end())?,
                false => screen.print(path)?,
            }
            screen.print("\n")?;
        }
    }
    Ok(())
}

pub(crate) async fn freq(
    args: FreqArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let FreqArgs { path, frequency } = args;
    change(client, screen, Change::SetFrequency { path, frequency }).await
}

pub(crate) async fn merge(
    args: MergeArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    change(client, screen, Change::Merge { from: args.from, to: args.to }).await
}

pub(crate) async fn generator(
    args: GeneratorArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let GeneratorArgs { several, path, generator } = args;
    let generator = match generator {
        Makes::Mkhost if several => Some(Generator::MkhostSeveral),
        _ if several => {
            let message = "-s is for mkhost: of the others nobody has several";
            return Err(Failure::new(Exit::Usage, "usage", message));
        }
        Makes::Mkhost => Some(Generator::Mkhost),
        Makes::Mkether => Some(Generator::Mkether),
        Makes::None => None,
    };
    change(client, screen, Change::SetGenerator { path, generator }).await
}

pub(crate) async fn set_edit(
    args: SetEditArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let SetEditArgs { path, editor } = args;
    change(client, screen, Change::SetEditor { path, editor }).await
}

pub(crate) async fn shell(
    args: ShellArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let ShellArgs { path, command } = args;
    change(client, screen, Change::SetCommand { path, command }).await
}

pub(crate) async fn unlock(
    args: OneArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    change(client, screen, Change::Unlock { path: args.path, lock: None }).await
}

pub(crate) async fn chmod(
    args: ChmodArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    attributes(args.paths, Some(args.mode), None, None, client, screen).await
}

pub(crate) async fn chown(
    args: ChownArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let (owner, group) = match args.owner.split_once(':') {
        Some((owner, group)) => (owner.to_owned(), Some(group.to_owned())),
        None => (args.owner, None),
    };
    attributes(args.paths, None, (!owner.is_empty()).then_some(owner), group, client, screen).await
}

pub(crate) async fn chgrp(
    args: ChgrpArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    attributes(args.paths, None, None, Some(args.group), client, screen).await
}

async fn attributes(
    paths: PathsArgs,
    mode: Option<String>,
    owner: Option<String>,
    group: Option<String>,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let new = Change::SetAttributes { paths: paths.paths, mode, owner, group };
    change(client, screen, new).await
}

pub(crate) async fn ls(
    args: LsArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let entries: Vec<EntryInfo> = ask(client, &Question::Show { paths: args.paths.paths }).await?;
    if screen.json {
        screen.json(&entries)?;
        return Ok(Exit::Ok);
    }
    if !args.long {
        entries.iter().try_for_each(|entry| screen.print(&format!("{}\n", entry.path)))?;
        return Ok(Exit::Ok);
    }
    let row = |entry: &EntryInfo| {
        let RevisionInfo { mode, owner, group, size, modified_s, folder, .. } = &entry.revision;
        let modified = u64::try_from(*modified_s).unwrap_or(0).saturating_mul(1000);
        let (owner, group, size) = (owner.clone(), group.clone(), size.to_string());
        vec![mode_text(*mode, *folder), owner, group, size, show_time(modified), entry.path.clone()]
    };
    let heads = ["MODE", "OWNER", "GROUP", "SIZE", "MODIFIED", "FILE"];
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    screen.print(&table(&heads, &rows))?;
    Ok(Exit::Ok)
}

/// Permissions as `ls -l` shows them.
fn mode_text(mode: u32, folder: bool) -> String {
    let mut text = String::from(if folder { "d" } else { "-" });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

pub(crate) async fn rm(
    args: PathsArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    change(client, screen, Change::Remove { paths: args.paths }).await
}

pub(crate) async fn status(
    args: StatusArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let files: Vec<FileStatus> = ask(client, &Question::Status { paths: args.paths }).await?;
    if screen.json {
        screen.json(&files)?;
    } else {
        for FileStatus { path, hosts, .. } in &files {
            screen.print(&format!("{path}: {}\n", hosts.join(" ")))?;
        }
    }
    Ok(if files.is_empty() { Exit::Ok } else { Exit::Failed })
}

pub(crate) async fn history(
    args: OneArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let revisions: Vec<RevisionInfo> = ask(client, &Question::History { path: args.path }).await?;
    if screen.json {
        screen.json(&revisions)?;
        return Ok(Exit::Ok);
    }
    let row = |revision: &RevisionInfo| {
        let RevisionInfo { number, by, at_ms, note, size, .. } = revision;
        vec![number.to_string(), show_time(*at_ms), size.to_string(), by.clone(), note.clone()]
    };
    let rows: Vec<Vec<String>> = revisions.iter().map(row).collect();
    screen.print(&table(&["REVISION", "WHEN", "SIZE", "BY", "NOTE"], &rows))?;
    Ok(Exit::Ok)
}

pub(crate) async fn rollback(
    args: RollbackArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let RollbackArgs { path, revision } = args;
    change(client, screen, Change::Rollback { path, revision }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_ls_shows_them() {
        assert_eq!(mode_text(0o644, false), "-rw-r--r--");
        assert_eq!(mode_text(0o4755, false), "-rwsr-xr-x");
        assert_eq!(mode_text(0o1777, true), "drwxrwxrwt");
        assert_eq!(mode_text(0o2640, false), "-rw-r-S---");
    }
}
