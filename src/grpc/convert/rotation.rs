//! The messages about rotation on a schedule.

use fieldkeep_keystore::rotation::plan::{Cause, Next};
use fieldkeep_keystore::rotation::policy::{RotationParts, RotationPolicy};
use fieldkeep_proto::v1::{
    GetKeyUsageRequest, KeyRotation, KeyUsage, KeyVersionUsage, NextRotation, RotationCause,
    SetKeyRotationRequest,
};
use prost_types::Duration;

use super::admin::{repeatable, timestamp};
use super::key_name;
use crate::service::failure::Failure;
use crate::service::rotation::{ReadUsage, SetRotation, Usage};

/// What a SetKeyRotation asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn set_rotation(request: SetKeyRotationRequest) -> Result<SetRotation, Failure> {
    let repeatable = repeatable(&request.request_id, &request)?;
    Ok(SetRotation {
        key: key_name("name", request.name)?,
        rotation: policy(request.rotation)?,
        request: repeatable,
    })
}

/// What a GetKeyUsage asks for.
///
/// # Errors
/// As [`set_rotation`].
pub fn read_usage(request: GetKeyUsageRequest) -> Result<ReadUsage, Failure> {
    Ok(ReadUsage {
        key: key_name("name", request.name)?,
    })
}

/// How much was encrypted under a key.
#[must_use]
pub fn usage(usage: Usage) -> KeyUsage {
    let version = |version: &fieldkeep_keystore::info::VersionUsage| KeyVersionUsage {
        version: version.number,
        messages: version.used.messages,
        bytes: version.used.bytes,
    };
    KeyUsage {
        name: usage.resource,
        versions: usage.versions.iter().map(version).collect(),
    }
}

/// A policy; `None` for one without a condition.
///
/// # Errors
/// As [`set_rotation`].
pub(super) fn policy(message: Option<KeyRotation>) -> Result<Option<RotationPolicy>, Failure> {
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
    RotationPolicy::from_parts(parts)
        .map_err(|error| Failure::invalid("rotation", error.to_string()))
}

fn seconds(field: &'static str, duration: Option<Duration>) -> Result<Option<u64>, Failure> {
    let Some(duration) = duration else {
        return Ok(None);
    };
    match (u64::try_from(duration.seconds), duration.nanos) {
        (Ok(seconds), 0) => Ok(Some(seconds)),
        _ => Err(Failure::invalid(
            field,
            "give whole seconds, and not less than none",
        )),
    }
}

/// A policy as it was set.
pub(super) fn rotation(policy: &RotationPolicy) -> KeyRotation {
    let parts = policy.parts().clone();
    KeyRotation {
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

/// The rotation that comes next.
pub(super) fn next(next: Next) -> NextRotation {
    let cause = match next.cause {
        Cause::Period => RotationCause::Period,
        Cause::Cron => RotationCause::Cron,
        Cause::Messages => RotationCause::Messages,
        Cause::Bytes => RotationCause::Bytes,
        Cause::Clock => RotationCause::Clock,
    };
    NextRotation {
        time: next.at.and_then(timestamp),
        cause: cause.into(),
    }
}
