//! The masks themselves: their text form, and what each lets through.
//!
//! `Mask::shown` finds the permitted part of a value, and what [`Mask::apply`] writes is made of that part and of
//! constants alone. So two values that agree on the permitted part look the same behind the mask, and nothing else of a
//! value, its length included, has a way out.

use std::{fmt, str::FromStr};

use unicode_segmentation::UnicodeSegmentation as _;

/// The most characters that `last:N` shows.
pub const MAX_LAST: usize = 4;
/// The longest text of `fixed:TEXT`, in bytes.
pub const MAX_FIXED_BYTES: usize = 64;
/// The longest output of a mask, in bytes, whatever the value: the stars, `@` and the longest domain.
pub const MAX_MASKED_BYTES: usize = STARS.len() + 1 + MAX_DOMAIN_BYTES;

/// What stands for what is not shown, always as many.
const STARS: &str = "***";
/// A character may have any number of combining marks; one beyond this many bytes is not shown.
const MAX_CHARACTER_BYTES: usize = 32;
/// RFC 1035, section 2.3.4, as text.
const MAX_DOMAIN_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;
/// The longest time of day and zone after a date, in bytes.
const MAX_TIME_BYTES: usize = 32;

/// How a field is shown to a caller who may decrypt it only masked. Its text form is what [`Mask::from_str`] takes and
/// `Display` gives: `last:N`, `email-domain`, `year`, `fixed:TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask(Kind);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// 1 to [`MAX_LAST`].
    Last(usize),
    EmailDomain,
    Year,
    /// 1 to [`MAX_FIXED_BYTES`] bytes without control characters.
    Fixed(Box<str>),
}

/// Why a text is no mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// No kind of this name.
    #[error(
        "not a mask: write `last:N` with N from 1 to 4, `email-domain`, `year`, or `fixed:TEXT`"
    )]
    Kind,
    /// The number of characters is not one that may be shown.
    #[error("`last` shows 1 to 4 characters: write `last:4`, for example")]
    Last,
    /// The fixed text is empty or too long.
    #[error("the text of `fixed:TEXT` has 1 to 64 bytes; `fixed` alone stands for `fixed:***`")]
    FixedLength,
    /// The fixed text would do something to a terminal or a log.
    #[error("the text of `fixed:TEXT` has no control characters, such as line breaks and tabs")]
    FixedControl,
}

impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Mask, MaskError> {
        let kind = match text.split_once(':') {
            None if text == "email-domain" => Kind::EmailDomain,
            None if text == "year" => Kind::Year,
            None if text == "fixed" => Kind::Fixed(STARS.into()),
            Some(("fixed", fixed)) => fixed_text(fixed)?,
            Some(("last", number)) => Kind::Last(last_number(number)?),
            None if text == "last" => return Err(MaskError::Last),
            _ => return Err(MaskError::Kind),
        };
        Ok(Mask(kind))
    }
}

fn fixed_text(text: &str) -> Result<Kind, MaskError> {
    if !(1..=MAX_FIXED_BYTES).contains(&text.len()) {
        return Err(MaskError::FixedLength);
    }
    if text.chars().any(char::is_control) {
        return Err(MaskError::FixedControl);
    }
    Ok(Kind::Fixed(text.into()))
}

/// One digit, so that each mask has one text form.
fn last_number(text: &str) -> Result<usize, MaskError> {
    match text.as_bytes() {
        [digit @ b'1'..=b'9'] => Some(usize::from(digit - b'0')),
        _ => None,
    }
    .filter(|count| *count <= MAX_LAST)
    .ok_or(MaskError::Last)
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Last(count) => write!(f, "last:{count}"),
            Kind::EmailDomain => f.write_str("email-domain"),
            Kind::Year => f.write_str("year"),
            Kind::Fixed(text) => write!(f, "fixed:{text}"),
        }
    }
}

impl Mask {
    /// Appends to `out` what the mask shows of `plaintext`: at most [`MAX_MASKED_BYTES`] of UTF-8 without control
    /// characters. Nothing of `plaintext` is copied but what is shown, so there is nothing here to wipe; `plaintext`
    /// itself is the caller's to wipe.
    pub fn apply(&self, plaintext: &[u8], out: &mut Vec<u8>) {
        let parts = match (&self.0, self.shown(plaintext)) {
            (Kind::Fixed(text), _) => [text.as_ref(), "", ""],
            (_, None) => [STARS, "", ""],
            (Kind::Last(_), Some(shown)) => [STARS, shown, ""],
            (Kind::EmailDomain, Some(shown)) => [STARS, "@", shown],
            (Kind::Year, Some(shown)) => [shown, "-**", "-**"],
        };
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Whether it shows no more of any value than `other` does; without a mask nothing is shown.
    ///
    /// Two different masks mostly show different things, `last:2` and `last:4` too: of a short value `last:4` shows nothing.
    #[must_use]
    pub fn shows_no_more_than(&self, other: Option<&Mask>) -> bool {
        matches!(self.0, Kind::Fixed(_)) || other == Some(self)
    }

    /// The permitted part: all that the output depends on. `None` if the value is not of the mask's kind, and then
    /// nothing of it is shown.
    fn shown<'a>(&self, plaintext: &'a [u8]) -> Option<&'a str> {
        if matches!(self.0, Kind::Fixed(_)) {
            return None;
        }
        let text = str::from_utf8(plaintext).ok()?;
        match self.0 {
            Kind::Last(count) => last(text, count),
            Kind::EmailDomain => email_domain(text),
            Kind::Year => year(text),
            Kind::Fixed(_) => None,
        }
    }
}

/// The last `count` characters, as a reader counts them (UAX #29), so that none is split.
///
/// At least as many with a letter or a digit stay hidden. So at most half of a value is ever shown, and padding with
/// spaces or dashes does not count; a shorter value is hidden wholly, not shown in part, which would tell its length.
fn last(text: &str, count: usize) -> Option<&str> {
    let start = text.grapheme_indices(true).rev().nth(count - 1)?.0;
    let (hidden, shown) = text.split_at_checked(start)?;
    let unreadable = |character: &str| {
        character.len() > MAX_CHARACTER_BYTES || character.chars().any(char::is_control)
    };
    if shown.graphemes(true).any(unreadable) {
        return None;
    }
    let tells = |character: &&str| character.chars().any(char::is_alphanumeric);
    let kept_back = hidden.graphemes(true).filter(tells).take(count).count();
    (kept_back == count).then_some(shown)
}

/// The domain of one e-mail address. An address list, a display name or a quoted `@` is none.
fn email_domain(text: &str) -> Option<&str> {
    let (local, domain) = text.split_once('@')?;
    let out_of_place = |c: char| c.is_whitespace() || c.is_control();
    let plausible = !local.is_empty()
        && !local.contains(out_of_place)
        && domain.len() <= MAX_DOMAIN_BYTES
        && domain.contains('.')
        && domain.split('.').all(is_label)
        // A top-level domain begins with a letter, so that an IP address is no domain.
        && domain
            .rsplit('.')
            .next()
            .is_some_and(|top| top.len() >= 2 && top.starts_with(|c: char| c.is_ascii_alphabetic()));
    plausible.then_some(domain)
}

/// A label of a host name (RFC 1123, section 2.1). `@` is in none, so a second one makes the domain implausible.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The year of an ISO 8601 calendar date in its extended format, alone or with a time of day. The whole value must be
/// one: the first digits of something else are not a year.
fn year(text: &str) -> Option<&str> {
    let (date, time) = text.split_at_checked("YYYY-MM-DD".len())?;
    let mut parts = date.split('-');
    let (year, month, day, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let digits = |part: &str, count: usize| {
        (part.len() == count && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    };
    let days = days_of_month(digits(year, 4)?, digits(month, 2)?)?;
    let real = (1..=days).contains(&digits(day, 2)?) && is_time_or_nothing(time);
    real.then_some(year)
}

fn days_of_month(year: u16, month: u16) -> Option<u16> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// What may follow a date: nothing, or `T` or a space, `HH:MM`, and then seconds and a zone.
fn is_time_or_nothing(text: &str) -> bool {
    match text.as_bytes() {
        [] => true,
        [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] => {
            [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit())
                && rest.len() <= MAX_TIME_BYTES
                && rest
                    .iter()
                    .all(|b| b.is_ascii_digit() || b":.,+-Zz".contains(b))
        }
        _ => false,
    }
}
