//! The name of a log.

use std::fmt;

use data_encoding::HEXLOWER;

/// The random 16 bytes that name a log: the log id of the audit trail's journal. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId([u8; 16]);

impl LogId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The origin line of the log's checkpoints, which is also the name of the key that signs them: `fieldkeep/audit/` and the id.
    pub fn origin(&self) -> String {
        format!("fieldkeep/audit/{self}")
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_made_of_the_id() {
        let id = LogId::from_bytes([0xA7; 16]);
        assert_eq!(
            id.origin(),
            "fieldkeep/audit/a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7"
        );
        assert!(crate::key::is_name(&id.origin()));
    }
}
