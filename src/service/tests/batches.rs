//! Batches: what is distinct, what fails alone, what is on record.

use bytes::Bytes;

use super::*;
use crate::service::batch::{BatchDecrypt, BatchEncrypt, DecryptItem, EncryptItem};
use crate::service::failure::Opaque;
use crate::service::reencrypt::BatchReEncrypt;

fn item(target: usize, plaintext: impl Into<Bytes>) -> Result<EncryptItem, Failure> {
    Ok(EncryptItem {
        target,
        context: None,
        plaintext: plaintext.into(),
    })
}

fn batch(targets: &[(&str, &str)], items: Vec<Result<EncryptItem, Failure>>) -> BatchEncrypt {
    let targets = targets.iter().map(|(k, f)| (key(k), field(f))).collect();
    BatchEncrypt {
        targets,
        shared: context("42"),
        items,
    }
}

fn opening(field: usize, ciphertext: &Bytes) -> Result<DecryptItem, Failure> {
    Ok(DecryptItem {
        field,
        context: None,
        ciphertext: ciphertext.clone(),
    })
}

#[tokio::test]
async fn one_bad_item_takes_nobody_with_it() {
    let f = Fixture::make().await;
    let targets = [
        ("pii", "email"),
        ("missing", "email"),
        ("tenants/other/keys/pii", "email"),
    ];
    let items = vec![
        item(0, "one"),
        Err(Failure::invalid("field", "bad")),
        item(1, "two"),
        item(2, "three"),
        item(0, "four"),
    ];
    let results = f.perform("acme/app", batch(&targets, items)).await.unwrap();
    let outcomes: Vec<&str> = results
        .iter()
        .map(|r| r.as_ref().map_or_else(Failure::word, |_| "ok"))
        .collect();
    assert_eq!(
        outcomes,
        [
            "ok",
            "INVALID_REQUEST",
            "KEY_NOT_FOUND",
            "PERMISSION_DENIED",
            "ok"
        ]
    );
    let record = f.last_record();
    assert_eq!(
        (record.items_ok, record.items_failed, record.code),
        (2, 3, 0)
    );
    assert_eq!(
        record.reason,
        "INVALID_REQUEST:1 KEY_NOT_FOUND:1 PERMISSION_DENIED:1"
    );
    let uses: Vec<(&str, u32, u32)> = record
        .resources
        .iter()
        .map(|r| (r.name.as_str(), r.version, r.items))
        .collect();
    assert_eq!(uses[0], ("tenants/acme/keys/pii", 1, 2));
    assert_eq!(uses[1], ("tenants/acme/keys/missing", 0, 1));
}

#[tokio::test]
async fn a_batch_of_bad_items_is_still_a_reply() {
    let f = Fixture::make().await;
    let items = vec![item(0, "x"), item(0, "y")];
    let results = f
        .perform("acme/app", batch(&[("missing", "email")], items))
        .await
        .unwrap();
    assert!(results.iter().all(Result::is_err));
    let empty = f.perform("acme/app", batch(&[], Vec::new())).await.unwrap();
    assert!(empty.is_empty());
}

#[tokio::test]
async fn without_any_right_the_whole_batch_is_refused() {
    let f = Fixture::make().await;
    let refused = f
        .perform("acme/boss", batch(&[("pii", "email")], vec![item(0, "x")]))
        .await;
    assert_eq!(refused_by(&refused.unwrap_err()), "no-grant");
}

#[tokio::test]
async fn batches_open_again_small_and_beyond_the_runtime_thread() {
    let f = Fixture::make().await;
    for bytes in [3usize, 4000] {
        let plaintexts: Vec<Bytes> = (0..100u8).map(|n| Bytes::from(vec![n; bytes])).collect();
        let items = plaintexts
            .iter()
            .map(|plaintext| item(0, plaintext.clone()))
            .collect();
        let sealed = f
            .perform("acme/app", batch(&[("pii", "email")], items))
            .await
            .unwrap();
        let sealed: Vec<Bytes> = sealed
            .into_iter()
            .map(|result| result.unwrap().ciphertext)
            .collect();
        assert!(
            sealed
                .iter()
                .all(|ciphertext| ciphertext.len() == bytes + 86)
        );
        let nonces: std::collections::BTreeSet<&[u8]> = sealed.iter().map(|c| &c[14..38]).collect();
        assert_eq!(nonces.len(), 100, "a nonce twice");
        let items = sealed
            .iter()
            .map(|ciphertext| opening(0, ciphertext))
            .collect();
        let operation = BatchDecrypt {
            fields: vec![field("email")],
            shared: context("42"),
            items,
        };
        let opened = f.perform("acme/app", operation).await.unwrap();
        assert_eq!(
            opened
                .into_iter()
                .map(|value| value.unwrap().plaintext)
                .collect::<Vec<_>>(),
            plaintexts
        );
        assert_eq!(f.last_record().resources[0].items, 100);
    }
}

#[tokio::test]
async fn a_batch_tells_its_ciphertexts_apart() {
    let f = Fixture::make().await;
    let good = f.encrypt("acme/app", b"good").await.unwrap().ciphertext;
    let foreign = f.encrypt("other/app", b"x").await.unwrap().ciphertext;
    let mut flipped = good.to_vec();
    flipped[50] ^= 1;
    let own_context = DecryptItem {
        field: 0,
        context: Some(context("43")),
        ciphertext: good.clone(),
    };
    let items = vec![
        opening(0, &good),
        opening(0, &foreign),
        opening(0, &Bytes::from(flipped)),
        opening(1, &good),
        Ok(own_context),
        opening(0, &Bytes::from_static(b"junk")),
        opening(0, &good),
    ];
    let fields = vec![field("email"), field("phone")];
    let operation = BatchDecrypt {
        fields,
        shared: context("42"),
        items,
    };
    let results = f.perform("acme/app", operation).await.unwrap();
    let opaque = |cause| Err(Failure::DecryptionFailed(cause));
    let opened = Ok(whole(b"good"));
    let expected = [
        opened.clone(),
        opaque(Opaque::ForeignTenant),
        opaque(Opaque::DecryptionFailed),
        opaque(Opaque::DecryptionFailed),
        opaque(Opaque::DecryptionFailed),
        opaque(Opaque::Malformed),
        opened,
    ];
    assert_eq!(results, expected);
    assert_eq!(
        f.last_record().reason,
        "decryption-failed:3 foreign-tenant:1 malformed:1"
    );
}

#[tokio::test]
async fn a_reencrypted_batch_keeps_what_is_current_and_moves_the_rest() {
    let f = Fixture::make().await;
    let old = f.encrypt("acme/app", b"old").await.unwrap().ciphertext;
    f.keystore
        .rotate_key(&name("acme"), &name("pii"), operation(), NOW)
        .await
        .unwrap();
    f.keystore
        .create_key(
            &name("acme"),
            &name("new"),
            Suite::KcXaes256Gcm.into(),
            operation(),
            NOW,
        )
        .await
        .unwrap();
    let current = f.encrypt("acme/app", b"current").await.unwrap().ciphertext;
    let mut broken = current.to_vec();
    broken[40] ^= 1;
    let items = vec![
        opening(0, &old).map(|item| (item, None)),
        opening(0, &current).map(|item| (item, None)),
        opening(0, &Bytes::from(broken)).map(|item| (item, None)),
        opening(0, &current).map(|item| (item, Some(0))),
        opening(0, &current).map(|item| (item, Some(1))),
    ];
    let operation = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("new"), key("missing")],
        shared: context("42"),
        items,
    };
    let results = f.perform("acme/app", operation).await.unwrap();
    let shape: Vec<_> = results
        .iter()
        .map(|r| {
            r.as_ref()
                .map(|r| (r.version, r.changed))
                .map_err(Failure::word)
        })
        .collect();
    assert_eq!(
        shape,
        [
            Ok((2, true)),
            Ok((2, false)),
            Err("decryption-failed"),
            Ok((1, true)),
            Err("KEY_NOT_FOUND")
        ]
    );
    assert_eq!(results[1].as_ref().unwrap().ciphertext, current);
    for (index, plaintext) in [(0, "old"), (3, "current")] {
        let moved = results[index].as_ref().unwrap().ciphertext.clone();
        assert_eq!(
            f.perform("acme/app", decrypt(&moved)).await,
            Ok(whole(plaintext.as_bytes()))
        );
    }
}

#[tokio::test]
async fn other_calls_have_their_turn_while_a_batch_is_looked_up() {
    let f = Fixture::make().await;
    let names: Vec<String> = (0..2_000).map(|n| format!("f{n}")).collect();
    let targets: Vec<(&str, &str)> = names.iter().map(|name| ("pii", name.as_str())).collect();
    let batch = batch(&targets, vec![item(0, "one")]);
    let mut performed = Box::pin(f.perform("acme/app", batch));
    let mut polls = 0;
    let results = std::future::poll_fn(|context| {
        polls += 1;
        performed.as_mut().poll(context)
    });
    assert!(results.await.unwrap()[0].is_ok());
    assert!(polls > 10, "all was looked up in {polls} turns");
}

#[tokio::test]
async fn the_key_that_a_batch_used_is_named_behind_any_number_of_unknown_ones() {
    let f = Fixture::make().await;
    let good = f.encrypt("acme/app", b"good").await.unwrap().ciphertext;
    let foreign = f.encrypt("other/app", b"x").await.unwrap().ciphertext;
    let mut items: Vec<_> = (0..200u8)
        .map(|n| {
            let mut unknown = good.to_vec();
            unknown[2] ^= 0xFF;
            unknown[3] = n;
            opening(0, &Bytes::from(unknown))
        })
        .collect();
    items.push(opening(0, &foreign));
    items.push(opening(0, &good));
    let operation = BatchDecrypt {
        fields: vec![field("email")],
        shared: context("42"),
        items,
    };
    f.perform("acme/app", operation).await.unwrap();
    let record = f.last_record();
    let named = |name: &str| {
        let found = record.resources.iter().filter(|r| r.name == name);
        found
            .map(|r| (r.version, r.field.clone(), r.items))
            .collect::<Vec<_>>()
    };
    assert_eq!(named("tenants/acme/keys/pii"), [(1, "email".into(), 1)]);
    let handle = data_encoding::HEXLOWER.encode(&foreign[2..10]);
    assert_eq!(named(&format!("handle:{handle}")), [(1, "email".into(), 1)]);
    assert_eq!(named("handle:*"), [(0, String::new(), 136)]);
    assert_eq!(record.resources.len(), 64 + 3);
}

#[tokio::test]
async fn every_field_of_a_large_batch_is_named_in_parts() {
    let f = Fixture::make().await;
    let names: Vec<String> = (0..3_000).map(|n| format!("{n:060}")).collect();
    let targets: Vec<(&str, &str)> = names.iter().map(|name| ("pii", name.as_str())).collect();
    let items = (0..names.len()).map(|n| item(n, "x")).collect();
    let before = f.records().len();
    f.perform("acme/app", batch(&targets, items)).await.unwrap();
    let parts = &f.records()[before..];
    assert!(parts.len() > 1);
    assert_eq!(parts[0].items_ok, 3_000);
    let fields: Vec<&str> = parts
        .iter()
        .flat_map(|part| &part.resources)
        .map(|resource| resource.field.as_str())
        .collect();
    assert_eq!(fields, names);
}

#[tokio::test]
async fn refused_batches_and_malformed_ciphertexts_name_their_fields() {
    let f = Fixture::make().await;
    let good = f.encrypt("acme/app", b"good").await.unwrap().ciphertext;
    let handle = format!("handle:{}", data_encoding::HEXLOWER.encode(&good[2..10]));
    let junk = Bytes::from_static(b"junk");
    let fields = || vec![field("email"), field("phone")];
    let items = || vec![opening(0, &good), opening(1, &junk), opening(0, &good)];
    let decrypt = || BatchDecrypt {
        fields: fields(),
        shared: context("42"),
        items: items(),
    };
    let named = || {
        let resources = f.last_record().resources;
        let named = resources
            .into_iter()
            .map(|r| (r.name, r.version, r.field, r.items));
        named.collect::<Vec<_>>()
    };
    let row = |name: &str, version, field: &str, items| {
        (name.to_owned(), version, field.to_owned(), items)
    };
    f.perform("acme/boss", decrypt()).await.unwrap_err();
    let refused = [row(&handle, 1, "email", 2), row("malformed", 0, "phone", 1)];
    assert_eq!(named(), refused);
    let reencrypt = BatchReEncrypt {
        fields: fields(),
        destinations: vec![key("new")],
        shared: context("42"),
        items: items()
            .into_iter()
            .map(|item| item.map(|item| (item, Some(0))))
            .collect(),
    };
    f.perform("acme/boss", reencrypt).await.unwrap_err();
    assert_eq!(named()[..2], refused);
    assert_eq!(named()[2], row("tenants/acme/keys/new", 0, "", 0));
    f.perform("acme/app", decrypt()).await.unwrap();
    assert_eq!(
        named(),
        [
            row("tenants/acme/keys/pii", 1, "email", 2),
            row("malformed", 0, "phone", 1)
        ]
    );
    f.perform("acme/app", super::decrypt(&junk))
        .await
        .unwrap_err();
    assert_eq!(named(), [row("malformed", 0, "email", 0)]);
}

#[tokio::test]
async fn a_key_that_is_disabled_while_a_batch_waits_for_its_place_gives_no_result() {
    let f = Fixture::make().await;
    let (tenant, pii) = (name("acme"), name("pii"));
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
    let large = Bytes::from(vec![b'x'; 60_000]);
    let sealed = f
        .perform(
            "acme/app",
            batch(&[("pii", "email")], vec![item(0, large.clone())]),
        )
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap()
        .ciphertext
        .clone();
    let waiting = f.service.core().places.take_all();
    let targets = [("pii", "email"), ("new", "email")];
    let encrypting = f.perform(
        "acme/app",
        batch(
            &targets,
            vec![item(0, large.clone()), item(1, large.clone())],
        ),
    );
    let items = || vec![opening(0, &sealed), opening(0, &sealed)];
    let decrypting = f.perform(
        "acme/app",
        BatchDecrypt {
            fields: vec![field("email")],
            shared: context("42"),
            items: items(),
        },
    );
    let reencrypt = |destination| BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("new")],
        shared: context("42"),
        items: items()
            .into_iter()
            .map(|item| item.map(|item| (item, destination)))
            .collect(),
    };
    let reencrypting = f.perform("acme/app", reencrypt(Some(0)));
    let (mut encrypting, mut decrypting, mut reencrypting) = (
        Box::pin(encrypting),
        Box::pin(decrypting),
        Box::pin(reencrypting),
    );
    assert!(futures_util::poll!(&mut encrypting).is_pending());
    assert!(futures_util::poll!(&mut decrypting).is_pending());
    assert!(futures_util::poll!(&mut reencrypting).is_pending());
    f.keystore
        .set_key_enabled(&tenant, &pii, false, operation(), NOW)
        .await
        .unwrap();
    drop(waiting);
    let encrypted = encrypting.await.unwrap();
    assert_eq!(encrypted[0], Err(Failure::KeyDisabled));
    assert!(encrypted[1].is_ok(), "another key is nobody's matter");
    let record = f.last_record();
    assert_eq!((record.items_ok, record.items_failed), (1, 1));
    let disabled = Err(Failure::KeyDisabled);
    assert!(decrypting.await.unwrap().iter().all(|r| *r == disabled));
    let disabled = Err(Failure::KeyDisabled);
    assert!(reencrypting.await.unwrap().iter().all(|r| *r == disabled));
}

#[tokio::test]
async fn a_destination_that_is_disabled_while_a_batch_waits_gets_nothing() {
    let f = Fixture::make().await;
    let (tenant, new) = (name("acme"), name("new"));
    f.keystore
        .create_key(&tenant, &new, Suite::KcXaes256Gcm.into(), operation(), NOW)
        .await
        .unwrap();
    let sealed = f.encrypt("acme/app", &[b'x'; 65_536]).await.unwrap();
    let waiting = f.service.core().places.take_all();
    let reencrypt = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("new")],
        shared: context("42"),
        items: vec![
            opening(0, &sealed.ciphertext).map(|item| (item, Some(0))),
            opening(0, &sealed.ciphertext).map(|item| (item, None)),
        ],
    };
    let mut reencrypting = Box::pin(f.perform("acme/app", reencrypt));
    assert!(futures_util::poll!(&mut reencrypting).is_pending());
    f.keystore
        .set_key_enabled(&tenant, &new, false, operation(), NOW)
        .await
        .unwrap();
    drop(waiting);
    let results = reencrypting.await.unwrap();
    assert_eq!(results[0], Err(Failure::KeyDisabled));
    assert!(results[1].is_ok());
}

#[tokio::test]
async fn no_result_keeps_its_request_alive_until_it_is_taken() {
    let f = Fixture::make().await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    let message = Bytes::from([&sealed[..], &[0; 60_000]].concat());
    let current = message.slice(..sealed.len());
    let reencrypt = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: Vec::new(),
        shared: context("42"),
        items: vec![opening(0, &current).map(|item| (item, None))],
    };
    drop(current);
    let results = f.perform("acme/app", reencrypt).await.unwrap();
    let result = results[0].as_ref().unwrap();
    assert_eq!((&result.ciphertext, result.changed), (&sealed, false));
    assert!(message.is_unique());
}
