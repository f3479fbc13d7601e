//! The plan that is being carried out, kept in the store. A crash between an act and its record would leave the act without
//! one; what is here says where to look.

use std::collections::HashSet;

use fieldkeep_crypto::ciphertext::Handle;
use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::rotation::plan::{Act, Cause};
use prost::Message;
use tonic::Code;

use crate::audit::{AuditError, AuditLog};
use crate::service::failure::Failure;
use crate::service::perform::own::{OwnAct, RETIREMENT, ROTATION};
use crate::service::schedule::KeyId;

/// The longest that a stored plan may be, bytes.
pub(super) const MAX_BYTES: usize = 4_000;

/// The plan, as it is stored.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Intent {
    /// The records of its acts have this index or a greater one.
    #[prost(uint64, tag = "1")]
    pub(super) audit_index: u64,
    /// Empty: all have their records.
    #[prost(message, repeated, tag = "2")]
    acts: Vec<StoredAct>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredAct {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(fixed64, tag = "3")]
    handle: u64,
    /// The version to rotate from, or to retire through.
    #[prost(uint32, tag = "4")]
    version: u32,
    /// 0: retire; otherwise the cause of a rotation.
    #[prost(uint32, tag = "5")]
    cause: u32,
    #[prost(uint64, tag = "6")]
    due: u64,
}

const CAUSES: [(u32, Cause); 5] = [
    (1, Cause::Period),
    (2, Cause::Cron),
    (3, Cause::Messages),
    (4, Cause::Bytes),
    (5, Cause::Clock),
];

impl Intent {
    /// A plan to carry out.
    pub(super) fn new(audit_index: u64, acts: &[OwnAct]) -> Self {
        Self {
            audit_index,
            acts: acts.iter().map(stored).collect(),
        }
    }

    /// Whether nothing is to be carried out.
    pub(super) fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// Its acts.
    ///
    /// # Errors
    /// It was written by another version.
    pub(super) fn acts(&self) -> Result<Vec<OwnAct>, Failure> {
        let acts = self.acts.iter().map(act).collect::<Option<_>>();
        acts.ok_or_else(|| Failure::internal("the stored rotation plan is another version's"))
    }
}

/// Cuts acts into parts that can be stored, each at most `most` long.
pub(super) fn parts(acts: &[OwnAct], most: usize) -> Vec<&[OwnAct]> {
    let mut parts = Vec::new();
    let mut rest = acts;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(most).take_while(|act| {
            // The tag and the length of an act in its list.
            bytes += stored(act).encoded_len() + 3;
            bytes + 16 <= MAX_BYTES
        });
        let (part, others) = rest.split_at(fits.count().max(1).min(rest.len()));
        parts.push(part);
        rest = others;
    }
    parts
}

fn stored(own: &OwnAct) -> StoredAct {
    let (version, cause) = match own.act {
        Act::Retire { through } => (through, 0),
        Act::Rotate { from, cause } => {
            let number = CAUSES.iter().find(|(_, known)| *known == cause);
            (from, number.map_or(0, |(number, _)| *number))
        }
    };
    StoredAct {
        tenant: own.id.tenant.to_string(),
        key: own.id.key.to_string(),
        handle: u64::from_be_bytes(*own.handle.as_bytes()),
        version,
        cause,
        due: own.due,
    }
}

fn act(stored: &StoredAct) -> Option<OwnAct> {
    let act = match stored.cause {
        0 => Act::Retire {
            through: stored.version,
        },
        number => Act::Rotate {
            from: stored.version,
            cause: CAUSES.iter().find(|(known, _)| *known == number)?.1,
        },
    };
    Some(OwnAct {
        id: KeyId {
            tenant: Name::parse(&stored.tenant).ok()?,
            key: Name::parse(&stored.key).ok()?,
        },
        handle: Handle::from_bytes(stored.handle.to_be_bytes()),
        act,
        due: stored.due,
    })
}

/// The request ids of the acts that succeeded and have their records, from `index` on. Reads files, so it blocks.
///
/// # Errors
/// The trail cannot be read.
pub(super) fn recorded(audit: &AuditLog, index: u64) -> Result<HashSet<Vec<u8>>, AuditError> {
    let mut found = HashSet::new();
    for entry in audit.read_from(index) {
        let (_, record) = entry?;
        let own = [ROTATION, RETIREMENT].contains(&record.rpc.as_str());
        if own && record.code == i32::from(Code::Ok) {
            found.insert(record.request_id.to_vec());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(count: usize) -> Vec<OwnAct> {
        let act = |number: usize| OwnAct {
            id: KeyId {
                tenant: Name::parse("acme").unwrap(),
                key: Name::parse(&format!("key-{number}")).unwrap(),
            },
            handle: Handle::from_bytes((number as u64).to_be_bytes()),
            act: match CAUSES.get(number % 6) {
                None => Act::Retire { through: 7 },
                Some((_, cause)) => Act::Rotate {
                    from: u32::MAX,
                    cause: *cause,
                },
            },
            due: 1_800_000_000,
        };
        (0..count).map(act).collect()
    }

    #[test]
    fn what_is_stored_is_what_was_planned() {
        let acts = acts(12);
        let bytes = Intent::new(9, &acts).encode_to_vec();
        let intent = Intent::decode(bytes.as_slice()).unwrap();
        assert_eq!((intent.audit_index, intent.acts().unwrap()), (9, acts));
        assert!(Intent::new(9, &[]).is_empty());
    }

    #[test]
    fn parts_can_be_stored_and_leave_nothing_out() {
        let acts = acts(1_000);
        let parts = parts(&acts, 60);
        assert!(parts.len() >= 17);
        for part in &parts {
            assert!(part.len() <= 60);
            assert!(Intent::new(u64::MAX, part).encoded_len() <= MAX_BYTES);
        }
        assert_eq!(parts.concat(), acts);
    }
}
