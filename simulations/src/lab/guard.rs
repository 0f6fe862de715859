//! Sweeps a laboratory, however its process ends.
//!
//! The guard is a shell whose standard input is a pipe from the laboratory's process. When the
//! pipe closes, because the laboratory was dropped or because its process is dead, it kills what
//! runs in the namespaces of its prefix, deletes them, and deletes the laboratory's folder. It is
//! in a process group of its own, so Ctrl-C on the terminal does not reach it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::LabError;

/// Reads to the end of its input, then sweeps. Again a few times: a process may have been about to
/// start another.
const SCRIPT: &str = r#"
cat > /dev/null
for round in 1 2 3 4 5; do
    left=0
    for path in /run/netns/"$1"*; do
        [ -e "$path" ] || continue
        left=1
        name=${path##*/}
        pids=$(ip netns pids "$name" 2> /dev/null)
        [ -z "$pids" ] || kill -9 $pids 2> /dev/null
        ip netns delete "$name" 2> /dev/null
    done
    [ $left = 1 ] || break
done
rm -rf "$2"
"#;

/// Only a folder.
const FOLDER: &str = "cat > /dev/null\nrm -rf \"$1\"";

/// Sweeps when it is dropped, or when its process is dead; dropped, it waits for that.
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Deletes a folder at the end, whatever the end is.
    ///
    /// # Errors
    /// There is no shell.
    pub fn folder(folder: &Path) -> Result<Guard, LabError> {
        Guard::spawn(Command::new("sh").args(["-c", FOLDER, "barid-lab-guard"]).arg(folder))
    }

    pub(super) fn start(prefix: &str, scratch: &Path) -> Result<Guard, LabError> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "barid-lab-guard", prefix]).arg(scratch);
        Guard::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Result<Guard, LabError> {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::Start { program: "sh".into(), source })?;
        Ok(Guard { child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}
