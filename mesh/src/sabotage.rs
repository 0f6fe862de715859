//! Bugs planted on purpose, so that the simulator can prove that it would find them.
//!
//! Only the feature `sabotage` compiles them in; without it [`Config::has`](crate::Config) is a
//! constant "no". Each bug is one that a tired colleague could write.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Orders are acknowledged before they are on disk.
    AckOrdersBeforeSave,
    /// Reports of children are acknowledged before they are on disk.
    AckReportsBeforeSave,
    /// A command starts before its intent is on disk.
    StartBeforeIntent,
    /// After a restart an order that was begun counts as new.
    ForgetIntents,
    /// The answer leaves before it is on disk.
    AnswerBeforeSave,
    /// A new parent is not told what the old one knew.
    TrustOldParent,
    /// What was in flight when a link broke counts as told.
    LoseInFlight,
    /// Pulls that were under way when the link broke are not taken up again.
    LosePulls,
    /// Children that are served while content arrives do not count as waiting for it.
    ForgetHalfServed,
    /// A supposition is believed whoever utters it.
    BelieveAnybody,
    /// Each child's request for content goes upstream by itself.
    PullForEach,
    /// The redial timer is lost once a link has broken.
    LoseRedial,
    /// An order that was taken back before it came is carried out.
    StartCancelled,
    /// A child that comes back is not told again whom it may let begin.
    LoseReleases,
    /// The window of a run counts for each link of the root by itself.
    WindowPerLink,
    /// After a restart no number of errors or misses stops a run.
    ForgetBudget,
    /// After a restart nobody counts as released.
    ForgetReleases,
    /// Who has taken an order back is released all the same.
    ReleaseCancelled,
    /// A release leaves before it is on disk.
    GoBeforeSave,
    /// A host of which the worst is supposed leaves room for the next one.
    FreeSupposed,
    /// A release is good for ever.
    BeginLate,
    /// Counts of events are added up instead of joined.
    SumEvents,
    /// Events are acknowledged before they are on disk.
    AckEventsBeforeSave,
    /// Own events are told before they are on disk.
    TellEventsBeforeSave,
    /// After a restart a host counts its events anew.
    ForgetCounts,
    /// Events that were on their way when the link broke count as told.
    LoseEvents,
    /// Profiles that were on their way when the link broke count as told.
    LoseProfiles,
    /// The profile that came last counts, not the newest.
    KeepOldProfile,
    /// A release that has ended while the intent was being saved is good.
    StartLate,
    /// Redials wait for as long as everybody else's.
    NoJitter,
    /// A relay counts the root's beats on when it does not hear them.
    BeatOnBehalf,
    /// What may run again after a crash does not.
    NeverAgain,
    /// Entries are sent whatever the peer has acknowledged.
    IgnoreWindow,
    /// Everything that is wanted is pulled at once.
    PullAll,
    /// A host that has just been lost counts as known to be down.
    ForgetGrace,
    /// Who has found a parent stays with it, however far down the list it is.
    StayLow,
    /// An order that comes a second time, from whomever, is carried out a second time.
    TakeTwice,
    /// A relay's order leaves before the relay has it on disk.
    GiveBeforeSave,
    /// A relay answers for those alone who live below it, also of its own orders.
    SpeakForBelow,
    /// After a restart what was told of a relay's order counts, whoever the parent is.
    TrustLastParent,
    /// A relay does not ask for answers to its own orders that have gone another way.
    ForgetAstray,
    /// Room for outputs is made of those that the parent has not got yet.
    DropUnheard,
    /// Nobody is told that outputs found no room.
    CutUntold,
    /// Outputs are kept however many there are.
    KeepAll,
    /// A message of the bus that comes by a second way is passed on again.
    HearTwice,
    /// Messages of different nodes under one number count as the same.
    ForgetSender,
    /// A message goes back to where it came from.
    EchoMessage,
    /// What is not wanted any more behind a link counts as wanted.
    KeepInterest,
    /// Messages wait for another one to go with, which goes first.
    SwapMessages,
    /// A child is sent again to a sibling that has failed it.
    AskFailed,
    /// A child is sent to a sibling that gets the content from it.
    FetchInCircles,
    /// A relay does not wait until the controller counts as silent before it does what is due.
    DoubtNothing,
    /// Who had no turn before it was due again is forgotten.
    ForgetLate,
    /// A frequency whose times were changed is counted as if it always had been due then.
    CountOld,
    /// Who has not begun in time has his turn all the same.
    IgnoreExpiry,
    /// A host does what it is told although it has done it.
    DoAgain,
    /// A host begins what it is told although its window has closed meanwhile.
    BeginOutside,
    /// What a root had acknowledged before it was restored counts as told.
    TrustBackup,
    /// A root acknowledges answers to an order that it does not know before they are on disk.
    AckUnheard,
    /// A relay without room for an order refuses it for everybody below.
    RefuseForOthers,
    /// A host begins an order that it has refused, when it is given it again and has room.
    BeginRefused,
    /// After a restart a relay tells its parent of an order of its own that it has refused.
    ForgetOwn,
}

#[cfg(feature = "sabotage")]
impl Bug {
    /// Every bug there is.
    pub const ALL: [Bug; 62] = [
        Bug::AckOrdersBeforeSave,
        Bug::AckReportsBeforeSave,
        Bug::StartBeforeIntent,
        Bug::ForgetIntents,
        Bug::AnswerBeforeSave,
        Bug::TrustOldParent,
        Bug::LoseInFlight,
        Bug::LosePulls,
        Bug::ForgetHalfServed,
        Bug::BelieveAnybody,
        Bug::PullForEach,
        Bug::LoseRedial,
        Bug::StartCancelled,
        Bug::LoseReleases,
        Bug::WindowPerLink,
        Bug::ForgetBudget,
        Bug::ForgetReleases,
        Bug::ReleaseCancelled,
        Bug::GoBeforeSave,
        Bug::FreeSupposed,
        Bug::BeginLate,
        Bug::SumEvents,
        Bug::AckEventsBeforeSave,
        Bug::TellEventsBeforeSave,
        Bug::ForgetCounts,
        Bug::LoseEvents,
        Bug::LoseProfiles,
        Bug::KeepOldProfile,
        Bug::StartLate,
        Bug::NoJitter,
        Bug::BeatOnBehalf,
        Bug::NeverAgain,
        Bug::IgnoreWindow,
        Bug::PullAll,
        Bug::ForgetGrace,
        Bug::StayLow,
        Bug::TakeTwice,
        Bug::GiveBeforeSave,
        Bug::SpeakForBelow,
        Bug::TrustLastParent,
        Bug::ForgetAstray,
        Bug::DropUnheard,
        Bug::CutUntold,
        Bug::KeepAll,
        Bug::HearTwice,
        Bug::ForgetSender,
        Bug::EchoMessage,
        Bug::KeepInterest,
        Bug::SwapMessages,
        Bug::AskFailed,
        Bug::FetchInCircles,
        Bug::DoubtNothing,
        Bug::ForgetLate,
        Bug::CountOld,
        Bug::IgnoreExpiry,
        Bug::DoAgain,
        Bug::BeginOutside,
        Bug::TrustBackup,
        Bug::AckUnheard,
        Bug::RefuseForOthers,
        Bug::BeginRefused,
        Bug::ForgetOwn,
    ];
}
