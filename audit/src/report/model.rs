//! What a report says. The JSON form is this structure, member for member, so that the same records make the same bytes.

use std::io;

use serde::Serialize;

use super::table::{Sums, Tally};
use crate::export::words::Time;

/// The name and version of the JSON form.
pub const FORMAT: &str = "fieldkeep-audit-report/1";

/// A report.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) format: &'static str,
    pub(super) range: Span,
    pub(super) basis: Foundation,
    pub(super) totals: Totals,
    pub(super) activity: Activity,
    pub(super) principals: Top<PrincipalKey, PrincipalSum>,
    pub(super) decrypts: Top<FieldKey, Use>,
    pub(super) other_data_calls: Top<ActKey, Use>,
    pub(super) refusals: Top<RefusalKey, Refusal>,
    pub(super) grants: Listed<Act>,
    pub(super) acts: Listed<Act>,
    pub(super) overdue: Listed<Overdue>,
}

impl Report {
    /// Writes the report as JSON, two spaces an indent, with a line end.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn write_json(&self, out: &mut impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

/// Adds, and stays at the end of the range of numbers, where only a log that no service wrote comes.
pub(super) fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// The range of time: from `from` to just before `to`.
#[derive(Debug, Serialize)]
pub(super) struct Span {
    pub(super) from: Time,
    pub(super) from_us: u64,
    pub(super) to: Time,
    pub(super) to_us: u64,
}

/// What the report rests on.
#[derive(Debug, Serialize)]
pub(super) struct Foundation {
    pub(super) log_id: String,
    pub(super) checkpoint: String,
    pub(super) records: u64,
    pub(super) first_index: Option<u64>,
    pub(super) last_index: Option<u64>,
}

/// Sums over all calls.
#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    /// `answered + failed + refused`.
    pub(super) calls: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) reads: u64,
    pub(super) acts: u64,
    pub(super) decrypt: Use,
    pub(super) encrypt: Use,
    pub(super) re_encrypt: Use,
    pub(super) index: Use,
}

/// How often and how much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Use {
    /// All calls, however they ended.
    pub(super) calls: u64,
    /// Values in calls that were answered; those that failed and those that were masked are among them.
    pub(super) items: u64,
    pub(super) items_failed: u64,
    pub(super) items_masked: u64,
    pub(super) calls_refused: u64,
    pub(super) items_refused: u64,
    pub(super) calls_failed: u64,
}

impl Use {
    /// The values that were worked on: decrypted, encrypted.
    pub(super) fn done(&self) -> u64 {
        self.items.saturating_sub(self.items_failed)
    }
}

impl Tally for Use {
    fn merge(&mut self, other: Self) {
        add(&mut self.calls, other.calls);
        add(&mut self.items, other.items);
        add(&mut self.items_failed, other.items_failed);
        add(&mut self.items_masked, other.items_masked);
        add(&mut self.calls_refused, other.calls_refused);
        add(&mut self.items_refused, other.items_refused);
        add(&mut self.calls_failed, other.calls_failed);
    }

    /// What was shown counts before what was tried, so that nobody hides the one behind the other.
    fn weight(&self) -> (u64, u64) {
        (self.done(), self.calls)
    }
}

/// A table's heaviest rows; all others together; and how many rows there can be.
#[derive(Debug, Serialize)]
pub(super) struct Top<K, V> {
    pub(super) rows: Vec<Row<K, V>>,
    pub(super) others: Option<V>,
    pub(super) most_rows: usize,
}

/// A row. `at_least` marks one of which some may be among the others.
#[derive(Debug, Serialize)]
pub(super) struct Row<K, V> {
    #[serde(flatten)]
    pub(super) key: K,
    #[serde(flatten)]
    pub(super) value: V,
    pub(super) at_least: bool,
}

impl<K, V> From<Sums<K, V>> for Top<K, V> {
    fn from(sums: Sums<K, V>) -> Self {
        let rows = sums.rows.into_iter().map(|(key, value, at_least)| Row {
            key,
            value,
            at_least,
        });
        Self {
            rows: rows.collect(),
            others: sums.others,
            most_rows: super::table::MAX_ROWS,
        }
    }
}

/// A list, acts in the order of the log, and how many did not fit.
#[derive(Debug, Serialize)]
pub(super) struct Listed<T> {
    pub(super) rows: Vec<T>,
    pub(super) left_out: u64,
    pub(super) most_rows: usize,
}

impl<T> Listed<T> {
    /// How many there are, with those that did not fit.
    pub(super) fn count(&self) -> u64 {
        (self.rows.len() as u64).saturating_add(self.left_out)
    }
}

/// What decrypts are summed up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct FieldKey {
    pub(super) principal: String,
    pub(super) key: String,
    pub(super) field: String,
}

/// What other calls on values are summed up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct ActKey {
    pub(super) principal: String,
    pub(super) action: &'static str,
    pub(super) key: String,
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct PrincipalKey {
    pub(super) principal: String,
}

/// What refusals are summed up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct RefusalKey {
    pub(super) principal: String,
    pub(super) rule: String,
    pub(super) action: String,
}

/// What a caller did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct PrincipalSum {
    pub(super) calls: u64,
    pub(super) decrypted: u64,
    pub(super) encrypted: u64,
    pub(super) re_encrypted: u64,
    pub(super) refused: u64,
    pub(super) acts: u64,
}

impl Tally for PrincipalSum {
    fn merge(&mut self, other: Self) {
        add(&mut self.calls, other.calls);
        add(&mut self.decrypted, other.decrypted);
        add(&mut self.encrypted, other.encrypted);
        add(&mut self.re_encrypted, other.re_encrypted);
        add(&mut self.refused, other.refused);
        add(&mut self.acts, other.acts);
    }

    fn weight(&self) -> (u64, u64) {
        (self.decrypted, self.calls)
    }
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    /// Calls that were refused as a whole.
    pub(super) calls: u64,
    /// Values that were refused in batches of which others succeeded.
    pub(super) items: u64,
    pub(super) first: Time,
    pub(super) last: Time,
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            calls: 0,
            items: 0,
            first: Time(u64::MAX),
            last: Time(0),
        }
    }
}

impl Tally for Refusal {
    fn merge(&mut self, other: Self) {
        add(&mut self.calls, other.calls);
        add(&mut self.items, other.items);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    fn weight(&self) -> (u64, u64) {
        (self.calls.saturating_add(self.items), self.calls)
    }
}

/// One management act.
#[derive(Debug, Serialize)]
pub(super) struct Act {
    pub(super) index: u64,
    pub(super) time: Time,
    pub(super) principal: String,
    pub(super) operation: String,
    pub(super) resource: String,
    pub(super) detail: String,
    /// The name of the reply's code, `OK` if it was done.
    pub(super) result: &'static str,
    pub(super) reason: String,
}

/// A key that should have rotated.
#[derive(Debug, Serialize)]
pub(super) struct Overdue {
    pub(super) key: String,
    pub(super) due: Time,
    pub(super) reason: String,
}

/// What was done when.
#[derive(Debug, Serialize)]
pub(super) struct Activity {
    pub(super) bucket_s: u64,
    pub(super) buckets: Vec<Bucket>,
}

/// What was done from `start` on for a bucket's time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bucket {
    pub(super) start: Time,
    pub(super) calls: u64,
    /// Values.
    pub(super) decrypted: u64,
    /// Values.
    pub(super) encrypted: u64,
    /// Calls.
    pub(super) refused: u64,
    pub(super) acts: u64,
}
