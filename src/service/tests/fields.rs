//! Encrypt, Decrypt and ReEncrypt of one field.

use bytes::Bytes;
use fieldkeep_proto::v1::Decision;

use super::*;
use crate::service::batch::{BatchDecrypt, DecryptItem};
use crate::service::failure::Opaque;
use crate::service::reencrypt::ReEncrypt;

fn reencrypt(ciphertext: &Bytes, destination: Option<&str>) -> ReEncrypt {
    ReEncrypt {
        field: field("email"),
        context: context("42"),
        ciphertext: ciphertext.clone(),
        destination: destination.map(key),
    }
}

async fn rotate(f: &Fixture) {
    f.keystore
        .rotate_key(&name("acme"), &name("pii"), operation(), NOW)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_encrypted_is_decrypted() {
    let f = Fixture::make().await;
    for plaintext in [&b""[..], b"a@b.c", &[0xFF; 65_536]] {
        let sealed = f.encrypt("acme/app", plaintext).await.unwrap();
        assert_eq!(sealed.ciphertext.len(), plaintext.len() + 86);
        assert_eq!(
            f.perform("acme/app", decrypt(&sealed.ciphertext)).await,
            Ok(whole(plaintext))
        );
    }
}

#[tokio::test]
async fn every_ciphertext_that_does_not_open_is_one_failure_with_its_own_record() {
    let f = Fixture::make().await;
    let own = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    let foreign = f.encrypt("other/app", b"x").await.unwrap().ciphertext;
    let changed = |at: usize, byte: u8| {
        let mut bytes = own.to_vec();
        bytes[at] ^= byte;
        Bytes::from(bytes)
    };
    let mut extended = own.to_vec();
    extended.push(0);
    let cases = [
        (foreign.clone(), Opaque::ForeignTenant),
        (changed(3, 1), Opaque::UnknownHandle),
        (changed(13, 6), Opaque::NoSuchVersion),
        (changed(20, 1), Opaque::DecryptionFailed),
        (changed(own.len() - 1, 1), Opaque::DecryptionFailed),
        (Bytes::from(extended), Opaque::DecryptionFailed),
        (changed(0, 1), Opaque::Malformed),
        (changed(1, 3), Opaque::Malformed),
        (own.slice(..85), Opaque::Malformed),
        (Bytes::new(), Opaque::Malformed),
    ];
    for (ciphertext, cause) in cases {
        let failure = f
            .perform("acme/app", decrypt(&ciphertext))
            .await
            .unwrap_err();
        assert_eq!(failure, Failure::DecryptionFailed(cause));
        assert_eq!(failure.to_string(), "decryption failed");
        assert_eq!(f.last_record().reason, cause.as_str());
    }
    for (field_name, id) in [("phone", "42"), ("email", "43")] {
        let operation = Decrypt {
            field: field(field_name),
            context: context(id),
            ciphertext: own.clone(),
        };
        let failure = f.perform("acme/app", operation).await.unwrap_err();
        assert_eq!(failure, Failure::DecryptionFailed(Opaque::DecryptionFailed));
    }
}

#[tokio::test]
async fn a_foreign_tenants_key_does_not_encrypt() {
    let f = Fixture::make().await;
    let refused = f
        .perform("acme/app", encrypt("tenants/other/keys/pii", b"x"))
        .await
        .unwrap_err();
    assert_eq!(refused_by(&refused), "foreign-tenant");
    assert!(
        f.perform("acme/app", encrypt("tenants/acme/keys/pii", b"x"))
            .await
            .is_ok()
    );
    let unknown = f
        .perform("acme/app", encrypt("nothing", b"x"))
        .await
        .unwrap_err();
    assert_eq!(unknown, Failure::KeyNotFound("nothing".into()));
}

#[tokio::test]
async fn a_disabled_key_or_version_is_told_to_its_owner_alone() {
    let f = Fixture::make().await;
    let old = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    rotate(&f).await;
    let (tenant, pii) = (name("acme"), name("pii"));
    f.keystore
        .set_version_enabled(&tenant, &pii, 1, false, operation(), NOW)
        .await
        .unwrap();
    assert_eq!(
        f.perform("acme/app", decrypt(&old)).await,
        Err(Failure::VersionDisabled)
    );
    assert_eq!(f.last_record().reason, "version-disabled");
    f.keystore
        .set_key_enabled(&tenant, &pii, false, operation(), NOW)
        .await
        .unwrap();
    assert_eq!(
        f.perform("acme/app", decrypt(&old)).await,
        Err(Failure::KeyDisabled)
    );
    assert_eq!(f.encrypt("acme/app", b"x").await, Err(Failure::KeyDisabled));
    let foreign = f.perform("other/app", decrypt(&old)).await.unwrap_err();
    assert_eq!(foreign, Failure::DecryptionFailed(Opaque::ForeignTenant));
}

#[tokio::test]
async fn a_current_ciphertext_comes_back_unchanged_but_only_if_it_opens() {
    let f = Fixture::make().await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap();
    let same = f
        .perform("acme/app", reencrypt(&sealed.ciphertext, None))
        .await
        .unwrap();
    assert_eq!(
        (same.ciphertext, same.version, same.changed),
        (sealed.ciphertext.clone(), 1, false)
    );
    let mut bytes = sealed.ciphertext.to_vec();
    bytes[60] ^= 1;
    let failure = f
        .perform("acme/app", reencrypt(&Bytes::from(bytes), None))
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::DecryptionFailed(Opaque::DecryptionFailed));
}

#[tokio::test]
async fn after_a_rotation_a_ciphertext_moves_to_the_new_version() {
    let f = Fixture::make().await;
    let old = f.encrypt("acme/app", b"value").await.unwrap().ciphertext;
    rotate(&f).await;
    let new = f.perform("acme/app", reencrypt(&old, None)).await.unwrap();
    assert_eq!((new.version, new.changed), (2, true));
    assert_eq!(
        f.perform("acme/app", decrypt(&new.ciphertext)).await,
        Ok(whole(b"value"))
    );
    assert_eq!(
        f.perform("acme/app", decrypt(&old)).await,
        Ok(whole(b"value"))
    );
}

#[tokio::test]
async fn another_key_of_the_own_tenant_may_be_the_destination() {
    let f = Fixture::make().await;
    let tenant = name("acme");
    f.keystore
        .create_key(
            &tenant,
            &name("new"),
            Suite::KcXaes256Gcm.into(),
            operation(),
            NOW,
        )
        .await
        .unwrap();
    let old = f.encrypt("acme/app", b"value").await.unwrap().ciphertext;
    let new = f
        .perform("acme/app", reencrypt(&old, Some("new")))
        .await
        .unwrap();
    assert!(new.changed);
    assert_ne!(new.ciphertext[2..10], old[2..10]);
    assert_eq!(
        f.perform("acme/app", decrypt(&new.ciphertext)).await,
        Ok(whole(b"value"))
    );
    let record = f
        .records()
        .into_iter()
        .rev()
        .find(|record| record.action == "re-encrypt")
        .unwrap();
    let names: Vec<&str> = record
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect();
    assert_eq!(names, ["tenants/acme/keys/pii", "tenants/acme/keys/new"]);
    let foreign = f
        .perform("acme/app", reencrypt(&old, Some("tenants/other/keys/pii")))
        .await
        .unwrap_err();
    assert_eq!(refused_by(&foreign), "foreign-tenant");
}

/// Overwrites a stored record with bytes that do not verify.
async fn damage(f: &Fixture, store_key: &'static str) {
    let store = f.keystore.store();
    let present = store.get(store_key.as_bytes()).await.unwrap().unwrap();
    let transaction = fieldkeep_keystore::store::Transaction {
        operation: operation(),
        expect: vec![(
            Bytes::from_static(store_key.as_bytes()),
            Some(present.revision),
        )],
        puts: vec![(
            Bytes::from_static(store_key.as_bytes()),
            Bytes::from_static(&[7; 80]),
        )],
        deletes: Vec::new(),
        now: NOW,
    };
    store.commit(transaction).await.unwrap();
}

#[tokio::test]
async fn a_damaged_key_is_opaque_until_the_tenant_is_checked() {
    let f = Fixture::make().await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    // A new key is not in the cache, so that its record is read.
    let suite = Suite::KcXaes256Gcm;
    let cold = f
        .keystore
        .create_key(
            &name("other"),
            &name("cold"),
            suite.into(),
            operation(),
            NOW,
        )
        .await
        .unwrap()
        .value;
    damage(&f, "k/other/cold").await;
    let mut forged = sealed.to_vec();
    forged[2..10].copy_from_slice(cold.handle.as_bytes());
    let failure = f
        .perform("acme/app", decrypt(&Bytes::from(forged)))
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::DecryptionFailed(Opaque::Damaged));
    assert_eq!(f.last_record().reason, "damaged");
}

#[tokio::test]
async fn a_ciphertext_that_does_not_open_says_so_before_its_destination_is_looked_up() {
    let f = Fixture::make().await;
    let own = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    let mut broken = own.to_vec();
    broken[60] ^= 1;
    let mut unknown = own.to_vec();
    unknown[3] ^= 1;
    for ciphertext in [broken, unknown] {
        for destination in ["missing", "tenants/other/keys/pii"] {
            let failure = f
                .perform(
                    "acme/app",
                    reencrypt(&Bytes::from(ciphertext.clone()), Some(destination)),
                )
                .await
                .unwrap_err();
            assert_eq!(failure.to_string(), "decryption failed");
        }
    }
    let failure = f
        .perform("acme/app", reencrypt(&own, Some("missing")))
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::KeyNotFound("missing".into()));
}

#[tokio::test]
async fn a_foreign_key_is_refused_on_record_and_opaque_to_the_caller() {
    let f = Fixture::make().await;
    let own = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    let foreign = f.encrypt("other/app", b"x").await.unwrap().ciphertext;
    let decided = || {
        let record = f.last_record();
        (record.decision(), record.rule)
    };
    let refused = (Decision::Refused, String::from("foreign-tenant"));
    let failure = f.perform("acme/app", decrypt(&foreign)).await.unwrap_err();
    assert_eq!(failure.to_string(), "decryption failed");
    assert_eq!(decided(), refused);
    f.perform("acme/app", reencrypt(&own, Some("tenants/other/keys/pii")))
        .await
        .unwrap_err();
    assert_eq!(decided(), refused);
    let batch = |ciphertexts: &[&Bytes]| BatchDecrypt {
        fields: vec![field("email")],
        shared: context("42"),
        items: ciphertexts
            .iter()
            .map(|ciphertext| {
                Ok(DecryptItem {
                    field: 0,
                    context: None,
                    ciphertext: Bytes::clone(ciphertext),
                })
            })
            .collect(),
    };
    f.perform("acme/app", batch(&[&foreign])).await.unwrap();
    assert_eq!(decided(), refused);
    f.perform("acme/app", batch(&[&foreign, &own]))
        .await
        .unwrap();
    assert_eq!(decided(), (Decision::Allowed, f.rule_of("acme/app")));
}
