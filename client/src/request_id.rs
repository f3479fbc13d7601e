//! Request ids: by them the service recognises the repetition of a change.

use fieldkeep_crypto::random;

use crate::Error;

/// A random UUID (version 4, RFC 9562 section 5.4) as 36 characters of text.
pub(crate) fn make_request_id() -> Result<String, Error> {
    let mut bytes = [0u8; 16];
    random::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(format_uuid(u128::from_be_bytes(bytes)))
}

/// Sets the version and variant bits of `random` and writes it as 8-4-4-4-12 hex digits.
fn format_uuid(random: u128) -> String {
    let bits = (random & !(0xf000_u128 << 64) & !(0xc000_u128 << 48))
        | (0x4000_u128 << 64)
        | (0x8000_u128 << 48);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_variant_bits_are_set_and_the_rest_kept() {
        assert_eq!(format_uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(
            format_uuid(u128::MAX),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        assert_eq!(
            format_uuid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            "00112233-4455-4677-8899-aabbccddeeff"
        );
    }

    #[test]
    fn two_ids_differ() {
        assert_ne!(make_request_id().unwrap(), make_request_id().unwrap());
    }
}
