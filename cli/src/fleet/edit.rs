//! `edit`: changing content with a program, under a lock.
//!
//! The lock is taken before the content is read, so that nobody's work is overwritten; a working
//! copy is edited, and what the program has left becomes a new revision, if it is any different.
//! If we are killed the lock stays, and `unlock` removes it.

use std::path::Path;
use std::process::Stdio;

use controller::fleet::types::{Change, EntryInfo, Origin, Question};
use tokio::signal::unix::{SignalKind, signal};

use super::content::location;
use super::{ask, ask_change};
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// What `edit` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EditArgs {
    /// What edits it, as the shell reads it; the path of a working copy is its last argument
    #[arg(short = 'e', long, value_name = "EDITOR")]
    editor: Option<String>,
    /// Why, for the history
    #[arg(short = 'm', long, value_name = "NOTE", default_value = "")]
    note: String,
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
}

pub(crate) async fn edit(
    args: EditArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let EditArgs { editor, note, path } = args;
    let shown: Vec<EntryInfo> = ask(client, &Question::Show { paths: vec![path.clone()] }).await?;
    let entry = shown.first().ok_or_else(|| refused(&path, "not under control"))?;
    let editor = program(editor, entry, |name| std::env::var(name).ok())?;
    if entry.revision.folder {
        return Err(refused(&path, "is a folder: install another content with cp"));
    }
    let locked = ask_change(client, Change::Lock { path: path.clone() }).await?;
    let lock = locked.lock.ok_or_else(|| refused(&path, "the controller gave no lock"))?;
    let put = edited(&editor, &path, &lock, note, client).await;
    // Whatever became of it, the next one must be able to edit.
    let unlocked = ask_change(client, Change::Unlock { path, lock: Some(lock) }).await;
    let changed = put?;
    unlocked?;
    if screen.json {
        screen.json(&changed)?;
    }
    Ok(Exit::Ok)
}

/// What edits this entry.
fn program(
    given: Option<String>,
    entry: &EntryInfo,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Failure> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    match (given, entry.editor.as_str()) {
        (Some(editor), _) => Ok(editor),
        (None, "NONE") => Err(refused(&entry.path, "not editable")),
        (None, "EDITOR") => {
            Ok(set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into()))
        }
        (None, editor) => Ok(editor.into()),
    }
}

/// Lets the program change a copy, and hands it in.
async fn edited(
    editor: &str,
    path: &str,
    lock: &str,
    note: String,
    client: &Client,
) -> Result<controller::fleet::types::Changed, Failure> {
    let failed = |error: std::io::Error| refused(path, &format!("the working copy: {error}"));
    let dir = tempfile::Builder::new().prefix("fdist-").tempdir().map_err(failed)?;
    // Editors choose how to show a file by its name.
    let name = Path::new(path).file_name().unwrap_or_default();
    let copy = dir.path().join(name);
    let mut bytes = Vec::new();
    let mut take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    client.get_bytes(&location(path, 0), &mut take).await?;
    std::fs::write(&copy, &bytes).map_err(failed)?;
    // Ctrl-C is for the editor.
    let _held = signal(SignalKind::interrupt()).map_err(failed)?;
    let script = format!("{editor} \"$@\"");
    let status = tokio::process::Command::new("/bin/sh")
        .args(["-c", &script, editor])
        .arg(&copy)
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .status()
        .await;
    let status = status.map_err(|error| refused(path, &format!("{editor}: {error}")))?;
    if !status.success() {
        let what = format!("{editor} has failed ({status}): the change is discarded");
        return Err(refused(path, &what));
    }
    if std::fs::read(&copy).map_err(failed)? == bytes {
        return Ok(controller::fleet::types::Changed::default());
    }
    let copy = copy.into_os_string().into_string();
    let copy = copy.map_err(|_| refused(path, "the folder for temporary files is not UTF-8"))?;
    let put = Change::Put {
        content: Origin::File(copy),
        path: path.into(),
        lock: Some(lock.into()),
        note,
    };
    ask_change(client, put).await
}

fn refused(path: &str, what: &str) -> Failure {
    Failure::new(Exit::Failed, "edit", format!("{path}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hit_is_the_editor() {
        let check = |given: Option<&str>, field: &str, visual: &str| {
            let entry = EntryInfo { editor: field.into(), ..entry() };
            let variable = |name: &str| match name {
                "VISUAL" => Some(visual.to_owned()),
                _ => Some("ed".to_owned()),
            };
            program(given.map(String::from), &entry, variable).map_err(|f| f.error.message)
        };
        assert_eq!(check(Some("x y"), "NONE", "").as_deref(), Ok("x y"));
        assert_eq!(check(None, "/usr/sbin/vipw", "v").as_deref(), Ok("/usr/sbin/vipw"));
        assert_eq!(check(None, "EDITOR", "v").as_deref(), Ok("v"));
        assert_eq!(check(None, "EDITOR", "").as_deref(), Ok("ed"));
        assert_eq!(check(None, "NONE", "v"), Err("cc.adm:/a: not editable".into()));
        assert_eq!(
            program(None, &EntryInfo { editor: "EDITOR".into(), ..entry() }, |_| None).as_deref(),
            Ok("vi")
        );
    }

    fn entry() -> EntryInfo {
        let json = serde_json::json!({
            "path": "cc.adm:/a", "source": "s1", "frequency": "day", "command": "", "editor": "",
            "revision": {
                "number": 1, "root": "", "mode": 0, "owner": "", "group": "", "size": 0, "files": 0,
                "text": true, "folder": false, "modified_s": 0, "by": "", "at_ms": 0, "note": "",
            },
        });
        serde_json::from_value(json).expect("an entry")
    }
}
