//! What the parsers of text share.

use crate::tree::MAX_SIZE;

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
