//! Alerts and silences in the controller's tables, so that a restart tells nothing twice and
//! forgets no silence.

use alerts::{Change, Keeper, Kept};
use tracing::warn;

use crate::tables::Tables;

/// Keeps them in the tables.
pub(crate) struct TableKeeper(pub(crate) Tables);

impl Keeper for TableKeeper {
    fn load(&self) -> Kept {
        self.0.kept_alerts().unwrap_or_else(|error| {
            tracing::error!(error = %relay::chain(&error), "alerts of before are not read");
            Kept::default()
        })
    }

    fn keep(&self, changes: &[Change]) -> bool {
        let kept = self.0.keep_alerts(changes);
        if let Err(error) = &kept {
            warn!(error = %relay::chain(error), "alerts are not kept");
        }
        kept.is_ok()
    }
}
