//! Rotation policies of the double: kept and shown as the service does. Nothing rotates by itself here, since no time passes
//! in a test.

use fieldkeep_keystore::rotation::{
    plan::{Cause, Next},
    policy::{RotationParts, RotationPolicy},
};
use fieldkeep_proto::v1;
use prost_types::Duration;

use super::{manage::timestamp, refusal::Refusal};

/// The policy of a message; `None` for one without a condition.
pub(super) fn policy(message: Option<v1::KeyRotation>) -> Result<Option<RotationPolicy>, Refusal> {
    let message = message.unwrap_or_default();
    let set = |seconds: Option<u64>| seconds.filter(|seconds| *seconds > 0);
    let parts = RotationParts {
        period: set(seconds("rotation.period", message.period)?),
        cron: Some(message.cron).filter(|cron| !cron.is_empty()),
        // Zero is a jitter like others.
        jitter: seconds("rotation.jitter", message.jitter)?,
        max_messages: message.max_messages,
        max_bytes: message.max_bytes,
        retire_after: set(seconds("rotation.retire_after", message.retire_after)?),
    };
    RotationPolicy::from_parts(parts).map_err(|error| Refusal::invalid("rotation", error))
}

fn seconds(part: &str, duration: Option<Duration>) -> Result<Option<u64>, Refusal> {
    let Some(duration) = duration else {
        return Ok(None);
    };
    match (u64::try_from(duration.seconds), duration.nanos) {
        (Ok(seconds), 0) => Ok(Some(seconds)),
        _ => Err(Refusal::invalid(
            part,
            "give whole seconds, and not less than none",
        )),
    }
}

/// A policy as it was set.
pub(super) fn describe(policy: &RotationPolicy) -> v1::KeyRotation {
    let parts = policy.parts().clone();
    v1::KeyRotation {
        period: parts.period.map(duration),
        cron: parts.cron.unwrap_or_default(),
        jitter: parts.jitter.map(duration),
        max_messages: parts.max_messages,
        max_bytes: parts.max_bytes,
        retire_after: parts.retire_after.map(duration),
    }
}

fn duration(seconds: u64) -> Duration {
    Duration {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

/// When and why the next rotation would come.
pub(super) fn next(next: Next) -> v1::NextRotation {
    let cause = match next.cause {
        Cause::Period => v1::RotationCause::Period,
        Cause::Cron => v1::RotationCause::Cron,
        Cause::Messages => v1::RotationCause::Messages,
        Cause::Bytes => v1::RotationCause::Bytes,
        Cause::Clock => v1::RotationCause::Clock,
    };
    v1::NextRotation {
        time: next.at.and_then(timestamp),
        cause: cause.into(),
    }
}
