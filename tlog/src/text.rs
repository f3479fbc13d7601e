//! What the parsers of text share.

use data_encoding::BASE64;

use crate::tree::MAX_SIZE;

/// The bytes that `text` is the base64 of: RFC 4648, section 4, with padding, unused bits zero.
///
/// The decoder by itself reads several padded texts one after the other as one, so that bytes would have more than one form; hence padding counts at the end
/// alone.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if text.trim_end_matches('=').contains('=') {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()
}

/// A size or an index: ASCII decimal without sign and without leading zeros, at most [`MAX_SIZE`].
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let leads_with_zero = text.len() > 1 && text.starts_with('0');
    if leads_with_zero || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= MAX_SIZE)
}

/// Whether the text has one of the characters that no note may have: those below U+0020, other than the newline.
pub(crate) fn has_control_characters(text: &str) -> bool {
    text.bytes().any(|byte| byte < b' ' && byte != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_one_form() {
        for number in [0, 1, 9, 10, 70_000, MAX_SIZE] {
            assert_eq!(parse_decimal(&number.to_string()), Some(number));
        }
    }

    #[test]
    fn base64_has_one_form() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"abcd"] {
            let text = BASE64.encode(bytes);
            assert_eq!(decode_base64(&text).as_deref(), Some(bytes));
        }
        for (malformation, text) in [
            ("padding_missing", "YQ"),
            ("padding_short", "YQ="),
            ("padding_long", "YQ==="),
            ("padding_alone", "===="),
            ("padding_after_a_whole_group", "YWJj===="),
            ("padding_within", "YQ==YWJj"),
            ("padding_within_and_at_the_end", "YQ==YQ=="),
            ("trailing_bits_set", "YR=="),
            ("url_alphabet", "_-8="),
            ("newline_after", "YWJj\n"),
            ("newline_within", "YW\nJj"),
        ] {
            assert_eq!(decode_base64(text), None, "{malformation}");
        }
    }

    #[test]
    fn malformed_decimals_are_refused() {
        for (malformation, text) in [
            ("empty", ""),
            ("leading_zero", "01"),
            ("two_zeros", "00"),
            ("plus_sign", "+1"),
            ("minus_sign", "-1"),
            ("space_before", " 1"),
            ("space_after", "1 "),
            ("hexadecimal", "0x1"),
            ("exponent", "1e3"),
            ("arabic_indic_digit", "\u{661}"),
            ("beyond_the_largest_size", "4611686018427387905"),
            ("beyond_64_bits", "18446744073709551616"),
        ] {
            assert_eq!(parse_decimal(text), None, "{malformation}");
        }
    }
}
