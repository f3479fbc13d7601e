//! Root providers: where the key comes from that opens the master keyring.

pub mod key_file;
pub mod passphrase;

use std::{fmt, io, path::PathBuf};

use fieldkeep_crypto::{keys::RootKey, random::RandomError};

/// Gives the root key. The keystore asks once, at its start, and drops the root key when the keyring is open.
pub trait RootProvider: Send + Sync {
    /// The provider's kind, stored in the keyring: `key-file` or `passphrase`.
    fn name(&self) -> &'static str;

    /// The root key for a new keystore, and what [`RootProvider::open`] needs to find it again.
    fn make(&self) -> Result<(RootKey, RootParams), RootError>;

    /// The root key of an existing keystore. A wrong secret may give a wrong key; the keyring then does not open.
    fn open(&self, params: &RootParams) -> Result<RootKey, RootError>;
}

/// What a provider stores in the clear beside the keyring, in its own encoding. It comes from the store and is
/// authenticated only by the root key that results, so a provider bounds what it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootParams(Vec<u8>);

impl RootParams {
    /// From a provider's encoding.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        RootParams(bytes)
    }

    /// The provider's encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Permission bits, shown as `0644`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a root provider has no key to give.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The key file is not there.
    #[error("there is no key file `{}`: name the right one, or restore it from where you keep its copy", path.display())]
    Missing {
        /// Its path.
        path: PathBuf,
    },
    /// A key file to be made exists.
    #[error("the key file `{}` exists already and is not overwritten", path.display())]
    Exists {
        /// Its path.
        path: PathBuf,
    },
    /// The path leads over a symbolic link.
    #[error("the key file `{}` is a symbolic link: name the file itself", path.display())]
    Symlink {
        /// Its path.
        path: PathBuf,
    },
    /// Not a regular file.
    #[error("the key file `{}` is not a regular file", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// Others may read or change the file.
    #[error("the key file `{}` has mode {mode}: run `chmod 600 {}`", path.display(), path.display())]
    Permissions {
        /// Its path.
        path: PathBuf,
        /// Its mode.
        mode: Mode,
    },
    /// The file belongs to somebody else.
    #[error("the key file `{}` belongs to user id {owner} and this process runs as {expected}: run `chown {expected} {}`", path.display(), path.display())]
    Owner {
        /// Its path.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// The effective user id of this process.
        expected: u32,
    },
    /// The file does not hold a key.
    #[error("the key file `{}` is not 64 hexadecimal digits and a newline: restore it from where you keep its copy", path.display())]
    Malformed {
        /// Its path.
        path: PathBuf,
    },
    /// The file could not be read or made.
    #[error("the key file `{}` could not be used", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The passphrase is too short for a new keystore.
    #[error("the passphrase has {characters} characters, and at least {least} are needed")]
    PassphraseTooShort {
        /// How many it has.
        characters: usize,
        /// How many it needs.
        least: usize,
    },
    /// The stored parameters are not what this provider writes.
    #[error(
        "the stored parameters of the root provider are damaged ({what}): restore the data directory from a backup"
    )]
    Params {
        /// What is wrong with them.
        what: &'static str,
    },
    /// Key derivation failed; for want of memory, for example.
    #[error("the key could not be derived from the passphrase: {0}")]
    Derive(argon2::Error),
    /// The system gave no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
}
