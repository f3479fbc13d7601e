use std::sync::Arc;

use fieldkeep_keystore::{root::key_file::KeyFile, store::memory::MemoryStore};
use proptest::prelude::*;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::access::{
    ca::{CLIENT_TTL_S, Ca},
    revocation::Revoked,
};

const NOW: u64 = 1_800_000_000;

struct Fixture {
    keystore: Keystore,
    ca: Ca,
    certificates: Certificates,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn make() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let root = KeyFile::create(dir.path().join("root.key")).unwrap();
        let keystore = Keystore::init(Arc::new(MemoryStore::new()), &root, NOW)
            .await
            .unwrap();
        let ca = Ca::make(&keystore, "fieldkeep", operation(), NOW)
            .await
            .unwrap()
            .value;
        let der = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
        let certificates = Certificates::load(&keystore, &der, "fieldkeep", NOW).await;
        Fixture {
            keystore,
            ca,
            certificates: certificates.unwrap(),
            _dir: dir,
        }
    }

    async fn made(&self, ttl_s: u64, now: u64) -> Result<JoinToken, JoinError> {
        let issue = |revocations: &Revocations| {
            WantedToken::new(app(), ttl_s, ADMIN.into(), revocations, now)
        };
        let wanted = self.certificates.issue_with(now, issue).await?;
        let drawn = self.certificates.draw_token(wanted).await?;
        let made = self.certificates.keep_token(drawn, operation()).await?;
        assert_eq!(made.value.expires, now + ttl_s_of(ttl_s));
        Ok(made.value.token)
    }

    async fn admitted(&self, token: &JoinToken, csr: &[u8]) -> Admission {
        match self.certificates.check_token(token, csr, NOW + 1).await {
            Ok(Checked::New(admission)) => admission,
            _ => panic!("not admitted"),
        }
    }

    /// Why a token does not count; empty if it does.
    async fn error(&self, token: &JoinToken, csr: &[u8], now: u64) -> String {
        match self.certificates.check_token(token, csr, now).await {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    async fn revoke(&self, identity: Identity, now: u64) {
        let what = Revoked::Identity(identity);
        let revoked = self.certificates.revoke(what, ADMIN, operation(), now);
        revoked.await.unwrap();
    }
}

const ADMIN: &str = "tenants/default/identities/admin";

fn ttl_s_of(asked: u64) -> u64 {
    if asked == 0 { DEFAULT_TTL_S } else { asked }
}

fn operation() -> Operation {
    Operation::make().unwrap()
}

fn app() -> Identity {
    let name = |text| Name::parse(text).unwrap();
    Identity::new(name("default"), name("app"))
}

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    request.unwrap().der().to_vec()
}

#[tokio::test]
async fn a_token_counts_once_and_again_for_the_same_request_alone() {
    let f = Fixture::make().await;
    let token = f.made(0, NOW).await.unwrap();
    let token = JoinToken::parse(&token.to_text()).unwrap();
    let (mine, others) = (csr(), csr());
    // Four that looked at the same time: one succeeds, and its repetition gets what it got.
    let first = f.admitted(&token, &mine).await;
    let same = f.admitted(&token, &mine).await;
    let second = f.admitted(&token, &others).await;
    assert_eq!(first.identity, app());
    let issue = |csr: &[u8]| f.ca.issue(csr, &app(), 0, CLIENT_TTL_S, NOW).unwrap();
    let use_up = async |admission, issued: &Issued| {
        let used = f
            .certificates
            .use_up(admission, issued, operation(), NOW + 1);
        used.await
    };
    let issued = issue(&mine);
    assert!(matches!(use_up(first, &issued).await, Ok(UsedUp::First(_))));
    match use_up(same, &issue(&mine)).await {
        Ok(UsedUp::Repeated(repeated)) => {
            assert_eq!(repeated.certificate_pem, issued.certificate_pem);
        }
        _ => panic!("both have the key of this certificate"),
    }
    let late = use_up(second, &issue(&others)).await;
    assert!(matches!(late, Err(JoinError::Used)));
    assert_eq!(f.error(&token, &others, NOW + 2).await, "used");
    match f.certificates.check_token(&token, &mine, NOW + 2).await {
        Ok(Checked::Repeated(repeated)) => {
            assert_eq!(repeated.certificate_pem, issued.certificate_pem);
        }
        _ => panic!("the reply was lost, and the same request gives it again"),
    }
}

#[tokio::test]
async fn a_token_ends_and_a_wrong_secret_never_counts() {
    let f = Fixture::make().await;
    let token = f.made(60, NOW).await.unwrap();
    let csr = csr();
    assert_eq!(f.error(&token, &csr, NOW + 60).await, "");
    assert_eq!(f.error(&token, &csr, NOW + 61).await, "expired");
    let mut other = JoinToken::parse(&token.to_text()).unwrap();
    other.secret[7] ^= 1;
    assert_eq!(f.error(&other, &csr, NOW).await, "unknown");
    let unknown = JoinToken::make(String::from("0123456789abcdef")).unwrap();
    assert_eq!(f.error(&unknown, &csr, NOW).await, "unknown");
    let beyond = f.made(MAX_TTL_S + 1, NOW).await;
    assert!(matches!(beyond, Err(JoinError::Ttl { .. })));
}

#[tokio::test]
async fn a_revocation_ends_the_tokens_for_an_identity_and_those_that_it_made() {
    let admin = || {
        let name = |text| Name::parse(text).unwrap();
        Identity::new(name("default"), name("admin"))
    };
    assert_eq!(&**admin().resource(), ADMIN);
    for revoked in [app(), admin()] {
        let f = Fixture::make().await;
        let csr = csr();
        let before = f.made(0, NOW).await.unwrap();
        let used = f.made(0, NOW).await.unwrap();
        let issued = f.ca.issue(&csr, &app(), 0, CLIENT_TTL_S, NOW).unwrap();
        let admission = f.admitted(&used, &csr).await;
        let first = f.certificates.use_up(admission, &issued, operation(), NOW);
        first.await.unwrap();
        let under_way = f.admitted(&before, &csr).await;
        f.revoke(revoked.clone(), NOW).await;
        assert_eq!(f.error(&before, &csr, NOW).await, "unknown");
        assert_eq!(f.error(&used, &csr, NOW).await, "unknown", "repeated");
        let look =
            |revocations: &Revocations| Ok::<_, JoinError>(under_way.is_revoked(revocations));
        assert!(f.certificates.issue_with(NOW, look).await.unwrap());
        // In the same second, and once more.
        let after = f.made(0, NOW).await.unwrap();
        assert_eq!(f.error(&after, &csr, NOW).await, "");
        f.revoke(revoked.clone(), NOW).await;
        assert_eq!(f.error(&after, &csr, NOW).await, "unknown");
    }
}

#[tokio::test]
async fn one_tenant_cannot_take_the_place_of_all_tokens() {
    let f = Fixture::make().await;
    for _ in 0..MAX_TOKENS_OF_TENANT {
        f.made(60, NOW).await.unwrap();
    }
    assert!(matches!(f.made(60, NOW).await, Err(JoinError::TooMany)));
    let other = Identity::new(Name::parse("other").unwrap(), Name::parse("app").unwrap());
    let issue =
        |revocations: &Revocations| WantedToken::new(other, 0, ADMIN.into(), revocations, NOW);
    let wanted = f.certificates.issue_with(NOW, issue).await.unwrap();
    f.certificates.draw_token(wanted).await.unwrap();
}

#[tokio::test]
async fn the_store_has_no_secret_and_ended_tokens_make_room() {
    let f = Fixture::make().await;
    let token = f.made(60, NOW).await.unwrap();
    let stored = f.keystore.system_record(&token.store_key()).await.unwrap();
    let payload = stored.unwrap().payload;
    let has = |bytes: &[u8]| {
        payload
            .windows(8)
            .any(|part| bytes.windows(8).any(|b| b == part))
    };
    assert!(!has(token.secret.as_ref()));
    let second = f.made(60, NOW + 61).await.unwrap();
    assert_eq!(second.id(), token.id(), "in the place of the ended one");
    assert_eq!(f.error(&token, &csr(), NOW + 62).await, "unknown");
    let third = f.made(60, NOW + 61).await.unwrap();
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
