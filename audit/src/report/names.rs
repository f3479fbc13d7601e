//! Names and numbers as people read them, in text and on the page.

/// `acme/app` for `tenants/acme/identities/app`, `acme/pii` for `tenants/acme/keys/pii`; other names as they are.
pub(super) fn short(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["tenants", tenant, "identities" | "keys", name] => format!("{tenant}/{name}"),
        _ => name.to_owned(),
    }
}

/// Text in which nothing is hidden and nothing moves the cursor: characters of control, and those that change the direction or have
/// no width, are written as escapes.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A whole number with its thousands apart: `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The shape of times: with the hour, if activity is shown by the hour.
pub(super) fn bucket_name(start: crate::export::words::Time, bucket_s: u64) -> String {
    let text = start.for_people();
    // `2026-11-28 14:05:09`: the day, or the day and the minute.
    let end = if bucket_s < 86_400 { 16 } else { 10 };
    text.get(..end).unwrap_or(&text).to_owned()
}

/// What a bucket is called: `hour`, `day`, `3 days`.
pub(super) fn bucket_unit(bucket_s: u64) -> String {
    match bucket_s / 86_400 {
        0 => String::from("hour"),
        1 => String::from("day"),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::words::Time;

    #[test]
    fn names_of_identities_and_keys_are_short() {
        assert_eq!(short("tenants/acme/identities/app"), "acme/app");
        assert_eq!(short("tenants/acme/keys/pii"), "acme/pii");
        for name in ["tenants/acme/groups/ops", "(nobody)", "", "handle:0a"] {
            assert_eq!(short(name), name);
        }
    }

    #[test]
    fn nothing_is_hidden() {
        assert_eq!(
            visible("a\u{202e}b\n\x1b[31m"),
            "a\\u{202e}b\\u{a}\\u{1b}[31m"
        );
        assert_eq!(visible("naïve 日本"), "naïve 日本");
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn buckets_are_named_by_their_length() {
        let start = Time(1_795_874_400_000_000);
        assert_eq!(bucket_name(start, 3_600), "2026-11-28 14:00");
        assert_eq!(bucket_name(start, 86_400), "2026-11-28");
        assert_eq!(bucket_unit(3_600), "hour");
        assert_eq!(bucket_unit(3 * 86_400), "3 days");
    }
}
