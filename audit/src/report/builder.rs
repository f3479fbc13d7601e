//! Takes records and keeps sums.

use fieldkeep_proto::v1::{AuditRecord, Phase};

use super::call::{Ending, Named, Open, Uses, refused_items};
use super::model::{
    Act, ActKey, Activity, Bucket, FORMAT, FieldKey, Foundation, Listed, Overdue, PrincipalKey,
    PrincipalSum, Refusal, RefusalKey, Report, Span, Totals, Use, add,
};
use super::overdue::OverdueKeys;
use super::table::{Table, Tally};
use super::{Basis, MAX_LISTED, Range};
use crate::export::operation::{DataAct, Kind, Operation};
use crate::export::words::{Hex, Time, bounded, code_name, detail_value, who};

/// Makes a report of the records of a range of time.
///
/// Memory is bounded whatever the records are: a table holds at most 8,000 rows while it is filled and 1,000 in the report, a
/// list 5,000, a text 512 bytes.
#[derive(Debug)]
pub struct Builder {
    range: Range,
    records: u64,
    indexes: Option<(u64, u64)>,
    open: Option<Open>,
    totals: Totals,
    buckets: Vec<Bucket>,
    principals: Table<PrincipalKey, PrincipalSum>,
    decrypts: Table<FieldKey, Use>,
    other_data_calls: Table<ActKey, Use>,
    refusals: Table<RefusalKey, Refusal>,
    grants: Listed<Act>,
    acts: Listed<Act>,
}

impl Builder {
    /// An empty report on `range`.
    #[must_use]
    pub fn new(range: Range) -> Self {
        let listed = || Listed {
            rows: Vec::new(),
            left_out: 0,
            most_rows: MAX_LISTED,
        };
        Self {
            range,
            records: 0,
            indexes: None,
            open: None,
            totals: Totals::default(),
            buckets: empty_buckets(range),
            principals: Table::new(),
            decrypts: Table::new(),
            other_data_calls: Table::new(),
            refusals: Table::new(),
            grants: listed(),
            acts: listed(),
        }
    }

    /// Counts the record at `index`. Records come in the order of the log; one that is not of the range is not counted. The
    /// parts of one call's record, which follow each other, are counted as one call.
    pub fn add(&mut self, index: u64, record: &AuditRecord) {
        if !self.range.contains(record.time_us) {
            return;
        }
        self.records += 1;
        let first = self.indexes.map_or(index, |(first, _)| first);
        self.indexes = Some((first, index));
        if let Some(open) = self.open.as_mut().filter(|open| open.continues(record)) {
            open.add(&record.resources);
            return;
        }
        self.close();
        if record.parts > 1 {
            self.open = Some(Open::new(index, record));
        } else {
            self.count(index, record, &Named::of(record));
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let (index, head, named) = open.into_parts();
            self.count(index, &head, &named);
        }
    }

    /// Counts one call.
    fn count(&mut self, index: u64, record: &AuditRecord, named: &Named<'_>) {
        // What a management act is about to do is counted by its outcome.
        if record.phase() == Phase::Intent {
            return;
        }
        if record.summarised > 0 {
            return self.count_summary(record);
        }
        let operation = Operation::of(record);
        let ending = Ending::of(record);
        let mut sum = PrincipalSum {
            calls: 1,
            ..PrincipalSum::default()
        };
        add(&mut self.totals.calls, 1);
        match ending {
            Ending::Answered => {
                self.totals.answered += 1;
                self.count_refused_items(record);
            }
            Ending::Failed => self.totals.failed += 1,
            Ending::Refused => {
                add(&mut self.totals.refused, 1);
                sum.refused = 1;
                self.count_refusal(record, record.rule.as_str(), 1, 0);
            }
        }
        match operation.kind {
            Kind::Data(act) => {
                let done = self.count_use(act, record, &Uses::of(record, named, ending));
                match act {
                    DataAct::Decrypt => sum.decrypted = done,
                    DataAct::Encrypt | DataAct::Index => sum.encrypted = done,
                    DataAct::ReEncrypt => sum.re_encrypted = done,
                }
            }
            Kind::Read => self.totals.reads += 1,
            // What was refused is among the refusals, so that refused calls alone fill no list.
            Kind::Change(_) | Kind::Other if ending == Ending::Refused => {}
            Kind::Change(_) | Kind::Other => {
                self.totals.acts += 1;
                sum.acts = 1;
                self.list_act(operation, index, record, ending);
            }
        }
        self.count_activity(record.time_us, &sum);
        let principal = bounded(who(record)).into_owned();
        self.principals.add(PrincipalKey { principal }, sum);
    }

    /// Counts the refused calls that one record stands for.
    fn count_summary(&mut self, record: &AuditRecord) {
        let sum = PrincipalSum {
            calls: record.summarised,
            refused: record.summarised,
            ..PrincipalSum::default()
        };
        add(&mut self.totals.calls, record.summarised);
        add(&mut self.totals.refused, record.summarised);
        self.count_refusal(record, record.rule.as_str(), record.summarised, 0);
        self.count_activity(record.time_us, &sum);
        let principal = bounded(who(record)).into_owned();
        self.principals.add(PrincipalKey { principal }, sum);
    }

    /// Counts a call on values. Returns how many values it worked on.
    fn count_use(&mut self, act: DataAct, record: &AuditRecord, uses: &Uses<'_>) -> u64 {
        let totals = &mut self.totals;
        let (total, action) = match act {
            DataAct::Decrypt => (&mut totals.decrypt, "decrypt"),
            DataAct::Encrypt => (&mut totals.encrypt, "encrypt"),
            DataAct::ReEncrypt => (&mut totals.re_encrypt, "re-encrypt"),
            DataAct::Index => (&mut totals.index, "index"),
        };
        total.merge(uses.whole.clone());
        let principal = bounded(who(record)).into_owned();
        if act == DataAct::Decrypt {
            for (key, field, of_row) in &uses.each {
                let key = FieldKey {
                    principal: principal.clone(),
                    key: (*key).to_owned(),
                    field: (*field).to_owned(),
                };
                self.decrypts.add(key, of_row.clone());
            }
        } else {
            // Fields are not told apart here, so that a call counts once with each key.
            let mut last = None;
            for (key, _, of_row) in &uses.each {
                let mut of_row = of_row.clone();
                if last == Some(*key) {
                    (of_row.calls, of_row.calls_failed, of_row.calls_refused) = (0, 0, 0);
                }
                last = Some(*key);
                let key = ActKey {
                    principal: principal.clone(),
                    action,
                    key: (*key).to_owned(),
                };
                self.other_data_calls.add(key, of_row);
            }
        }
        uses.whole.done()
    }

    fn count_refused_items(&mut self, record: &AuditRecord) {
        for (word, items) in refused_items(record) {
            self.count_refusal(record, word, 0, items);
        }
    }

    fn count_refusal(&mut self, record: &AuditRecord, rule: &str, calls: u64, items: u64) {
        let action = match record.action.as_str() {
            "" => Operation::of(record).method,
            action => action,
        };
        let key = RefusalKey {
            principal: bounded(who(record)).into_owned(),
            rule: bounded(rule).into_owned(),
            action: bounded(action).into_owned(),
        };
        let time = Time(record.time_us);
        let refusal = Refusal {
            calls,
            items,
            first: time,
            last: time,
        };
        self.refusals.add(key, refusal);
    }

    fn list_act(
        &mut self,
        operation: Operation<'_>,
        index: u64,
        record: &AuditRecord,
        ending: Ending,
    ) {
        // What did not happen granted nothing.
        let grants = record.action == "grant" || detail_value(record, "role").is_some();
        let list = if grants && ending == Ending::Answered {
            &mut self.grants
        } else {
            &mut self.acts
        };
        if list.rows.len() >= MAX_LISTED {
            list.left_out += 1;
            return;
        }
        list.rows.push(Act {
            index,
            time: Time(record.time_us),
            principal: bounded(who(record)).into_owned(),
            operation: bounded(operation.method).into_owned(),
            resource: resource_text(record),
            detail: bounded(&record.detail).into_owned(),
            result: code_name(record.code),
            reason: bounded(&record.reason).into_owned(),
        });
    }

    fn count_activity(&mut self, time_us: u64, sum: &PrincipalSum) {
        let bucket_us = self.range.bucket_us();
        let begin = self.range.from_us / bucket_us;
        let place = usize::try_from(time_us / bucket_us - begin).ok();
        if let Some(bucket) = place.and_then(|place| self.buckets.get_mut(place)) {
            add(&mut bucket.calls, 1);
            add(&mut bucket.decrypted, sum.decrypted);
            add(&mut bucket.encrypted, sum.encrypted);
            add(&mut bucket.refused, sum.refused);
            add(&mut bucket.acts, sum.acts);
        }
    }

    /// The report. `overdue` are the keys that should have rotated by the end of the range.
    #[must_use]
    pub fn finish(mut self, basis: Basis, overdue: OverdueKeys) -> Report {
        self.close();
        let (overdue, overdue_left_out) = overdue.into_parts();
        let overdue = overdue.map(|key| Overdue {
            key: key.name,
            due: Time(key.due_us),
            reason: key.reason,
        });
        let Range { from_us, to_us } = self.range;
        Report {
            format: FORMAT,
            range: Span {
                from: Time(from_us),
                from_us,
                to: Time(to_us),
                to_us,
            },
            basis: Foundation {
                log_id: Hex(&basis.log_id).to_string(),
                checkpoint: basis.checkpoint,
                records: self.records,
                first_index: self.indexes.map(|(first, _)| first),
                last_index: self.indexes.map(|(_, last)| last),
            },
            totals: self.totals,
            activity: Activity {
                bucket_s: self.range.bucket_us() / 1_000_000,
                buckets: self.buckets,
            },
            principals: self.principals.finish().into(),
            decrypts: self.decrypts.finish().into(),
            other_data_calls: self.other_data_calls.finish().into(),
            refusals: self.refusals.finish().into(),
            grants: self.grants,
            acts: self.acts,
            overdue: Listed {
                rows: overdue.collect(),
                left_out: overdue_left_out,
                most_rows: MAX_LISTED,
            },
        }
    }
}

/// The first resource with its version and field, and how many more there are.
fn resource_text(record: &AuditRecord) -> String {
    let Some(first) = record.resources.first() else {
        return String::new();
    };
    let mut text = bounded(&first.name).into_owned();
    if first.version > 0 {
        text.push_str(&format!(" v{}", first.version));
    }
    if !first.field.is_empty() {
        text.push_str(&format!(" {}", bounded(&first.field)));
    }
    match record.resources.len() - 1 {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn empty_buckets(range: Range) -> Vec<Bucket> {
    let bucket_us = range.bucket_us();
    let (first, last) = (range.from_us / bucket_us, (range.to_us - 1) / bucket_us);
    (first..=last)
        .map(|bucket| Bucket {
            start: Time(bucket * bucket_us),
            calls: 0,
            decrypted: 0,
            encrypted: 0,
            refused: 0,
            acts: 0,
        })
        .collect()
}
