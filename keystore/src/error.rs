//! What can go wrong: [`KeyError`] on the data path, [`KeystoreError`] everywhere else.

use fieldkeep_crypto::random::RandomError;

use crate::{
    root::RootError,
    store::{CommitError, StoreError},
};

/// Why a key or a version cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such key.
    #[error("there is no such key")]
    NotFound,
    /// The key is disabled.
    #[error("the key is disabled: enable it to use it again")]
    KeyDisabled,
    /// The version is disabled.
    #[error("the key version is disabled: enable it to use it again")]
    VersionDisabled,
    /// The key never had such a version.
    #[error("the key has no such version")]
    NoSuchVersion,
    /// The store could not be read.
    #[error("the store could not be read")]
    Unavailable(#[source] StoreError),
    /// The store did not take the count of a use, so the key was not used.
    #[error("the use of the key could not be counted, so it was refused")]
    Uncounted(#[source] CommitError),
    /// A stored record is not what Fieldkeep wrote.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// A stored record is not what Fieldkeep wrote there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stored record `{store_key}` was changed outside of Fieldkeep or the disk is damaged ({what}): \
     stop the service, keep a copy of the data directory and restore it from a backup; do not go on with this one"
)]
pub struct Damaged {
    /// Which record.
    pub store_key: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Why an operation of the keystore failed.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// [`crate::keystore::Keystore::init`] found records.
    #[error("the data directory is not empty: initialise a new one, or open this one")]
    NotEmpty,
    /// [`crate::keystore::Keystore::open`] found nothing.
    #[error(
        "the data directory holds no keystore: run `fieldkeep init` first, or name the right directory"
    )]
    NotInitialised,
    /// The store was written by another version of Fieldkeep.
    #[error(
        "the keystore has format {found} and this version of Fieldkeep reads format {known}: use the version that wrote it, or upgrade"
    )]
    Format {
        /// The format in the store.
        found: u32,
        /// The format that this code reads and writes.
        known: u32,
    },
    /// The root key does not open the master keyring.
    #[error("the passphrase or key file is not the one this data directory was made with")]
    WrongRoot,
    /// The configured root provider is of another kind than the one the store was made with.
    #[error(
        "this data directory was made with the root provider `{expected}`, and `{given}` is configured"
    )]
    WrongProvider {
        /// The kind that the store was made with.
        expected: String,
        /// The kind that was given.
        given: String,
    },
    /// The root provider failed.
    #[error(transparent)]
    Root(#[from] RootError),
    /// There is no such tenant.
    #[error("there is no tenant `{0}`")]
    TenantNotFound(String),
    /// The tenant exists already.
    #[error("the tenant `{0}` exists already")]
    TenantExists(String),
    /// There is no such key.
    #[error("there is no key `{key}` in tenant `{tenant}`")]
    KeyNotFound {
        /// The tenant.
        tenant: String,
        /// The key.
        key: String,
    },
    /// The key exists already.
    #[error("the key `{key}` exists already in tenant `{tenant}`")]
    KeyExists {
        /// The tenant.
        tenant: String,
        /// The key.
        key: String,
    },
    /// The key has no such version.
    #[error("the key has no version {version}: its newest is {newest}")]
    NoSuchVersion {
        /// What was asked for.
        version: u32,
        /// The newest version.
        newest: u32,
    },
    /// The primary version cannot be disabled.
    #[error("version {version} is the primary version: rotate the key first, then disable it")]
    PrimaryVersion {
        /// The primary version.
        version: u32,
    },
    /// A planned rotation came late: another version is primary by now.
    #[error(
        "version {expected} is not the primary version any more, {primary} is: nothing is to be done"
    )]
    PrimaryMoved {
        /// The version that was to be replaced.
        expected: u32,
        /// The primary version.
        primary: u32,
    },
    /// All version numbers are used.
    #[error("the key has used all of its version numbers: make a new key")]
    VersionsExhausted,
    /// The disabled versions form more separate ranges than a record holds.
    #[error(
        "the key's disabled versions form more than {limit} separate ranges: enable or disable neighbouring versions together"
    )]
    TooManyDisabledRanges {
        /// The most ranges.
        limit: usize,
    },
    /// Not a name of a system record: `sys/` and then `[a-z0-9._/-]`, at most 256 bytes.
    #[error("`{0}` is not a name of a system record")]
    InvalidSystemKey(String),
    /// The payload of a system record or a secret is too long.
    #[error("the record is {actual} bytes, and the limit is {limit}")]
    TooLarge {
        /// How long it is, in bytes.
        actual: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// The record changed since it was read.
    #[error(
        "the record `{store_key}` has changed meanwhile: read it again, then repeat the change"
    )]
    Conflict {
        /// Which record.
        store_key: String,
    },
    /// The operation id was used for another change.
    #[error("this operation id was used before for a different change")]
    OperationReused,
    /// The store did not take the change for want of space.
    #[error("no space left for the store: free some space on its disk, then try again")]
    NoSpace,
    /// The store did not take the change.
    #[error("the store did not take the change")]
    Commit(#[source] CommitError),
    /// The store could not be read.
    #[error("the store could not be read")]
    Unavailable(#[source] StoreError),
    /// A stored record is not what Fieldkeep wrote.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A stored record is older than the audit trail says.
    #[error(
        "the stored record `{store_key}` is not the one that the audit trail knows (generation {found:?} in the store, {expected} in the trail): \
         the data directory was rolled back or a record was planted; stop the service and restore the newest backup"
    )]
    RolledBack {
        /// Which record.
        store_key: String,
        /// The generation that the trail knows.
        expected: u64,
        /// The generation in the store; `None` if there is no such record.
        found: Option<u64>,
    },
    /// A stored secret does not open under the master key.
    #[error(
        "the stored secret `{object_id}` was changed outside of Fieldkeep or the disk is damaged: restore the data directory from a backup"
    )]
    SecretDamaged {
        /// Which secret.
        object_id: String,
    },
    /// The system gave no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A key could not be wrapped.
    #[error("a key could not be wrapped")]
    Wrap(#[source] fieldkeep_crypto::error::SealError),
    /// The change was interrupted by the end of the runtime. Whether it happened is not known; repeat it with the same
    /// operation id.
    #[error("the change was interrupted: repeat it with the same request id to learn its outcome")]
    Interrupted,
}

/// Why a record could not be read; both public errors hold it.
#[derive(Debug)]
pub(crate) enum ReadError {
    Unavailable(StoreError),
    Damaged(Damaged),
}

/// Why a count could not be leased or given back.
#[derive(Debug)]
pub(crate) enum LeaseError {
    Read(ReadError),
    Commit(CommitError),
}

impl Damaged {
    pub(crate) fn new(store_key: impl AsRef<[u8]>, what: &'static str) -> Self {
        Damaged {
            store_key: store_key.as_ref().escape_ascii().to_string(),
            what,
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        ReadError::Unavailable(error)
    }
}

impl From<Damaged> for ReadError {
    fn from(damaged: Damaged) -> Self {
        ReadError::Damaged(damaged)
    }
}

impl From<ReadError> for KeyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(error) => KeyError::Unavailable(error),
            ReadError::Damaged(damaged) => KeyError::Damaged(damaged),
        }
    }
}

impl From<ReadError> for KeystoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(error) => KeystoreError::Unavailable(error),
            ReadError::Damaged(damaged) => KeystoreError::Damaged(damaged),
        }
    }
}

impl From<ReadError> for LeaseError {
    fn from(error: ReadError) -> Self {
        LeaseError::Read(error)
    }
}

impl From<LeaseError> for KeyError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Read(error) => error.into(),
            LeaseError::Commit(error) => KeyError::Uncounted(error),
        }
    }
}

impl From<LeaseError> for KeystoreError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Read(error) => error.into(),
            LeaseError::Commit(error) => error.into(),
        }
    }
}

impl From<CommitError> for KeystoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { key } => KeystoreError::Conflict {
                store_key: key.escape_ascii().to_string(),
            },
            CommitError::OperationReused => KeystoreError::OperationReused,
            CommitError::NoSpace => KeystoreError::NoSpace,
            other @ (CommitError::TooLarge { .. }
            | CommitError::Invalid(_)
            | CommitError::Busy
            | CommitError::Closed
            | CommitError::Io(_)) => KeystoreError::Commit(other),
        }
    }
}
