//! A call, as a report counts it: one record, or all parts of one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use fieldkeep_proto::v1::{AuditRecord, AuditResource, Decision};

use super::model::Use;
use crate::export::words::{bounded, detail_value};

/// The most pairs of key and field that one call is counted with; the service names at most two an item of a batch.
const MAX_NAMED: usize = 65_536;
/// Stands where a call named no key.
const NONE: &str = "(not named)";
/// Stands where a number belongs to several keys or fields of one call, and its record does not say to which.
pub(super) const SEVERAL: &str = "(several)";
/// The words of failed items that mean a refusal, with which the service counts them in a batch's reason.
const REFUSED_WORDS: [&str; 4] = [
    "PERMISSION_DENIED",
    "foreign-tenant",
    "LIMIT_EXCEEDED",
    "SELF_GRANT",
];

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a result.
    Answered,
    /// With a failure that is no refusal.
    Failed,
    /// It was refused.
    Refused,
}

impl Ending {
    pub(super) fn of(record: &AuditRecord) -> Self {
        match record.decision() {
            Decision::Refused => Self::Refused,
            Decision::Allowed | Decision::Unspecified if record.code == 0 => Self::Answered,
            Decision::Allowed | Decision::Unspecified => Self::Failed,
        }
    }
}

/// The keys and fields that a call names, with the values of each.
#[derive(Debug, Default)]
pub(super) struct Named<'a>(BTreeMap<(Cow<'a, str>, Cow<'a, str>), u64>);

impl<'a> Named<'a> {
    pub(super) fn of(record: &'a AuditRecord) -> Self {
        let mut named = Self::default();
        for resource in &record.resources {
            named.add(bounded(&resource.name), bounded(&resource.field), resource);
        }
        named
    }

    /// Versions of one key are counted together. Unary calls name one value and count none.
    fn add(&mut self, key: Cow<'a, str>, field: Cow<'a, str>, resource: &AuditResource) {
        let name = (key, field);
        let name = if self.0.len() < MAX_NAMED || self.0.contains_key(&name) {
            name
        } else {
            (SEVERAL.into(), SEVERAL.into())
        };
        let items = self.0.entry(name).or_default();
        *items = items.saturating_add(resource.items.max(1).into());
    }

    /// The values of each key and field, of which there is one at least.
    fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let none = self.0.is_empty().then_some((NONE, "", 1));
        self.0
            .iter()
            .map(|((key, field), items)| (key.as_ref(), field.as_ref(), *items))
            .chain(none)
    }
}

/// A call whose record has several parts, until the last of them.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) index: u64,
    pub(super) head: AuditRecord,
    named: Named<'static>,
}

impl Open {
    /// Begins with the first part that is seen.
    pub(super) fn new(index: u64, record: &AuditRecord) -> Self {
        let mut head = record.clone();
        let resources = std::mem::take(&mut head.resources);
        // The first is kept for the act's own line; the sums have all.
        head.resources.extend(resources.first().cloned());
        let mut open = Self {
            index,
            head,
            named: Named::default(),
        };
        open.add(&resources);
        open
    }

    /// Whether `record` is a further part of the same call.
    pub(super) fn continues(&self, record: &AuditRecord) -> bool {
        record.part > 1 && record.request_id == self.head.request_id
    }

    pub(super) fn add(&mut self, resources: &[AuditResource]) {
        for resource in resources {
            let key = bounded(&resource.name).into_owned();
            let field = bounded(&resource.field).into_owned();
            self.named.add(key.into(), field.into(), resource);
        }
    }

    pub(super) fn into_parts(self) -> (u64, AuditRecord, Named<'static>) {
        (self.index, self.head, self.named)
    }
}

/// What a call on values used: the sum of all, and what is counted with each key and field.
#[derive(Debug)]
pub(super) struct Uses<'a> {
    pub(super) whole: Use,
    pub(super) each: Vec<(&'a str, &'a str, Use)>,
}

impl<'a> Uses<'a> {
    /// A record says how many values of a batch failed or were masked, but not under which of several keys. These go to a row of
    /// their own then, so that no key has too few values that were shown in full.
    pub(super) fn of(record: &AuditRecord, named: &'a Named<'_>, ending: Ending) -> Self {
        let counted = u64::from(record.items_ok) + u64::from(record.items_failed);
        let failed = u64::from(record.items_failed);
        let masked = match ending {
            Ending::Answered => masked(record),
            Ending::Failed | Ending::Refused => 0,
        };
        let all = named
            .iter()
            .fold(0, |sum: u64, (_, _, items)| sum.saturating_add(items));
        let several = named.0.len() > 1;
        let of = |items| ended(ending, items);
        let mut each: Vec<(&str, &str, Use)> = named
            .iter()
            .map(|(key, field, items)| {
                let items = if several || counted == 0 {
                    items
                } else {
                    counted
                };
                (key, field, of(items))
            })
            .collect();
        let mut whole = of(match (counted, ending) {
            (_, Ending::Refused) => each.iter().fold(0, |sum: u64, (_, _, row)| {
                sum.saturating_add(row.items_refused)
            }),
            (0, _) => 1,
            (counted, _) => counted,
        });
        if ending == Ending::Answered {
            let rest = Use {
                items: if several {
                    counted.saturating_sub(all)
                } else {
                    0
                },
                items_failed: failed,
                items_masked: masked,
                ..Use::default()
            };
            whole.items_failed = failed;
            whole.items_masked = masked;
            match each.as_mut_slice() {
                [(_, _, only)] => {
                    only.items_failed = failed;
                    only.items_masked = masked;
                }
                _ if rest != Use::default() => each.push((SEVERAL, SEVERAL, rest)),
                _ => {}
            }
        }
        Self { whole, each }
    }
}

fn ended(ending: Ending, items: u64) -> Use {
    let one_call = Use {
        calls: 1,
        ..Use::default()
    };
    match ending {
        Ending::Answered => Use { items, ..one_call },
        Ending::Failed => Use {
            calls_failed: 1,
            ..one_call
        },
        Ending::Refused => Use {
            calls_refused: 1,
            items_refused: items,
            ..one_call
        },
    }
}

/// How many values left through a mask alone.
fn masked(record: &AuditRecord) -> u64 {
    detail_value(record, "masked")
        .and_then(|count| count.parse::<u32>().ok())
        .map_or(0, u64::from)
}

/// The refused values of a batch that was answered: a word for why, and how many.
pub(super) fn refused_items(record: &AuditRecord) -> impl Iterator<Item = (&str, u64)> {
    let failed = record.items_failed > 0;
    let words = record.reason.split(' ').filter(move |_| failed);
    words
        .filter_map(|word| word.rsplit_once(':'))
        .filter(|(word, _)| REFUSED_WORDS.contains(word))
        .filter_map(|(word, count)| Some((word, count.parse::<u32>().ok()?.into())))
}
