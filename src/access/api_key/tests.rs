//! Only the key that was made is taken, for as long as it lives.

use bytes::Bytes;
use fieldkeep_crypto::{keys::RecordKey, names::Name};
use fieldkeep_keystore::info::SystemRecord;
use proptest::prelude::*;

use super::{
    format::{API_KEY_BYTES, ApiKey, ApiKeyFormatError, ApiKeyId, PATTERN, checksum},
    record::{NewApiKey, api_key_key},
    *,
};
use crate::access::principal::Identity;

const NOW: u64 = 1_700_000_000;
const TTL_S: u64 = 90 * 24 * 3600;
const DAY_S: u64 = 24 * 3600;

fn hash_key() -> ApiKeyHashKey {
    RecordKey::dangerous_from_bytes(&[7; 32]).derive_api_key_hash_key()
}

fn here() -> IpAddr {
    "192.0.2.7".parse().unwrap()
}

fn new_key(networks: &[&str]) -> NewApiKey {
    let name = |text| Name::parse(text).unwrap();
    NewApiKey {
        identity: Identity::new(name("acme"), name("billing")),
        ttl_s: TTL_S,
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        created_by: "tenants/default/identities/admin".into(),
    }
}

fn make() -> (ApiKey, ApiKeyRecord) {
    ApiKeyRecord::make(new_key(&[]), &hash_key(), NOW).unwrap()
}

/// What a caller with this text learns from this record.
fn outcome(text: &str, record: &ApiKeyRecord, now: u64) -> Result<Secret, ApiKeyRefusal> {
    let presented = PresentedKey::parse(text.as_bytes()).unwrap();
    authenticate(Some(record), &presented, &hash_key(), here(), now)
}

/// The same text with the checksum that it ought to have.
fn with_checksum(text: &str) -> String {
    let body = &text[..API_KEY_BYTES - 6];
    format!(
        "{body}{}",
        str::from_utf8(&checksum(body.as_bytes())).unwrap()
    )
}

#[derive(serde::Deserialize)]
struct Vectors {
    hash: Vec<HashCase>,
    refuse: Vec<RefuseCase>,
}

#[derive(serde::Deserialize)]
struct HashCase {
    name: String,
    record_key: String,
    id: String,
    key: String,
    hash: String,
}

#[derive(serde::Deserialize)]
struct RefuseCase {
    name: String,
    reason: String,
    key: String,
}

#[test]
fn the_vectors_are_met() {
    let vectors = include_str!("../../../tests/vectors/api-key-v1.json");
    let vectors: Vectors = serde_json::from_str(vectors).unwrap();
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    for case in vectors.hash {
        let record_key: [u8; 32] = hex(&case.record_key).try_into().unwrap();
        let hash_key = RecordKey::dangerous_from_bytes(&record_key).derive_api_key_hash_key();
        let presented = PresentedKey::parse(case.key.as_bytes()).unwrap();
        assert_eq!(presented.id().as_str(), case.id, "{}", case.name);
        let hash = presented.hash(&hash_key);
        assert_eq!(hash.as_bytes().as_slice(), hex(&case.hash), "{}", case.name);
    }
    for case in vectors.refuse {
        let expected = match case.reason.as_str() {
            "prefix" => ApiKeyFormatError::Prefix,
            "form" => ApiKeyFormatError::Form,
            "checksum" => ApiKeyFormatError::Checksum,
            other => panic!("{}: unknown reason {other}", case.name),
        };
        let refused = PresentedKey::parse(case.key.as_bytes()).unwrap_err();
        assert_eq!(refused, expected, "{}", case.name);
    }
}

#[test]
fn a_key_is_what_the_pattern_says() {
    assert_eq!(PATTERN, "fk_[0-9a-z]{16}_[0-9A-Za-z]{49}");
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let key = ApiKey::make().unwrap();
        let text = key.dangerous_text();
        assert_eq!(
            (text.len(), text.capacity()),
            (API_KEY_BYTES, API_KEY_BYTES)
        );
        let (prefix, rest) = text.split_at(3);
        let (id, rest) = rest.split_at(16);
        let (separator, rest) = rest.split_at(1);
        assert_eq!((prefix, separator, rest.len()), ("fk_", "_", 49));
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        );
        assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(seen.insert(id.to_owned()) && seen.insert(rest.to_owned()));
    }
}

/// Of 8,600 characters each comes about 139 times. Without the throwing away of bytes the first eight of the alphabet
/// together would come 1,344 times instead of 1,110.
#[test]
fn all_characters_are_drawn_evenly() {
    let mut counts = [0u32; 128];
    for _ in 0..200 {
        let text = ApiKey::make().unwrap().dangerous_text();
        text[20..63]
            .bytes()
            .for_each(|b| counts[usize::from(b)] += 1);
    }
    for character in (b'0'..=b'z').filter(u8::is_ascii_alphanumeric) {
        let count = counts[usize::from(character)];
        assert!((60..=230).contains(&count), "{}", char::from(character));
    }
    let first: u32 = (b'0'..=b'7').map(|b| counts[usize::from(b)]).sum();
    assert!((910..=1270).contains(&first), "{first}");
}

#[test]
fn one_changed_character_is_refused_at_every_position() {
    let (key, _) = make();
    let good = key.dangerous_text();
    for position in 0..API_KEY_BYTES {
        for byte in 0..=u8::MAX {
            let mut changed = good.as_bytes().to_vec();
            if changed[position] == byte {
                continue;
            }
            changed[position] = byte;
            assert!(PresentedKey::parse(&changed).is_err(), "{position}: {byte}");
        }
    }
}

/// Whoever computes the checksum anew gets past it, and then fails for the hash.
#[test]
fn one_changed_character_of_the_secret_is_refused_with_its_checksum_too() {
    let (key, record) = make();
    let good = key.dangerous_text();
    assert_eq!(outcome(&good, &record, NOW), Ok(Secret::Current));
    for position in 20..63 {
        let mut changed = good.to_string();
        let other = if &good[position..=position] == "x" {
            "y"
        } else {
            "x"
        };
        changed.replace_range(position..=position, other);
        let refused = outcome(&with_checksum(&changed), &record, NOW);
        assert_eq!(refused, Err(ApiKeyRefusal::WrongSecret), "{position}");
    }
}

#[test]
fn truncated_appended_and_other_case_are_refused() {
    let (key, _) = make();
    let good = key.dangerous_text();
    for length in 0..API_KEY_BYTES {
        assert!(PresentedKey::parse(&good.as_bytes()[..length]).is_err());
        assert!(PresentedKey::parse(&good.as_bytes()[API_KEY_BYTES - length..]).is_err());
    }
    for byte in 0..=u8::MAX {
        assert!(PresentedKey::parse(&[good.as_bytes(), &[byte]].concat()).is_err());
        assert!(PresentedKey::parse(&[&[byte], good.as_bytes()].concat()).is_err());
    }
    assert!(PresentedKey::parse(good.to_lowercase().as_bytes()).is_err());
    assert!(PresentedKey::parse(good.to_uppercase().as_bytes()).is_err());
}

#[test]
fn the_id_of_another_key_is_refused() {
    let (one, one_record) = make();
    let (other, other_record) = make();
    let mixed = format!(
        "{}{}",
        &other.dangerous_text()[..20],
        &one.dangerous_text()[20..]
    );
    assert!(PresentedKey::parse(mixed.as_bytes()).is_err());
    let mixed = with_checksum(&mixed);
    assert_eq!(
        outcome(&mixed, &other_record, NOW),
        Err(ApiKeyRefusal::WrongSecret)
    );
    assert_eq!(
        outcome(&mixed, &one_record, NOW),
        Err(ApiKeyRefusal::UnknownId)
    );
    // Not even with the hash of the secret in the other's record: the hash is of the id too.
    let planted = ApiKeyRecord {
        hash: one_record.hash,
        ..other_record
    };
    assert_eq!(
        outcome(&mixed, &planted, NOW),
        Err(ApiKeyRefusal::WrongSecret)
    );
}

#[test]
fn without_a_record_or_under_another_hash_key_nothing_is_taken() {
    let (key, record) = make();
    let presented = key.presented();
    let unknown = authenticate(None, &presented, &hash_key(), here(), NOW);
    assert_eq!(unknown, Err(ApiKeyRefusal::UnknownId));
    let other = RecordKey::dangerous_from_bytes(&[8; 32]).derive_api_key_hash_key();
    let wrong = authenticate(Some(&record), &presented, &other, here(), NOW);
    assert_eq!(wrong, Err(ApiKeyRefusal::WrongSecret));
    assert_eq!(
        ApiKeyRefusal::UnknownId.told(),
        ApiKeyRefusal::WrongSecret.told()
    );
}

#[test]
fn a_key_ends_when_it_says() {
    let (key, record) = make();
    let text = key.dangerous_text();
    assert_eq!(record.expires, NOW + TTL_S);
    assert_eq!(
        outcome(&text, &record, NOW + TTL_S - 1),
        Ok(Secret::Current)
    );
    assert_eq!(
        outcome(&text, &record, NOW + TTL_S),
        Err(ApiKeyRefusal::Expired)
    );
    assert_eq!(record.accepted_until(Secret::Current), NOW + TTL_S);
}

#[test]
fn a_life_is_a_second_to_a_year() {
    for (ttl_s, taken) in [
        (0, false),
        (1, true),
        (MAX_TTL_S, true),
        (MAX_TTL_S + 1, false),
        (u64::MAX, false),
    ] {
        let made = ApiKeyRecord::make(
            NewApiKey {
                ttl_s,
                ..new_key(&[])
            },
            &hash_key(),
            NOW,
        );
        assert_eq!(made.is_ok(), taken, "{ttl_s}");
        assert_eq!(
            make().1.rotate(ttl_s, 0, &hash_key(), NOW).is_ok(),
            taken,
            "{ttl_s}"
        );
    }
}

#[test]
fn after_a_rotation_the_previous_secret_is_taken_for_the_overlap() {
    let (old, record) = make();
    let (new, record) = record.rotate(TTL_S, DAY_S, &hash_key(), NOW + 10).unwrap();
    let [old, new] = [old.dangerous_text(), new.dangerous_text()];
    assert_eq!(old[..20], new[..20]);
    let end = NOW + 10 + DAY_S;
    assert_eq!(record.previous_until(), Some(end));
    assert_eq!(record.accepted_until(Secret::Previous), end);
    assert_eq!(outcome(&old, &record, end - 1), Ok(Secret::Previous));
    assert_eq!(outcome(&old, &record, end), Err(ApiKeyRefusal::Rotated));
    assert_eq!(outcome(&new, &record, end), Ok(Secret::Current));
    assert_eq!(record.expires, NOW + 10 + TTL_S);
}

#[test]
fn at_most_two_secrets_are_taken() {
    let (first, record) = make();
    let (second, record) = record.rotate(TTL_S, DAY_S, &hash_key(), NOW).unwrap();
    let (third, record) = record.rotate(TTL_S, DAY_S, &hash_key(), NOW).unwrap();
    let outcomes = [first, second, third].map(|key| outcome(&key.dangerous_text(), &record, NOW));
    assert_eq!(
        outcomes,
        [
            Err(ApiKeyRefusal::WrongSecret),
            Ok(Secret::Previous),
            Ok(Secret::Current)
        ]
    );
}

#[test]
fn an_overlap_prolongs_no_life() {
    let (old, record) = make();
    let late = record.expires - 5;
    let (_, rotated) = record.rotate(TTL_S, DAY_S, &hash_key(), late).unwrap();
    assert_eq!(rotated.previous_until(), Some(record.expires));
    assert_eq!(
        outcome(&old.dangerous_text(), &rotated, record.expires),
        Err(ApiKeyRefusal::Rotated)
    );

    for (overlap_s, now) in [(0, NOW), (DAY_S, record.expires)] {
        let (_, rotated) = record.rotate(TTL_S, overlap_s, &hash_key(), now).unwrap();
        assert_eq!(rotated.previous_until(), None);
        assert_eq!(
            outcome(&old.dangerous_text(), &rotated, now),
            Err(ApiKeyRefusal::WrongSecret)
        );
    }
    let too_long = record.rotate(TTL_S, MAX_OVERLAP_S + 1, &hash_key(), NOW);
    assert!(matches!(too_long, Err(ApiKeyError::Overlap { .. })));
}

#[test]
fn a_key_is_taken_from_its_networks_alone() {
    let new = new_key(&["198.51.100.0/24", "2001:db8::/32"]);
    let (key, record) = ApiKeyRecord::make(new, &hash_key(), NOW).unwrap();
    for (source, taken) in [
        ("198.51.100.9", true),
        ("::ffff:198.51.100.9", true),
        ("2001:db8::9", true),
        ("198.51.101.9", false),
        ("2001:db9::9", false),
    ] {
        let source = source.parse().unwrap();
        let outcome = authenticate(Some(&record), &key.presented(), &hash_key(), source, NOW);
        let expected = if taken {
            Ok(Secret::Current)
        } else {
            Err(ApiKeyRefusal::Network)
        };
        assert_eq!(outcome, expected, "{source}");
    }
    let many = vec!["198.51.100.0/24"; MAX_NETWORKS + 1];
    assert!(ApiKeyRecord::make(new_key(&many), &hash_key(), NOW).is_err());
}

#[test]
fn a_record_comes_back_and_what_another_version_wrote_is_refused() {
    let (_, plain) = ApiKeyRecord::make(new_key(&["198.51.100.0/24"]), &hash_key(), NOW).unwrap();
    let (_, rotated) = plain.rotate(TTL_S, DAY_S, &hash_key(), NOW + 1).unwrap();
    let stored = |payload: Vec<u8>| SystemRecord {
        payload: Bytes::from(payload),
        generation: 1,
    };
    for record in [plain, rotated] {
        let key = api_key_key(record.id);
        let good = record.encode();
        assert!(good.len() < 4055);
        assert_eq!(
            ApiKeyRecord::decode(&key, &stored(good.clone())).unwrap(),
            record
        );
        let with_an_unknown_field = [good.as_slice(), &[0x7a, 1, b'x']].concat();
        for payload in [
            with_an_unknown_field,
            good[..good.len() - 1].to_vec(),
            vec![],
        ] {
            assert!(ApiKeyRecord::decode(&key, &stored(payload)).is_err());
        }
        for key in [
            "sys/api-key/",
            "sys/api-key/short",
            "sys/role/0123456789abcdef",
            "sys/api-key/0123456789ABCDEF",
        ] {
            assert!(
                ApiKeyRecord::decode(key, &stored(good.clone())).is_err(),
                "{key}"
            );
        }
    }
}

#[test]
fn the_record_is_frozen() {
    let id = ApiKeyId::parse("0123456789abcdef").unwrap();
    let (_, record) = make();
    let record = ApiKeyRecord {
        id,
        hash: ApiKeyHash::from_bytes([0xAB; 32]),
        networks: vec!["198.51.100.0/24".parse().unwrap()],
        created_by: "init".into(),
        ..record
    };
    let bytes = [
        b"\x0a\x04acme\x12\x07billing\x1a\x20".as_slice(), &[0xAB; 32],
        b"\x20\x80\xe2\xcf\xaa\x06\x28\x80\xe2\xcf\xaa\x06\x30\x80\xb0\xaa\xae\x06\x3a\x04init\x52\x0f198.51.100.0/24",
    ];
    assert_eq!(record.encode(), bytes.concat());
}

#[test]
fn nothing_shows_a_secret() {
    let (key, record) = make();
    let text = key.dangerous_text();
    let secret = &text[20..63];
    let id = key.id();
    assert_eq!(format!("{key:?}"), format!("ApiKey(redacted, {id})"));
    assert_eq!(
        format!("{:?}", key.presented()),
        format!("PresentedKey(redacted, {id})")
    );
    assert!(!format!("{record:?}").contains(secret));
    assert!(format!("{record:?}").contains("ApiKeyHash(redacted)"));

    trait NotClone<Marker> {
        fn check() {}
    }
    impl<T> NotClone<()> for T {}
    struct IsClone;
    impl<T: Clone> NotClone<IsClone> for T {}
    <ApiKey as NotClone<_>>::check();
    <PresentedKey<'_> as NotClone<_>>::check();
}

#[test]
fn the_last_use_is_known_to_the_hour() {
    let last = LastUse::default();
    assert_eq!(last.last(), None);
    last.note(NOW);
    last.note(NOW - 2 * LAST_USE_STEP_S);
    assert_eq!(last.last(), Some(NOW - NOW % LAST_USE_STEP_S));
    last.note(NOW + LAST_USE_STEP_S);
    assert_eq!(
        last.last(),
        Some(NOW - NOW % LAST_USE_STEP_S + LAST_USE_STEP_S)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_key_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(PresentedKey::parse(&bytes).is_err());
    }

    #[test]
    fn what_is_taken_has_one_text(text in "fk_[0-9a-z]{16}_[0-9A-Za-z]{49}") {
        let fixed = with_checksum(&text);
        prop_assert_eq!(PresentedKey::parse(text.as_bytes()).is_ok(), text == fixed);
        prop_assert!(PresentedKey::parse(fixed.as_bytes()).is_ok());
    }
}
