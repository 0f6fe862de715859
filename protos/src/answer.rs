//! What a host says with an outcome: output, what went wrong, what a push did.
//!
//! To the core it is an opaque body. Equal answers are equal bytes, so a thousand hosts that
//! printed the same send one answer. Encoding cuts what is too long instead of failing: a host
//! must be able to answer whatever happened to it, and every answer fits a frame.

use bytes::Bytes;
use mesh::Digest;
use prost::Message;

use crate::dist::Disted;
use crate::field::{array, at_most, at_most_bytes, clip, within};
use crate::lacks::Lacks;
use crate::{FRAME_LIMIT, FieldError, Malformed, pb, shape};

/// The longest answer: half of what a frame has room for, as the rest of a report must fit too.
pub const ANSWER_LIMIT: usize = FRAME_LIMIT / 2;

/// The most that is kept of stdout, and of stderr.
pub const OUTPUT_LIMIT: u32 = 192 << 10;

const NAME_LIMIT: usize = 64;
const DETAIL_LIMIT: usize = 16 << 10;
const PATH_LIMIT: usize = 4096;
const WARNING_LIMIT: usize = 1024;
const WARNINGS: usize = 64;

/// Bytes that are not an answer. Nothing has changed; the host that gave it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The answer is longer than any may be.
    #[error("the answer has {found} bytes; the limit is {ANSWER_LIMIT}")]
    TooLong {
        /// How long it is.
        found: usize,
    },
    /// The bytes are no answer.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// What a host says. All of it is the host's own word and may hold any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the command printed, as far as it was kept; at most [`OUTPUT_LIMIT`].
    pub stdout: Bytes,
    /// What it printed as errors, as far as it was kept; at most [`OUTPUT_LIMIT`].
    pub stderr: Bytes,
    /// How much it printed in truth; never less than what was kept.
    pub stdout_size: u64,
    /// How much it printed as errors in truth; never less than what was kept.
    pub stderr_size: u64,
    /// Why the order failed or was refused, if that was not the command's own doing.
    pub fault: Option<Fault>,
    /// What a push did.
    pub push: Option<Pushed>,
    /// What the host's spool has of stdout, if the answer has not all of it.
    pub stdout_kept: Option<Kept>,
    /// What the host's spool has of stderr, likewise.
    pub stderr_kept: Option<Kept>,
    /// What there is to say of single files of a distribution.
    pub dist: Option<Disted>,
}

/// Output in a host's spool: the first bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How many.
    pub bytes: u64,
    /// Their hash.
    pub hash: Digest,
}

/// Why an order failed at a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// At which step; one word of at most 64 bytes.
    pub stage: String,
    /// What kind of fault, to sort by; one word of at most 64 bytes.
    pub kind: String,
    /// The fault in words; at most 16 KiB.
    pub detail: String,
    /// The file that it is about, if any; at most 4,096 bytes.
    pub path: Bytes,
}

/// What a push did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Files written.
    pub written: u64,
    /// Files that were right already.
    pub unchanged: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Files of which only owner, mode or times were put right.
    pub fixed: u64,
    /// Entries deleted that the manifest does not name.
    pub deleted: u64,
    /// Of a verification: entries that are not as they should be.
    pub drift: u64,
    /// What did not go as well as it might; at most 64, of at most 1,024 bytes each.
    pub warnings: Vec<String>,
    /// Of a preflight: which pieces are missing.
    pub lacks: Option<Lacks>,
}

impl Answer {
    /// The bytes of the body. What is over a limit is cut, so that they always decode.
    pub fn encode(&self) -> Bytes {
        let kept = |output: &Bytes| output.slice(..output.len().min(OUTPUT_LIMIT as usize));
        let size = |output: &Bytes, size: u64| size.max(output.len() as u64);
        let answer = pb::Answer {
            stdout: kept(&self.stdout),
            stderr: kept(&self.stderr),
            stdout_size: size(&self.stdout, self.stdout_size),
            stderr_size: size(&self.stderr, self.stderr_size),
            fault: self.fault.as_ref().map(Fault::to_pb),
            push: self.push.as_ref().map(Pushed::to_pb),
            dist: self.dist.as_ref().map(Disted::to_pb),
            stdout_kept: self.stdout_kept.map(Kept::to_pb),
            stderr_kept: self.stderr_kept.map(Kept::to_pb),
        };
        answer.encode_to_vec().into()
    }

    /// Reads an answer.
    pub fn decode(bytes: Bytes) -> Result<Answer, AnswerError> {
        if bytes.len() > ANSWER_LIMIT {
            return Err(AnswerError::TooLong { found: bytes.len() });
        }
        let answer: pb::Answer = shape::decode(bytes)?;
        let output = OUTPUT_LIMIT as usize;
        at_most_bytes("answer.stdout", answer.stdout.len(), output)?;
        at_most_bytes("answer.stderr", answer.stderr.len(), output)?;
        let at_least = |bytes: &Bytes| (bytes.len() as u64, u64::MAX);
        within("answer.stdout_size", answer.stdout_size, at_least(&answer.stdout))?;
        within("answer.stderr_size", answer.stderr_size, at_least(&answer.stderr))?;
        Ok(Answer {
            stdout: answer.stdout,
            stderr: answer.stderr,
            stdout_size: answer.stdout_size,
            stderr_size: answer.stderr_size,
            fault: answer.fault.map(read_fault).transpose()?,
            push: answer.push.map(read_pushed).transpose()?,
            dist: answer.dist.map(Disted::read).transpose()?,
            stdout_kept: answer.stdout_kept.map(Kept::read).transpose()?,
            stderr_kept: answer.stderr_kept.map(Kept::read).transpose()?,
        })
    }
}

impl Kept {
    fn to_pb(self) -> pb::Kept {
        pb::Kept { bytes: self.bytes, hash: Bytes::copy_from_slice(&self.hash.0) }
    }

    fn read(kept: pb::Kept) -> Result<Kept, FieldError> {
        Ok(Kept { bytes: kept.bytes, hash: Digest(array("answer.kept", &kept.hash)?) })
    }
}

impl Fault {
    fn to_pb(&self) -> pb::Fault {
        pb::Fault {
            stage: clip(&self.stage, NAME_LIMIT).to_owned(),
            kind: clip(&self.kind, NAME_LIMIT).to_owned(),
            detail: clip(&self.detail, DETAIL_LIMIT).to_owned(),
            path: self.path.slice(..self.path.len().min(PATH_LIMIT)),
        }
    }
}

impl Pushed {
    fn to_pb(&self) -> pb::Pushed {
        let warnings = self.warnings.iter().take(WARNINGS);
        pb::Pushed {
            written: self.written,
            unchanged: self.unchanged,
            bytes: self.bytes,
            fixed: self.fixed,
            deleted: self.deleted,
            drift: self.drift,
            warnings: warnings.map(|text| clip(text, WARNING_LIMIT).to_owned()).collect(),
            lacks: self.lacks.as_ref().map(Lacks::to_pb),
        }
    }
}

fn read_fault(fault: pb::Fault) -> Result<Fault, FieldError> {
    let pb::Fault { stage, kind, detail, path } = fault;
    at_most_bytes("fault.stage", stage.len(), NAME_LIMIT)?;
    at_most_bytes("fault.kind", kind.len(), NAME_LIMIT)?;
    at_most_bytes("fault.detail", detail.len(), DETAIL_LIMIT)?;
    at_most_bytes("fault.path", path.len(), PATH_LIMIT)?;
    Ok(Fault { stage, kind, detail, path })
}

fn read_pushed(pushed: pb::Pushed) -> Result<Pushed, FieldError> {
    let pb::Pushed { written, unchanged, bytes, fixed, warnings, deleted, drift, lacks } = pushed;
    at_most("pushed.warnings", warnings.len(), WARNINGS)?;
    for warning in &warnings {
        at_most_bytes("pushed.warnings", warning.len(), WARNING_LIMIT)?;
    }
    let lacks = lacks.map(Lacks::read).transpose()?;
    Ok(Pushed { written, unchanged, bytes, fixed, deleted, drift, warnings, lacks })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{bytes, digest, mangle, number, text};

    fn fault() -> impl Strategy<Value = Fault> {
        (text(16), text(16), text(40), bytes(20)).prop_map(|(stage, kind, detail, path)| Fault {
            stage,
            kind,
            detail,
            path,
        })
    }

    fn pushed() -> impl Strategy<Value = Pushed> {
        let numbers = (number(), number(), number(), number(), number(), number());
        let places = proptest::collection::btree_set(0..900_u32, 0..20);
        let lacks = places.prop_map(|places| Lacks::new(900, places.into_iter()));
        let lacks = proptest::option::of(lacks);
        (numbers, proptest::collection::vec(text(20), 0..4), lacks).prop_map(
            |((written, unchanged, bytes, fixed, deleted, drift), warnings, lacks)| Pushed {
                written,
                unchanged,
                bytes,
                fixed,
                deleted,
                drift,
                warnings,
                lacks,
            },
        )
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let option = proptest::option::of::<BoxedStrategy<_>>;
        let output = || (bytes(40), number());
        let kept = || {
            let kept = (number(), digest()).prop_map(|(bytes, hash)| Kept { bytes, hash });
            proptest::option::of(kept)
        };
        let pushed = (proptest::option::of(pushed()), proptest::option::of(disted()));
        (output(), output(), option(fault().boxed()), pushed, kept(), kept()).prop_map(
            |(
                (stdout, more),
                (stderr, more_errors),
                fault,
                (push, dist),
                stdout_kept,
                stderr_kept,
            )| {
                Answer {
                    stdout_size: more.max(stdout.len() as u64),
                    stderr_size: more_errors.max(stderr.len() as u64),
                    stdout,
                    stderr,
                    fault,
                    push,
                    dist,
                    stdout_kept,
                    stderr_kept,
                }
            },
        )
    }

    fn disted() -> impl Strategy<Value = Disted> {
        let fault = || {
            (any::<u32>(), text(20))
                .prop_map(|(item, detail)| crate::dist::ItemFault { item, detail })
        };
        let faults = || proptest::collection::vec(fault(), 0..3);
        let list = proptest::collection::vec(any::<u32>(), 0..3);
        (faults(), list, faults(), faults()).prop_map(|(failed, superseded, commands, drifted)| {
            Disted { failed, superseded, commands, drifted }
        })
    }

    proptest! {
        #[test]
        fn round_trip(answer in answer()) {
            prop_assert_eq!(Answer::decode(answer.encode()), Ok(answer));
        }

        #[test]
        fn mangled_bytes_are_an_answer_or_an_error(bytes in mangle(answer(), Answer::encode)) {
            if let Ok(answer) = Answer::decode(bytes) {
                prop_assert_eq!(Answer::decode(answer.encode()), Ok(answer));
            }
        }
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = |letter: char| letter.to_string().repeat(FRAME_LIMIT);
        let huge = Answer {
            stdout: long('o').into(),
            stderr: long('e').into(),
            stdout_size: 0,
            stderr_size: 1 << 40,
            fault: Some(Fault {
                stage: long('s'),
                kind: long('ü'),
                detail: long('d'),
                path: long('p').into(),
            }),
            push: Some(Pushed { warnings: vec![long('w'); 1000], ..Pushed::default() }),
            ..Answer::default()
        };
        let bytes = huge.encode();
        assert!(bytes.len() <= ANSWER_LIMIT);
        let answer = Answer::decode(bytes).expect("it was encoded so");
        assert_eq!(answer.stdout.len(), OUTPUT_LIMIT as usize);
        assert_eq!((answer.stdout_size, answer.stderr_size), (FRAME_LIMIT as u64, 1 << 40));
        let fault = answer.fault.expect("it came along");
        assert_eq!((fault.stage.len(), fault.kind.as_str()), (64, "ü".repeat(32).as_str()));
        assert_eq!(
            answer.push.expect("it came along").warnings,
            vec![long('w')[..1024].to_owned(); 64]
        );
    }

    #[test]
    fn limits() {
        let check = |answer: pb::Answer, expected: &str| {
            let error = Answer::decode(answer.encode_to_vec().into()).expect_err("it is refused");
            assert_eq!(error.to_string(), expected);
        };
        let with_fault = |fault| pb::Answer { fault: Some(fault), ..Default::default() };
        let with_push = |push| pb::Answer { push: Some(push), ..Default::default() };
        check(
            pb::Answer { stdout: vec![0; 196_609].into(), ..Default::default() },
            "answer.stdout has 196609 bytes; the limit is 196608",
        );
        check(
            pb::Answer { stderr: vec![0; 9].into(), stderr_size: 8, ..Default::default() },
            "answer.stderr_size is 8 and must be from 9 to 18446744073709551615",
        );
        check(
            pb::Answer { stdout: vec![0; ANSWER_LIMIT].into(), ..Default::default() },
            "the answer has 524292 bytes; the limit is 524288",
        );
        check(
            with_fault(pb::Fault { kind: "k".repeat(65), ..Default::default() }),
            "fault.kind has 65 bytes; the limit is 64",
        );
        check(
            with_push(pb::Pushed { warnings: vec![String::new(); 65], ..Default::default() }),
            "pushed.warnings has 65 elements; the limit is 64",
        );
        assert_eq!(Answer::decode(Bytes::new()), Ok(Answer::default()));
    }
}
