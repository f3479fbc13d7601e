//! Whoever can write the store can break it, and cannot do anything else.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_keystore::{
    error::{KeyError, KeystoreError},
    info::CacheOptions,
    keystore::Keystore,
    store::{Store, memory::MemoryStore},
};

use crate::fixture::*;

/// A store with one record of each kind and more, and a ciphertext of each version.
pub(crate) struct Subject {
    pub(crate) records: Records,
    ciphertexts: Vec<(Vec<u8>, &'static [u8])>,
}

pub(crate) async fn subject() -> Subject {
    let (store, keystore) = with_key().await;
    keystore
        .create_tenant(&name("acme"), operation(), NOW)
        .await
        .unwrap();
    create(&keystore, "acme", "pii").await;
    create(&keystore, "default", "other").await;
    rotate(&keystore, "acme", "pii").await;
    rotate(&keystore, "default", "pii").await;
    rotate(&keystore, "default", "pii").await;
    keystore
        .set_version_enabled(&name("default"), &name("pii"), 2, false, operation(), NOW)
        .await
        .unwrap();
    for key in ["sys/role/acme/a", "sys/role/acme/b"] {
        keystore
            .change_system_record(key, None, Some(key.as_bytes()), operation(), NOW)
            .await
            .unwrap();
    }
    let mut ciphertexts = Vec::new();
    for (tenant, key, version) in [
        ("default", "pii", 1),
        ("default", "pii", 3),
        ("default", "other", 1),
        ("acme", "pii", 1),
        ("acme", "pii", 2),
    ] {
        let key = keystore.key(tenant, key).await.unwrap();
        let version = key.version(version).await.unwrap();
        ciphertexts.push((encrypt(&version, b"secret"), &b"secret"[..]));
    }
    Subject {
        records: dump(&*store).await,
        ciphertexts,
    }
}

/// Uses everything. `Err` with what was said if any of it was refused.
pub(crate) async fn use_all(store: Arc<dyn Store>, subject: &Subject) -> Result<(), String> {
    let told = |error: KeystoreError| error.to_string();
    let keystore = Keystore::open(store, &ROOT, CacheOptions::default())
        .await
        .map_err(told)?;
    let _ = keystore.audit_key();
    for (ciphertext, plaintext) in &subject.ciphertexts {
        let opened = decrypt(&keystore, ciphertext)
            .await
            .map_err(|error| error.to_string())?;
        assert_eq!(opened, *plaintext, "opened as something else");
    }
    let tenants = keystore.list_tenants(None, 10).await.map_err(told)?;
    assert_eq!(tenants.len(), 2);
    for tenant in &tenants {
        let keys = keystore
            .list_keys(&tenant.name, None, 10)
            .await
            .map_err(told)?;
        for key in &keys {
            let described = keystore
                .describe_key(&tenant.name, &key.name, NOW)
                .await
                .map_err(told)?;
            assert_eq!(described.enabled, key.enabled);
            let used = keystore
                .key(tenant.name.as_str(), key.name.as_str())
                .await
                .map_err(|error| error.to_string())?;
            assert_eq!(used.handle(), key.handle);
            for version in described.versions {
                match used.version(version.number).await {
                    Ok(_) => assert!(version.enabled),
                    Err(KeyError::VersionDisabled) => assert!(!version.enabled),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }
    for (key, record) in keystore
        .system_records("sys/", None, 10)
        .await
        .map_err(told)?
    {
        assert_eq!(record.payload, key.as_bytes());
        let again = keystore.system_record(&key).await.map_err(told)?;
        assert_eq!(again, Some(record));
    }
    Ok(())
}

async fn refused(subject: &Subject, key: &Bytes, value: Option<Vec<u8>>, what: &str) {
    let mut records = subject.records.clone();
    match value {
        Some(value) => records.insert(key.clone(), value.into()),
        None => records.remove(key),
    };
    let outcome = use_all(restore(&records).await, subject).await;
    assert!(outcome.is_err(), "{what} of {key:?} was not refused");
}

#[tokio::test]
async fn the_untouched_store_is_taken() {
    let subject = subject().await;
    use_all(restore(&subject.records).await, &subject)
        .await
        .unwrap();
    let kinds = [
        "meta/store",
        "root/keyring",
        "root/record-key",
        "root/audit-key",
    ];
    assert!(
        kinds
            .iter()
            .all(|key| subject.records.contains_key(key.as_bytes()))
    );
    assert_eq!(subject.records.len(), 4 + 2 + 3 + 6 + 2);
}

#[tokio::test]
async fn a_bit_changed_in_any_byte_of_any_record_is_refused() {
    let subject = subject().await;
    for (key, value) in &subject.records {
        for at in 0..value.len() {
            let mut changed = value.to_vec();
            changed[at] ^= 1 << (at % 8);
            refused(
                &subject,
                key,
                Some(changed),
                &format!("a changed byte {at}"),
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_record_cut_short_extended_or_emptied_is_refused() {
    let subject = subject().await;
    for (key, value) in &subject.records {
        for keep in [0, 1, 7, 8, 39, 40, value.len() / 2, value.len() - 1] {
            let keep = keep.min(value.len() - 1);
            refused(&subject, key, Some(value[..keep].to_vec()), "a prefix").await;
        }
        // The last two are whole protobuf fields with numbers that nothing uses.
        for more in [&[0][..], &[8], &[255], &[0x78, 1], &[0xfa, 1, 0]] {
            let mut longer = value.to_vec();
            longer.extend_from_slice(more);
            refused(&subject, key, Some(longer), "an extension").await;
        }
    }
}

#[tokio::test]
async fn a_record_moved_to_another_key_is_refused() {
    let subject = subject().await;
    for key in subject.records.keys() {
        for (other, value) in &subject.records {
            if key != other {
                let what = format!("the value of {other:?} in place");
                refused(&subject, key, Some(value.to_vec()), &what).await;
            }
        }
    }
}

#[tokio::test]
async fn a_record_of_another_store_with_the_same_root_is_refused() {
    let (one, two) = (subject().await, subject().await);
    let mut versions = two.records.iter().filter(|(key, _)| key.starts_with(b"v/"));
    for key in one.records.keys() {
        let foreign = match two.records.get(key) {
            Some(value) => value,
            None => versions.next().unwrap().1,
        };
        refused(&one, key, Some(foreign.to_vec()), "a foreign value").await;
    }
}

#[tokio::test]
async fn a_missing_record_is_refused_where_another_one_names_it() {
    let subject = subject().await;
    for key in subject.records.keys() {
        // Nothing else knows of a role or of a tenant without keys; the audit trail does (see `rollback`).
        if !key.starts_with(b"sys/") && !key.starts_with(b"k/") {
            // A tenant that is gone shows in the count of tenants, which is an assertion here.
            if key.starts_with(b"t/acme") {
                continue;
            }
            refused(&subject, key, None, "the absence").await;
        }
    }
}

#[tokio::test]
async fn the_error_names_the_record_and_what_to_do() {
    let subject = subject().await;
    let key: &[u8] = b"k/default/pii";
    let mut changed = subject.records[key].to_vec();
    changed[10] ^= 1;
    let store = restore(&subject.records).await;
    put(&*store, key, &changed).await;
    let keystore = open(store).await;
    let error = keystore.key("default", "pii").await.unwrap_err();
    assert!(matches!(error, KeyError::Damaged(_)), "{error}");
    let told = error.to_string();
    for part in [
        "`k/default/pii`",
        "changed outside of Fieldkeep or the disk is damaged",
        "restore it from a backup",
        "do not go on",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    // The neighbours are not touched by it.
    keystore.key("default", "other").await.unwrap();
}

#[tokio::test]
async fn an_unknown_format_says_which_version_to_use() {
    let subject = subject().await;
    let mut meta = subject.records[b"meta/store".as_slice()].to_vec();
    assert_eq!(meta[..2], [8, 1], "format 1 comes first");
    meta[1] = 2;
    let store = restore(&subject.records).await;
    put(&*store, b"meta/store", &meta).await;
    let error = Keystore::open(store, &ROOT, CacheOptions::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, KeystoreError::Format { found: 2, known: 1 }),
        "{error}"
    );
}

#[tokio::test]
async fn another_kind_of_provider_is_its_own_error() {
    let subject = subject().await;
    let store: Arc<MemoryStore> = restore(&subject.records).await;
    let passphrase = fieldkeep_keystore::root::passphrase::Passphrase::new(
        zeroize::Zeroizing::new("a long enough passphrase".to_owned()),
    );
    let error = Keystore::open(store, &passphrase, CacheOptions::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("`fixed`") && error.to_string().contains("`passphrase`"),
        "{error}"
    );
}
