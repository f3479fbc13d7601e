//! The mutable state of a key, as a pure state machine: each change makes a new state or says why not.

use std::sync::Arc;

use fieldkeep_crypto::ciphertext::{Handle, Suite};

use crate::{
    error::{KeyError, KeystoreError},
    info::{AuditItems, KeySettings},
    records::KeyRecord,
    rotation::policy::RotationPolicy,
};

/// The most separate ranges of disabled versions, so that a key's record stays below 4 KiB: at most 10 bytes each.
pub(crate) const MAX_DISABLED_RANGES: usize = 256;

/// What a key's record holds. The primary version is the newest one and is never disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyState {
    pub(crate) handle: Handle,
    pub(crate) suite: Suite,
    pub(crate) enabled: bool,
    pub(crate) primary: u32,
    pub(crate) created: u64,
    pub(crate) rotated: u64,
    /// First and last version of each range; ascending, apart from each other by at least one version.
    disabled: Vec<(u32, u32)>,
    /// When it rotates by itself; `None`: on demand alone.
    pub(crate) rotation: Option<Arc<RotationPolicy>>,
    /// Versions up to this one were retired by schedule. Not again: an operator may have enabled one since.
    pub(crate) retired_through: u32,
    /// What the audit trail has of the items of calls that use it.
    pub(crate) audit_items: AuditItems,
}

impl KeyState {
    pub(crate) fn new(handle: Handle, settings: KeySettings, now: u64) -> Self {
        let KeySettings {
            suite,
            rotation,
            audit_items,
        } = settings;
        KeyState {
            handle,
            suite,
            enabled: true,
            primary: 1,
            created: now,
            rotated: now,
            disabled: Vec::new(),
            rotation,
            retired_through: 0,
            audit_items,
        }
    }

    /// With one more version, which is primary.
    pub(crate) fn rotate(&self, now: u64) -> Result<Self, KeystoreError> {
        Ok(KeyState {
            primary: self
                .primary
                .checked_add(1)
                .ok_or(KeystoreError::VersionsExhausted)?,
            rotated: now,
            ..self.clone()
        })
    }

    /// With one more version, if `from` is still the primary one.
    pub(crate) fn rotate_from(&self, from: u32, now: u64) -> Result<Self, KeystoreError> {
        if self.primary != from {
            return Err(KeystoreError::PrimaryMoved {
                expected: from,
                primary: self.primary,
            });
        }
        self.rotate(now)
    }

    pub(crate) fn set_rotation(&self, rotation: Option<Arc<RotationPolicy>>) -> Self {
        KeyState {
            rotation,
            ..self.clone()
        }
    }

    pub(crate) fn set_audit_items(&self, audit_items: AuditItems) -> Self {
        KeyState {
            audit_items,
            ..self.clone()
        }
    }

    /// With the versions up to `through` disabled that were not retired before; never the primary one.
    pub(crate) fn retire(&self, through: u32) -> Result<Self, KeystoreError> {
        if through == 0 || through > self.primary {
            return Err(KeystoreError::NoSuchVersion {
                version: through,
                newest: self.primary,
            });
        }
        let first = self.retired_through.saturating_add(1);
        let last = through.min(self.primary - 1);
        let mut next = self.clone();
        if first <= last {
            next.disabled = with(&self.disabled, first, last);
            next.retired_through = last;
        }
        next.check_ranges()
    }

    pub(crate) fn set_enabled(&self, enabled: bool) -> Self {
        KeyState {
            enabled,
            ..self.clone()
        }
    }

    /// With a version enabled or disabled.
    pub(crate) fn set_version_enabled(
        &self,
        version: u32,
        enabled: bool,
    ) -> Result<Self, KeystoreError> {
        if version == 0 || version > self.primary {
            return Err(KeystoreError::NoSuchVersion {
                version,
                newest: self.primary,
            });
        }
        if version == self.primary && !enabled {
            return Err(KeystoreError::PrimaryVersion { version });
        }
        let mut next = self.clone();
        if self.is_disabled(version) == enabled {
            next.disabled = if enabled {
                without(&self.disabled, version)
            } else {
                with(&self.disabled, version, version)
            };
        }
        next.check_ranges()
    }

    fn check_ranges(self) -> Result<Self, KeystoreError> {
        if self.disabled.len() > MAX_DISABLED_RANGES {
            return Err(KeystoreError::TooManyDisabledRanges {
                limit: MAX_DISABLED_RANGES,
            });
        }
        Ok(self)
    }

    /// Whether a version may be used.
    pub(crate) fn check_version(&self, version: u32) -> Result<(), KeyError> {
        if !self.enabled {
            return Err(KeyError::KeyDisabled);
        }
        if version == 0 || version > self.primary {
            return Err(KeyError::NoSuchVersion);
        }
        if self.is_disabled(version) {
            return Err(KeyError::VersionDisabled);
        }
        Ok(())
    }

    pub(crate) fn is_disabled(&self, version: u32) -> bool {
        let after = self
            .disabled
            .partition_point(|(first, _)| *first <= version);
        after
            .checked_sub(1)
            .and_then(|at| self.disabled.get(at))
            .is_some_and(|(_, last)| version <= *last)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let rotation = self.rotation.as_ref();
        self.disabled.capacity() * size_of::<(u32, u32)>()
            + rotation.map_or(0, |policy| policy.heap_bytes())
    }

    pub(crate) fn to_record(&self) -> KeyRecord {
        KeyRecord {
            handle: self.handle.as_bytes().to_vec(),
            suite: u32::from(self.suite.code()),
            disabled: !self.enabled,
            primary: self.primary,
            created: self.created,
            rotated: self.rotated,
            disabled_versions: self
                .disabled
                .iter()
                .flat_map(|(first, last)| [*first, *last])
                .collect(),
            rotation: self.rotation.as_ref().map(|policy| policy.to_record()),
            retired_through: self.retired_through,
            audit_items: match self.audit_items {
                AuditItems::Counts => 0,
                AuditItems::Hashes => 1,
            },
        }
    }

    /// From an authenticated record; what is wrong with it if it is not one that this code writes.
    pub(crate) fn from_record(record: &KeyRecord) -> Result<Self, &'static str> {
        let handle = <[u8; 8]>::try_from(record.handle.as_slice())
            .map_err(|_| "its handle has another length")?;
        let suite = suite_from(record.suite).ok_or("its suite is not known")?;
        let (pairs, rest) = record.disabled_versions.as_chunks::<2>();
        let disabled: Vec<(u32, u32)> = pairs.iter().map(|[first, last]| (*first, *last)).collect();
        let mut least = 1;
        for (first, last) in &disabled {
            if *first < least || last < first || *last >= record.primary {
                return Err("its disabled versions are not in order");
            }
            least = last.saturating_add(2);
        }
        if record.primary == 0 || !rest.is_empty() || record.retired_through >= record.primary {
            return Err("its versions are not in order");
        }
        let rotation = match &record.rotation {
            Some(rotation) => Some(Arc::new(RotationPolicy::from_record(rotation)?)),
            None => None,
        };
        let audit_items = match record.audit_items {
            0 => AuditItems::Counts,
            1 => AuditItems::Hashes,
            _ => return Err("what the audit trail has of its items is not known"),
        };
        Ok(KeyState {
            handle: Handle::from_bytes(handle),
            suite,
            enabled: !record.disabled,
            primary: record.primary,
            created: record.created,
            rotated: record.rotated,
            disabled,
            rotation,
            retired_through: record.retired_through,
            audit_items,
        })
    }
}

/// A suite from its number in a record.
pub(crate) fn suite_from(code: u32) -> Option<Suite> {
    Suite::try_from(u8::try_from(code).ok()?).ok()
}

/// The ranges and all versions from `first` to `last`; neighbours and what overlaps join.
fn with(ranges: &[(u32, u32)], first: u32, last: u32) -> Vec<(u32, u32)> {
    let mut joined = (first, last);
    let mut next = Vec::with_capacity(ranges.len() + 1);
    let mut after = Vec::new();
    for (one, other) in ranges {
        if other.saturating_add(1) < first {
            next.push((*one, *other));
        } else if last.saturating_add(1) < *one {
            after.push((*one, *other));
        } else {
            joined = (joined.0.min(*one), joined.1.max(*other));
        }
    }
    next.push(joined);
    next.append(&mut after);
    next
}

/// The ranges without one version that is in one of them.
fn without(ranges: &[(u32, u32)], version: u32) -> Vec<(u32, u32)> {
    let mut next = Vec::with_capacity(ranges.len() + 1);
    for (first, last) in ranges {
        if (*first..=*last).contains(&version) {
            // Within these bounds neither subtraction nor addition can overflow.
            if *first < version {
                next.push((*first, version - 1));
            }
            if version < *last {
                next.push((version + 1, *last));
            }
        } else {
            next.push((*first, *last));
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    fn state(primary: u32) -> KeyState {
        KeyState {
            primary,
            ..KeyState::new(Handle::from_bytes([1; 8]), Suite::KcXaes256Gcm.into(), 5)
        }
    }

    #[test]
    fn the_last_version_number_is_the_last() {
        let last = state(u32::MAX - 1).rotate(6).unwrap();
        assert_eq!((last.primary, last.rotated, last.created), (u32::MAX, 6, 5));
        let error = last.rotate(7).unwrap_err();
        assert!(matches!(error, KeystoreError::VersionsExhausted), "{error}");
        let disabled = last.set_version_enabled(u32::MAX - 1, false).unwrap();
        assert!(disabled.is_disabled(u32::MAX - 1) && !disabled.is_disabled(u32::MAX));
    }

    #[test]
    fn a_record_that_no_code_writes_is_refused() {
        let mut good = state(10);
        for version in [2, 3, 7] {
            good = good.set_version_enabled(version, false).unwrap();
        }
        let record = good.to_record();
        assert_eq!(record.disabled_versions, [2, 3, 7, 7]);
        assert_eq!(KeyState::from_record(&record).unwrap(), good);
        let refused = |change: &dyn Fn(&mut KeyRecord)| {
            let mut changed = record.clone();
            change(&mut changed);
            KeyState::from_record(&changed).unwrap_err();
        };
        refused(&|record| record.primary = 0);
        refused(&|record| record.primary = 7);
        refused(&|record| record.suite = 0);
        refused(&|record| record.suite = 257);
        refused(&|record| record.handle.truncate(7));
        refused(&|record| record.disabled_versions = vec![2]);
        refused(&|record| record.disabled_versions = vec![0, 1]);
        refused(&|record| record.disabled_versions = vec![3, 2]);
        refused(&|record| record.disabled_versions = vec![2, 3, 4, 5]);
        refused(&|record| record.disabled_versions = vec![7, 7, 2, 3]);
        refused(&|record| record.disabled_versions = vec![2, u32::MAX]);
        refused(&|record| record.audit_items = 2);
    }

    #[test]
    fn a_record_from_before_the_setting_counts_items() {
        let hashes = state(3).set_audit_items(AuditItems::Hashes);
        assert_eq!(KeyState::from_record(&hashes.to_record()).unwrap(), hashes);
        assert_eq!(hashes.rotate(9).unwrap().audit_items, AuditItems::Hashes);
        // The field is left out of the bytes when items are counted, as it was before there was one.
        let old = state(3).to_record().encode_to_vec();
        assert!(old.len() < hashes.to_record().encode_to_vec().len());
        let read = KeyRecord::decode(old.as_slice()).unwrap();
        let read = KeyState::from_record(&read).unwrap();
        assert_eq!(read.audit_items, AuditItems::Counts);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(changes in vec((1..20_u32, any::<bool>()), 0..60)) {
            let mut state = state(20);
            let mut model = std::collections::BTreeSet::new();
            for (version, enabled) in changes {
                state = state.set_version_enabled(version, enabled).unwrap();
                if enabled { model.remove(&version) } else { model.insert(version) };
                for version in 1..=20 {
                    prop_assert_eq!(state.is_disabled(version), model.contains(&version));
                }
                prop_assert_eq!(&KeyState::from_record(&state.to_record()).unwrap(), &state);
            }
        }
    }
}
