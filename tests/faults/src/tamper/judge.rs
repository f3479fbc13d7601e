//! Whether what is said of a damaged trail is right, and how many times it was what.

use std::{collections::BTreeMap, fmt};

use fieldkeep::audit::verify::{Verified, VerifyError};
use fieldkeep_journal::OfflineError;

use super::{
    damage::{Damage, Expect, Kind},
    trail::Trail,
};

/// What is to be said of one damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is found, and the first wrong record, or the file, is named.
    Named,
    /// It is found. Its record is within the range that is named, since no tile has its hash: within a commit, a file of the journal, or what
    /// was read.
    Within,
    /// It is found, but there is no record to name.
    Found,
    /// Nothing that counts was changed; why.
    Harmless(&'static str),
    /// The directory alone cannot tell; why.
    Limit(&'static str),
    /// Something is wrong with us.
    Wrong(String),
}

/// Where an error says that the first wrong record is.
enum Place {
    Record(u64),
    /// From this one up to, but not with, that one.
    Range(u64, u64),
    Checkpoint,
    Nowhere,
}

/// Judges what a verification said.
pub(crate) fn judge(
    trail: &Trail,
    damage: &Damage,
    said: &Result<Verified, VerifyError>,
) -> Verdict {
    let wrong = || Verdict::Wrong(format!("{:?}: {said:?}", damage.expect));
    match (&damage.expect, said) {
        (Expect::Record(wanted), Err(error)) => {
            let first = *wanted.start();
            match place(damage, error) {
                Place::Record(index) if wanted.contains(&index) => Verdict::Named,
                Place::Range(from, to)
                    if !trail.has_tile(first) && from <= *wanted.end() && first < to =>
                {
                    Verdict::Within
                }
                // Where records were shifted and no hash says which, the end of their file is where it shows.
                Place::Record(index)
                    if !trail.has_tile(first)
                        && (first..=damage.segment.records.end + 1).contains(&index) =>
                {
                    Verdict::Within
                }
                _ => wrong(),
            }
        }
        (Expect::BeginsAt(first), Ok(verified)) if verified.first == *first => Verdict::Named,
        (Expect::FirstHeader, Err(_)) => Verdict::Found,
        (Expect::NoCheckpoint, Err(error)) => match place(damage, error) {
            Place::Checkpoint => Verdict::Named,
            _ => wrong(),
        },
        (Expect::Harmless(why), Ok(verified)) if is_genuine(trail, damage, verified) => {
            Verdict::Harmless(why)
        }
        (Expect::Unimportant(why), _) => Verdict::Harmless(why),
        (Expect::Limit(why), Ok(_)) => Verdict::Limit(why),
        _ => wrong(),
    }
}

/// Whether the checkpoint that was believed is one that the service signed; the one that was kept, if one was.
fn is_genuine(trail: &Trail, damage: &Damage, verified: &Verified) -> bool {
    let found = verified.checkpoint;
    match damage.newest_is_kept {
        true => found == trail.newest().head,
        false => found == trail.newest().head || found == trail.behind.head,
    }
}

fn place(damage: &Damage, error: &VerifyError) -> Place {
    match error {
        VerifyError::Damaged { index, .. }
        | VerifyError::NoRecord { index, .. }
        | VerifyError::Changed { index, .. }
        | VerifyError::Differs { index, .. }
        | VerifyError::Truncated { found: index, .. } => Place::Record(*index),
        VerifyError::ChangedWithin { from, to } | VerifyError::ChangedOrHashes { from, to } => {
            Place::Range(*from, *to)
        }
        // Of a commit that lost its last record, that is behind what is left of it.
        VerifyError::Forged { from, last } => Place::Range(*from, last + 2),
        VerifyError::NoCheckpoint => Place::Checkpoint,
        VerifyError::Journal(OfflineError::Version { path, .. })
            if damage.files.iter().any(|(name, _)| path.ends_with(name)) =>
        {
            Place::Record(damage.segment.records.start)
        }
        VerifyError::Journal(_)
        | VerifyError::OtherLog { .. }
        | VerifyError::Pruned { .. }
        | VerifyError::Checkpoint(_)
        | VerifyError::Archive(_)
        | VerifyError::Io(_) => Place::Nowhere,
    }
}

/// Counts of one kind.
#[derive(Default)]
struct Counts {
    named: u64,
    within: u64,
    found: u64,
    harmless: u64,
    limit: u64,
    wrong: u64,
}

/// Counts of all.
#[derive(Default)]
pub(crate) struct Tally {
    kinds: BTreeMap<Kind, Counts>,
    reasons: BTreeMap<&'static str, u64>,
    limits: BTreeMap<&'static str, u64>,
    /// Starts of the service's own code on a damaged trail, and those that did not do as they must.
    pub(crate) starts: u64,
    pub(crate) wrong_starts: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, kind: Kind, verdict: &Verdict) {
        let counts = self.kinds.entry(kind).or_default();
        match verdict {
            Verdict::Named => counts.named += 1,
            Verdict::Within => counts.within += 1,
            Verdict::Found => counts.found += 1,
            Verdict::Harmless(why) => {
                counts.harmless += 1;
                *self.reasons.entry(why).or_default() += 1;
            }
            Verdict::Limit(why) => {
                counts.limit += 1;
                *self.limits.entry(why).or_default() += 1;
            }
            Verdict::Wrong(_) => counts.wrong += 1,
        }
    }

    pub(crate) fn join(&mut self, other: Tally) {
        for (kind, counts) in other.kinds {
            let own = self.kinds.entry(kind).or_default();
            own.named += counts.named;
            own.within += counts.within;
            own.found += counts.found;
            own.harmless += counts.harmless;
            own.limit += counts.limit;
            own.wrong += counts.wrong;
        }
        for (why, count) in other.reasons {
            *self.reasons.entry(why).or_default() += count;
        }
        for (why, count) in other.limits {
            *self.limits.entry(why).or_default() += count;
        }
        self.starts += other.starts;
        self.wrong_starts += other.wrong_starts;
    }

    fn total(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.kinds.values().map(of).sum()
    }

    /// Damages that were not found, not located, or found where there was none; and starts that went wrong.
    pub(crate) fn wrong(&self) -> u64 {
        self.total(|counts| counts.wrong) + self.wrong_starts
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, counts) in &self.kinds {
            writeln!(
                f,
                "  {kind:?}: {} named, {} within a range, {} found without a record to name, {} harmless, {} beyond what can be told, {} wrong",
                counts.named,
                counts.within,
                counts.found,
                counts.harmless,
                counts.limit,
                counts.wrong
            )?;
        }
        for (why, count) in &self.reasons {
            writeln!(f, "  harmless, {count}: {why}")?;
        }
        for (why, count) in &self.limits {
            writeln!(f, "  beyond what the directory can tell, {count}: {why}")?;
        }
        let caught = self.total(|counts| counts.named + counts.within + counts.found);
        let harmless = self.total(|counts| counts.harmless);
        let limit = self.total(|counts| counts.limit);
        write!(
            f,
            "{caught} caught, {harmless} harmless, {limit} beyond what can be told, {} starts; {} wrong",
            self.starts,
            self.wrong()
        )
    }
}
