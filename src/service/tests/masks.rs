//! Masks: who may decrypt a field only masked sees what its mask shows, and nobody shows himself more.

use std::sync::atomic::{AtomicBool, AtomicU32};

use fieldkeep_crypto::ciphertext::Ciphertext;
use fieldkeep_crypto::names::Field;
use fieldkeep_proto::v1::Decision;

use super::*;
use crate::access::condition::Conditions;
use crate::access::group::Group;
use crate::service::access::LocalName;
use crate::service::batch::{BatchDecrypt, DecryptItem};
use crate::service::explain::{Explain, Subject};
use crate::service::keys::Page;
use crate::service::masking::Sight;
use crate::service::masks::{ListMasks, LocalField, RemoveMask, SetMask};
use crate::service::reencrypt::ReEncrypt;

const CARD: &[u8] = b"4111111111111234";
const SHOWN: &str = "***1234";

fn local_field(text: &str) -> LocalField {
    LocalField {
        tenant: None,
        field: name(text),
    }
}

fn set(field: &str, mask: &str) -> SetMask {
    SetMask {
        field: local_field(field),
        mask: mask.parse().unwrap(),
        request: Repeatable::parse("", b"").unwrap(),
    }
}

fn remove(field: &str) -> RemoveMask {
    RemoveMask {
        field: local_field(field),
        request: Repeatable::parse("", b"").unwrap(),
    }
}

fn batch(ciphertexts: &[(&Bytes, &str)]) -> BatchDecrypt {
    let item = |(ciphertext, id): &(&Bytes, &str)| {
        Ok(DecryptItem {
            field: 0,
            context: Some(context(id)),
            ciphertext: Bytes::clone(ciphertext),
        })
    };
    BatchDecrypt {
        fields: vec![field("email")],
        shared: context("none"),
        items: ciphertexts.iter().map(item).collect(),
    }
}

/// What leaves of a value through a mask.
fn shown(text: &'static str) -> Opened {
    Opened {
        plaintext: Bytes::from_static(text.as_bytes()),
        masked: true,
    }
}

/// A service where `acme/support` may see fields masked alone, and a ciphertext of a card number of the field `email`.
async fn with_support() -> (Fixture, Bytes) {
    with_support_on(Fixture::make().await).await
}

async fn with_support_on(f: Fixture) -> (Fixture, Bytes) {
    f.grant(wanted(Role::MaskedReader, "acme/support", &["*"], &["*"]))
        .await;
    let ciphertext = f.encrypt("acme/app", CARD).await.unwrap().ciphertext;
    (f, ciphertext)
}

#[tokio::test]
async fn a_masked_reader_sees_what_the_mask_shows() {
    let (f, ciphertext) = with_support().await;
    let refused = f.perform("acme/support", decrypt(&ciphertext)).await;
    assert_eq!(refused_by(&refused.unwrap_err()), "masked-alone");
    for (mask, expected) in [
        ("last:4", SHOWN),
        ("fixed:hidden", "hidden"),
        ("year", "***"),
    ] {
        let mask = f.perform("acme/boss", set("email", mask)).await.unwrap();
        assert_eq!(&*mask.set_by, "tenants/acme/identities/boss");
        let opened = f.perform("acme/support", decrypt(&ciphertext)).await;
        assert_eq!(opened, Ok(shown(expected)));
        let record = f.last_record();
        assert_eq!(
            (record.decision(), record.detail.as_str()),
            (Decision::Allowed, "masked=1")
        );
        assert_eq!(record.rule, f.rule_of("acme/support"));
        let many = batch(&[
            (&ciphertext, "42"),
            (&ciphertext, "43"),
            (&ciphertext, "42"),
        ]);
        let results = f.perform("acme/support", many).await.unwrap();
        assert_eq!(results[0], Ok(shown(expected)));
        assert_eq!(
            results[1].as_ref().unwrap_err().verdict().1,
            "DECRYPTION_FAILED"
        );
        assert_eq!(results[2], Ok(shown(expected)));
        assert_eq!(f.last_record().detail, "masked=2");
        // Who has the whole right sees the value.
        let opened = f.perform("acme/app", decrypt(&ciphertext)).await;
        assert_eq!(opened, Ok(whole(CARD)));
        assert_eq!(f.last_record().detail, "");
    }
    f.perform("acme/boss", remove("email")).await.unwrap();
    let refused = f.perform("acme/support", decrypt(&ciphertext)).await;
    assert_eq!(refused_by(&refused.unwrap_err()), "masked-alone");
}

/// The bytes of the value are in no reply, no error and no record of a masked reader.
#[tokio::test]
async fn a_masked_reader_never_gets_the_value() {
    let (f, ciphertext) = with_support().await;
    let secret = &CARD[..12];
    let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
    let wrong = Decrypt {
        context: context("43"),
        ..decrypt(&ciphertext)
    };
    let other_field = Decrypt {
        field: field("phone"),
        ..decrypt(&ciphertext)
    };
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    for operation in [decrypt(&ciphertext), wrong, other_field] {
        match f.perform("acme/support", operation).await {
            Ok(opened) => {
                assert_eq!(opened, shown(SHOWN));
                assert!(!format!("{opened:?}").contains(SHOWN), "only its length");
            }
            Err(failure) => {
                let told = format!("{failure} {failure:?}");
                assert!(!holds(told.as_bytes()), "{told}");
            }
        }
    }
    let many = batch(&[(&ciphertext, "42"), (&ciphertext, "43")]);
    for result in f.perform("acme/support", many).await.unwrap() {
        match result {
            Ok(opened) => assert_eq!(opened.plaintext, SHOWN),
            Err(failure) => assert!(!holds(format!("{failure} {failure:?}").as_bytes())),
        }
    }
    for record in f.records() {
        assert!(!holds(format!("{record:?}").as_bytes()), "{record:?}");
    }
}

/// A reply's buffer that has room for what is shown alone does not grow, as it would if the value was opened there.
#[tokio::test]
async fn a_masked_value_never_comes_into_the_buffer_of_the_reply() {
    let (f, sealed) = with_support().await;
    let set = f.perform("acme/boss", set("email", "last:4"));
    let sight = Sight::Masked(set.await.unwrap());
    let opens = f.keystore.key("acme", "pii").await.unwrap();
    let field_key = opens.primary().field_key(Field::parse("email").unwrap());
    let ciphertext = Ciphertext::parse(&sealed).unwrap();
    let mut out = Vec::with_capacity(SHOWN.len());
    let room = out.capacity();
    sight
        .open(&field_key, &ciphertext, &context("42"), &mut out)
        .unwrap();
    assert_eq!((out.as_slice(), out.capacity()), (SHOWN.as_bytes(), room));
}

#[tokio::test]
async fn each_item_is_masked_or_whole_as_its_context_says() {
    let (f, whole_one) = with_support().await;
    let conditions = Conditions {
        context: vec![("id".into(), "42".into())],
        ..Conditions::default()
    };
    f.grant(Wanted {
        conditions,
        ..wanted(Role::Decrypter, "acme/support", &["*"], &["*"])
    })
    .await;
    let other = Encrypt {
        context: context("43"),
        ..encrypt("pii", CARD)
    };
    let masked_one = f.perform("acme/app", other).await.unwrap().ciphertext;
    let many = || batch(&[(&masked_one, "43"), (&whole_one, "42"), (&masked_one, "43")]);
    let results = f.perform("acme/support", many()).await.unwrap();
    assert_eq!(refused_by(results[0].as_ref().unwrap_err()), "masked-alone");
    assert_eq!(results[1], Ok(whole(CARD)));
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    let results = f.perform("acme/support", many()).await.unwrap();
    let expected = [Ok(shown(SHOWN)), Ok(whole(CARD)), Ok(shown(SHOWN))];
    assert_eq!(results, expected);
    assert_eq!(f.last_record().detail, "masked=2");
}

#[tokio::test]
async fn a_mask_is_of_one_tenant_and_one_field() {
    let (f, ciphertext) = with_support().await;
    let of_other = SetMask {
        field: LocalField {
            tenant: Some(name("other")),
            field: name("email"),
        },
        ..set("email", "last:4")
    };
    f.perform("acme/boss", of_other).await.unwrap();
    f.perform("acme/boss", set("phone", "last:4"))
        .await
        .unwrap();
    let refused = f.perform("acme/support", decrypt(&ciphertext)).await;
    assert_eq!(refused_by(&refused.unwrap_err()), "masked-alone");
}

#[tokio::test]
async fn a_mask_moves_no_value_and_re_encryption_needs_none() {
    let (f, ciphertext) = with_support().await;
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    for role in [Role::Encrypter, Role::ReEncrypter] {
        f.grant(wanted(role, "acme/support", &["*"], &["*"])).await;
    }
    let tenant = name("acme");
    f.keystore
        .create_key(
            &tenant,
            &name("own"),
            Suite::KcXaes256Gcm.into(),
            operation(),
            NOW,
        )
        .await
        .unwrap();
    f.keystore
        .rotate_key(&tenant, &name("pii"), operation(), NOW)
        .await
        .unwrap();
    let again = |destination: Option<&str>| ReEncrypt {
        field: field("email"),
        context: context("42"),
        ciphertext: ciphertext.clone(),
        destination: destination.map(key),
    };
    let refused = f.perform("acme/support", again(Some("own"))).await;
    assert_eq!(refused_by(&refused.unwrap_err()), "masked-alone");
    let renewed = f.perform("acme/support", again(None)).await.unwrap();
    assert!(renewed.changed);
    let opened = f.perform("acme/app", decrypt(&renewed.ciphertext)).await;
    assert_eq!(
        opened,
        Ok(whole(CARD)),
        "the value, not what the mask shows"
    );
}

/// A batch that has looked everything up, given its snapshot back, and waits for its place.
macro_rules! waiting_batch {
    ($f:ident, $ciphertext:ident) => {{
        let many = vec![(&$ciphertext, "42"); 600];
        let mut running = Box::pin($f.perform("acme/support", batch(&many)));
        for _ in 0..100 {
            assert!(futures_util::poll!(&mut running).is_pending());
            tokio::task::yield_now().await;
        }
        running
    }};
}

#[tokio::test]
async fn a_batch_shows_nothing_through_a_mask_that_was_changed_while_it_ran() {
    let (f, ciphertext) = with_support().await;
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    // Set to the same, removed, set to another, removed and set to the same.
    let changes: [(&[Option<&str>], bool); 4] = [
        (&[Some("last:4")], true),
        (&[None], false),
        (&[Some("year")], false),
        (&[None, Some("last:4")], true),
    ];
    for (change, leaves) in changes {
        f.perform("acme/boss", set("email", "last:4"))
            .await
            .unwrap();
        // The batch before has its result a moment before it gives its place back.
        let holding = f.service.core().places_when_free().await;
        let running = waiting_batch!(f, ciphertext);
        for mask in change {
            // It is acknowledged while the batch waits: that holds no rights.
            match mask {
                Some(mask) => drop(f.perform("acme/boss", set("email", mask)).await.unwrap()),
                None => f.perform("acme/boss", remove("email")).await.unwrap(),
            }
        }
        drop(holding);
        match running.await {
            Ok(results) => {
                assert!(leaves, "{change:?}");
                assert!(results.iter().all(|result| *result == Ok(shown(SHOWN))));
            }
            Err(failure) => {
                assert!(!leaves, "{change:?}");
                assert_eq!(failure, Failure::RightWithdrawn("mask-changed"));
                assert_eq!(failure.verdict().1, "CONFLICT");
                assert_eq!(f.last_record().rule, "mask-changed");
            }
        }
    }
}

/// What a stream asks before an answer leaves that was made some time ago.
#[tokio::test]
async fn an_answer_that_waits_to_be_taken_does_not_outlive_its_mask() {
    let (f, ciphertext) = with_support().await;
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    let call = f.call::<BatchDecrypt>("acme/support");
    let before = f.service.before(&call);
    let reply = f
        .service
        .perform(call.clone(), Ok(batch(&[(&ciphertext, "42")])))
        .await
        .unwrap();
    let grounds = reply.into_parts().2.into_grounds();
    let leaves = || f.service.may_leave(&call, before, grounds.as_ref());
    assert_eq!(leaves(), Ok(()));
    f.perform("acme/boss", set("email", "fixed")).await.unwrap();
    assert_eq!(leaves(), Err(Failure::RightWithdrawn("mask-changed")));
}

/// While calls race against a change of the mask: none leaves what the old one shows after the acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_change_of_a_mask_is_acknowledged_no_reply_shows_what_it_showed() {
    const CALLERS: u32 = 50;
    const CALLS: u32 = 40;
    let (f, ciphertext) = with_support().await;
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    let f = Arc::new(f);
    let acknowledged = Arc::new(AtomicBool::new(false));
    let (before, after) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (f, ciphertext) = (Arc::clone(&f), ciphertext.clone());
            let acknowledged = Arc::clone(&acknowledged);
            let (before, after) = (Arc::clone(&before), Arc::clone(&after));
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let outcome = if caller % 2 == 0 {
                        let call = f.call::<Decrypt>("acme/support");
                        let reply = f.service.perform(call, Ok(decrypt(&ciphertext))).await;
                        reply.map(|reply| {
                            let (opened, _, leave) = reply.into_parts();
                            (vec![opened], leave)
                        })
                    } else {
                        let call = f.call::<BatchDecrypt>("acme/support");
                        let many = batch(&[(&ciphertext, "42"); 3]);
                        let reply = f.service.perform(call, Ok(many)).await;
                        reply.map(|reply| {
                            let (results, _, leave) = reply.into_parts();
                            (results.into_iter().flatten().collect(), leave)
                        })
                    };
                    let Ok((values, leave)) = outcome else {
                        continue;
                    };
                    assert!(values.iter().all(|value| value.masked));
                    // Read while the reply still holds the rights, as the transport does until it has the frame.
                    let counter = match acknowledged.load(Ordering::SeqCst) {
                        true => &after,
                        false => &before,
                    };
                    if values.iter().any(|value| value.plaintext == SHOWN) {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(leave);
                }
            })
        })
        .collect();
    while before.load(Ordering::SeqCst) < CALLERS {
        tokio::task::yield_now().await;
    }
    f.perform("acme/boss", set("email", "fixed")).await.unwrap();
    acknowledged.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(after.load(Ordering::SeqCst), 0);
    assert!(
        before.load(Ordering::SeqCst) < CALLERS * CALLS,
        "nothing raced"
    );
}

#[tokio::test]
async fn a_change_of_a_mask_waits_for_the_calls_before_it() {
    let (f, _) = with_support_on(Fixture::make_unsettled().await).await;
    let held = f.access.snapshot();
    let request = |last: char| {
        let id = format!("f81d4fae-7dec-11d0-a765-00a0c91e6bf{last}");
        Repeatable::parse(&id, b"r").unwrap()
    };
    let setting = || SetMask {
        request: request('6'),
        ..set("email", "last:4")
    };
    let pending = f.perform("acme/boss", setting()).await.unwrap_err();
    assert_eq!(pending, Failure::ChangePending);
    drop(held);
    // The same request waits for it, and is on record with what the store holds.
    f.perform("acme/boss", setting()).await.unwrap();
    assert_eq!(f.last_record().changes.len(), 1);
    let held = f.access.snapshot();
    let removal = || RemoveMask {
        request: request('7'),
        ..remove("email")
    };
    let pending = f.perform("acme/boss", removal()).await.unwrap_err();
    assert_eq!(pending, Failure::ChangePending);
    drop(held);
    f.perform("acme/boss", removal()).await.unwrap();
    let none = f.perform("acme/boss", remove("email")).await.unwrap_err();
    assert_eq!(none.verdict().1, "SETTING_NOT_FOUND");
}

#[tokio::test]
async fn nobody_shows_himself_more_through_a_mask() {
    let (f, ciphertext) = with_support().await;
    f.grant(wanted(Role::AccessAdmin, "acme/support", &["*"], &["*"]))
        .await;
    let refused = |failure: Failure| {
        assert_eq!(failure, Failure::SelfMask);
        assert_eq!(failure.verdict().1, "SELF_GRANT");
        let record = f.last_record();
        assert_eq!(
            (record.decision(), record.rule.as_str()),
            (Decision::Refused, "self-grant")
        );
    };
    for mask in ["last:4", "year", "email-domain"] {
        refused(
            f.perform("acme/support", set("email", mask))
                .await
                .unwrap_err(),
        );
    }
    // What shows nothing of a value is no more.
    f.perform("acme/support", set("email", "fixed"))
        .await
        .unwrap();
    refused(
        f.perform("acme/support", set("email", "last:1"))
            .await
            .unwrap_err(),
    );
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    // Of short values `last:1` shows more.
    refused(
        f.perform("acme/support", set("email", "last:1"))
            .await
            .unwrap_err(),
    );
    f.perform("acme/support", set("email", "last:4"))
        .await
        .unwrap();
    let opened = f.perform("acme/support", decrypt(&ciphertext)).await;
    assert_eq!(opened, Ok(shown(SHOWN)));
    // To take a mask away shows less; to put it back then is more.
    f.perform("acme/support", remove("email")).await.unwrap();
    refused(
        f.perform("acme/support", set("email", "last:4"))
            .await
            .unwrap_err(),
    );
    // Others may.
    f.grant(wanted(Role::AccessAdmin, "acme/second", &["*"], &["*"]))
        .await;
    f.perform("acme/second", set("email", "last:4"))
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_sees_a_field_masked_by_a_group_or_at_times_shows_himself_no_more() {
    let f = Fixture::make().await;
    for admin in ["acme/member", "acme/sometimes", "acme/elsewhere"] {
        f.grant(wanted(Role::AccessAdmin, admin, &["*"], &["*"]))
            .await;
    }
    let support = Group::new(name("acme"), name("support"));
    f.grant(Wanted {
        who: Who::Group(support.clone()),
        ..wanted(Role::MaskedReader, "acme/x", &["pii"], &["customer.*"])
    })
    .await;
    let member = Identity::new(name("acme"), name("member"));
    f.access
        .join(support, member, By::Init, operation(), NOW)
        .await
        .unwrap();
    let conditions = Conditions {
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..Conditions::default()
    };
    f.grant(Wanted {
        conditions,
        ..wanted(
            Role::MaskedReader,
            "acme/sometimes",
            &["pii"],
            &["customer.card"],
        )
    })
    .await;
    // Of another tenant's fields.
    f.grant(Wanted {
        scope: Scope::Tenant(name("other")),
        cross_tenant: true,
        ..wanted(Role::MaskedReader, "acme/elsewhere", &["*"], &["*"])
    })
    .await;
    for admin in ["acme/member", "acme/sometimes"] {
        let refused = f.perform(admin, set("customer.card", "last:4")).await;
        assert_eq!(refused.unwrap_err(), Failure::SelfMask, "{admin}");
        assert!(
            f.perform(admin, set("note", "last:4")).await.is_ok(),
            "{admin}"
        );
    }
    let own = f.perform("acme/elsewhere", set("customer.card", "last:4"));
    assert!(own.await.is_ok());
}

#[tokio::test]
async fn masks_are_listed_by_tenant_and_page() {
    let f = Fixture::make().await;
    for text in ["b", "a", "c"] {
        f.perform("acme/boss", set(text, "year")).await.unwrap();
    }
    let of_other = SetMask {
        field: LocalField {
            tenant: Some(name("other")),
            field: name("a"),
        },
        ..set("a", "fixed")
    };
    f.perform("acme/boss", of_other).await.unwrap();
    let list = |tenant: Option<&str>, after: Option<String>| ListMasks {
        tenant: tenant.map(name),
        page: Page { after, limit: 2 },
    };
    let mut found = Vec::new();
    for tenant in [Some("acme"), Some("other"), Some("none"), None] {
        let mut after = None;
        loop {
            let page = f.perform("acme/boss", list(tenant, after)).await.unwrap();
            let one = |mask: &Arc<crate::access::mask::FieldMask>| {
                format!("{}/{}={}", mask.tenant, mask.field, mask.mask)
            };
            found.extend(page.entries.iter().map(one));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        found.push(String::from("."));
    }
    let all = "acme/a=year acme/b=year acme/c=year";
    assert_eq!(
        found.join(" "),
        format!("{all} . other/a=fixed:*** . . {all} other/a=fixed:*** .")
    );
}

#[tokio::test]
async fn an_explanation_says_whether_a_mask_is_missing() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::MaskedReader, "acme/support", &["*"], &["*"]))
        .await;
    let explain = |text: Option<&str>| Explain {
        identity: LocalName {
            tenant: None,
            name: name("support"),
        },
        subject: Subject {
            action: crate::access::action::Action::Decrypt,
            key: Some(key("pii")),
            field: text.map(field),
            scope: None,
        },
        context: context("42"),
        network: None,
        method: crate::access::principal::Method::Mtls,
        second_factor: false,
    };
    let missing = f
        .perform("acme/boss", explain(Some("email")))
        .await
        .unwrap();
    let why = missing.refused.unwrap();
    assert_eq!(why.rule, "masked-alone");
    assert!(
        why.message
            .contains("fieldkeep mask set email MASK --tenant acme")
    );
    f.perform("acme/boss", set("email", "last:4"))
        .await
        .unwrap();
    for text in [Some("email"), None] {
        let explained = f.perform("acme/boss", explain(text)).await.unwrap();
        assert!(explained.masked && explained.refused.is_none(), "{text:?}");
    }
}
