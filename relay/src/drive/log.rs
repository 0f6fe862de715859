//! What the log says of what a node is told by its core.

use mesh::{Event, PullFault};
use tracing::{debug, error, info, warn};

use super::DriveError;

/// Logs what an operator would want to know.
pub(super) fn tell(event: &Event) {
    match event {
        Event::Linked { peer } => info!(?peer, "linked"),
        Event::Unlinked { peer, reason } => match reason {
            Some(reason) => warn!(?peer, ?reason, "unlinked"),
            None => info!(?peer, "unlinked"),
        },
        Event::RootStale { age } => {
            warn!(seconds = age.as_secs(), "nothing new from the controller")
        }
        Event::RootFresh => info!("the controller is heard again"),
        Event::Spoken(_) => debug!(?event, "told"),
        Event::PullFailed { content, fault } => {
            warn!(%content, ?fault, "content could not be had");
        }
        Event::Cut { what, order, count } => warn!(%order, what, count, "a limit was reached"),
        Event::Stopped { order, hosts, why } => {
            info!(%order, hosts = hosts.len(), ?why, "a run lets nobody begin any more");
        }
        Event::Dropped { count } => warn!(count, "events of this host found no room"),
        Event::Answers(_)
        | Event::Happened(_)
        | Event::Profiles(_)
        | Event::Released { .. }
        | Event::Unheard(_)
        | Event::Closed(_)
        | Event::Reachable(_)
        | Event::Below { .. } => {
            debug!(?event, "told");
        }
    }
}

/// The word for why a pull failed.
pub(super) fn pull_word(fault: PullFault) -> &'static str {
    match fault {
        PullFault::Absent => "absent",
        PullFault::Broken => "broken",
        PullFault::Corrupt => "corrupt",
        PullFault::Disk => "disk",
        PullFault::Busy => "busy",
    }
}

/// Ends the process when the database fails; everything else is handled where it happens.
pub(crate) fn log_end(result: &Result<(), DriveError>) {
    if let Err(failure) = result {
        error!(error = %crate::chain(failure), "the node stops");
    }
}
