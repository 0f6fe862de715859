//! What goes into a node and what comes out: two closed enums.
//!
//! [`Input`] is everything that can happen to a node, [`Output`] everything that it can want. The
//! shell obeys outputs in their order. Durability is explicit: each [`Output::Save`] has a number,
//! and what must wait for the disk leaves the node only after [`Input::Saved`] has named it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::bus::{Answer, Interest, Message};
use crate::fact::Happening;
use crate::{
    Digest, Event, Frame, HostId, LinkId, Order, OrderId, Outcome, Profile, Record, RequestId, Said,
};

/// The other end of a link, as its certificate proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The parent at this place of the configured list.
    Parent {
        /// Index into the list of parents.
        place: usize,
        /// Who answered there.
        host: HostId,
    },
    /// A child that dialled in.
    Child {
        /// Who it is.
        host: HostId,
        /// Whether its certificate allows it to have children of its own.
        serves: bool,
    },
}

impl Peer {
    /// Who it is.
    pub fn host(&self) -> HostId {
        match *self {
            Peer::Parent { host, .. } | Peer::Child { host, .. } => host,
        }
    }
}

/// Everything that can happen to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link stands; the peer's identity is proven.
    LinkUp {
        /// The new link.
        link: LinkId,
        /// Who is at its other end.
        peer: Peer,
    },
    /// A link is gone. Nothing more comes from it.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// Dialling the parent at this place of the list failed.
    DialFailed {
        /// Index into the list of parents.
        place: usize,
    },
    /// A frame arrived, decoded and within its limits. Orders in it are verified.
    Frame {
        /// The link it came by.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// An order arrived that must not be carried out: its signature, mesh or validity is wrong.
    BadOrder {
        /// The link it came by.
        link: LinkId,
        /// The sender's log.
        log: u64,
        /// Its number in that log.
        seq: u64,
        /// The id that it claims.
        order: OrderId,
        /// How this host answers it, with the reason in its body; none if it is not meant.
        outcome: Option<Outcome>,
        /// The body of the answer.
        body: Option<Bytes>,
    },
    /// Every record up to this number is durable.
    Saved {
        /// The number of an [`Output::Save`].
        through: u64,
    },
    /// Somebody wants content that the shell does not have.
    Wanted {
        /// Who.
        by: Asker,
        /// What.
        content: Digest,
    },
    /// Nobody waits any more for what this asker wanted (its stream was reset).
    Unwanted {
        /// Who.
        by: Asker,
    },
    /// The front of content that is being pulled is here and verified: it can be handed on while
    /// the rest comes.
    Arriving {
        /// What.
        content: Digest,
    },
    /// A pull ended. Not said of one whose link is down: the node asks again by itself, and a late
    /// word about the old pull would be taken for the new one's.
    Pulled {
        /// What was pulled.
        content: Digest,
        /// Verified and in the store, or why not.
        result: Result<(), PullFault>,
    },
    /// Root: the orders whose output is wanted while it is made, each with a generation. A new
    /// generation asks for the output from its beginning.
    Watch {
        /// All of them.
        orders: BTreeMap<OrderId, u64>,
    },
    /// A command of this host has written something, and somebody watches.
    Said(Said),
    /// A local order ended.
    Ended {
        /// The order.
        order: OrderId,
        /// How.
        outcome: Outcome,
        /// The body that the outcome's digest names.
        body: Option<Bytes>,
    },
    /// The list of parents has changed. A dial that is under way is of the old list.
    Parents {
        /// How many there are now.
        count: usize,
        /// At which place of the new list the present parent is, if it is on it.
        here: Option<usize>,
    },
    /// The root was restored from a backup: what was told to anybody above may be lost there, also
    /// what was acknowledged. All that is remembered is told once more.
    Restored,
    /// This node cannot do all that it should from now on, or can again: its disk is full.
    Degraded(bool),
    /// This host has noticed something.
    Happened(Happening),
    /// This host says what it is; whatever it said before counts no more. Of the same text a
    /// higher revision is news, too.
    Profile(Profile),
    /// The operator gives an order: at the root, or at the relay that the order's id names.
    Submit(Arc<Order>),
    /// What programs at this node want of the bus from now on.
    Subscribed(Interest),
    /// A program at this node has published something.
    Publish(Message),
    /// A program at this node answers a message.
    Answer(Answer),
}

/// Everything that a node can want of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make this durable, in the order of the numbers, and say so with [`Input::Saved`].
    Save {
        /// Its number, rising by one.
        no: u64,
        /// What to keep.
        record: Record,
    },
    /// Connect to the parent at this place of the list.
    Dial {
        /// Index into the list of parents.
        place: usize,
    },
    /// Close a link. [`Input::LinkDown`] is not awaited: the node has forgotten it already.
    Hangup {
        /// The link.
        link: LinkId,
        /// Why, for the log and for the peer.
        reason: Reason,
    },
    /// Send a frame; never waits. A full queue is a lost link.
    Send {
        /// The link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// Get content from the peer of this link into the store (or find it there already).
    Pull {
        /// The parent's link.
        link: LinkId,
        /// What.
        content: Digest,
    },
    /// The content that this asker wanted is in the store: serve it. A child may be told so as soon
    /// as the content is [`Input::Arriving`]: it is then served as far as it has come.
    Serve {
        /// Who.
        by: Asker,
        /// What.
        content: Digest,
    },
    /// No more comes of content that is being served while it arrives: end those streams.
    Abandon {
        /// What.
        content: Digest,
    },
    /// The content that this asker wanted cannot be had.
    Deny {
        /// Who.
        by: Asker,
        /// What.
        content: Digest,
        /// Why.
        fault: PullFault,
    },
    /// Carry out an order at this host; its intent is durable. Answer with [`Input::Ended`].
    Start {
        /// The order.
        order: Arc<Order>,
        /// Content that could not be had; if any, the order fails with this.
        missing: Vec<(Digest, PullFault)>,
    },
    /// From now on previews of these orders are wanted, and of no others. Each new generation
    /// begins with the first byte. Answer with [`Input::Said`].
    Watch {
        /// All of them, with their generations.
        orders: BTreeMap<OrderId, u64>,
    },
    /// Root: a host has written something; for those who watch, and never kept.
    Preview(Said),
    /// A message for programs at this node.
    Deliver(Message),
    /// A message has come by a link and goes no further: who wanted it was behind a link that has
    /// broken lately, or its sender has moved. To be counted.
    Stranded {
        /// Whether it is lost; else whoever wanted it may have moved, and get it where he is.
        surely: bool,
    },
    /// An answer to a message that was published at this node.
    Answered(Answer),
    /// For whoever watches this node: the log, the controller's tables.
    Tell(Event),
}

/// Who asked for content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// A child, by a stream of this link.
    Child(LinkId, RequestId),
    /// The shell itself, in the middle of carrying out an order.
    Local(RequestId),
}

/// Why content could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PullFault {
    /// Nobody up to the root has it.
    Absent,
    /// The link broke, or the stream did. Tried again by itself.
    Broken,
    /// The bytes do not hash to their name.
    Corrupt,
    /// The store cannot take it: no space, an I/O error.
    Disk,
    /// Too much is wanted at once.
    Busy,
}

/// Why a node closes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Three beats were missed.
    Stale,
    /// The same peer has a newer link.
    Replaced,
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// A limit of this node is reached.
    Full(&'static str),
}
