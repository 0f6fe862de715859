//! The words of the operators' API: JSON over HTTP on the controller's Unix socket.
//!
//! The CLI, scripts and any later web page speak only these. Within version 1 fields are only ever
//! added. Times are Unix milliseconds, sizes are bytes, durations carry their unit in their name.
//! Here is what every answer may be, an error; the rest lies by what it is about.

mod backups;
mod events;
mod hosts;
mod orders;
mod plan;
mod pulls;
mod pushes;
mod rollouts;
mod runs;
mod store;
mod targets;
mod tree;

use serde::{Deserialize, Serialize};

pub use backups::{Backup, ControllerInfo, NewBackup, Restored, RestoredOrder};
pub use events::{EventInfo, Filter, Problem, Report, ReportPart};
pub use hosts::{HostInfo, LinkInfo, NewLabels, NewToken, Status, TokenInfo};
pub use orders::{Answer, KeptOutput, NewCancel, OrderDetail, OrderEvent, OrderInfo, Superseded};
pub use plan::{
    DistPlan, Plan, PlanLink, PlanQuery, PlanRoom, PlanWave, PushPlan, PushStep, WavesPlan,
};
pub use pulls::{NewPull, PullEvent, PullHost};
pub use pushes::{NewPush, NewRollback, NewStart, PushEvent, PushInfo, Special};
pub use rollouts::{NewResume, RolloutInfo, WaveInfo, Waves};
pub use runs::{Amount, FILES_LIMIT, GivenFile, NewRetry, NewRun, Pace, Piece, STDIN_LIMIT};
pub use store::{StoreCheck, StoreInfo, StoreSweep};
pub use targets::{GroupInfo, GroupQuery, Resolved, Targets};
pub use tree::{
    Cap, Delegated, DelegationInfo, NewCap, NewDelegation, NewDrain, NewMove, NewSurvey,
};

/// An error as the API gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// A stable word for programs: `unknown-host`, `empty-set`, `bad-request`, `not-found`, ...
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub help: String,
}
