//! Masks show what they say and nothing else, for any value.

use bytes::Bytes;
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    kind::{MAX_LAST, MAX_MASKED_BYTES, MaskError},
    *,
};

fn mask(text: &str) -> Mask {
    text.parse().unwrap()
}

fn masked(mask: &Mask, plaintext: &[u8]) -> String {
    let mut out = b"before".to_vec();
    mask.apply(plaintext, &mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before").unwrap().to_owned()
}

fn shows(kind: &str, plaintext: &str) -> String {
    masked(&mask(kind), plaintext.as_bytes())
}

#[test]
fn last_shows_the_end_of_a_long_enough_value() {
    assert_eq!(shows("last:4", "4111-1111-1111-1234"), "***1234");
    assert_eq!(shows("last:4", "12345678"), "***5678");
    assert_eq!(shows("last:1", "ab"), "***b");
    assert_eq!(shows("last:2", "日本東京"), "***東京");
}

#[test]
fn last_hides_what_is_too_short_wholly() {
    for count in 1..=MAX_LAST {
        for length in 0..2 * count {
            let value = "7".repeat(length);
            assert_eq!(shows(&format!("last:{count}"), &value), "***", "{value}");
        }
    }
}

#[test]
fn fewer_characters_may_be_more_of_a_value() {
    let (one, four) = (mask("last:1"), mask("last:4"));
    assert!(!one.shows_no_more_than(Some(&four)));
    assert_eq!(
        (masked(&four, b"abc"), masked(&one, b"abc")),
        ("***".into(), "***c".into())
    );
    assert!(one.shows_no_more_than(Some(&one)) && mask("fixed:x").shows_no_more_than(None));
    assert!(!one.shows_no_more_than(None) && !four.shows_no_more_than(Some(&mask("fixed"))));
}

#[test]
fn padding_does_not_make_a_value_longer() {
    for value in [
        "    1234",
        "----1234",
        "\u{200b}\u{200b}\u{200b}\u{200b}1234",
        "...a1234",
    ] {
        assert_eq!(shows("last:4", value), "***", "{value:?}");
    }
}

#[test]
fn last_never_splits_a_character() {
    let family = "👨\u{200d}👩\u{200d}👧";
    let accented = "e\u{301}";
    assert_eq!(
        shows("last:1", &format!("ab{family}")),
        format!("***{family}")
    );
    assert_eq!(
        shows("last:2", &format!("ab{accented}x")),
        format!("***{accented}x")
    );
    assert_eq!(shows("last:1", "ab🇩🇪"), "***🇩🇪");
    let tower = format!("abcdefg{}", "\u{301}".repeat(1000));
    assert_eq!(shows("last:1", &tower), "***");
}

#[test]
fn control_characters_and_other_bytes_are_never_shown() {
    assert_eq!(shows("last:4", "12345678\n"), "***");
    assert_eq!(shows("last:4", "12345\u{1b}[0m"), "***");
    for kind in ["last:4", "email-domain", "year"] {
        assert_eq!(masked(&mask(kind), b"\xff12345678"), "***");
        assert_eq!(masked(&mask(kind), b"2024-01-01\xff"), "***");
        assert_eq!(masked(&mask(kind), b"a@example.com\xff"), "***");
    }
}

#[test]
fn email_domain_shows_the_domain_of_one_address() {
    for address in [
        "jane@mail.example.com",
        "j@mail.example.com",
        "日本+x@mail.example.com",
    ] {
        assert_eq!(shows("email-domain", address), "***@mail.example.com");
    }
}

#[test]
fn email_domain_hides_what_is_not_one_address() {
    let long_label = format!("a@{}.com", "x".repeat(64));
    let long_domain = format!("a@{}com", "abc.".repeat(63));
    for value in [
        "",
        "@",
        "jane",
        "jane@",
        "@example.com",
        "a@b@example.com",
        "\"a@b\"@example.com",
        "a@example.com,b@example.com",
        "a@localhost",
        "a@192.0.2.1",
        "a@[192.0.2.1]",
        "a@example.c",
        "a@.com",
        "a@example..com",
        "a@example.com.",
        "a@-example.com",
        "a@example-.com",
        "Jane <a@example.com>",
        "a b@example.com",
        "a@example.com\n",
        "\ta@example.com",
        "a@münchen.example",
        "a@ex ample.com",
        "a@example_x.com",
        "a@example.com/4111",
        &long_label,
        &long_domain,
    ] {
        assert_eq!(shows("email-domain", value), "***", "{value:?}");
    }
}

#[test]
fn year_shows_the_year_of_a_date() {
    for date in [
        "1984-02-29",
        "1984-12-31T23:59",
        "1984-01-01T00:00:00Z",
        "1984-01-01 12:00:00.123456+02:00",
        "1984-06-30t12:00:00,5-03:00",
    ] {
        assert_eq!(shows("year", date), "1984-**-**", "{date}");
    }
    assert_eq!(shows("year", "2000-02-29"), "2000-**-**");
}

#[test]
fn year_hides_what_is_no_date() {
    for value in [
        "",
        "1984",
        "1984-01",
        "19840101",
        "1984-1-1",
        "1984-13-01",
        "1984-00-10",
        "1984-01-00",
        "1984-01-32",
        "1985-02-29",
        "1900-02-29",
        "1984-04-31",
        "+1984-01-01",
        "-984-01-01",
        "84-01-01",
        "1984-01-01x",
        "1984-01-01-5678",
        "1984-01-01T",
        "1984-01-01T1200",
        "1984-01-01T12:00 Berlin",
        "1984/01/01",
        "1984-01-1é",
        "１984-01-01",
        "1984--1-01",
        " 1984-01-01",
        "1984-01-01\n",
    ] {
        assert_eq!(shows("year", value), "***", "{value:?}");
    }
}

#[test]
fn fixed_shows_its_text() {
    assert_eq!(shows("fixed", "anything"), "***");
    assert_eq!(shows("fixed:not shown: ✓", "anything"), "not shown: ✓");
    assert_eq!(masked(&mask("fixed:x"), b"\xff"), "x");
}

#[test]
fn each_malformation_has_its_error() {
    for text in [
        "",
        "first:4",
        "LAST:4",
        "hash",
        "year:4",
        "email-domain:",
        "email",
        " year",
        "fixedx",
    ] {
        assert_eq!(text.parse::<Mask>(), Err(MaskError::Kind), "{text:?}");
    }
    for text in [
        "last", "last:", "last:0", "last:5", "last:04", "last:+4", "last:4 ", "last:44",
    ] {
        assert_eq!(text.parse::<Mask>(), Err(MaskError::Last), "{text:?}");
    }
    let long = format!("fixed:{}", "x".repeat(65));
    assert_eq!("fixed:".parse::<Mask>(), Err(MaskError::FixedLength));
    assert_eq!(long.parse::<Mask>(), Err(MaskError::FixedLength));
    assert_eq!("fixed:a\nb".parse::<Mask>(), Err(MaskError::FixedControl));
}

fn any_mask() -> impl Strategy<Value = Mask> {
    prop_oneof![
        (1..=4u8).prop_map(|count| mask(&format!("last:{count}"))),
        Just(mask("email-domain")),
        Just(mask("year")),
        "[ -~é✓]{1,16}".prop_map(|text| mask(&format!("fixed:{text}"))),
    ]
}

/// Values that come near to what masks look for.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "\\PC{0,40}".prop_map(String::into_bytes),
        "[a-z@. ]{0,12}@?[a-z0-9.-]{0,300}".prop_map(String::into_bytes),
        "[0-9]{3,5}-[0-9]{2}-[0-9]{2}[T ]?[0-9:Z]{0,9}".prop_map(String::into_bytes),
        "[a-z0-9]{0,9}(\u{301}|\u{200d}|👩|🇩|\r|\n|é){0,6}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn the_text_form_comes_back(mask in any_mask()) {
        prop_assert_eq!(mask.to_string().parse::<Mask>(), Ok(mask));
    }

    #[test]
    fn any_text_is_a_mask_or_refused(text in "(last|year|fixed|email-domain)?:?\\PC{0,70}") {
        if let Ok(mask) = text.parse::<Mask>() {
            prop_assert!(mask.to_string() == text || text == "fixed");
        }
    }

    #[test]
    fn an_output_is_short_and_printable(mask in any_mask(), value in any_value()) {
        let shown = masked(&mask, &value);
        prop_assert!(shown.len() <= MAX_MASKED_BYTES);
        prop_assert!(!shown.contains(char::is_control));
    }

    /// What follows the stars is the value's end, in whole characters, and at most half of them.
    #[test]
    fn last_shows_at_most_what_it_says(count in 1usize..=4, value in any_value()) {
        let shown = masked(&mask(&format!("last:{count}")), &value);
        let shown = shown.strip_prefix("***").unwrap();
        if !shown.is_empty() {
            let value: Vec<&str> = str::from_utf8(&value).unwrap().graphemes(true).collect();
            prop_assert!(2 * count <= value.len());
            prop_assert_eq!(value[value.len() - count..].concat(), shown);
        }
    }

    #[test]
    fn last_depends_on_the_end_alone(
        one in "[ -~é✓]{0,40}[a-z0-9]{4}", other in "[ -~é✓]{0,400}[a-z0-9]{4}", end in "[ -~é✓]{4}"
    ) {
        let [one, other] = [one, other].map(|head| shows("last:4", &format!("{head}{end}")));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one, format!("***{end}"));
    }

    #[test]
    fn email_domain_depends_on_the_domain_alone(one in "[!-?A-~é✓]{1,9}", other in "[!-?A-~é✓]{1,90}", domain in "([a-z0-9]{1,9}\\.){1,3}[a-z]{2,5}") {
        let [one, other] = [one, other].map(|local| shows("email-domain", &format!("{local}@{domain}")));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one, format!("***@{domain}"));
    }

    /// Whatever is shown is the whole text after the only `@`.
    #[test]
    fn email_domain_shows_at_most_what_it_says(value in any_value()) {
        let shown = masked(&mask("email-domain"), &value);
        if shown != "***" {
            let value = str::from_utf8(&value).unwrap();
            prop_assert_eq!(value.matches('@').count(), 1);
            prop_assert_eq!(shown.strip_prefix("***@").unwrap(), value.split_once('@').unwrap().1);
        }
    }

    #[test]
    fn year_depends_on_the_year_alone(year in "[0-9]{4}", month in 1..=12, day in 1..=28, time in "(T[0-9]{2}:[0-9]{2}(:[0-9]{2}Z)?)?") {
        prop_assert_eq!(shows("year", &format!("{year}-{month:02}-{day:02}{time}")), format!("{year}-**-**"));
    }

    #[test]
    fn year_shows_at_most_what_it_says(value in any_value()) {
        let shown = masked(&mask("year"), &value);
        if shown != "***" {
            prop_assert_eq!(shown.as_bytes(), [&value[..4], b"-**-**"].concat());
            prop_assert!(value[..4].iter().all(u8::is_ascii_digit) && value[4] == b'-');
        }
    }

    #[test]
    fn fixed_depends_on_nothing(text in "[ -~é✓]{1,16}", value in any_value()) {
        prop_assert_eq!(masked(&mask(&format!("fixed:{text}")), &value), text);
    }

    /// If one mask shows no more than another, it does not tell apart what the other does not.
    #[test]
    fn what_shows_no_more_tells_nothing_apart_that_looked_equal(
        (mask, other) in prop_oneof![(any_mask(), any_mask()), any_mask().prop_map(|mask| (mask.clone(), mask))],
        one in any_value(),
        two in any_value(),
    ) {
        if mask.shows_no_more_than(Some(&other)) && masked(&other, &one) == masked(&other, &two) {
            prop_assert_eq!(masked(&mask, &one), masked(&mask, &two));
        }
        if mask.shows_no_more_than(None) {
            prop_assert_eq!(masked(&mask, &one), masked(&mask, &two));
        }
    }

    #[test]
    fn a_mask_over_a_mask_shows_no_more(mask in any_mask(), value in any_value()) {
        let once = masked(&mask, &value);
        let twice = masked(&mask, once.as_bytes());
        prop_assert!(twice == once || twice == "***");
    }
}

fn field_mask() -> FieldMask {
    FieldMask {
        tenant: Name::parse("acme").unwrap(),
        field: Name::parse("customer.card").unwrap(),
        mask: mask("last:4"),
        created: 1_700_000_000,
        set_by: "tenants/default/identities/admin".into(),
    }
}

fn record(payload: Vec<u8>) -> SystemRecord {
    SystemRecord {
        payload: Bytes::from(payload),
        generation: 1,
    }
}

#[test]
fn a_record_comes_back() {
    let mask = field_mask();
    let key = mask_key(&mask.tenant, &mask.field);
    assert_eq!(key, "sys/mask/acme/customer.card");
    assert!(key.starts_with(&masks_of(&mask.tenant)));
    assert_eq!(
        FieldMask::decode(&key, &record(mask.encode())).unwrap(),
        mask
    );
}

#[test]
fn the_record_is_frozen() {
    let bytes = b"\x0a\x06last:4\x10\x80\xe2\xcf\xaa\x06\x1a\x20tenants/default/identities/admin";
    assert_eq!(field_mask().encode(), bytes);
}

#[test]
fn what_another_version_wrote_is_refused() {
    let key = "sys/mask/acme/customer.card";
    let good = field_mask().encode();
    let with_an_unknown_field = [good.as_slice(), &[0x7a, 1, b'x']].concat();
    let unknown_mask = [b"\x0a\x06hash:4".as_slice(), &good[8..]].concat();
    for payload in [
        with_an_unknown_field,
        unknown_mask,
        good[..9].to_vec(),
        vec![],
    ] {
        assert!(FieldMask::decode(key, &record(payload)).is_err());
    }
    for key in [
        "sys/mask/acme",
        "sys/mask/acme/a/b",
        "sys/mask//a",
        "sys/role/acme/customer.card",
    ] {
        assert!(
            FieldMask::decode(key, &record(good.clone())).is_err(),
            "{key}"
        );
    }
}
