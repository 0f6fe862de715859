//! What goes into a node and what comes out: two closed enums, and the frames that links carry.
//!
//! [`Input`] is everything that can happen to a node, [`Output`] everything that it can want. The
//! shell obeys outputs in their order. Durability is explicit: each [`Output::Save`] has a number,
//! and what must wait for the disk leaves the node only after [`Input::Saved`] has named it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::bus::{Answer, Interest, Message};
use crate::fact::{FoldKey, Folded, Happening, Signature};
use crate::{
    Digest, HostId, HostSet, LinkId, Order, OrderId, Outcome, Profile, Profiled, Report, RequestId,
    Said, Subtree, Time,
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

/// What is kept over a restart. The shell stores these by their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An order, by its id.
    Order(Arc<Order>),
    /// This host is about to start the order.
    Intent(OrderId),
    /// Answers taken over from a child or given by this host; appended to those of the order.
    /// They take back an earlier [`Record::Settled`] of it: the parent has not heard these yet.
    Answers(Report),
    /// Every answer that this node owes for the order has been acknowledged by the parent.
    Settled(OrderId),
    /// The bodies of its answers need not be kept: the parent holds them, and others need the room.
    Trimmed(OrderId),
    /// Root: these hosts, and those of earlier records, may begin a gated order.
    Released {
        /// The order.
        order: OrderId,
        /// Who is released now.
        hosts: HostSet,
    },
    /// Who was last seen below this child.
    Below {
        /// The child.
        child: HostId,
        /// Its subtree, itself included.
        below: HostSet,
    },
    /// Drop all that is kept of the order.
    Forget(OrderId),
    /// Events that this host has noticed itself, by their signature; replaces what there was.
    Own(Folded),
    /// None of its own events of these signatures need be remembered.
    OwnGone(Vec<Signature>),
    /// Events from below, by signature and window; replaces what there was.
    Events(Folded),
    /// The parent holds these. Of none: a mark between what came before and what comes after.
    EventsGone(Vec<FoldKey>),
}

/// What a shell found on disk at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Orders, with the ttl that is left.
    pub orders: Vec<Arc<Order>>,
    /// Orders that this host had begun.
    pub intents: Vec<OrderId>,
    /// Answers, in any order.
    pub answers: Vec<Report>,
    /// Orders whose answers the parent has.
    pub settled: Vec<OrderId>,
    /// Subtrees of children.
    pub below: Vec<(HostId, HostSet)>,
    /// Root: who was released, in any order.
    pub released: Vec<(OrderId, HostSet)>,
    /// Events of this host itself.
    pub own: Vec<Folded>,
    /// Events from below.
    pub events: Vec<Folded>,
}

/// A control message on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// First word of each side: the logs that it writes and what it holds of the peer's.
    Hello {
        /// The sender's log on this link; a new number after a restart.
        log: u64,
        /// The peer's log as the sender knows it; 0 if it knows none.
        held_log: u64,
        /// The last number of that log that the sender holds durably.
        held: u64,
        /// Whether the sender takes events.
        events: bool,
        /// Whether the sender takes profiles.
        profiles: bool,
    },
    /// A sign of life of the process that does the work.
    Beat {
        /// The number of the root's own beat that the sender has last heard of.
        root: u64,
        /// How often the sender beats on this link.
        interval: Duration,
        /// How often `root` can move on its way to the receiver.
        root_interval: Duration,
        /// Whether the sender, or somebody above it, tells people when the root is silent.
        speaks: bool,
    },
    /// Up: who lives below the sender, itself included, and how it is with them.
    Below(Subtree),
    /// Down: an entry of the order log.
    Order {
        /// The log.
        log: u64,
        /// Number in the log.
        seq: u64,
        /// The order.
        order: Arc<Order>,
    },
    /// Up: orders through this number are durable here.
    OrdersHeld {
        /// The log.
        log: u64,
        /// Number in the log.
        through: u64,
    },
    /// Up: an entry of the report log.
    Report {
        /// The log.
        log: u64,
        /// Number in the log.
        seq: u64,
        /// The report.
        report: Report,
    },
    /// Down: reports through this number are durable here.
    ReportsHeld {
        /// The log.
        log: u64,
        /// Number in the log.
        through: u64,
    },
    /// Down: the orders below the receiver whose output is wanted while it is made, all of them.
    Watch {
        /// Each with its generation on this link.
        orders: BTreeMap<OrderId, u64>,
    },
    /// Up: what a command has just written.
    Said(Said),
    /// Up, and down to where they live now: what these hosts have answered to an order of a relay
    /// that they have left. Needs no answer, and is asked again.
    Seek {
        /// The order, whose id names the relay.
        order: OrderId,
        /// Who is sought.
        hosts: HostSet,
    },
    /// The way back: what was found, as the hosts' own words.
    Found {
        /// About that order.
        report: Report,
    },
    /// Down: these hosts may begin a gated order. Saying so twice changes nothing.
    Go {
        /// The order, which may come later.
        order: OrderId,
        /// Who may begin.
        hosts: HostSet,
        /// For how long they still may.
        left: Duration,
    },
    /// Up: events, and how often each host has noticed them in all. Twice is as good as once.
    Events {
        /// Its number on this link.
        no: u64,
        /// The events.
        events: Vec<Folded>,
    },
    /// Down: the events of this number are durable here.
    EventsHeld {
        /// The number.
        no: u64,
        /// How many of them, from the first on; for the rest there was no room.
        held: usize,
    },
    /// What is wanted of the bus on the sender's side, all of it.
    Interest(Interest),
    /// A message on the bus.
    Message(Message),
    /// An answer to one, on its way to whoever has asked.
    Answer(Answer),
    /// Up: what hosts say of themselves. Twice is as good as once.
    Profiles {
        /// Its number on this link.
        no: u64,
        /// Those who say the same, together.
        lines: Vec<Profiled>,
    },
    /// Down: the receiver need not tell the profiles of this number again.
    ProfilesHeld {
        /// The number.
        no: u64,
        /// How many lines of it, from the first on; for the rest there was no room.
        held: usize,
    },
}

/// What a node tells whoever watches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link stands.
    Linked {
        /// With whom.
        peer: Peer,
    },
    /// A link is gone.
    Unlinked {
        /// With whom.
        peer: Peer,
        /// Why, if this node closed it.
        reason: Option<Reason>,
    },
    /// The root's beat number has not moved for too long.
    RootStale {
        /// For how long.
        age: Duration,
    },
    /// The root's beat number moves again.
    RootFresh,
    /// Whether the parent itself tells people of a silent root, for all below it.
    Spoken(bool),
    /// Root: answers came in; to be made durable no later than the save that follows.
    Answers(Report),
    /// Root: answers to an order that it does not know, as they came; to be made durable no later
    /// than the save that follows. An order that is over may be such, or one that was given before
    /// the root was restored from a backup. Whoever invents one can send them, too.
    Unheard(Report),
    /// Root: each target of the order has an outcome now.
    Closed(OrderId),
    /// Root: these hosts may begin a gated order, beside those that were told before.
    Released {
        /// The order.
        order: OrderId,
        /// Who may begin.
        hosts: HostSet,
    },
    /// Root: nobody will be released any more for a gated order, though some never were and may
    /// still wait for it. They are to be told by an order under which it
    /// [lapses](Order::lapses).
    Stopped {
        /// The order.
        order: OrderId,
        /// Those who wait in vain.
        hosts: HostSet,
        /// Why.
        why: Stop,
    },
    /// Root: the whole tree, as it is known now.
    Reachable(Subtree),
    /// Root: who lives below one of its own children, as the child says.
    Below {
        /// The child.
        child: HostId,
        /// Its subtree, itself included.
        below: HostSet,
    },
    /// A pull failed for good.
    PullFailed {
        /// What.
        content: Digest,
        /// Why.
        fault: PullFault,
    },
    /// Root: events, its own or from below; to be made durable no later than the save that follows.
    Happened(Vec<Folded>),
    /// Root: what hosts say of themselves. The newest of each is to be kept by the shell, which is
    /// told again whatever it may have lost with the process.
    Profiles(Vec<Profiled>),
    /// Events of this host found no room.
    Dropped {
        /// How many.
        count: u64,
    },
    /// A limit cut something.
    Cut {
        /// What, in words.
        what: &'static str,
        /// The order concerned.
        order: OrderId,
        /// How many.
        count: u64,
    },
}

/// Why the root releases nobody any more for a gated order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Everybody who could be reached was released.
    Done,
    /// More hosts have failed than the order allows.
    Errors,
    /// More hosts were missed than the order allows.
    Missed,
    /// What is left of its validity is too short to begin anything.
    Late,
}

/// Why a node wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// To beat, and to look who has not.
    Pulse,
    /// To dial a parent again.
    Redial,
    /// To look for a better parent.
    Climb,
    /// To announce its subtree.
    Announce,
    /// To send folded answers up.
    Flush,
    /// To acknowledge what nothing else has gone with.
    Ack,
    /// To see who was not reached.
    Reach,
    /// To forget an order.
    Expire,
    /// To release hosts, or to give them up.
    Gate,
    /// To save or tell events.
    Events,
    /// To say what is wanted of the bus.
    Bus,
    /// To tell profiles.
    Profiles,
    /// To ask for answers that have gone another way.
    Seek,
}

/// A deadline with its cause.
pub(crate) type Deadline = Option<(Time, Wake)>;

/// The earlier of two deadlines.
pub(crate) fn sooner(a: Deadline, b: Deadline) -> Deadline {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
