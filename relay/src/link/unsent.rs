//! A message or an answer of the bus that waits for its stream.
//!
//! Nothing of the bus is kept, so what still waits when its link breaks is lost. It counts itself:
//! whoever drops it before it is handed to the connection has lost it, wherever that happens.

use mesh::Frame;

use crate::bus::{BROKEN, Hub, Weight};

/// The frame, with what it weighs for as long as it waits.
pub(super) struct Unsent {
    frame: Frame,
    _weight: Weight,
    /// Where it is counted if it is lost; none: it is handed to the connection.
    hub: Option<Hub>,
}

impl Unsent {
    pub(super) fn new(frame: Frame, weight: Weight, hub: &Hub) -> Unsent {
        Unsent { frame, _weight: weight, hub: Some(hub.clone()) }
    }

    pub(super) fn frame(&self) -> &Frame {
        &self.frame
    }

    /// It is handed to the connection, and from there on counted with the link.
    pub(super) fn sent(mut self) {
        self.hub = None;
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(hub) = &self.hub {
            hub.dropped(BROKEN, 1);
        }
    }
}
