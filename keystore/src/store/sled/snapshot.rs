//! Snapshots of all records, so that the journal's older part can go.
//!
//! A snapshot is **fuzzy**: it is written by a thread of its own while commits go on, and holds for each key some value
//! between its start and its end. Frames hold absolute values, so replaying every frame after the *start* makes
//! it exact, whatever it saw. Before a snapshot counts it is read back from disk and checked: together with the
//! frames between start and end it must give the record count and set hash of the frame at its end.
//!
//! A file is a snapshot of the journal crate (framed, checksummed, strict) whose payloads are:
//!
//! ```text
//! 10 head:       version u8 = 1 | start sequence 8 | start revision 8
//! 11 records:    ( lp(key) lp(stored value) )*
//! 12 operations: ( operation id 16 | outcome 48 )*
//! 13 end:        number of records 8 | number of operations 8
//! ```

use std::{
    collections::HashMap,
    fs, io, iter,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use fieldkeep_journal::{self as journal, Journal, ReadError, SnapshotError};

use super::{
    frame::{Body, Frame, FrameError, Input, Outcome, State, append_lp, encode_stored},
    index::{Index, IndexError, is_storage_full},
    layout::{free_bytes, make_dir},
};
use crate::store::limits::MAX_VALUE_BYTES;

const HEAD: u8 = 0x10;
const RECORDS: u8 = 0x11;
const OPERATIONS: u8 = 0x12;
const END: u8 = 0x13;
const VERSION: u8 = 1;
/// A payload is closed once it has this many bytes.
const PART_BYTES: usize = 64 * 1024;

/// Where a snapshot starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Everything through this frame is in the snapshot; frames after it are replayed on top.
    pub sequence: u64,
    /// The revision at that frame. It names the file.
    pub revision: u64,
}

/// One payload of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first payload.
    Head(Start),
    /// Keys and stored values.
    Records(Vec<(&'a [u8], &'a [u8])>),
    /// Operation ids and their outcomes.
    Operations(Vec<([u8; 16], Outcome)>),
    /// The last payload: the numbers of records and operations before it.
    End(u64, u64),
}

/// Reads one payload of a snapshot strictly.
pub fn decode_part(bytes: &[u8]) -> Result<Part<'_>, FrameError> {
    let mut input = Input(bytes);
    let part = match input.u8()? {
        HEAD => {
            let version = input.u8()?;
            if version != VERSION {
                return Err(FrameError::UnknownKind(version));
            }
            Part::Head(Start {
                sequence: input.u64()?,
                revision: input.u64()?,
            })
        }
        RECORDS => {
            let mut records = Vec::new();
            while !input.0.is_empty() {
                let key = input.key()?;
                let stored = input.lp(8 + MAX_VALUE_BYTES)?;
                if stored.len() < 8 {
                    return Err(FrameError::Truncated);
                }
                records.push((key, stored));
            }
            Part::Records(records)
        }
        OPERATIONS => {
            let mut operations = Vec::new();
            while !input.0.is_empty() {
                operations.push((input.array()?, Outcome::decode(input.bytes(48)?)?));
            }
            Part::Operations(operations)
        }
        END => Part::End(input.u64()?, input.u64()?),
        other => return Err(FrameError::UnknownKind(other)),
    };
    input.end()?;
    Ok(part)
}

/// Why a snapshot cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    File(#[from] SnapshotError),
    #[error("{0}")]
    Index(#[from] IndexError),
    #[error("{0}")]
    Journal(#[from] ReadError),
    #[error("a payload is not one of a snapshot: {0}")]
    Part(#[from] FrameError),
    #[error("its parts are not in order")]
    OutOfOrder,
    #[error("records and set hash are not those of the journal")]
    Mismatch,
    #[error("cannot remove or rename a file: {0}")]
    Io(#[from] io::Error),
}

/// The file of the snapshot that starts at a revision.
pub(super) fn path_of(dir: &Path, start: Start) -> PathBuf {
    dir.join(format!("snapshot-{:016x}.seg", start.revision))
}

/// What a snapshot is made of.
pub(super) struct Plan {
    pub(super) start: Start,
    /// Operation ids older than this, in Unix seconds, are left out.
    pub(super) oldest_kept: u64,
    /// The store at the start.
    pub(super) state: State,
    /// What must stay free on the disk of the index.
    pub(super) min_free_bytes: u64,
}

/// The most bytes that a file takes with the records of a state and so many operation ids: each with its lengths, and a
/// frame around each payload.
pub(super) fn file_bytes(state: &State, operations: u64) -> u64 {
    const FRAME_BYTES: u64 = 128;
    let entries = (state.live_bytes)
        .saturating_add(state.records.saturating_mul(8))
        .saturating_add(operations.saturating_mul(64));
    let frames = entries / PART_BYTES as u64 + 8;
    entries.saturating_add(frames.saturating_mul(FRAME_BYTES))
}

/// Makes a directory for a file of so many bytes, for which it must have room.
fn make_room(dir: &Path, bytes: u64) -> Result<(), Failure> {
    let no_space = || {
        let path = dir.to_path_buf();
        Failure::File(SnapshotError::NoSpace { path })
    };
    match make_dir(dir) {
        Err(error) if is_storage_full(&error) => return Err(no_space()),
        made => made?,
    }
    if free_bytes(dir).is_some_and(|free| free < bytes) {
        return Err(no_space());
    }
    Ok(())
}

/// Writes a snapshot, reads it back and checks it. `dirs` are the directory and, if there is one, its mirror.
pub(super) fn make(
    dirs: &[PathBuf],
    index: &Index,
    journal: &Journal,
    plan: &Plan,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let [dir, mirrors @ ..] = dirs else {
        return Ok(());
    };
    let start = plan.start;
    let path = path_of(dir, start);
    let mut operations = 0;
    for outcome in index.outcomes(&[]) {
        outcome?;
        operations += 1;
    }
    let bytes = file_bytes(&plan.state, operations);
    make_room(dir, bytes.saturating_add(plan.min_free_bytes))?;
    journal::write_snapshot(
        &path,
        start.revision,
        unless(stop, payloads(index, start, plan.oldest_kept)),
    )?;
    // Whatever the pass over the index saw had been applied, so it had been durable in the journal before.
    let end = journal.durable();
    verify(&path, journal, plan, end)?;
    for mirror in mirrors {
        make_room(mirror, bytes)?;
        let copy = journal::read_snapshot(&path)?.map(|payload| payload.map_err(io::Error::other));
        let path = path_of(mirror, start);
        journal::write_snapshot(&path, start.revision, unless(stop, copy))?;
        verify(&path, journal, plan, end)?;
    }
    Ok(())
}

/// Checks that a snapshot with the frames (start, end] gives the state after the frame `end`, or the state at the start if
/// there are none.
///
/// The frame at the start is not read. It is a mark as often as not, and nobody waits for those: `end` may be before it.
fn verify(path: &Path, journal: &Journal, plan: &Plan, end: u64) -> Result<(), Failure> {
    let start = plan.start;
    // The newest value of every key that changed since the start; the snapshot's own is ignored for those.
    let mut tail: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
    let mut expected = plan.state;
    for frame in journal.read(start.sequence + 1)? {
        let (sequence, payload) = frame?;
        if sequence > end {
            break;
        }
        let frame = Frame::decode(&payload)?;
        expected = frame.state;
        if let Body::Transaction { changes, .. } = &frame.body {
            for change in changes {
                let stored = change
                    .value
                    .map(|value| encode_stored(frame.state.revision, value));
                tail.insert(change.key.to_vec(), stored);
            }
        }
    }
    let mut found = State::default();
    read(path, start, &mut |part| {
        if let Part::Records(records) = part {
            for (key, stored) in records.iter().filter(|(key, _)| !tail.contains_key(*key)) {
                found.add(key, stored);
            }
        }
        Ok(())
    })?;
    for (key, stored) in &tail {
        if let Some(stored) = stored {
            found.add(key, stored);
        }
    }
    if found.same_records(&expected) {
        Ok(())
    } else {
        Err(Failure::Mismatch)
    }
}

/// Reads a whole snapshot strictly and gives each part of records and operations to `take`.
pub(super) fn read(
    path: &Path,
    start: Start,
    take: &mut dyn FnMut(Part<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut payloads = journal::read_snapshot(path)?;
    let head = payloads.next().ok_or(Failure::OutOfOrder)??;
    if decode_part(&head)? != Part::Head(start) {
        return Err(Failure::OutOfOrder);
    }
    let (mut records, mut operations) = (0, 0);
    let mut ended = false;
    for payload in payloads {
        let payload = payload?;
        let part = decode_part(&payload)?;
        if ended {
            return Err(Failure::OutOfOrder);
        }
        match &part {
            Part::Head(_) => return Err(Failure::OutOfOrder),
            Part::Records(more) => records += more.len() as u64,
            Part::Operations(more) => operations += more.len() as u64,
            Part::End(r, o) if (*r, *o) == (records, operations) => ended = true,
            Part::End(..) => return Err(Failure::Mismatch),
        }
        take(part)?;
    }
    if ended {
        Ok(())
    } else {
        Err(Failure::OutOfOrder)
    }
}

/// Lets the store close without waiting for a whole snapshot.
fn unless<T>(
    stop: &AtomicBool,
    payloads: impl Iterator<Item = io::Result<T>>,
) -> impl Iterator<Item = io::Result<T>> {
    payloads.map(|payload| {
        if stop.load(Ordering::Relaxed) {
            Err(io::Error::from(io::ErrorKind::Interrupted))
        } else {
            payload
        }
    })
}

/// The payloads of a snapshot of the index.
fn payloads(
    index: &Index,
    start: Start,
    oldest_kept: u64,
) -> impl Iterator<Item = io::Result<Vec<u8>>> + use<> {
    let mut head = vec![HEAD, VERSION];
    head.extend_from_slice(&start.sequence.to_be_bytes());
    head.extend_from_slice(&start.revision.to_be_bytes());
    let mut records = index.records().fuse();
    let mut operations = index
        .outcomes(&[])
        .filter(move |entry| match entry {
            Ok((_, outcome)) => {
                Outcome::decode(outcome).is_ok_and(|outcome| outcome.time >= oldest_kept)
            }
            Err(_) => true,
        })
        .fuse();
    let (mut record_count, mut operation_count) = (0_u64, 0_u64);
    let mut head = Some(head);
    let mut ended = false;
    iter::from_fn(move || {
        if ended {
            return None;
        }
        if let Some(head) = head.take() {
            return Some(Ok(head));
        }
        let part = part(
            RECORDS,
            &mut records,
            &mut record_count,
            |out, key, stored| {
                append_lp(out, key);
                append_lp(out, stored);
            },
        );
        if part.is_some() {
            return part;
        }
        let part = self::part(
            OPERATIONS,
            &mut operations,
            &mut operation_count,
            |out, id, outcome| {
                out.extend_from_slice(id);
                out.extend_from_slice(outcome);
            },
        );
        if part.is_some() {
            return part;
        }
        ended = true;
        let mut end = vec![END];
        end.extend_from_slice(&record_count.to_be_bytes());
        end.extend_from_slice(&operation_count.to_be_bytes());
        Some(Ok(end))
    })
}

/// The next payload of entries, or `None` after the last.
fn part(
    kind: u8,
    entries: &mut impl Iterator<Item = Result<(::sled::IVec, ::sled::IVec), IndexError>>,
    count: &mut u64,
    append: impl Fn(&mut Vec<u8>, &[u8], &[u8]),
) -> Option<io::Result<Vec<u8>>> {
    let mut out = vec![kind];
    while out.len() < PART_BYTES {
        match entries.next() {
            Some(Ok((key, value))) => {
                append(&mut out, &key, &value);
                *count += 1;
            }
            Some(Err(error)) => return Some(Err(io::Error::other(error))),
            None if out.len() == 1 => return None,
            None => break,
        }
    }
    Some(Ok(out))
}

/// Copies each snapshot that one directory lacks from another: after a mirror was added, or one of the two was lost.
pub(super) fn complete(dirs: &[PathBuf], generations: &[Start]) {
    for start in generations {
        let paths: Vec<PathBuf> = dirs.iter().map(|dir| path_of(dir, *start)).collect();
        let Some(there) = paths.iter().find(|path| path.exists()) else {
            continue;
        };
        for missing in paths.iter().filter(|path| !path.exists()) {
            if let Err(error) = copy(there, missing, *start) {
                // The other one, and the journal, still have everything; the next snapshot goes to both again.
                tracing::warn!(%error, path = %missing.display(), "a snapshot could not be copied");
            }
        }
    }
}

fn copy(from: &Path, to: &Path, start: Start) -> Result<(), Failure> {
    to.parent().map_or(Ok(()), make_dir)?;
    let payloads = journal::read_snapshot(from)?.map(|payload| payload.map_err(io::Error::other));
    journal::write_snapshot(to, start.revision, payloads)?;
    Ok(())
}

/// Removes every file in a snapshot directory that is not one of these generations.
pub(super) fn keep_only(dir: &Path, generations: &[Start]) -> io::Result<()> {
    let keep: Vec<PathBuf> = generations
        .iter()
        .map(|start| path_of(dir, *start))
        .collect();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let ours = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("snapshot-"));
        if ours && !keep.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
