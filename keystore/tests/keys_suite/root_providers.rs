//! Key files and passphrases.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use fieldkeep_keystore::{
    error::KeystoreError,
    info::CacheOptions,
    keystore::Keystore,
    root::{
        RootError, RootParams, RootProvider,
        key_file::KeyFile,
        passphrase::{Costs, Passphrase},
    },
    store::memory::MemoryStore,
};
use zeroize::Zeroizing;

use crate::fixture::NOW;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).with_costs(Costs::new(19 << 10, 2, 1).unwrap())
}

fn params() -> RootParams {
    RootParams::from_bytes(Vec::new())
}

async fn opens_again(root: &dyn RootProvider, wrong: &dyn RootProvider) {
    let store = Arc::new(MemoryStore::new());
    let made = Keystore::init(store.clone(), root, NOW).await.unwrap();
    let again = Keystore::open(store.clone(), root, CacheOptions::default())
        .await
        .unwrap();
    assert_eq!(made.store_id(), again.store_id());
    assert_eq!(again.root_provider(), root.name());
    let error = Keystore::open(store, wrong, CacheOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::WrongRoot), "{error}");
}

#[tokio::test]
async fn a_key_file_opens_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let wrong = KeyFile::create(dir.path().join("wrong.key")).unwrap();
    opens_again(&root, &wrong).await;
    let text = fs::read_to_string(root.path()).unwrap();
    assert_eq!(text.len(), 65);
    assert!(text.ends_with('\n'));
    let mode = fs::metadata(root.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    set_mode(root.path(), 0o400);
    KeyFile::new(root.path()).open(&params()).unwrap();
}

#[test]
fn a_key_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.key");
    KeyFile::create(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let error = KeyFile::create(&path).unwrap_err();
    assert!(matches!(error, RootError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_key_file_that_others_may_read_says_the_chmod_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    for mode in [0o644, 0o640, 0o660, 0o700, 0o604, 0o4600, 0o200 | 0o004] {
        set_mode(root.path(), mode);
        // A mode without the owner's right to read is another error, unless the tests run as root.
        let error = root.open(&params()).unwrap_err();
        if let RootError::Permissions { .. } = error {
            let told = error.to_string();
            let advice = format!("chmod 600 {}", root.path().display());
            assert!(told.contains(&advice), "{told}");
            assert!(told.contains(&format!("{mode:04o}")), "{told}");
        } else {
            assert!(matches!(error, RootError::Io { .. }), "{error}");
        }
    }
    set_mode(root.path(), 0o600);
    root.open(&params()).unwrap();
}

#[test]
fn only_a_regular_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let link = dir.path().join("link");
    symlink(root.path(), &link).unwrap();
    let error = KeyFile::new(&link).open(&params()).unwrap_err();
    assert!(matches!(error, RootError::Symlink { .. }), "{error}");
    let error = KeyFile::new(dir.path()).open(&params()).unwrap_err();
    assert!(matches!(error, RootError::NotAFile { .. }), "{error}");
    let error = KeyFile::new(dir.path().join("none"))
        .open(&params())
        .unwrap_err();
    assert!(matches!(error, RootError::Missing { .. }), "{error}");
}

#[test]
fn only_64_hexadecimal_digits_are_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let good = fs::read_to_string(root.path()).unwrap();
    let digits = good.trim_end();
    for text in [
        String::new(),
        digits[1..].to_owned(),
        format!("{digits}0\n"),
        format!("{digits}\n\n"),
        format!("{digits}\r\n"),
        format!(" {good}"),
        format!("g{}", &good[1..]),
        good.repeat(1000),
    ] {
        fs::write(root.path(), &text).unwrap();
        let error = root.open(&params()).unwrap_err();
        assert!(matches!(error, RootError::Malformed { .. }), "{text:?}");
        assert!(!error.to_string().contains(&digits[1..8]), "{error}");
    }
    fs::write(root.path(), digits.to_uppercase()).unwrap();
    root.open(&params()).unwrap();
    let error = root.open(&RootParams::from_bytes(vec![1])).unwrap_err();
    assert!(matches!(error, RootError::Params { .. }), "{error}");
}

#[tokio::test]
async fn a_passphrase_opens_what_it_made() {
    let root = passphrase("correct horse battery");
    let wrong = passphrase("correct horse batterz");
    opens_again(&root, &wrong).await;
    assert!(!format!("{root:?}").contains("horse"));
}

#[tokio::test]
async fn the_same_passphrase_makes_different_keys() {
    let root = passphrase("correct horse battery");
    let (_, one) = root.make().unwrap();
    let (_, two) = root.make().unwrap();
    assert_ne!(one, two, "the salt is random");
}

#[test]
fn a_short_passphrase_is_refused_when_a_keystore_is_made() {
    for text in [
        "",
        "short",
        "elevenchars",
        "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
    ] {
        let error = passphrase(text).make().unwrap_err();
        assert!(
            matches!(error, RootError::PassphraseTooShort { least: 12, .. }),
            "{text}: {error}"
        );
    }
}

#[test]
fn planted_costs_are_bounded() {
    let root = passphrase("correct horse battery");
    let (_, made) = root.make().unwrap();
    let made = made.as_bytes().to_vec();
    // Salt: tag, length, 16 bytes; then memory (tag, 3 bytes), passes (tag, byte), lanes (tag, byte).
    assert_eq!(made.len(), 18 + 4 + 2 + 2);
    let varint = |bytes: &[u8], passes: u8, lanes: u8| {
        let mut changed = made[..18].to_vec();
        changed.push(0x10);
        changed.extend_from_slice(bytes);
        changed.extend_from_slice(&[0x18, passes, 0x20, lanes]);
        root.open(&RootParams::from_bytes(changed))
    };
    let refused = |outcome: Result<_, RootError>| {
        let error = outcome.map(|_| ()).unwrap_err();
        assert!(matches!(error, RootError::Params { .. }), "{error}");
    };
    // 1 GiB and one KiB.
    refused(varint(&[0x81, 0x80, 0x40], 1, 1));
    refused(varint(&[0xff, 0xff, 0xff, 0xff, 0x0f], 1, 1));
    refused(varint(&[0x80, 0x98, 0x01], 17, 1));
    refused(varint(&[0x80, 0x98, 0x01], 0, 1));
    refused(varint(&[0x80, 0x98, 0x01], 2, 9));
    refused(varint(&[0x80, 0x98, 0x01], 2, 0));
    // A varint that is longer than it needs to be.
    refused(varint(&[0x80, 0x98, 0x81, 0x00], 2, 1));
    varint(&[0x80, 0x98, 0x01], 2, 1).unwrap();
    refused(root.open(&RootParams::from_bytes(Vec::new())));
    refused(root.open(&RootParams::from_bytes(made[1..].to_vec())));
}

#[test]
fn costs_have_a_floor() {
    assert_eq!(Costs::new(19 << 10, 1, 1), None);
    assert_eq!(Costs::new(8 << 10, 16, 1), None);
    assert!(Costs::new(46 << 10, 1, 1).is_some());
    assert_eq!(Costs::new((1 << 20) + 1, 1, 1), None);
}

#[test]
fn a_key_file_of_another_user_says_the_chown_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    // Only the superuser can give a file away; for everybody else there is nothing to try.
    if std::os::unix::fs::chown(root.path(), Some(65534), None).is_err() {
        return;
    }
    let error = root.open(&params()).unwrap_err();
    assert!(
        matches!(error, RootError::Owner { owner: 65534, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("run `chown"), "{error}");
}
