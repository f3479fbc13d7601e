//! The root key from a passphrase with Argon2id (RFC 9106).

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use fieldkeep_crypto::{keys::RootKey, random};
use prost::Message;
use zeroize::Zeroizing;

use super::{RootError, RootParams, RootProvider};

/// The fewest characters of a passphrase for a new keystore.
pub const LEAST_CHARACTERS: usize = 12;

const SALT_BYTES: usize = 16;
/// Bounds of what is read back: a planted record must not make the start take all memory or forever.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 8;

/// What one derivation costs. Costs of an existing keystore come from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Costs {
    /// At least 19 MiB and 2 passes, or 46 MiB and 1 pass (OWASP's lower bounds), at most 1 GiB, 16 passes, 8 lanes.
    #[must_use]
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Option<Self> {
        let costs = Costs {
            memory_kib,
            passes,
            lanes,
        };
        let enough = memory_kib >= 46 << 10 || (memory_kib >= 19 << 10 && passes >= 2);
        (enough && costs.bounded()).then_some(costs)
    }

    fn bounded(&self) -> bool {
        self.memory_kib <= MAX_MEMORY_KIB
            && (1..=MAX_PASSES).contains(&self.passes)
            && (1..=MAX_LANES).contains(&self.lanes)
    }
}

impl Default for Costs {
    /// 64 MiB, 3 passes, 1 lane.
    fn default() -> Self {
        Costs {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
        }
    }
}

/// A passphrase. Its UTF-8 bytes are used as given, never normalised.
pub struct Passphrase {
    passphrase: Zeroizing<String>,
    costs: Costs,
}

impl Passphrase {
    /// The provider for a passphrase; a new keystore gets the default costs.
    #[must_use]
    pub fn new(passphrase: Zeroizing<String>) -> Self {
        Passphrase {
            passphrase,
            costs: Costs::default(),
        }
    }

    /// A new keystore gets these costs.
    #[must_use]
    pub fn with_costs(mut self, costs: Costs) -> Self {
        self.costs = costs;
        self
    }

    fn derive(&self, salt: &[u8], costs: Costs) -> Result<RootKey, RootError> {
        let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(32))
            .map_err(RootError::Derive)?;
        let mut key = Zeroizing::new([0_u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.passphrase.as_bytes(), salt, key.as_mut_slice())
            .map_err(RootError::Derive)?;
        Ok(RootKey::from_bytes(key))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase")
            .field("costs", &self.costs)
            .finish_non_exhaustive()
    }
}

impl RootProvider for Passphrase {
    fn name(&self) -> &'static str {
        "passphrase"
    }

    fn make(&self) -> Result<(RootKey, RootParams), RootError> {
        let characters = self.passphrase.chars().count();
        if characters < LEAST_CHARACTERS {
            return Err(RootError::PassphraseTooShort {
                characters,
                least: LEAST_CHARACTERS,
            });
        }
        let mut salt = vec![0; SALT_BYTES];
        random::fill(&mut salt)?;
        let key = self.derive(&salt, self.costs)?;
        let stored = StoredParams {
            salt,
            memory_kib: self.costs.memory_kib,
            passes: self.costs.passes,
            lanes: self.costs.lanes,
        };
        Ok((key, RootParams::from_bytes(stored.encode_to_vec())))
    }

    fn open(&self, params: &RootParams) -> Result<RootKey, RootError> {
        let damaged = |what| RootError::Params { what };
        let stored =
            StoredParams::decode(params.as_bytes()).map_err(|_| damaged("they do not parse"))?;
        if stored.encode_to_vec() != params.as_bytes() {
            return Err(damaged("they are not in their one encoding"));
        }
        if stored.salt.len() != SALT_BYTES {
            return Err(damaged("the salt has another length"));
        }
        let costs = Costs {
            memory_kib: stored.memory_kib,
            passes: stored.passes,
            lanes: stored.lanes,
        };
        if !costs.bounded() {
            return Err(damaged("the costs are out of bounds"));
        }
        self.derive(&stored.salt, costs)
    }
}

/// The stored parameters.
#[derive(Clone, PartialEq, Message)]
struct StoredParams {
    /// 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    salt: Vec<u8>,
    /// Argon2's m, in KiB.
    #[prost(uint32, tag = "2")]
    memory_kib: u32,
    /// Argon2's t.
    #[prost(uint32, tag = "3")]
    passes: u32,
    /// Argon2's p.
    #[prost(uint32, tag = "4")]
    lanes: u32,
}
