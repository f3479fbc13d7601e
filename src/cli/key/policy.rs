//! When a key rotates by itself: options of the command line, and how that is told.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgGroup, Args};
use fieldkeep_proto::v1;
use prost_types::Duration as ProtoDuration;
use serde_json::{Value, json};

use crate::cli::output::{rfc3339, thousands};

/// When a key rotates by itself: as soon as the first of these holds.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rotation")]
pub(super) struct PolicyArgs {
    /// Rotate before the primary version is so old: 90d, 12h
    #[arg(long, value_name = "DURATION", value_parser = seconds, conflicts_with = "rotate_cron")]
    rotate_every: Option<Duration>,
    /// Rotate at these times, in UTC: minute, hour, day of month, month, day of week
    #[arg(long, value_name = "CRON")]
    rotate_cron: Option<String>,
    /// Spread the rotations of many keys over so much time; 0s: not at all [default: a tenth, at most a day]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    jitter: Option<Duration>,
    /// Rotate after so many fields were encrypted under the primary version
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_messages: Option<u64>,
    /// Rotate after so much plaintext was encrypted under the primary version: 10GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<ByteSize>,
    /// Disable an older version so long after it was replaced: what it encrypted does not decrypt any more
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(super) retire_after: Option<Duration>,
}

/// The options of which `key set-rotation` needs at least one.
pub(super) fn required() -> ArgGroup {
    ArgGroup::new("policy")
        .args([
            "rotate_every",
            "rotate_cron",
            "max_messages",
            "max_bytes",
            "retire_after",
            "never",
        ])
        .multiple(true)
        .required(true)
}

impl PolicyArgs {
    /// The policy; `None` if no option was given.
    pub(super) fn to_rotation(&self) -> Option<v1::KeyRotation> {
        let rotation = v1::KeyRotation {
            period: self.rotate_every.map(to_proto),
            cron: self.rotate_cron.clone().unwrap_or_default(),
            jitter: self.jitter.map(to_proto),
            max_messages: self.max_messages.unwrap_or(0),
            max_bytes: self.max_bytes.map_or(0, |size| size.as_u64()),
            retire_after: self.retire_after.map(to_proto),
        };
        (rotation != v1::KeyRotation::default()).then_some(rotation)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example `90d`, `12h` or `1h 30m`"))?;
    if duration.subsec_nanos() > 0 {
        return Err(String::from("give whole seconds"));
    }
    Ok(duration)
}

fn size(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size),
        Ok(_) => Err(String::from("give at least one byte")),
        Err(error) => Err(format!("{error}; write for example `500MB` or `10GiB`")),
    }
}

fn to_proto(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

/// A policy as JSON; null without one.
pub(super) fn object(rotation: Option<&v1::KeyRotation>) -> Value {
    let seconds = |duration: Option<&ProtoDuration>| duration.map(|duration| duration.seconds);
    rotation.map_or(Value::Null, |rotation| {
        json!({
            "period_seconds": seconds(rotation.period.as_ref()),
            "cron": Some(&rotation.cron).filter(|cron| !cron.is_empty()),
            "jitter_seconds": seconds(rotation.jitter.as_ref()),
            "max_messages": Some(rotation.max_messages).filter(|most| *most > 0),
            "max_bytes": Some(rotation.max_bytes).filter(|most| *most > 0),
            "retire_after_seconds": seconds(rotation.retire_after.as_ref()),
        })
    })
}

/// A policy in words.
pub(super) fn words(rotation: Option<&v1::KeyRotation>) -> String {
    let Some(rotation) = rotation else {
        return String::from("on demand");
    };
    let mut parts = Vec::new();
    if let Some(period) = &rotation.period {
        parts.push(format!("every {}", duration(period.seconds)));
    }
    if !rotation.cron.is_empty() {
        parts.push(format!("at `{}` UTC", rotation.cron));
    }
    if let Some(jitter) = &rotation.jitter {
        parts.push(format!("jitter {}", duration(jitter.seconds)));
    }
    if rotation.max_messages > 0 {
        parts.push(format!(
            "after {} messages",
            thousands(rotation.max_messages)
        ));
    }
    if rotation.max_bytes > 0 {
        parts.push(format!("after {}", ByteSize(rotation.max_bytes)));
    }
    if let Some(retire_after) = &rotation.retire_after {
        parts.push(format!(
            "versions retire {} after they are replaced",
            duration(retire_after.seconds)
        ));
    }
    parts.join(", ")
}

/// The next rotation as JSON; null if none comes by itself.
pub(super) fn next_object(next: Option<&v1::NextRotation>) -> Value {
    next.map_or(Value::Null, |next| {
        json!({
            "time": next.time.as_ref().map(|time| rfc3339(time.seconds)),
            "cause": cause(next.cause()),
        })
    })
}

/// The next rotation in words.
pub(super) fn next_words(key: &v1::Key) -> String {
    let Some(next) = &key.next_rotation else {
        return match (&key.rotation, key.state()) {
            (Some(_), v1::KeyState::Disabled) => String::from("none while the key is disabled"),
            _ => String::from("none by itself"),
        };
    };
    let why = match next.cause() {
        v1::RotationCause::Period => "since its period ends",
        v1::RotationCause::Cron => "since its cron expression says so",
        v1::RotationCause::Messages => "since it encrypts as many messages as it may",
        v1::RotationCause::Bytes => "since it encrypts as many bytes as it may",
        v1::RotationCause::Clock => "since its last rotation is said to be in the future",
        v1::RotationCause::Unspecified => "for a cause that this command does not know",
    };
    match next
        .time
        .as_ref()
        .map(|time| rfc3339(time.seconds))
        .as_ref()
        .and_then(Value::as_str)
    {
        Some(time) => format!("{time}, {why}"),
        None => String::from("once it has encrypted as much as it may"),
    }
}

fn cause(cause: v1::RotationCause) -> &'static str {
    match cause {
        v1::RotationCause::Period => "period",
        v1::RotationCause::Cron => "cron",
        v1::RotationCause::Messages => "messages",
        v1::RotationCause::Bytes => "bytes",
        v1::RotationCause::Clock => "clock",
        v1::RotationCause::Unspecified => "unknown",
    }
}

/// Seconds as people write them: `90d`, `1h 30m`.
pub(in crate::cli) fn duration(seconds: i64) -> String {
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        }
    }
    if parts.is_empty() {
        return String::from("0s");
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_told() {
        for text in ["90d", "1h 30m", "2d 1s", "0s", "3650d"] {
            let parsed = seconds(text).unwrap();
            assert_eq!(duration(parsed.as_secs() as i64), text);
        }
        for text in ["", "90", "d", "1500ms", "-1d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("10GiB").unwrap().as_u64(), 10 << 30);
        assert_eq!(size("500MB").unwrap().as_u64(), 500_000_000);
        for text in ["", "0", "GiB", "-1", "10 apples"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_policy_in_words() {
        let day = |days: i64| {
            Some(ProtoDuration {
                seconds: days * 86_400,
                nanos: 0,
            })
        };
        let rotation = v1::KeyRotation {
            period: day(90),
            jitter: day(2),
            max_messages: 1_000_000,
            max_bytes: 10 << 30,
            retire_after: day(365),
            cron: String::new(),
        };
        assert_eq!(
            words(Some(&rotation)),
            "every 90d, jitter 2d, after 1,000,000 messages, after 10.0 GiB, versions retire 365d after they are replaced"
        );
        assert_eq!(words(None), "on demand");
        let cron = v1::KeyRotation {
            cron: String::from("0 3 * * 1"),
            ..Default::default()
        };
        assert_eq!(words(Some(&cron)), "at `0 3 * * 1` UTC");
        assert_eq!(object(Some(&cron))["cron"], "0 3 * * 1");
        assert_eq!(object(Some(&cron))["max_bytes"], Value::Null);
    }
}
