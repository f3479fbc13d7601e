//! A group of transactions on its way into one append: validated against the index and the commits before it in the
//! same group, not yet durable.

use std::collections::HashMap;

use bytes::Bytes;
use fieldkeep_journal::AppendError;

use super::{
    frame::{
        Body, Change, Frame, MAX_FRAME_BYTES, Outcome, Position, State, decode_stored,
        encode_stored,
    },
    index::{Index, IndexError, Update},
};
use crate::store::{CommitError, Committed, Event, Transaction};

/// Why the journal took nothing of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSpace,
    Busy,
    /// A group has so many bytes of frames, which segments of the least size would hold.
    TooLarge(usize),
}

impl Refusal {
    /// What an append of so many bytes that failed means; `None` if the journal has failed.
    pub(super) fn of(error: AppendError, bytes: usize) -> Option<Refusal> {
        match error {
            AppendError::NoSpace => Some(Refusal::NoSpace),
            AppendError::Busy => Some(Refusal::Busy),
            AppendError::TooLarge => Some(Refusal::TooLarge(bytes)),
            _ => None,
        }
    }

    fn error(self) -> CommitError {
        match self {
            Refusal::NoSpace => CommitError::NoSpace,
            Refusal::Busy => CommitError::Busy,
            Refusal::TooLarge(actual) => CommitError::TooLarge {
                what: "group in the journal in bytes",
                actual,
                limit: MAX_FRAME_BYTES,
            },
        }
    }
}

/// What becomes of one transaction of the group.
pub(super) struct Verdict {
    result: Result<Committed, CommitError>,
    /// Whether it rests on a commit of this group, and so only holds once that is durable.
    rests_on_group: bool,
}

impl Verdict {
    /// The answer once the group is durable.
    pub(super) fn durable(self) -> Result<Committed, CommitError> {
        self.result
    }

    /// The answer when the journal took nothing of the group.
    pub(super) fn refused(self, why: Refusal) -> Result<Committed, CommitError> {
        if self.rests_on_group {
            Err(why.error())
        } else {
            self.result
        }
    }
}

/// The group.
pub(super) struct Group {
    /// What the store holds after the group.
    pub(super) state: State,
    /// The position that frames carry, with the bytes of this group counted in.
    pub(super) position: Position,
    /// The frames to append, one a commit.
    pub(super) frames: Vec<Vec<u8>>,
    /// The events of each commit.
    pub(super) events: Vec<Vec<Event>>,
    /// The stored value of every changed key after the group; `None` if it was deleted.
    changed: HashMap<Bytes, Option<Vec<u8>>>,
    outcomes: HashMap<[u8; 16], Outcome>,
    /// The time of each commit whose operation id is remembered, in Unix seconds.
    pub(super) times: Vec<u64>,
}

impl Group {
    pub(super) fn new(state: State, position: Position) -> Self {
        Group {
            state,
            position,
            frames: Vec::new(),
            events: Vec::new(),
            changed: HashMap::new(),
            outcomes: HashMap::new(),
            times: Vec::new(),
        }
    }

    /// Decides about a transaction, and takes it into the group if it is good.
    pub(super) fn add(
        &mut self,
        index: &Index,
        transaction: Transaction,
    ) -> Result<Verdict, IndexError> {
        let verdict = |result, rests_on_group| {
            Ok(Verdict {
                result,
                rests_on_group,
            })
        };
        let operation = transaction.operation;
        let in_group = self.outcomes.get(&operation.id).copied();
        let seen = match in_group {
            Some(outcome) => Some(outcome),
            None if operation.is_once() => None,
            None => index.outcome(&operation.id)?,
        };
        if let Some(outcome) = seen {
            let result = if outcome.fingerprint == operation.fingerprint {
                Ok(Committed {
                    revision: outcome.revision,
                    repeated: true,
                })
            } else {
                Err(CommitError::OperationReused)
            };
            return verdict(result, in_group.is_some());
        }
        for (key, expected) in &transaction.expect {
            if self.revision_of(index, key)? != *expected {
                return verdict(
                    Err(CommitError::Conflict { key: key.clone() }),
                    self.changed.contains_key(key),
                );
            }
        }
        let revision = self.accept(index, transaction)?;
        verdict(
            Ok(Committed {
                revision,
                repeated: false,
            }),
            true,
        )
    }

    fn accept(&mut self, index: &Index, transaction: Transaction) -> Result<u64, IndexError> {
        let Transaction {
            operation,
            puts,
            deletes,
            now,
            ..
        } = transaction;
        let mut state = self.state;
        state.revision += 1;
        let revision = state.revision;
        let mut events = Vec::with_capacity(puts.len() + deletes.len());
        for (key, value) in puts {
            if let Some(old) = self.stored(index, &key)? {
                state.remove(&key, &old);
            }
            let stored = encode_stored(revision, &value);
            state.add(&key, &stored);
            events.push((
                Event {
                    revision,
                    key,
                    value: Some(value),
                },
                Some(stored),
            ));
        }
        for key in deletes {
            // Deleting what is not there is no change.
            if let Some(old) = self.stored(index, &key)? {
                state.remove(&key, &old);
                events.push((
                    Event {
                        revision,
                        key,
                        value: None,
                    },
                    None,
                ));
            }
        }
        let changes = events
            .iter()
            .map(|(event, _)| Change {
                key: &event.key,
                value: event.value.as_deref(),
            })
            .collect();
        let frame = Frame {
            position: self.position,
            state,
            body: Body::Transaction {
                operation,
                time: now,
                changes,
            },
        };
        let frame = frame.encode();
        self.position.since_snapshot_bytes += frame.len() as u64;
        self.frames.push(frame);
        self.state = state;
        if !operation.is_once() {
            self.times.push(now);
            self.outcomes.insert(
                operation.id,
                Outcome {
                    time: now,
                    revision,
                    fingerprint: operation.fingerprint,
                },
            );
        }
        let events = events.into_iter().map(|(event, stored)| {
            self.changed.insert(event.key.clone(), stored);
            event
        });
        self.events.push(events.collect());
        Ok(revision)
    }

    /// The whole group as one update of the index.
    pub(super) fn update(&mut self) -> Update {
        let mut update = Update::default();
        for (key, stored) in self.changed.drain() {
            match stored {
                Some(stored) => update.put(&key, stored),
                None => update.delete(&key),
            }
        }
        for (id, outcome) in self.outcomes.drain() {
            update.remember(&id, &outcome);
        }
        update.set_state(&self.state);
        update
    }

    fn stored(&self, index: &Index, key: &Bytes) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changed.get(key) {
            Some(stored) => Ok(stored.clone()),
            None => Ok(index.stored(key)?.map(|stored| stored.to_vec())),
        }
    }

    fn revision_of(&self, index: &Index, key: &Bytes) -> Result<Option<u64>, IndexError> {
        let Some(stored) = self.stored(index, key)? else {
            return Ok(None);
        };
        let (revision, _) = decode_stored(&stored).map_err(|_| IndexError::Damaged(key.clone()))?;
        Ok(Some(revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_journal_did_not_take_is_refused_and_not_fatal() {
        let refused = |error| {
            let refusal = Refusal::of(error, 7).unwrap();
            let verdict = Verdict {
                result: Ok(Committed {
                    revision: 1,
                    repeated: false,
                }),
                rests_on_group: true,
            };
            verdict.refused(refusal).unwrap_err()
        };
        assert!(matches!(
            refused(AppendError::NoSpace),
            CommitError::NoSpace
        ));
        assert!(matches!(refused(AppendError::Busy), CommitError::Busy));
        assert!(matches!(
            refused(AppendError::TooLarge),
            CommitError::TooLarge { actual: 7, .. }
        ));
        assert_eq!(Refusal::of(AppendError::Closed, 7), None);
    }
}
