//! The macro that makes one newtype a key role.

/// Declares a key of exactly 32 bytes: on the heap so that a move leaves no copy behind, without `Clone`, with a
/// redacted `Debug`, wiped on drop.
macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Box<zeroize::Zeroizing<[u8; 32]>>);

        impl $name {
            /// The bytes are zero until `fill` has written them in place.
            #[allow(dead_code, reason = "not every role is filled in place")]
            fn filled_by<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
                let mut key = Self(Box::default());
                fill(&mut key.0)?;
                Ok(key)
            }

            pub(crate) fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

/// Adds `make` and `dangerous_from_bytes` to a key role whose keys are random.
macro_rules! random_key {
    ($name:ident) => {
        impl $name {
            /// Draws a new key from the operating system.
            ///
            /// # Errors
            /// [`crate::random::RandomError`] when the operating system gives no random bytes.
            pub fn make() -> Result<Self, crate::random::RandomError> {
                Self::filled_by(|bytes| crate::random::fill(bytes))
            }

            /// The key with these bytes. Only for test vectors: a key in use is made or unwrapped, never composed.
            pub fn dangerous_from_bytes(bytes: &[u8; 32]) -> Self {
                let mut key = Self(Box::default());
                key.0.copy_from_slice(bytes);
                key
            }
        }
    };
}

pub(crate) use {random_key, secret_key};
