//! Random sequences of changes against a model that is too simple to be wrong.

use fieldkeep_keystore::error::{KeyError, KeystoreError};
use proptest::{collection::vec, prelude::*};

use crate::fixture::*;

#[derive(Clone, Debug)]
enum Step {
    Rotate,
    SetKey(bool),
    SetVersion(u32, bool),
    /// Repeats the last change that was accepted.
    Repeat,
    Reopen,
}

/// One entry a version: enabled or not, and a ciphertext of it.
struct Model {
    enabled: bool,
    versions: Vec<(bool, Vec<u8>)>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Rotate),
        2 => any::<bool>().prop_map(Step::SetKey),
        6 => (0..12_u32, any::<bool>()).prop_map(|(version, on)| Step::SetVersion(version, on)),
        1 => Just(Step::Repeat),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changes_follow_the_model(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(follow(steps));
    }
}

async fn follow(steps: Vec<Step>) {
    let (store, mut keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let first = keystore.key("default", "pii").await.unwrap();
    let mut model = Model {
        enabled: true,
        versions: vec![(true, encrypt(first.primary(), b"1"))],
    };
    let mut last = None;
    for step in steps {
        let newest = model.versions.len() as u32;
        let operation = operation();
        match step {
            Step::Rotate => {
                let rotated = keystore
                    .rotate_key(&tenant, &key, operation, NOW)
                    .await
                    .unwrap();
                assert_eq!(rotated.value.primary, newest + 1);
                let current = keystore.key("default", "pii").await.unwrap();
                let ciphertext = encrypt(current.primary(), (newest + 1).to_string().as_bytes());
                model.versions.push((true, ciphertext));
                last = Some((operation, rotated.revision));
            }
            Step::SetKey(enabled) => {
                let changed = keystore
                    .set_key_enabled(&tenant, &key, enabled, operation, NOW)
                    .await
                    .unwrap();
                assert_eq!(changed.value.enabled, enabled);
                model.enabled = enabled;
            }
            Step::SetVersion(version, enabled) => {
                let outcome = keystore
                    .set_version_enabled(&tenant, &key, version, enabled, operation, NOW)
                    .await;
                if version == 0 || version > newest {
                    assert!(matches!(outcome, Err(KeystoreError::NoSuchVersion { .. })));
                } else if version == newest && !enabled {
                    assert!(matches!(outcome, Err(KeystoreError::PrimaryVersion { .. })));
                } else {
                    outcome.unwrap();
                    model.versions[version as usize - 1].0 = enabled;
                }
            }
            Step::Repeat => {
                if let Some((operation, revision)) = last {
                    let repeated = keystore
                        .rotate_key(&tenant, &key, operation, NOW)
                        .await
                        .unwrap();
                    assert!(repeated.repeated && repeated.revision == revision);
                    assert_eq!(repeated.value.primary, newest);
                }
            }
            Step::Reopen => keystore = open(store.clone()).await,
        }
        compare(&keystore, &model).await;
    }
}

async fn compare(keystore: &fieldkeep_keystore::keystore::Keystore, model: &Model) {
    let newest = model.versions.len() as u32;
    let described = keystore
        .describe_key(&name("default"), &name("pii"), NOW)
        .await
        .unwrap();
    assert_eq!(
        (described.primary, described.enabled),
        (newest, model.enabled)
    );
    let enabled: Vec<bool> = described
        .versions
        .iter()
        .rev()
        .map(|one| one.enabled)
        .collect();
    let expected: Vec<bool> = model.versions.iter().map(|(enabled, _)| *enabled).collect();
    assert_eq!(enabled, expected);
    let primaries: Vec<u32> = described
        .versions
        .iter()
        .filter(|one| one.primary)
        .map(|one| one.number)
        .collect();
    assert_eq!(primaries, [newest], "exactly one primary, the newest");

    let cached = keystore.key("default", "pii").await.unwrap();
    assert_eq!(cached.primary().number(), newest);
    assert_eq!(cached.active().is_ok(), model.enabled);
    for (at, (enabled, ciphertext)) in model.versions.iter().enumerate() {
        let outcome = decrypt(keystore, ciphertext).await;
        match outcome {
            Ok(plaintext) => {
                assert!(model.enabled && *enabled);
                assert_eq!(plaintext, (at + 1).to_string().as_bytes());
            }
            Err(KeyError::KeyDisabled) => assert!(!model.enabled),
            Err(KeyError::VersionDisabled) => assert!(model.enabled && !enabled),
            Err(other) => panic!("version {}: {other}", at + 1),
        }
    }
    if model.enabled {
        for number in [0, newest + 1] {
            let outcome = cached.version(number).await;
            assert!(matches!(outcome, Err(KeyError::NoSuchVersion)));
        }
    }
}
