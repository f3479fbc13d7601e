//! Keys that rotate by themselves, and what they encrypted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fieldkeep_client::{BatchEncrypt, Client, EncryptItem};
use fieldkeep_proto::v1::{
    AuditRecord, Decision, Key, KeyRotation, KeyVersionState, Phase, RotationCause,
};
use prost_types::Duration as ProtoDuration;

use crate::fixture::{Fixture, reason};

const ROTATION: &str = "fieldkeep.internal/ScheduledRotation";
const RETIREMENT: &str = "fieldkeep.internal/ScheduledRetirement";

fn seconds(seconds: i64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds, nanos: 0 })
}

fn every(period: i64) -> Option<KeyRotation> {
    Some(KeyRotation {
        period: seconds(period),
        jitter: seconds(0),
        ..Default::default()
    })
}

/// Asks for a key until `wanted` holds.
async fn until(client: &Client, name: &str, wanted: impl Fn(&Key) -> bool) -> Key {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let key = client.keys().show(name).await.unwrap();
        if wanted(&key) {
            return key;
        }
        assert!(Instant::now() < deadline, "it never came: {key:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The records of the service's own acts on a key, oldest first.
async fn acts(client: &Client, key: &str, rpc: &str) -> Vec<AuditRecord> {
    let entries = client.audit().list().collect().await.unwrap();
    let of_key = |record: &AuditRecord| record.resources.iter().any(|used| used.name == key);
    entries
        .into_iter()
        .rev()
        .filter_map(|entry| entry.record)
        .filter(|record| record.rpc == rpc && of_key(record) && record.phase() != Phase::Intent)
        .collect()
}

fn state_of(key: &Key, version: u32) -> KeyVersionState {
    let found = key.versions.iter().find(|found| found.version == version);
    found.unwrap().state()
}

#[tokio::test]
async fn a_period_rotates_and_all_versions_decrypt() {
    let f = Fixture::start();
    let (admin, app) = (f.admin(), f.app());
    let key = admin.keys().create_with("often", every(1)).await.unwrap();
    assert_eq!(key.rotation, every(1));
    let mut sealed = BTreeMap::new();
    while sealed.len() < 4 {
        let ciphertext = app.field("often", "f").encrypt(b"x").await.unwrap();
        let version = u32::from_be_bytes(ciphertext[10..14].try_into().unwrap());
        sealed.insert(version, ciphertext);
        until(&admin, "often", |key| key.primary_version > version).await;
    }
    for ciphertext in sealed.values() {
        let opened = app.field("often", "f").decrypt(ciphertext).await.unwrap();
        assert_eq!(opened, b"x");
    }
    let shown = admin.keys().show("often").await.unwrap();
    assert_eq!(shown.next_rotation.unwrap().cause(), RotationCause::Period);
    admin.keys().set_rotation("often", None).await.unwrap();
    let last = admin.keys().show("often").await.unwrap();
    assert_eq!((last.rotation, last.next_rotation), (None, None));

    // One record for each version but the first, with its cause, by nobody.
    let records = acts(&admin, "tenants/default/keys/often", ROTATION).await;
    let versions: Vec<u32> = records.iter().map(|r| r.resources[0].version).collect();
    assert_eq!(versions, (2..=last.primary_version).collect::<Vec<_>>());
    for record in &records {
        assert_eq!(
            (record.rule.as_str(), record.authentication.as_str()),
            ("schedule:period", "local")
        );
        assert_eq!((record.principal.as_str(), record.code), ("", 0));
        assert_eq!(record.decision(), Decision::Allowed);
        assert!(!record.changes.is_empty() && record.store_revision > 0);
        let from = record.resources[0].version - 1;
        assert!(record.detail.starts_with("cause=period due="), "{record:?}");
        assert!(
            record.detail.ends_with(&format!(" from={from}")),
            "{record:?}"
        );
    }
}

#[tokio::test]
async fn what_was_encrypted_rotates_by_messages_and_by_bytes() {
    let f = Fixture::start();
    let (admin, app) = (f.admin(), f.app());
    let by_messages = KeyRotation {
        max_messages: 10,
        ..Default::default()
    };
    let by_bytes = KeyRotation {
        max_bytes: 1_000,
        ..Default::default()
    };
    for (name, policy, cause) in [
        ("messages", by_messages, RotationCause::Messages),
        ("bytes", by_bytes, RotationCause::Bytes),
    ] {
        let keys = admin.keys();
        keys.create_with(name, Some(policy)).await.unwrap();
        for _ in 0..9 {
            app.field(name, "f").encrypt(&[7; 100]).await.unwrap();
        }
        let key = keys.show(name).await.unwrap();
        let next = key.next_rotation.unwrap();
        assert_eq!((next.time, next.cause()), (None, cause));
        let usage = keys.usage(name).await.unwrap();
        let [first] = &usage.versions[..] else {
            panic!("{usage:?}")
        };
        assert_eq!((first.version, first.messages, first.bytes), (1, 9, 900));
        app.field(name, "f").encrypt(&[7; 100]).await.unwrap();
        until(&admin, name, |key| key.primary_version == 2).await;
        let resource = format!("tenants/default/keys/{name}");
        let records = acts(&admin, &resource, ROTATION).await;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].rule, format!("schedule:{name}"));
        // The new version begins at nothing, so that it stays.
        let key = keys.show(name).await.unwrap();
        assert_eq!(key.next_rotation.unwrap().time, None);
    }
}

#[tokio::test]
async fn every_way_of_sealing_is_counted() {
    let f = Fixture::start();
    let (admin, app) = (f.admin(), f.app());
    let single = app.field("pii", "f").encrypt(b"12345").await.unwrap();
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        items: vec![EncryptItem::new(&b"1234567"[..]); 10],
        ..BatchEncrypt::default()
    };
    app.encrypt_batch(batch).await.unwrap();
    // What is current already is not sealed again.
    app.field("pii", "f").reencrypt(&single).await.unwrap();
    let counts = |usage: &fieldkeep_proto::v1::KeyUsage| -> Vec<(u32, u64, u64)> {
        let versions = usage.versions.iter();
        versions.map(|v| (v.version, v.messages, v.bytes)).collect()
    };
    let usage = admin.keys().usage("pii").await.unwrap();
    assert_eq!(usage.name, "tenants/default/keys/pii");
    assert_eq!(counts(&usage), [(1, 11, 75)]);
    admin.keys().rotate("pii").await.unwrap();
    app.field("pii", "f").reencrypt(&single).await.unwrap();
    let usage = admin.keys().usage("pii").await.unwrap();
    assert_eq!(counts(&usage), [(2, 1, 5), (1, 11, 75)]);
    // Exact over a clean stop, too.
    let f = f.restart();
    let usage = f.admin().keys().usage("pii").await.unwrap();
    assert_eq!(counts(&usage), [(2, 1, 5), (1, 11, 75)]);
    f.app().field("pii", "f").encrypt(b"1").await.unwrap();
    let usage = f.admin().keys().usage("pii").await.unwrap();
    assert_eq!(counts(&usage), [(2, 2, 6), (1, 11, 75)]);
}

#[tokio::test]
async fn a_policy_that_is_not_valid_says_what_would_be() {
    let f = Fixture::start();
    let cron = |text: &str| KeyRotation {
        cron: text.to_owned(),
        ..Default::default()
    };
    let period = |seconds, nanos| KeyRotation {
        period: Some(ProtoDuration { seconds, nanos }),
        ..Default::default()
    };
    for (policy, says) in [
        (cron("0 3 * *"), "five fields"),
        (cron("0 0 3 * * 1"), "five fields"),
        (cron("60 3 * * 1"), "five fields"),
        (cron("0 0 30 2 *"), "never comes"),
        (cron("tomorrow"), "five fields"),
        (period(315_576_001, 0), "10 years"),
        (period(1, 500_000_000), "whole seconds"),
        (period(-1, 0), "whole seconds"),
        (
            KeyRotation {
                period: seconds(60),
                ..cron("0 3 * * 1")
            },
            "set one of them",
        ),
        (
            KeyRotation {
                jitter: seconds(61),
                ..period(60, 0)
            },
            "at most 60 s",
        ),
        (
            KeyRotation {
                jitter: seconds(1),
                max_messages: 5,
                ..Default::default()
            },
            "`jitter` is set without",
        ),
    ] {
        let keys = f.admin();
        let keys = keys.keys();
        for refused in [
            keys.set_rotation("pii", Some(policy.clone())).await,
            keys.create_with("new", Some(policy.clone())).await,
        ] {
            let text = format!("{:?}", refused.as_ref().unwrap_err());
            assert!(text.contains(says), "{policy:?}: {text}");
            assert_eq!(reason(refused), "INVALID_REQUEST");
        }
    }
    let keys = f.admin();
    let key = keys.keys().show("pii").await.unwrap();
    assert_eq!(key.rotation, None);
    // Nothing of a policy is no policy.
    let empty = keys
        .keys()
        .set_rotation("pii", Some(KeyRotation::default()))
        .await;
    assert_eq!(empty.unwrap().rotation, None);
}

#[tokio::test]
async fn versions_retire_only_if_the_policy_says_so() {
    let f = Fixture::start();
    let (admin, app) = (f.admin(), f.app());
    let sealed = app.field("pii", "f").encrypt(b"x").await.unwrap();
    admin.keys().rotate("pii").await.unwrap();
    admin.keys().create_with("kept", every(1)).await.unwrap();
    let policy = KeyRotation {
        retire_after: seconds(1),
        ..Default::default()
    };
    let set = admin.keys().set_rotation("pii", Some(policy.clone())).await;
    assert_eq!(set.unwrap().rotation, Some(policy));
    until(&admin, "pii", |key| {
        state_of(key, 1) == KeyVersionState::Disabled
    })
    .await;
    assert_eq!(
        reason(app.field("pii", "f").decrypt(&sealed).await),
        "VERSION_DISABLED"
    );
    let records = acts(&admin, "tenants/default/keys/pii", RETIREMENT).await;
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (record.rule.as_str(), record.code),
        ("schedule:retire-after", 0)
    );
    assert!(record.detail.ends_with(" through=1"), "{record:?}");

    // What an operator enabled again stays, also when the next one retires.
    admin.keys().enable_version("pii", 1).await.unwrap();
    admin.keys().rotate("pii").await.unwrap();
    let key = until(&admin, "pii", |key| {
        state_of(key, 2) == KeyVersionState::Disabled
    })
    .await;
    assert_eq!(state_of(&key, 1), KeyVersionState::Enabled);
    assert_eq!(state_of(&key, 3), KeyVersionState::Enabled);
    assert_eq!(app.field("pii", "f").decrypt(&sealed).await.unwrap(), b"x");

    // A key without `retire_after` keeps all.
    let kept = until(&admin, "kept", |key| key.primary_version > 3).await;
    let enabled =
        |version: &fieldkeep_proto::v1::KeyVersion| version.state() == KeyVersionState::Enabled;
    assert!(kept.versions.iter().all(enabled), "{kept:?}");
}

#[tokio::test]
async fn a_disabled_key_does_not_rotate() {
    let f = Fixture::start();
    let admin = f.admin();
    admin.keys().create("off").await.unwrap();
    admin.keys().disable("off").await.unwrap();
    let off = admin.keys().set_rotation("off", every(1)).await.unwrap();
    assert_eq!(off.next_rotation, None);
    admin.keys().create_with("on", every(1)).await.unwrap();
    until(&admin, "on", |key| key.primary_version > 3).await;
    let off = admin.keys().show("off").await.unwrap();
    assert_eq!((off.primary_version, off.next_rotation), (1, None));
    admin.keys().enable("off").await.unwrap();
    until(&admin, "off", |key| key.primary_version > 1).await;
}

#[tokio::test]
async fn only_an_admin_says_when_keys_rotate() {
    let f = Fixture::start();
    let app = f.server.admin_client(&f.app_identity);
    let keys = app.keys();
    for refused in [
        reason(keys.set_rotation("pii", every(1)).await),
        reason(keys.usage("pii").await),
        reason(keys.create_with("new", every(1)).await),
    ] {
        assert_eq!(refused, "PERMISSION_DENIED");
    }
    let admin = f.admin();
    let entries = admin
        .audit()
        .list()
        .page_size(10)
        .next_page()
        .await
        .unwrap();
    let record = entries
        .unwrap()
        .into_iter()
        .filter_map(|entry| entry.record)
        .find(|record| record.rpc.ends_with("/SetKeyRotation"))
        .unwrap();
    assert_eq!(record.rule, "no-grant");
    assert_eq!(record.detail, "period=1s jitter=0s");
    assert_eq!(
        reason(admin.keys().set_rotation("none", every(1)).await),
        "KEY_NOT_FOUND"
    );
}

#[tokio::test]
async fn a_crash_leaves_one_record_a_rotation() {
    let f = Fixture::start();
    let policy = every(1);
    for number in 0..20 {
        let name = format!("k{number}");
        f.admin()
            .keys()
            .create_with(&name, policy.clone())
            .await
            .unwrap();
    }
    let Fixture {
        home,
        mut server,
        admin_identity,
        ..
    } = f;
    for round in 1..=3 {
        let admin = server.admin_client(&admin_identity);
        let before = admin.keys().show("k0").await.unwrap().primary_version;
        until(&admin, "k0", |key| key.primary_version > before).await;
        server.kill();
        server = home.serve();
        let admin = server.admin_client(&admin_identity);
        let mut last = BTreeMap::new();
        for number in 0..20 {
            let key = admin.keys().show(&format!("k{number}")).await.unwrap();
            last.insert(key.name, key.primary_version);
        }
        // Once its next rotation is there, a record that was missing is.
        for (name, last) in &last {
            until(&admin, name, |key| key.primary_version > *last).await;
        }
        for (key, last) in last {
            let mut versions: Vec<u32> = acts(&admin, &key, ROTATION)
                .await
                .iter()
                .filter(|record| record.code == 0)
                .map(|record| record.resources[0].version)
                .filter(|version| *version <= last)
                .collect();
            versions.sort_unstable();
            assert_eq!(
                versions,
                (2..=last).collect::<Vec<_>>(),
                "{key}, round {round}"
            );
        }
    }
}

#[tokio::test]
async fn the_command_line_says_when_and_why() {
    let f = Fixture::start();
    let run = |arguments: &[&str]| f.server.run(&f.admin_identity, arguments);
    let created = run(&[
        "key",
        "create",
        "k",
        "--rotate-every",
        "90d",
        "--jitter",
        "0s",
        "--max-bytes",
        "10GiB",
    ]);
    assert!(
        created.contains("every 90d, jitter 0s, after 10.0 GiB"),
        "{created}"
    );
    let shown = run(&["key", "show", "k"]);
    assert!(shown.contains(", since its period ends"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["key", "show", "k", "--format", "json"])).unwrap();
    assert_eq!(json["rotation"]["period_seconds"], 90 * 86_400);
    assert_eq!(json["rotation"]["max_bytes"], 10_u64 << 30);
    assert_eq!(json["next_rotation"]["cause"], "period");
    let wide = run(&["key", "list", "--wide"]);
    assert!(
        wide.contains("NEXT ROTATION") && wide.contains("on demand"),
        "{wide}"
    );
    let cron = run(&["key", "set-rotation", "k", "--rotate-cron", "0 3 * * 1"]);
    assert!(cron.contains("at `0 3 * * 1` UTC"), "{cron}");
    let never = run(&["key", "set-rotation", "k", "--never"]);
    assert!(never.contains("on demand"), "{never}");
    assert!(run(&["key", "usage", "k"]).contains("nothing was encrypted"));
    f.app().field("k", "f").encrypt(&[0; 2048]).await.unwrap();
    assert_eq!(
        run(&["key", "usage", "k"]),
        "VERSION  MESSAGES  BYTES\n1        1         2.0 KiB\n"
    );

    let retire = ["key", "set-rotation", "k", "--retire-after", "365d"];
    let refused = f.server.command(&f.admin_identity, retire).output();
    let refused = refused.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("--yes"), "{said}");
    let said = run(&[
        "key",
        "set-rotation",
        "k",
        "--retire-after",
        "365d",
        "--dry-run",
    ]);
    assert!(
        said.contains("365d") && said.contains("will not decrypt"),
        "{said}"
    );
    assert_eq!(f.admin().keys().show("k").await.unwrap().rotation, None);
    let retired = run(&[
        "key",
        "set-rotation",
        "k",
        "--retire-after",
        "365d",
        "--yes",
    ]);
    assert!(
        retired.contains("retire 365d after they are replaced"),
        "{retired}"
    );
}
