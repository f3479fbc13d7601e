//! The root key in a file that only the service's user can read.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use fieldkeep_crypto::{keys::RootKey, random};
use rustix::{
    fs::{Mode as OpenMode, OFlags},
    io::Errno,
};
use zeroize::Zeroizing;

use super::{Mode, RootError, RootParams, RootProvider};

const KEY_BYTES: usize = 32;
/// 64 hexadecimal digits and a newline.
const FILE_BYTES: usize = 2 * KEY_BYTES + 1;

/// A file of 64 hexadecimal digits and a newline, with mode 0600 or 0400, that belongs to the process's effective
/// user. Whoever has this file and the data directory has every key; keep a copy of it apart from the backups.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The provider for a file that exists, or that [`KeyFile::create`] made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        KeyFile { path: path.into() }
    }

    /// Makes a file with a new random key. Refuses to overwrite anything; the file and its name are on the disk
    /// when this returns.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, RootError> {
        let provider = KeyFile::new(path);
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        random::fill(key.as_mut_slice())?;
        let text = encode_hex(&key);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(&provider.path, flags, OpenMode::RUSR | OpenMode::WUSR)
            .map_err(|errno| match errno {
            Errno::EXIST => RootError::Exists {
                path: provider.path.clone(),
            },
            other => provider.io(other.into()),
        })?;
        provider
            .write(File::from(descriptor), &text)
            .map_err(|source| provider.io(source))?;
        Ok(provider)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, mut file: File, text: &[u8]) -> io::Result<()> {
        file.write_all(text)?;
        file.sync_all()?;
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }

    fn read(&self) -> Result<RootKey, RootError> {
        // Without NONBLOCK a named pipe in place of the file would stop the start.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let path = || self.path.clone();
        let descriptor = rustix::fs::open(&self.path, flags, OpenMode::empty()).map_err(
            |errno| match errno {
                Errno::NOENT => RootError::Missing { path: path() },
                Errno::LOOP => RootError::Symlink { path: path() },
                other => self.io(other.into()),
            },
        )?;
        let mut file = File::from(descriptor);
        // Of the open descriptor, so that nobody can swap the file between the check and the read.
        let metadata = file.metadata().map_err(|source| self.io(source))?;
        if !metadata.is_file() {
            return Err(RootError::NotAFile { path: path() });
        }
        let expected = rustix::process::geteuid().as_raw();
        if metadata.uid() != expected {
            return Err(RootError::Owner {
                path: path(),
                owner: metadata.uid(),
                expected,
            });
        }
        let mode = metadata.mode() & 0o7777;
        if mode != 0o600 && mode != 0o400 {
            return Err(RootError::Permissions {
                path: path(),
                mode: Mode(mode),
            });
        }
        // One byte more than a key file has, so that a longer one shows.
        let mut text = Zeroizing::new([0_u8; FILE_BYTES + 1]);
        let mut length = 0;
        while let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io(source)),
            }
        }
        text.get(..length)
            .and_then(decode_hex)
            .map(RootKey::from_bytes)
            .ok_or_else(|| RootError::Malformed { path: path() })
    }

    fn io(&self, source: io::Error) -> RootError {
        RootError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

impl RootProvider for KeyFile {
    fn name(&self) -> &'static str {
        "key-file"
    }

    fn make(&self) -> Result<(RootKey, RootParams), RootError> {
        Ok((self.read()?, RootParams::from_bytes(Vec::new())))
    }

    fn open(&self, params: &RootParams) -> Result<RootKey, RootError> {
        if !params.as_bytes().is_empty() {
            return Err(RootError::Params {
                what: "a key file has none",
            });
        }
        self.read()
    }
}

fn encode_hex(key: &[u8; KEY_BYTES]) -> Zeroizing<Vec<u8>> {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        }
    };
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
    for byte in key {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text.push(b'\n');
    text
}

/// Exactly 64 hexadecimal digits, with or without one newline.
fn decode_hex(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let nibble = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(key)
}
