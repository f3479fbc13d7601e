//! A key as it is printed.

use data_encoding::HEXLOWER;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output::{Format, print_json, print_line, print_object, rfc3339, table};
use super::policy;

/// Prints a key. A next rotation that is not known is left out.
pub(super) fn print_key(format: Format, key: &v1::Key, is_next_known: bool) -> Result<(), Failure> {
    if format == Format::Json {
        let mut object = key_object(key);
        let versions: Vec<Value> = key.versions.iter().map(version_object).collect();
        if let Some(members) = object.as_object_mut() {
            if !versions.is_empty() {
                members.insert(String::from("versions"), Value::Array(versions));
            }
            if !is_next_known {
                members.remove("next_rotation");
            }
        }
        return print_json(&object);
    }
    let mut members = vec![
        "name",
        "state",
        "suite",
        "primary_version",
        "create_time",
        "rotate_time",
        "handle",
        "audit_items",
        "rotation",
    ];
    if is_next_known {
        members.push("next_rotation");
    }
    print_object(format, &members, &words_object(key))?;
    if key.versions.is_empty() {
        return Ok(());
    }
    let row = |version: &v1::KeyVersion| {
        let made = version
            .create_time
            .as_ref()
            .map(|time| rfc3339(time.seconds));
        vec![
            version.version.to_string(),
            version_state(version.state).to_owned(),
            made.as_ref()
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned(),
            String::from(if version.primary { "primary" } else { "" }),
        ]
    };
    let rows = key.versions.iter().map(row).collect();
    print_line(format_args!(
        "\n{}",
        table(Some(&["version", "state", "create_time", ""]), rows)
    ))
}

/// A key as JSON, without its versions.
pub(super) fn key_object(key: &v1::Key) -> Value {
    json!({
        "name": key.name,
        "state": match key.state() {
            v1::KeyState::Enabled => "enabled",
            v1::KeyState::Disabled => "disabled",
            v1::KeyState::Unspecified => "unknown",
        },
        "suite": match key.suite() {
            v1::Suite::KcXaes256Gcm => "kc-xaes-256-gcm",
            v1::Suite::Unspecified => "unknown",
        },
        "primary_version": key.primary_version,
        "handle": HEXLOWER.encode(&key.handle),
        "create_time": key.create_time.as_ref().map(|time| rfc3339(time.seconds)),
        "rotate_time": key.rotate_time.as_ref().map(|time| rfc3339(time.seconds)),
        "audit_items": match key.audit_items() {
            // A service that knows of no hashes does not say it.
            v1::AuditItems::Counts | v1::AuditItems::Unspecified => "counts",
            v1::AuditItems::Hashes => "hashes",
        },
        "rotation": policy::object(key.rotation.as_ref()),
        "next_rotation": policy::next_object(key.next_rotation.as_ref()),
    })
}

/// A key for people: its rotation in words.
pub(super) fn words_object(key: &v1::Key) -> Value {
    let mut object = key_object(key);
    if let Some(members) = object.as_object_mut() {
        let rotation = policy::words(key.rotation.as_ref());
        members.insert(String::from("rotation"), Value::String(rotation));
        let next = policy::next_words(key);
        members.insert(String::from("next_rotation"), Value::String(next));
    }
    object
}

fn version_object(version: &v1::KeyVersion) -> Value {
    json!({
        "version": version.version,
        "state": version_state(version.state),
        "primary": version.primary,
        "create_time": version.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}

fn version_state(state: i32) -> &'static str {
    match v1::KeyVersionState::try_from(state) {
        Ok(v1::KeyVersionState::Enabled) => "enabled",
        Ok(v1::KeyVersionState::Disabled) => "disabled",
        Ok(v1::KeyVersionState::Unspecified) | Err(_) => "unknown",
    }
}
