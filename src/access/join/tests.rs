use std::sync::Arc;

use fieldkeep_keystore::{root::key_file::KeyFile, store::memory::MemoryStore};
use proptest::prelude::*;

use super::*;
use crate::access::ca::{CLIENT_TTL_S, Ca};

const NOW: u64 = 1_800_000_000;

async fn keystore() -> (Keystore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let keystore = Keystore::init(Arc::new(MemoryStore::new()), &root, NOW)
        .await
        .unwrap();
    (keystore, dir)
}

fn app() -> Identity {
    let name = |text| Name::parse(text).unwrap();
    Identity::new(name("default"), name("app"))
}

async fn made(keystore: &Keystore, ttl_s: u64, now: u64) -> Result<MadeToken, JoinError> {
    let operation = records::make_operation().unwrap();
    let made = make_token(keystore, &app(), ttl_s, "admin", operation, now).await;
    made.map(|changed| changed.value)
}

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    request.unwrap().der().to_vec()
}

async fn error(keystore: &Keystore, token: &JoinToken, csr: &[u8], now: u64) -> String {
    match check_token(keystore, token, csr, now).await {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_token_counts_once_and_again_for_the_same_request_alone() {
    let (keystore, _dir) = keystore().await;
    let ca = Ca::make(
        &keystore,
        "fieldkeep",
        records::make_operation().unwrap(),
        NOW,
    )
    .await
    .unwrap()
    .value;
    let token = made(&keystore, 0, NOW).await.unwrap().token;
    let token = JoinToken::parse(&token.to_text()).unwrap();
    let (mine, others) = (csr(), csr());
    let admit = |csr: Vec<u8>| {
        let (keystore, token) = (&keystore, &token);
        async move {
            match check_token(keystore, token, &csr, NOW + 1).await {
                Ok(Checked::New(admission)) => admission,
                _ => panic!("not admitted"),
            }
        }
    };
    // Two that looked at the same time: one succeeds.
    let (first, second) = (admit(mine.clone()).await, admit(others.clone()).await);
    assert_eq!(first.identity, app());
    let issued = ca.issue(&mine, &app(), 0, CLIENT_TTL_S, NOW).unwrap();
    let operation = || records::make_operation().unwrap();
    first
        .use_up(&keystore, &mine, &issued, operation(), NOW + 1)
        .await
        .unwrap();
    let late = second
        .use_up(&keystore, &others, &issued, operation(), NOW + 1)
        .await;
    assert!(matches!(late, Err(JoinError::Used)));
    assert_eq!(error(&keystore, &token, &others, NOW + 2).await, "used");
    match check_token(&keystore, &token, &mine, NOW + 2).await {
        Ok(Checked::Repeated(repeated)) => {
            assert_eq!(repeated.certificate_pem, issued.certificate_pem);
        }
        _ => panic!("the reply was lost, and the same request gives it again"),
    }
}

#[tokio::test]
async fn a_token_ends_and_a_wrong_secret_never_counts() {
    let (keystore, _dir) = keystore().await;
    let token = made(&keystore, 60, NOW).await.unwrap().token;
    let csr = csr();
    assert_eq!(error(&keystore, &token, &csr, NOW + 60).await, "");
    assert_eq!(error(&keystore, &token, &csr, NOW + 61).await, "expired");
    let mut other = JoinToken::parse(&token.to_text()).unwrap();
    other.secret[7] ^= 1;
    assert_eq!(error(&keystore, &other, &csr, NOW).await, "unknown");
    let unknown = JoinToken::make(String::from("0123456789abcdef")).unwrap();
    assert_eq!(error(&keystore, &unknown, &csr, NOW).await, "unknown");
    assert!(matches!(
        made(&keystore, MAX_TTL_S + 1, NOW).await,
        Err(JoinError::Ttl { .. })
    ));
}

#[tokio::test]
async fn the_store_has_no_secret_and_ended_tokens_make_room() {
    let (keystore, _dir) = keystore().await;
    let token = made(&keystore, 60, NOW).await.unwrap().token;
    let stored = keystore.system_record(&token.store_key()).await.unwrap();
    let payload = stored.unwrap().payload;
    let has = |bytes: &[u8]| {
        payload
            .windows(8)
            .any(|part| bytes.windows(8).any(|b| b == part))
    };
    assert!(!has(token.secret.as_ref()));
    let second = made(&keystore, 60, NOW + 61).await.unwrap().token;
    assert_eq!(second.id(), token.id(), "in the place of the ended one");
    assert_eq!(error(&keystore, &token, &csr(), NOW + 62).await, "unknown");
    let third = made(&keystore, 60, NOW + 61).await.unwrap().token;
    assert_ne!(third.id(), second.id());
}

#[test]
fn tokens_read_back_and_do_not_show_their_secret() {
    let token = JoinToken::make(String::from("0123456789abcdef")).unwrap();
    let text = token.to_text();
    assert_eq!(text.len(), TOKEN_CHARS);
    assert_eq!(TOKEN_CHARS, 69, "as the message says");
    assert!(text.starts_with("fkj_0123456789abcdef_"));
    let read = JoinToken::parse(&text).unwrap();
    assert_eq!((read.id, *read.secret), (token.id.clone(), *token.secret));
    let shown = format!("{token:?}");
    assert!(!shown.contains(&text[21..40]), "{shown}");
}

proptest! {
    #[test]
    fn one_changed_character_is_refused(position in 0usize..69, to in "[0-9a-z_]") {
        let text = JoinToken::make(String::from("0123456789abcdef")).unwrap().to_text();
        let mut changed = text.to_string();
        changed.replace_range(position..=position, &to);
        prop_assume!(changed != *text);
        prop_assert!(JoinToken::parse(&changed).is_err(), "{}", changed);
    }

    #[test]
    fn no_text_is_a_panic(text in ".{0,80}") {
        let _ = JoinToken::parse(&text);
    }
}
