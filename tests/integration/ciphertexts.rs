//! What opens, and what gets the one opaque error.

use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, DecryptItem, EncryptItem, ReEncryptItem,
    reason::DECRYPTION_FAILED,
};

use crate::fixture::{Fixture, reason};

const VALUE: &[u8] = "grüße, 世界 \u{1f512}".as_bytes();

async fn seal(client: &Client) -> Vec<u8> {
    client
        .field("pii", "customer.email")
        .context("id", "42")
        .encrypt(VALUE)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_field_comes_back_byte_for_byte() {
    let f = Fixture::start();
    for value in [&b""[..], b"a", VALUE, &[0xff, 0x00, 0xfe], &vec![7; 65_536]] {
        let sealed = f
            .app()
            .field("pii", "customer.email")
            .context("id", "42")
            .encrypt(value)
            .await
            .unwrap();
        assert_eq!(sealed.len(), value.len() + 86);
        assert_eq!(
            f.app()
                .field("pii", "customer.email")
                .context("id", "42")
                .decrypt(&sealed)
                .await
                .unwrap(),
            value
        );
    }
    let again = (seal(&f.app()).await, seal(&f.app()).await);
    assert_ne!(again.0, again.1);
}

#[tokio::test]
async fn context_pairs_count_but_not_their_order() {
    let f = Fixture::start();
    let app = f.app();
    let sealed = app
        .field("pii", "f")
        .context("a", "1")
        .context("b", "2")
        .encrypt(VALUE)
        .await
        .unwrap();
    assert_eq!(
        app.field("pii", "f")
            .context("b", "2")
            .context("a", "1")
            .decrypt(&sealed)
            .await
            .unwrap(),
        VALUE
    );
    for wrong in [
        app.field("pii", "f").context("a", "1"),
        app.field("pii", "f").context("a", "2").context("b", "1"),
        app.field("pii", "f")
            .context("a", "1")
            .context("b", "2")
            .context("c", ""),
        app.field("pii", "f"),
        app.field("pii", "g").context("a", "1").context("b", "2"),
    ] {
        assert_eq!(reason(wrong.decrypt(&sealed).await), DECRYPTION_FAILED);
    }
}

#[tokio::test]
async fn every_changed_ciphertext_gets_the_same_error() {
    let f = Fixture::start();
    let app = f.app();
    let sealed = seal(&app).await;
    let mut changed: Vec<(String, Vec<u8>)> = Vec::new();
    for byte in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[byte] ^= 1 << (byte % 8);
        changed.push((format!("bit flipped in byte {byte}"), flipped));
    }
    for length in [0, 1, 13, 14, 85, 86, sealed.len() - 33, sealed.len() - 1] {
        changed.push((format!("truncated to {length}"), sealed[..length].to_vec()));
    }
    changed.push(("extended by a byte".into(), [&sealed[..], &[0]].concat()));
    changed.push(("twice".into(), [&sealed[..], &sealed[..]].concat()));
    changed.push(("all zero".into(), vec![0; sealed.len()]));
    let mut version = sealed.clone();
    version[10..14].copy_from_slice(&2_u32.to_be_bytes());
    changed.push(("a version that does not exist".into(), version));

    let items = changed
        .iter()
        .map(|(_, bytes)| DecryptItem::new(bytes.clone()).context("id", "42"))
        .collect();
    let batch = BatchDecrypt {
        field: "customer.email".into(),
        items,
        ..BatchDecrypt::default()
    };
    let results = app.decrypt_batch(batch).await.unwrap();
    for ((name, bytes), result) in changed.iter().zip(results) {
        let error = result.expect_err(name);
        assert_eq!(
            (error.reason.as_str(), error.message.as_str()),
            (DECRYPTION_FAILED, "decryption failed"),
            "{name}"
        );
        let unary = app
            .field("pii", "customer.email")
            .context("id", "42")
            .decrypt(bytes)
            .await
            .expect_err(name);
        assert!(unary.is_decryption_failed(), "{name}: {unary:?}");
    }
}

#[tokio::test]
async fn a_ciphertext_of_another_tenant_or_key_does_not_open() {
    let f = Fixture::start();
    f.admin().keys().create("cards").await.unwrap();
    let sealed = seal(&f.app()).await;
    let other = f.other();
    assert_eq!(
        reason(
            other
                .field("pii", "customer.email")
                .context("id", "42")
                .decrypt(&sealed)
                .await
        ),
        DECRYPTION_FAILED
    );
    assert_eq!(
        reason(
            other
                .field("pii", "customer.email")
                .context("id", "42")
                .reencrypt(&sealed)
                .await
        ),
        DECRYPTION_FAILED
    );
    // The header of one key on the body of another.
    let cards = f
        .app()
        .field("cards", "customer.email")
        .context("id", "42")
        .encrypt(VALUE)
        .await
        .unwrap();
    let mixed = [&cards[..14], &sealed[14..]].concat();
    assert_eq!(
        reason(
            f.app()
                .field("pii", "customer.email")
                .context("id", "42")
                .decrypt(&mixed)
                .await
        ),
        DECRYPTION_FAILED
    );
}

#[tokio::test]
async fn text_that_is_not_canonical_does_not_open() {
    let f = Fixture::start();
    let app = f.app();
    let text = app.field("pii", "f").encrypt_str("value").await.unwrap();
    assert_eq!(
        app.field("pii", "f").decrypt_str(&text).await.unwrap(),
        "value"
    );
    let body = &text[4..];
    for (name, wrong) in [
        ("padding", format!("{text}=")),
        ("prefix in capitals", format!("FK1:{body}")),
        ("other version", format!("fk2:{body}")),
        ("no prefix", body.to_owned()),
        ("space before", format!(" {text}")),
        ("newline after", format!("{text}\n")),
        ("standard alphabet", format!("fk1:+{}", &body[1..])),
        ("cut by a character", text[..text.len() - 1].to_owned()),
        ("empty", String::new()),
    ] {
        let refused = reason(app.field("pii", "f").decrypt_str(&wrong).await);
        assert!(
            ["INVALID_REQUEST", DECRYPTION_FAILED].contains(&refused.as_str()),
            "{name}: {refused}"
        );
    }
}

#[tokio::test]
async fn one_bad_item_never_fails_its_neighbours() {
    let f = Fixture::start();
    let app = f.app();
    f.admin().keys().create("cards").await.unwrap();
    let mut items: Vec<EncryptItem> = (0..10)
        .map(|i| EncryptItem::new(vec![i]).context("id", i.to_string()))
        .collect();
    items[3].key = "no-such-key".into();
    items[4].field = "Not A Field".into();
    items[5].plaintext = vec![0; 65_537].into();
    items[6].key = "cards".into();
    items[7].key = "tenants/other/keys/pii".into();
    let results = app
        .encrypt_batch(BatchEncrypt {
            key: "pii".into(),
            field: "f".into(),
            items,
            ..BatchEncrypt::default()
        })
        .await
        .unwrap();
    let failed: Vec<(usize, String)> = results
        .iter()
        .enumerate()
        .filter_map(|(i, r)| Some((i, r.as_ref().err()?.reason.clone())))
        .collect();
    let expected = [
        (3, "KEY_NOT_FOUND"),
        (4, "INVALID_REQUEST"),
        (5, "FIELD_TOO_LARGE"),
        (7, "PERMISSION_DENIED"),
    ]
    .map(|(i, r)| (i, r.to_owned()));
    assert_eq!(failed, expected);

    let mut items: Vec<DecryptItem> = results
        .iter()
        .enumerate()
        .map(|(i, r)| {
            DecryptItem::new(
                r.as_ref()
                    .map_or(vec![1, 2, 3].into(), |e| e.ciphertext.clone()),
            )
            .context("id", i.to_string())
        })
        .collect();
    items[8].field = "other.field".into();
    let opened = app
        .decrypt_batch(BatchDecrypt {
            field: "f".into(),
            items,
            ..BatchDecrypt::default()
        })
        .await
        .unwrap();
    for (i, result) in opened.iter().enumerate() {
        match i {
            3 | 4 | 5 | 7 | 8 => assert_eq!(
                result.as_ref().unwrap_err().reason,
                DECRYPTION_FAILED,
                "{i}"
            ),
            _ => assert_eq!(
                result.as_ref().unwrap().plaintext.as_ref(),
                [u8::try_from(i).unwrap()]
            ),
        }
    }
}

#[tokio::test]
async fn reencryption_moves_to_the_primary_and_keeps_what_is_current() {
    let f = Fixture::start();
    let app = f.app();
    let old = seal(&app).await;
    let field = || app.field("pii", "customer.email").context("id", "42");
    let current = field().reencrypt(&old).await.unwrap();
    assert_eq!(
        (
            current.ciphertext.as_ref(),
            current.version,
            current.changed
        ),
        (&old[..], 1, false)
    );

    f.admin().keys().rotate("pii").await.unwrap();
    let moved = field().reencrypt(&old).await.unwrap();
    assert_eq!((moved.version, moved.changed), (2, true));
    assert_eq!(field().decrypt(&moved.ciphertext).await.unwrap(), VALUE);
    assert_eq!(field().decrypt(&old).await.unwrap(), VALUE);

    // A damaged ciphertext is found even where its header is current.
    let mut damaged = moved.ciphertext.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(reason(field().reencrypt(&damaged).await), DECRYPTION_FAILED);
    assert_eq!(
        reason(
            app.field("pii", "other")
                .context("id", "42")
                .reencrypt(&old)
                .await
        ),
        DECRYPTION_FAILED
    );

    // To another key, in a batch beside a bad item.
    f.admin().keys().create("new").await.unwrap();
    let items = vec![
        ReEncryptItem::new(old.clone()).context("id", "42"),
        ReEncryptItem::new(old.clone()).context("id", "43"),
    ];
    let batch = BatchReEncrypt {
        field: "customer.email".into(),
        destination_key: "new".into(),
        items,
        ..BatchReEncrypt::default()
    };
    let results = app.reencrypt_batch(batch).await.unwrap();
    let to_new = results[0].as_ref().unwrap();
    assert!(to_new.changed && to_new.ciphertext[2..10] != old[2..10]);
    assert_eq!(field().decrypt(&to_new.ciphertext).await.unwrap(), VALUE);
    assert_eq!(results[1].as_ref().unwrap_err().reason, DECRYPTION_FAILED);
}
