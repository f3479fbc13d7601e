//! The hierarchy is made, kept and found again; nothing of it shows.

use std::sync::Arc;

use fieldkeep_crypto::{ciphertext::Handle, names::Field};
use fieldkeep_keystore::{
    error::{KeyError, KeystoreError},
    info::CacheOptions,
    keystore::Keystore,
    root::{RootProvider, passphrase::Passphrase},
    store::{Store, memory::MemoryStore},
};
use zeroize::Zeroizing;

use crate::fixture::*;

/// What any store must do: make, use, change, reopen, use.
pub(crate) async fn round_trip(store: Arc<dyn Store>) {
    let keystore = Keystore::init(store.clone(), &ROOT, NOW).await.unwrap();
    keystore
        .create_tenant(&name("acme"), operation(), NOW)
        .await
        .unwrap();
    create(&keystore, "default", "pii").await;
    create(&keystore, "acme", "pii").await;
    let mut kept = Vec::new();
    for tenant in ["default", "acme"] {
        for expected in 1..=3 {
            let key = keystore.key(tenant, "pii").await.unwrap();
            assert_eq!(key.primary().number(), expected);
            kept.push((tenant, encrypt(key.primary(), tenant.as_bytes())));
            rotate(&keystore, tenant, "pii").await;
        }
    }
    let id = *keystore.store_id();
    drop(keystore);
    let keystore = open(store).await;
    assert_eq!(*keystore.store_id(), id);
    assert_eq!(keystore.root_provider(), "fixed");
    for (tenant, ciphertext) in &kept {
        assert_eq!(
            decrypt(&keystore, ciphertext).await.unwrap(),
            tenant.as_bytes()
        );
    }
    let key = keystore.key("acme", "pii").await.unwrap();
    assert_eq!(
        (key.tenant().as_str(), key.name().as_str()),
        ("acme", "pii")
    );
    assert_eq!((key.primary().number(), key.suite()), (4, SUITE));
    assert!(key.enabled());
}

#[tokio::test]
async fn round_trip_in_memory() {
    round_trip(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn another_root_key_is_told_apart_from_damage() {
    let (store, _) = init().await;
    let error = Keystore::open(store, &FixedRoot([8; 32]), CacheOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::WrongRoot), "{error}");
    assert!(error.to_string().contains("passphrase or key file"));
}

#[tokio::test]
async fn init_wants_an_empty_store_and_open_a_full_one() {
    let (store, _) = init().await;
    let error = Keystore::init(store, &ROOT, NOW).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotEmpty), "{error}");
    let empty = Arc::new(MemoryStore::new());
    let error = Keystore::open(empty, &ROOT, CacheOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::NotInitialised), "{error}");
}

#[tokio::test]
async fn two_stores_share_nothing() {
    let (one, first) = with_key().await;
    let (two, second) = with_key().await;
    assert_ne!(first.store_id(), second.store_id());
    let (one, two) = (dump(&*one).await, dump(&*two).await);
    for (key, value) in &one {
        assert_ne!(two.get(key), Some(value), "{key:?}");
    }
}

#[tokio::test]
async fn unknown_names_and_handles_are_not_found() {
    let (_, keystore) = with_key().await;
    for (tenant, key) in [
        ("default", "other"),
        ("acme", "pii"),
        ("default", "Not a name"),
        ("", ""),
    ] {
        let error = keystore.key(tenant, key).await.unwrap_err();
        assert!(
            matches!(error, KeyError::NotFound),
            "{tenant}/{key}: {error}"
        );
    }
    let error = keystore
        .key_by_handle(Handle::from_bytes([9; 8]))
        .await
        .unwrap_err();
    assert!(matches!(error, KeyError::NotFound), "{error}");
    // A key that was asked for too early is found once it is there.
    create(&keystore, "default", "other").await;
    keystore.key("default", "other").await.unwrap();
}

#[tokio::test]
async fn a_key_is_two_small_records() {
    let (store, keystore) = init().await;
    let before = dump(&*store).await.len();
    create(&keystore, "default", "customer-pii").await;
    let records = dump(&*store).await;
    assert_eq!(records.len(), before + 2);
    let bytes = |prefix: &[u8]| {
        records
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
    };
    assert!(bytes(b"k/") < 120, "{}", bytes(b"k/"));
    assert!(bytes(b"v/") < 230, "{}", bytes(b"v/"));
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let (_, keystore) = with_key().await;
    let key = keystore.key("default", "pii").await.unwrap();
    encrypt(key.primary(), b"x");
    let (root_key, _) = ROOT.make().unwrap();
    let version = key.version(1).await.unwrap();
    let field_key = version.field_key(Field::parse("customer.email").unwrap());
    let passphrase = Passphrase::new(Zeroizing::new("correct horse battery".to_owned()));
    let shown = format!(
        "{keystore:?} {key:#?} {version:#?} {root_key:?} {field_key:?} {:?} {passphrase:?}",
        keystore.audit_key()
    );
    for secret in ["7, 7", "0707", "horse", "dek", "Dek(["] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    for harmless in ["default", "pii", "number: 1", "redacted"] {
        assert!(shown.contains(harmless), "{harmless} not in {shown}");
    }
}

#[tokio::test]
async fn tenants_are_listed_in_pages_and_never_made_twice() {
    let (_, keystore) = init().await;
    for tenant in ["acme", "bank", "zoo"] {
        let made = keystore
            .create_tenant(&name(tenant), operation(), NOW + 5)
            .await
            .unwrap();
        assert_eq!(made.value, keystore.tenant(&name(tenant)).await.unwrap());
        assert_eq!((made.value.created, made.value.kek_version), (NOW + 5, 1));
        assert_eq!(made.changes.len(), 1);
    }
    let error = keystore
        .create_tenant(&name("acme"), operation(), NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::TenantExists(_)), "{error}");
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = keystore.list_tenants(after.as_deref(), 2).await.unwrap();
        all.extend(page.iter().map(|tenant| tenant.name.to_string()));
        let Some(last) = page.last().filter(|_| page.len() == 2) else {
            break;
        };
        after = Some(last.name.to_string());
    }
    assert_eq!(all, ["acme", "bank", "default", "zoo"]);
    let error = keystore.tenant(&name("none")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::TenantNotFound(_)), "{error}");
}

#[tokio::test]
async fn secrets_of_the_system_open_only_under_their_own_name() {
    let (store, keystore) = init().await;
    let wrapped = keystore
        .wrap_system_secret("ca/1", b"private key", NOW)
        .unwrap();
    assert!(!wrapped.windows(11).any(|part| part == b"private key"));
    let again = open(store).await;
    assert_eq!(
        *again.unwrap_system_secret("ca/1", &wrapped).unwrap(),
        b"private key"
    );
    let refused = |object_id: &str, wrapped: &[u8]| {
        let error = again.unwrap_system_secret(object_id, wrapped).unwrap_err();
        assert!(
            matches!(error, KeystoreError::SecretDamaged { .. }),
            "{error}"
        );
    };
    refused("ca/2", &wrapped);
    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 1 << (at % 8);
        refused("ca/1", &changed);
    }
    refused("ca/1", &wrapped[..wrapped.len() - 1]);
    refused("ca/1", b"");
}
