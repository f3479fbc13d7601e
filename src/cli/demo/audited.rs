//! The audit records of the demo, in the order in which things happened.

use fieldkeep_proto::v1;

use super::super::audit::records::{decision, is_head, result_text, short};

/// One line of the summary: a record, or several like it in a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    first: u64,
    last: u64,
    principal: String,
    action: String,
    decision: String,
    result: String,
    items: u64,
}

impl Line {
    fn of(entry: &v1::AuditEntry) -> Line {
        let record = entry.record.clone().unwrap_or_default();
        Line {
            first: entry.index,
            last: entry.index,
            principal: short(&record.principal, &record.authentication),
            action: short(&record.action, &record.rpc),
            decision: format!("{} {}", decision(&record), record.rule)
                .trim()
                .to_owned(),
            result: result_text(&record),
            items: u64::from(record.items_ok) + u64::from(record.items_failed),
        }
    }

    fn is_like(&self, other: &Line) -> bool {
        (&self.principal, &self.action, &self.decision, &self.result)
            == (
                &other.principal,
                &other.action,
                &other.decision,
                &other.result,
            )
    }

    /// Its cells.
    pub(super) fn cells(&self) -> Vec<String> {
        let index = if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        };
        let items = if self.items == 0 {
            String::new()
        } else {
            super::super::output::thousands(self.items)
        };
        let texts = [
            &self.principal,
            &self.action,
            &items,
            &self.decision,
            &self.result,
        ]
        .map(Clone::clone);
        std::iter::once(index).chain(texts).collect()
    }
}

/// The header of the summary.
pub(super) const HEADER: [&str; 6] = [
    "record",
    "who",
    "action",
    "items",
    "decision and rule",
    "result",
];

/// Oldest first; records that differ in nothing that is shown become one line.
pub(super) fn summary(newest_first: &[v1::AuditEntry]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    // Further parts of a record only name more resources, and an intent what its outcome names too.
    let tells = |record: &v1::AuditRecord| is_head(record) && record.phase() != v1::Phase::Intent;
    let head = |entry: &&v1::AuditEntry| entry.record.as_ref().is_none_or(tells);
    for line in newest_first.iter().rev().filter(head).map(Line::of) {
        match lines.last_mut() {
            Some(last) if last.is_like(&line) => {
                last.last = line.last;
                last.items += line.items;
            }
            _ => lines.push(line),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_alike_become_one_line() {
        let entry = |index, action: &str, items_ok| v1::AuditEntry {
            index,
            record: Some(v1::AuditRecord {
                principal: "tenants/acme/identities/app".into(),
                action: action.into(),
                decision: v1::Decision::Allowed.into(),
                rule: "grant:g-0123456789abcdef".into(),
                items_ok,
                ..v1::AuditRecord::default()
            }),
        };
        let lines = summary(&[
            entry(7, "decrypt", 0),
            entry(6, "encrypt", 500),
            entry(5, "encrypt", 1_000),
        ]);
        let cells: Vec<Vec<String>> = lines.iter().map(Line::cells).collect();
        assert_eq!(
            cells,
            [
                [
                    "5-6",
                    "acme/app",
                    "encrypt",
                    "1,500",
                    "allowed grant:g-0123456789abcdef",
                    "ok"
                ],
                [
                    "7",
                    "acme/app",
                    "decrypt",
                    "",
                    "allowed grant:g-0123456789abcdef",
                    "ok"
                ],
            ]
        );
    }
}
