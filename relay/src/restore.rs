//! Putting right what distributions have put in place at this host, when somebody near asks for it
//! and nobody above is there.
//!
//! Nothing is decided anew: what an order has brought last is what shall be there, however old that
//! order is. What was put there otherwise since then stays.

use mesh::OrderId;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::copies::{Copies, Note};
use crate::dist::run_command;
use crate::exec::Executor;
use crate::journal::JournalError;

/// What became of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The destination.
    pub dest: String,
    /// What was written there, or taken back to what it should be.
    pub changed: u64,
    /// Why it is not as it should be; empty: it is.
    pub fault: String,
}

impl Executor {
    /// Puts right what is distributed so often; empty: whatever is.
    pub(crate) async fn restore(&self, frequency: &str) -> Result<Vec<Restored>, JournalError> {
        let _turn = self.installs.turn.lock().await;
        let installs = self.installs.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (journal, store) = (&installs.journal, &*installs.transfers.store);
            Copies { journal, store }.notes()
        });
        let notes = read.await.unwrap_or(Err(JournalError::Stopped))?;
        let job = self.jobs.enter(OrderId(certs::random::<16>()));
        let due = |note: &Note| frequency.is_empty() || note.frequency == frequency;
        let mut restored = Vec::new();
        for note in notes.into_iter().filter(due) {
            let (installs, handle) = (self.installs.clone(), Handle::current());
            let dest = String::from_utf8_lossy(&note.dest).into_owned();
            let (asked, command) = (note.clone(), note.command);
            let put = move || installs.put_right(&asked, &handle);
            let put = tokio::task::spawn_blocking(put).await;
            let (changed, mut fault) = match put {
                // Something else has been put there since.
                Ok(Ok(None)) => continue,
                Ok(Ok(Some(changed))) => (changed, String::new()),
                Ok(Err(error)) => (0, crate::chain(&error)),
                Err(error) => (0, error.to_string()),
            };
            let command = command.filter(|_| changed > 0 && fault.is_empty());
            if let Some(id) = command {
                let store = self.installs.transfers.store.clone();
                let id = content::ContentId(id.0);
                let read = tokio::task::spawn_blocking(move || store.get(&id)).await;
                if let Ok(Ok(Some(line))) = read {
                    let host = self.host();
                    let (state, _) = run_command(line.into(), &note.dest, &host, &job).await;
                    if state != mesh::State::Ok {
                        fault = format!("its command: {}", state.word());
                    }
                }
            }
            if !fault.is_empty() {
                warn!(dest, fault, "not as it should be");
            }
            restored.push(Restored { dest, changed, fault });
        }
        let changed = restored.iter().filter(|one| one.changed > 0).count();
        info!(all = restored.len(), changed, "put right what was distributed");
        Ok(restored)
    }
}
