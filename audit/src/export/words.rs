//! How single values of a record are written.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use fieldkeep_proto::v1::{AuditRecord, Decision, Phase};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::items::items;

/// The prefix of the RPC names of what the service does by itself.
const INTERNAL: &str = "fieldkeep.internal/";
/// Where a text that came from a caller is cut, bytes; the service cuts its own there too.
pub(crate) const MAX_TEXT_BYTES: usize = 512;

/// A time in microseconds since the Unix epoch, which displays as RFC 3339 in UTC with six digits of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    /// `None` beyond the year 9999, for which RFC 3339 has no form.
    fn utc(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).ok()
    }

    /// The form without a fraction, for people: `2026-11-28 14:05:09`.
    pub(crate) fn for_people(self) -> String {
        self.utc().map_or_else(
            || String::from("-"),
            |utc| {
                let (hour, minute, second) = utc.to_hms();
                format!("{} {hour:02}:{minute:02}:{second:02}", utc.date())
            },
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(utc) = self.utc() else {
            return f.write_str("-");
        };
        let (year, month, day) = utc.to_calendar_date();
        let (hour, minute, second, micro) = utc.to_hms_micro();
        write!(
            f,
            "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z",
            u8::from(month)
        )
    }
}

/// A string; `null` for a time that RFC 3339 has no form for.
impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.utc() {
            Some(_) => serializer.collect_str(self),
            None => serializer.serialize_none(),
        }
    }
}

/// Bytes as lower-case hexadecimal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(self.0).fmt(f)
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The keyed hashes of a resource's items, as a list of objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemHashes<'a>(pub(crate) &'a [u8]);

impl Serialize for ItemHashes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Item<'a> {
            item: u16,
            code: u8,
            hash: Hex<'a>,
        }
        serializer.collect_seq(items(self.0).map(|one| Item {
            item: one.item,
            code: one.code,
            hash: Hex(one.hash),
        }))
    }
}

/// Which part of a management operation a record is; empty if it is the only record of its call.
pub(crate) fn phase(record: &AuditRecord) -> &'static str {
    match record.phase() {
        Phase::Unspecified => "",
        Phase::Intent => "intent",
        Phase::Outcome => "outcome",
    }
}

/// What was decided.
pub(crate) fn decision(record: &AuditRecord) -> &'static str {
    match record.decision() {
        Decision::Allowed => "allowed",
        Decision::Refused => "refused",
        Decision::Unspecified => "unknown",
    }
}

/// Who called: the principal's resource name, or in brackets what is known of a caller without a name. No resource name begins with
/// a bracket.
pub(crate) fn who(record: &AuditRecord) -> &str {
    if !record.principal.is_empty() {
        &record.principal
    } else if record.rpc.starts_with(INTERNAL) {
        "(service)"
    } else if record.authentication == "local" {
        "(local operator)"
    } else {
        "(nobody)"
    }
}

/// The name of a `google.rpc.Code`; `UNKNOWN` for a number that is none.
pub(crate) fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// The value of the first pair `name=value` of a record's detail. Values have no spaces.
pub(crate) fn detail_value<'a>(record: &'a AuditRecord, name: &str) -> Option<&'a str> {
    record
        .detail
        .split(' ')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(have, value)| (have == name).then_some(value))
}

/// A text cut to [`MAX_TEXT_BYTES`] at the border of a character, with `…` behind it, so that a record that no service wrote
/// cannot make a report large.
pub(crate) fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let ends = (0..=MAX_TEXT_BYTES).rev();
    let start = ends.map(|end| text.get(..end)).find_map(|start| start);
    Cow::Owned(format!("{}…", start.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_of_the_second() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Time(1_795_874_709_000_042).to_string(),
            "2026-11-28T14:05:09.000042Z"
        );
        assert_eq!(
            Time(1_795_874_709_999_999).for_people(),
            "2026-11-28 14:05:09"
        );
    }

    #[test]
    fn a_time_beyond_the_year_9999_is_null() {
        assert_eq!(serde_json::to_string(&Time(u64::MAX)).unwrap(), "null");
        assert_eq!(Time(u64::MAX).to_string(), "-");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let text = format!("x{}", "é".repeat(600));
        let cut = bounded(&text);
        assert_eq!(cut.len(), MAX_TEXT_BYTES - 1 + "…".len());
        assert_eq!(bounded("short"), "short");
    }

    #[test]
    fn callers_without_a_name_are_told_apart() {
        let record = |authentication: &str, rpc: &str| AuditRecord {
            authentication: authentication.into(),
            rpc: rpc.into(),
            ..AuditRecord::default()
        };
        assert_eq!(who(&record("local", "fieldkeep init")), "(local operator)");
        assert_eq!(
            who(&record("local", "fieldkeep.internal/ScheduledRotation")),
            "(service)"
        );
        assert_eq!(
            who(&record("none", "fieldkeep.v1.FieldService/Decrypt")),
            "(nobody)"
        );
    }
}
