//! What goes wrong with a request: a stable word, what is wrong, what to do.

use relay::JournalError;

use crate::types::ApiError;

/// A request that was not carried out. Nothing has changed, unless the text says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) error: ApiError,
}

impl Failure {
    fn new(
        status: u16,
        code: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Failure {
        let error = ApiError { code: code.into(), message: message.into(), help: help.into() };
        Failure { status, error }
    }

    /// The request itself is wrong.
    pub(crate) fn bad(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::new(400, "bad-request", message, help)
    }

    /// It names a thing that is not there.
    pub(crate) fn unknown(
        code: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Failure {
        Failure::new(404, code, message, help)
    }

    /// The state of things does not allow it.
    pub(crate) fn conflict(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::new(409, "conflict", message, help)
    }

    /// A host cannot be asked just now.
    pub(crate) fn away(message: impl Into<String>) -> Failure {
        Failure::new(503, "away", message, "`barid hosts` shows whether it is up; try again then")
    }

    /// As much of it is being done as may be at once.
    pub(crate) fn busy(message: impl Into<String>) -> Failure {
        Failure::new(503, "busy", message, "try again in a moment")
    }

    /// There is no room on the controller's disk.
    pub(crate) fn no_room(message: impl Into<String>) -> Failure {
        let help = "make room on the controller's disk; it goes on by itself then";
        Failure::new(507, "no-space", message, help)
    }

    /// Something with content failed: for want of room, or otherwise.
    pub(crate) fn content(error: &(dyn std::error::Error + 'static)) -> Failure {
        let text = relay::chain(error);
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        match causes.find_map(|cause| cause.downcast_ref::<content::StoreError>()) {
            Some(content::StoreError::Quota { .. }) => Failure::no_room(text)
                .with_help("`barid store gc` drops what nothing needs; --store-max is the limit"),
            Some(store) if store.is_full() => Failure::no_room(text),
            _ => Failure::internal(text),
        }
    }

    /// Whether there is no room on the controller's disk, whatever the request.
    pub(crate) fn is_about_room(&self) -> bool {
        self.status == 507
    }

    /// Whether the same request fails again, whatever time passes: it is itself wrong, or names
    /// what is gone.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self.status, 400 | 404)
    }

    /// The same with other advice.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.error.help = help.into();
        self
    }

    /// The same, said of a part of something.
    pub(crate) fn within(mut self, what: &str) -> Failure {
        self.error.message = format!("{what}: {}", self.error.message);
        self
    }

    /// The controller itself failed.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure::new(500, "internal", message, "the controller's log has the details")
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Failure {
        if let JournalError::Full { .. } = error {
            return Failure::no_room(relay::chain(&error));
        }
        tracing::error!(error = %relay::chain(&error), "the controller's tables failed");
        Failure::internal(relay::chain(&error))
    }
}
