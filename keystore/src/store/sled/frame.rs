//! What the store writes into its journal, one frame a transaction, and how records are stored in sled.
//!
//! All integers are big-endian; `lp(x)` is be32(length of x) || x. Every frame begins with the state after it:
//!
//! ```text
//! kind u8 | sled through 8 | snapshot 8 | bytes since snapshot 8 | revision 8 | records 8 | live bytes 8 | set hash 32
//! 01 transaction: time 8 | operation id 16 | fingerprint 32 | changes 4 | changes x ( 01 lp(key) lp(value) | 00 lp(key) )
//! 02 mark:        nothing
//! 03 snapshot:    start sequence 8 | start revision 8 | previous snapshot 8
//! ```
//!
//! So the last frame alone says where a replay starts, what must come out, and which snapshots there are.

use super::set_hash::SetHash;
use crate::store::{
    Operation,
    limits::{MAX_CHANGES, MAX_KEY_BYTES, MAX_VALUE_BYTES},
};

/// The longest frame: a transaction at every limit fits.
pub const MAX_FRAME_BYTES: usize =
    STATE_BYTES + 60 + MAX_CHANGES * 9 + crate::store::limits::MAX_TRANSACTION_BYTES;

const STATE_BYTES: usize = 1 + 6 * 8 + 32;
const TRANSACTION: u8 = 1;
const MARK: u8 = 2;
const SNAPSHOT: u8 = 3;

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The revision of the newest commit.
    pub revision: u64,
    /// How many records there are.
    pub records: u64,
    /// The bytes of all keys and stored values.
    pub live_bytes: u64,
    /// The set hash of all records.
    pub set_hash: SetHash,
}

impl State {
    /// Counts a record in.
    pub fn add(&mut self, key: &[u8], stored: &[u8]) {
        self.records = self.records.wrapping_add(1);
        self.live_bytes = self.live_bytes.wrapping_add(record_bytes(key, stored));
        self.set_hash.add(&SetHash::of(key, stored));
    }

    /// Counts a record out. The record was counted in before.
    pub fn remove(&mut self, key: &[u8], stored: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.live_bytes = self.live_bytes.wrapping_sub(record_bytes(key, stored));
        self.set_hash.subtract(&SetHash::of(key, stored));
    }

    /// Whether both hold the same records; the revision is left out, since a scan does not see it.
    #[must_use]
    pub fn same_records(&self, other: &State) -> bool {
        (self.records, self.live_bytes, self.set_hash)
            == (other.records, other.live_bytes, other.set_hash)
    }

    /// revision || records || live bytes || set hash: how sled keeps it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56);
        self.append_to(&mut out);
        out
    }

    /// Reads what [`State::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, FrameError> {
        let mut input = Input(bytes);
        let state = input.state()?;
        input.end()?;
        Ok(state)
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&self.records.to_be_bytes());
        out.extend_from_slice(&self.live_bytes.to_be_bytes());
        out.extend_from_slice(&self.set_hash.to_bytes());
    }
}

/// How many bytes a record counts for.
fn record_bytes(key: &[u8], stored: &[u8]) -> u64 {
    (key.len() + stored.len()) as u64
}

/// What the journal's tail is for: where replay starts and which snapshot is the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// sled is durable through this frame; replay starts after it. 0: before the first.
    pub sled_through: u64,
    /// The sequence of the newest snapshot frame; 0 if there is none.
    pub snapshot: u64,
    /// The bytes of frames after the start of the newest snapshot: when it is much, it is time for the next one.
    pub since_snapshot_bytes: u64,
}

/// A change of one key: the new stored value, or `None` for a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Which key.
    pub key: &'a [u8],
    /// Its new value, without the revision.
    pub value: Option<&'a [u8]>,
}

/// What a frame records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A commit. Its revision is that of the frame's state.
    Transaction {
        /// The operation.
        operation: Operation,
        /// When, in Unix seconds.
        time: u64,
        /// The changes, puts first.
        changes: Vec<Change<'a>>,
    },
    /// sled was made durable through [`Position::sled_through`].
    Mark,
    /// A snapshot was written, read back and found right.
    Snapshot {
        /// Every frame after this one must be replayed on top of the snapshot.
        start_sequence: u64,
        /// The revision at that frame, which names the file.
        start_revision: u64,
        /// The sequence of the snapshot frame before this one; 0 if there is none.
        previous: u64,
    },
}

/// One frame of the store's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where replay starts.
    pub position: Position,
    /// What the store holds after this frame.
    pub state: State,
    /// What happened.
    pub body: Body<'a>,
}

/// Why bytes are not one of our frames. Their checksum held, so they were written by another version or another
/// program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than what they say.
    #[error("it ends too early")]
    Truncated,
    /// Longer than what they say.
    #[error("it has {0} bytes too many")]
    TrailingBytes(usize),
    /// The first byte, or the first byte of a change, is none that we know.
    #[error("it is of the unknown kind {0}")]
    UnknownKind(u8),
    /// A length or number beyond the limits.
    #[error("a length in it is beyond the limits")]
    BeyondLimits,
}

impl<'a> Frame<'a> {
    /// The bytes of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(match self.body {
            Body::Transaction { .. } => TRANSACTION,
            Body::Mark => MARK,
            Body::Snapshot { .. } => SNAPSHOT,
        });
        out.extend_from_slice(&self.position.sled_through.to_be_bytes());
        out.extend_from_slice(&self.position.snapshot.to_be_bytes());
        out.extend_from_slice(&self.position.since_snapshot_bytes.to_be_bytes());
        self.state.append_to(&mut out);
        match &self.body {
            Body::Transaction {
                operation,
                time,
                changes,
            } => {
                out.extend_from_slice(&time.to_be_bytes());
                out.extend_from_slice(&operation.id);
                out.extend_from_slice(&operation.fingerprint);
                append_length(&mut out, changes.len());
                for change in changes {
                    out.push(u8::from(change.value.is_some()));
                    append_lp(&mut out, change.key);
                    if let Some(value) = change.value {
                        append_lp(&mut out, value);
                    }
                }
            }
            Body::Mark => {}
            Body::Snapshot {
                start_sequence,
                start_revision,
                previous,
            } => {
                for number in [start_sequence, start_revision, previous] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
        out
    }

    /// Reads a frame strictly: exactly these bytes, everything within the limits.
    pub fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let mut input = Input(bytes);
        let kind = input.u8()?;
        let position = Position {
            sled_through: input.u64()?,
            snapshot: input.u64()?,
            since_snapshot_bytes: input.u64()?,
        };
        let state = input.state()?;
        let body = match kind {
            TRANSACTION => {
                let time = input.u64()?;
                let operation = Operation {
                    id: input.array()?,
                    fingerprint: input.array()?,
                };
                let number = input.length(MAX_CHANGES)?;
                let mut changes = Vec::with_capacity(number);
                for _ in 0..number {
                    changes.push(input.change()?);
                }
                Body::Transaction {
                    operation,
                    time,
                    changes,
                }
            }
            MARK => Body::Mark,
            SNAPSHOT => Body::Snapshot {
                start_sequence: input.u64()?,
                start_revision: input.u64()?,
                previous: input.u64()?,
            },
            other => return Err(FrameError::UnknownKind(other)),
        };
        input.end()?;
        Ok(Frame {
            position,
            state,
            body,
        })
    }
}

/// be64(revision) || value: a record as sled and snapshots hold it.
#[must_use]
pub fn encode_stored(revision: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + value.len());
    out.extend_from_slice(&revision.to_be_bytes());
    out.extend_from_slice(value);
    out
}

/// The revision and the value of a stored record.
pub fn decode_stored(stored: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let mut input = Input(stored);
    let revision = input.u64()?;
    if input.0.len() > MAX_VALUE_BYTES {
        return Err(FrameError::BeyondLimits);
    }
    Ok((revision, input.0))
}

/// The remembered outcome of an operation id: time 8 | revision 8 | fingerprint 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it was committed, in Unix seconds.
    pub time: u64,
    /// The revision of the commit.
    pub revision: u64,
    /// What was intended.
    pub fingerprint: [u8; 32],
}

impl Outcome {
    /// The bytes of the outcome.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&self.fingerprint);
        out
    }

    /// Reads what [`Outcome::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Outcome, FrameError> {
        let mut input = Input(bytes);
        let outcome = Outcome {
            time: input.u64()?,
            revision: input.u64()?,
            fingerprint: input.array()?,
        };
        input.end()?;
        Ok(outcome)
    }
}

/// Appends lp(bytes).
pub(super) fn append_lp(out: &mut Vec<u8>, bytes: &[u8]) {
    append_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn append_length(out: &mut Vec<u8>, length: usize) {
    // Every length that is written is within the limits, far below 2^32; a wrong one would be refused on reading.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// The rest of the input of a strict reader.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (head, tail) = self
            .0
            .split_at_checked(length)
            .ok_or(FrameError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, tail) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(FrameError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    fn length(&mut self, limit: usize) -> Result<usize, FrameError> {
        let length = self.array().map(u32::from_be_bytes)?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= limit)
            .ok_or(FrameError::BeyondLimits)
    }

    pub(super) fn lp(&mut self, limit: usize) -> Result<&'a [u8], FrameError> {
        let length = self.length(limit)?;
        self.bytes(length)
    }

    pub(super) fn key(&mut self) -> Result<&'a [u8], FrameError> {
        self.lp(MAX_KEY_BYTES).and_then(|key| {
            if key.is_empty() {
                Err(FrameError::BeyondLimits)
            } else {
                Ok(key)
            }
        })
    }

    fn change(&mut self) -> Result<Change<'a>, FrameError> {
        match self.u8()? {
            0 => Ok(Change {
                key: self.key()?,
                value: None,
            }),
            1 => Ok(Change {
                key: self.key()?,
                value: Some(self.lp(MAX_VALUE_BYTES)?),
            }),
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    fn state(&mut self) -> Result<State, FrameError> {
        Ok(State {
            revision: self.u64()?,
            records: self.u64()?,
            live_bytes: self.u64()?,
            set_hash: SetHash::from_bytes(&self.array()?),
        })
    }

    pub(super) fn end(&self) -> Result<(), FrameError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FrameError::TrailingBytes(self.0.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_frame(body: Body<'_>) -> Frame<'_> {
        let mut state = State {
            revision: 7,
            ..State::default()
        };
        state.add(b"k", b"stored");
        Frame {
            position: Position {
                sled_through: 3,
                snapshot: 2,
                since_snapshot_bytes: 99,
            },
            state,
            body,
        }
    }

    fn make_frames() -> Vec<Frame<'static>> {
        vec![
            make_frame(Body::Mark),
            make_frame(Body::Snapshot {
                start_sequence: 1,
                start_revision: 2,
                previous: 3,
            }),
            make_frame(Body::Transaction {
                operation: Operation {
                    id: [4; 16],
                    fingerprint: [5; 32],
                },
                time: 6,
                changes: vec![
                    Change {
                        key: b"key",
                        value: Some(b"value"),
                    },
                    Change {
                        key: b"gone",
                        value: None,
                    },
                ],
            }),
        ]
    }

    #[test]
    fn every_kind_of_frame_round_trips() {
        for frame in make_frames() {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(&bytes), Ok(frame));
        }
    }

    #[test]
    fn truncated_and_extended_frames_are_refused() {
        for frame in make_frames() {
            let mut bytes = frame.encode();
            for length in 0..bytes.len() {
                assert!(
                    Frame::decode(&bytes[..length]).is_err(),
                    "{length} bytes of {frame:?}"
                );
            }
            bytes.push(0);
            assert_eq!(Frame::decode(&bytes), Err(FrameError::TrailingBytes(1)));
        }
    }

    #[test]
    fn unknown_kinds_empty_keys_and_too_long_values_are_refused() {
        let mut bytes = make_frame(Body::Mark).encode();
        bytes[0] = 4;
        assert_eq!(Frame::decode(&bytes), Err(FrameError::UnknownKind(4)));
        let operation = Operation {
            id: [0; 16],
            fingerprint: [0; 32],
        };
        let long = vec![0; MAX_VALUE_BYTES + 1];
        for (key, value) in [(&b""[..], &b"v"[..]), (&b"k"[..], &long)] {
            let changes = vec![Change {
                key,
                value: Some(value),
            }];
            let bytes = make_frame(Body::Transaction {
                operation,
                time: 0,
                changes,
            })
            .encode();
            assert_eq!(Frame::decode(&bytes), Err(FrameError::BeyondLimits));
        }
    }

    #[test]
    fn stored_records_and_outcomes_round_trip() {
        assert_eq!(decode_stored(&encode_stored(9, b"v")), Ok((9, &b"v"[..])));
        assert_eq!(decode_stored(&[0; 7]), Err(FrameError::Truncated));
        let outcome = Outcome {
            time: 1,
            revision: 2,
            fingerprint: [3; 32],
        };
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
        assert!(Outcome::decode(&outcome.encode()[1..]).is_err());
    }
}
