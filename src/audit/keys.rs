//! The keys of the log: the one of its seals, which never leaves the process, and the one of its checkpoints, whose public
//! half every auditor may have.
//!
//! The system record `sys/audit-log` holds the private key, wrapped, and from which record on commits are sealed: a trail that was
//! begun by a version without seals goes on as a sealed one.

use std::sync::Arc;

use fieldkeep_crypto::keys::AuditSealKey;
use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::error::KeystoreError;
use fieldkeep_keystore::info::Changed;
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_keystore::store::Operation;
use fieldkeep_tlog::key::{SEED_BYTES, SigningKey};
use fieldkeep_tlog::log_id::LogId;
use prost::Message as _;
use zeroize::Zeroizing;

/// The record of the log's key.
const RECORD_KEY: &str = "sys/audit-log";
/// What the wrap of the log's private key is bound to.
const SECRET_ID: &str = "audit-log-key";

/// The payload of the record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct LogRecord {
    /// The log's id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    log_id: Vec<u8>,
    /// The wrapped private key.
    #[prost(bytes = "vec", tag = "2")]
    wrapped_seed: Vec<u8>,
    /// The records of commits from this index on are sealed.
    #[prost(uint64, tag = "3")]
    sealed_from: u64,
}

/// The keys of one log, and what is known about it from the store, which is authenticated.
#[derive(Debug)]
pub struct LogKeys {
    pub(super) seal: Arc<AuditSealKey>,
    pub(super) signing: Arc<SigningKey>,
    /// The records of commits from this index on are sealed.
    pub(super) sealed_from: u64,
    /// The record of keys that were made just now.
    unstored: Option<Vec<u8>>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum LogKeysError {
    /// The record is not one of this version; it is authenticated, so that nobody else wrote it.
    #[error(
        "the record `{RECORD_KEY}` cannot be read by this version: start the version that wrote it"
    )]
    UnknownRecord,
    /// The audit directory holds another log.
    #[error(
        "the audit trail is not the one of this store: its id is `{found}`, not `{expected}`; put the `audit` directory of this store back, from its mirror or the newest backup"
    )]
    OtherLog {
        /// The id in the audit directory.
        found: LogId,
        /// The id in the store, hexadecimal.
        expected: String,
    },
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The store cannot be read or written, or the wrapped key is damaged.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

impl LogKeys {
    /// Opens the keys of the log `log`, or makes them if the store has none; then `records` are in it without a seal, and the
    /// keys are to be stored once there is a checkpoint. `now` is in Unix seconds.
    ///
    /// # Errors
    /// The store has the keys of another log, or cannot be read.
    pub async fn open_or_make(
        keystore: &Keystore,
        log: LogId,
        records: u64,
        now: u64,
    ) -> Result<LogKeys, LogKeysError> {
        let (record, unstored) = match keystore.system_record(RECORD_KEY).await? {
            Some(stored) => {
                let record = LogRecord::decode(stored.payload.as_ref());
                (record.map_err(|_| LogKeysError::UnknownRecord)?, None)
            }
            None => {
                let mut seed = Zeroizing::new([0; SEED_BYTES]);
                random::fill(seed.as_mut_slice())?;
                let record = LogRecord {
                    log_id: log.as_bytes().to_vec(),
                    wrapped_seed: keystore.wrap_system_secret(SECRET_ID, seed.as_slice(), now)?,
                    sealed_from: records,
                };
                let payload = record.encode_to_vec();
                (record, Some(payload))
            }
        };
        if record.log_id != log.as_bytes() {
            return Err(LogKeysError::OtherLog {
                found: log,
                expected: data_encoding::HEXLOWER.encode(&record.log_id),
            });
        }
        let secret = keystore.unwrap_system_secret(SECRET_ID, &record.wrapped_seed)?;
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        if secret.len() != SEED_BYTES {
            return Err(LogKeysError::UnknownRecord);
        }
        seed.copy_from_slice(&secret);
        let keys = LogKeys::of(
            keystore.derive_audit_seal_key(),
            log,
            &seed,
            record.sealed_from,
        )?;
        Ok(LogKeys { unstored, ..keys })
    }

    /// The keys with these parts, as those of a log that has them already.
    ///
    /// # Errors
    /// The seed makes no key.
    pub fn of(
        seal: AuditSealKey,
        log: LogId,
        seed: &[u8; SEED_BYTES],
        sealed_from: u64,
    ) -> Result<LogKeys, LogKeysError> {
        let signing = SigningKey::from_seed(&log.origin(), seed);
        Ok(LogKeys {
            seal: Arc::new(seal),
            signing: Arc::new(signing.map_err(|_| LogKeysError::UnknownRecord)?),
            sealed_from,
            unstored: None,
        })
    }

    /// Keys for tests, of a log that may have no checkpoint.
    #[cfg(test)]
    pub(crate) fn testing(log: LogId) -> Result<LogKeys, LogKeysError> {
        let seal = fieldkeep_crypto::keys::RecordKey::dangerous_from_bytes(&[5; 32]);
        let keys = LogKeys::of(seal.derive_audit_seal_key(), log, &[6; SEED_BYTES], 0)?;
        Ok(LogKeys {
            unstored: Some(Vec::new()),
            ..keys
        })
    }

    /// Whether the store has these keys, so that the log has a checkpoint.
    pub(super) fn is_stored(&self) -> bool {
        self.unstored.is_none()
    }

    /// Stores keys that were made just now, and says what that changed; nothing otherwise. Only then may a record be sealed with them.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) async fn store(
        &mut self,
        keystore: &Keystore,
        now: u64,
    ) -> Result<Option<Changed<()>>, LogKeysError> {
        let Some(payload) = self.unstored.as_deref() else {
            return Ok(None);
        };
        let changed = keystore
            .change_system_record(RECORD_KEY, None, Some(payload), Operation::make()?, now)
            .await?;
        self.unstored = None;
        Ok(Some(changed))
    }
}
