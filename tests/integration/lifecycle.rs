//! Keys and their versions, over restarts and retries.

use fieldkeep_proto::v1::{KeyState, KeyVersionState};

use crate::fixture::{Fixture, reason};

#[tokio::test]
async fn old_versions_decrypt_until_disabled() {
    let f = Fixture::start();
    let (admin, app) = (f.admin(), f.app());
    let mut sealed = Vec::new();
    for version in 1..=5_u32 {
        let ciphertext = app
            .field("pii", "f")
            .encrypt(&version.to_be_bytes())
            .await
            .unwrap();
        assert_eq!(ciphertext[10..14], version.to_be_bytes());
        sealed.push(ciphertext);
        assert_eq!(
            admin.keys().rotate("pii").await.unwrap().primary_version,
            version + 1
        );
    }
    admin.keys().disable_version("pii", 2).await.unwrap();
    assert_eq!(
        reason(app.field("pii", "f").decrypt(&sealed[1]).await),
        "VERSION_DISABLED"
    );
    assert_eq!(
        reason(app.field("pii", "f").reencrypt(&sealed[1]).await),
        "VERSION_DISABLED"
    );
    assert_eq!(
        reason(admin.keys().disable_version("pii", 6).await),
        "PRIMARY_VERSION"
    );
    assert_eq!(
        reason(admin.keys().disable_version("pii", 7).await),
        "VERSION_NOT_FOUND"
    );

    let f = f.restart();
    let (admin, app) = (f.admin(), f.app());
    let key = admin.keys().show("pii").await.unwrap();
    let states: Vec<(u32, KeyVersionState, bool)> = key
        .versions
        .iter()
        .map(|v| (v.version, v.state(), v.primary))
        .collect();
    let expected: Vec<_> = (1..=6)
        .rev()
        .map(|v| {
            (
                v,
                if v == 2 {
                    KeyVersionState::Disabled
                } else {
                    KeyVersionState::Enabled
                },
                v == 6,
            )
        })
        .collect();
    assert_eq!(states, expected);
    for (version, ciphertext) in (1..).zip(&sealed) {
        let result = app.field("pii", "f").decrypt(ciphertext).await;
        if version == 2 {
            assert_eq!(reason(result), "VERSION_DISABLED");
        } else {
            assert_eq!(result.unwrap(), u32::to_be_bytes(version));
        }
    }
    admin.keys().enable_version("pii", 2).await.unwrap();
    assert_eq!(
        app.field("pii", "f").decrypt(&sealed[1]).await.unwrap(),
        2_u32.to_be_bytes()
    );
}

#[tokio::test]
async fn a_disabled_key_does_nothing() {
    let f = Fixture::start();
    let sealed = f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    assert_eq!(
        f.admin().keys().disable("pii").await.unwrap().state(),
        KeyState::Disabled
    );
    assert_eq!(
        reason(f.app().field("pii", "f").encrypt(b"x").await),
        "KEY_DISABLED"
    );
    assert_eq!(
        reason(f.app().field("pii", "f").decrypt(&sealed).await),
        "KEY_DISABLED"
    );
    // Another tenant is told nothing of it.
    assert_eq!(
        reason(f.other().field("pii", "f").decrypt(&sealed).await),
        "DECRYPTION_FAILED"
    );
    f.admin().keys().enable("pii").await.unwrap();
    assert_eq!(
        f.app().field("pii", "f").decrypt(&sealed).await.unwrap(),
        b"x"
    );
}

#[tokio::test]
async fn names_are_made_once() {
    let f = Fixture::start();
    let admin = f.admin();
    assert_eq!(reason(admin.keys().create("pii").await), "ALREADY_EXISTS");
    assert_eq!(
        reason(admin.tenants().create("other").await),
        "ALREADY_EXISTS"
    );
    assert_eq!(
        reason(admin.keys().create("tenants/none/keys/k").await),
        "TENANT_NOT_FOUND"
    );
    assert_eq!(reason(admin.keys().show("none").await), "KEY_NOT_FOUND");
    assert_eq!(reason(admin.keys().rotate("none").await), "KEY_NOT_FOUND");
    for bad in [
        "",
        "Upper",
        "-dash-first",
        "a/b",
        "tenants//keys/x",
        &"x".repeat(64),
        "ключ",
    ] {
        assert_eq!(
            reason(admin.keys().create(bad).await),
            "INVALID_REQUEST",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let f = Fixture::start();
    for number in 0..25 {
        f.admin()
            .keys()
            .create(&format!("k{number:02}"))
            .await
            .unwrap();
    }
    let mut pages = f.admin().keys().list("default").page_size(10);
    let mut names = Vec::new();
    while let Some(page) = pages.next_page().await.unwrap() {
        assert!(page.len() <= 10);
        names.extend(page.into_iter().map(|key| key.name));
    }
    let mut expected: Vec<String> = (0..25)
        .map(|n| format!("tenants/default/keys/k{n:02}"))
        .collect();
    expected.push("tenants/default/keys/pii".into());
    assert_eq!(names, expected);
    assert_eq!(
        f.admin()
            .keys()
            .list("other")
            .collect()
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn rotation_under_load_fails_no_call() {
    let f = Fixture::start();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let app = f.app();
        tasks.spawn(async move {
            for number in 0..200 {
                let id = format!("{task}-{number}");
                let sealed = app
                    .field("pii", "f")
                    .context("id", &id)
                    .encrypt(id.as_bytes())
                    .await
                    .unwrap();
                assert_eq!(
                    app.field("pii", "f")
                        .context("id", &id)
                        .decrypt(&sealed)
                        .await
                        .unwrap(),
                    id.as_bytes()
                );
            }
        });
    }
    for version in 2..=50 {
        assert_eq!(
            f.admin()
                .keys()
                .rotate("pii")
                .await
                .unwrap()
                .primary_version,
            version
        );
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}
