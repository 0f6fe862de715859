//! Labels: what operators have said of hosts, so that sets can choose by it.
//!
//! The controller keeps them and hosts know nothing of them; a host that enrols again keeps its
//! own.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use crate::api::{Answer, Api, body};
use crate::fault::Failure;
use crate::orders::blocking;
use crate::sets::check_label;
use crate::types::NewLabels;

/// How many labels one host may have.
const LABELS: usize = 64;

/// `POST /v1/labels`
pub(crate) async fn change(State(api): State<Api>, bytes: Bytes) -> Answer<u64> {
    let new: NewLabels = body(&bytes)?;
    if new.set.is_empty() && new.remove.is_empty() {
        return Err(Failure::bad("no label is given", "barid hosts label -w SET os=debian gpu-"));
    }
    let help = "for example os=debian, or \"owner=Data Platform\"";
    for (name, value) in &new.set {
        check_label(name, value).map_err(|wrong| Failure::bad(wrong, help))?;
    }
    let (hosts, set) = api.meant(new.targets.clone()).await?;
    blocking(move || {
        api.tables.change_labels(&set, |id, labels| {
            new.remove.iter().for_each(|name| drop(labels.remove(name)));
            labels.extend(new.set.clone());
            if labels.len() > LABELS {
                let name = hosts.get(&id).map_or_else(String::new, |row| row.name.clone());
                let message = format!("{name} would have more than {LABELS} labels");
                return Err(Failure::conflict(message, "take some away: NAME-"));
            }
            Ok(())
        })??;
        // Read under the lock of what is shown, so that of two changes the later is seen.
        let mut state = api.live.state();
        state.labels = Arc::new(api.tables.labels()?);
        Ok(set.len())
    })
    .await
    .map(Json)
}
