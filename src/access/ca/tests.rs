use std::{sync::Arc, time::Duration};

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::{info::CacheOptions, root::key_file::KeyFile, store::memory::MemoryStore};
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring::default_provider,
    pki_types::{ServerName, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tempfile::TempDir;

use super::*;
use crate::access::principal::principal_from_certificate;

const NOW: u64 = 1_800_000_000;

struct Fixture {
    _dir: TempDir,
    keystore: Keystore,
    root: KeyFile,
    ca: Ca,
}

fn operation() -> Operation {
    let mut id = [0; 16];
    random::fill(&mut id).unwrap();
    Operation {
        id,
        fingerprint: [1; 32],
    }
}

async fn fixture() -> Fixture {
    let dir = TempDir::new().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let keystore = Keystore::init(Arc::new(MemoryStore::new()), &root, NOW)
        .await
        .unwrap();
    let made = Ca::make(&keystore, "fieldkeep", operation(), NOW)
        .await
        .unwrap();
    assert_eq!(made.changes.len(), 1);
    Fixture {
        _dir: dir,
        keystore,
        root,
        ca: made.value,
    }
}

fn app() -> Identity {
    Identity::new(Name::parse("acme").unwrap(), Name::parse("app").unwrap())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default()
        .serialize_request(key)
        .unwrap()
        .der()
        .to_vec()
}

fn roots(ca: &Ca) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    Arc::new(roots)
}

fn client_verifier(ca: &Ca) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder_with_provider(roots(ca), Arc::new(default_provider()))
        .build()
        .unwrap()
}

fn at(unix_s: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(unix_s))
}

fn accepts(ca: &Ca, certificate: &CertificateDer<'_>, now: u64) -> bool {
    client_verifier(ca)
        .verify_client_cert(certificate, &[], at(now))
        .is_ok()
}

fn problem(ca: &Ca, csr: &[u8]) -> String {
    ca.issue(csr, &app(), 60, CLIENT_TTL_S, NOW)
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn an_issued_certificate_verifies_and_names_the_identity() {
    let fixture = fixture().await;
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issued = fixture
            .ca
            .issue(&request(&key), &app(), 3600, CLIENT_TTL_S, NOW)
            .unwrap();
        let certificate = der(&issued.certificate_pem);
        assert!(accepts(&fixture.ca, &certificate, NOW));
        let principal = principal_from_certificate(&certificate, "fieldkeep").unwrap();
        assert_eq!(principal.identity(), app());
        assert_eq!(principal.not_after, i64::try_from(NOW).unwrap() + 3600);
        assert_eq!(issued.not_after, principal.not_after);
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let spki = digest(&SHA256, parsed.public_key().raw);
        let facts = format!(
            "serial={:x} not_after={} spki_sha256={}",
            parsed.serial,
            issued.not_after,
            data_encoding::HEXLOWER.encode(spki.as_ref())
        );
        let even = facts.replacen("serial=", "serial=0", 1);
        assert!([facts, even].contains(&issued.detail), "{}", issued.detail);
        assert!(
            issued
                .detail
                .starts_with(&format!("serial={} ", principal.credential))
        );
        assert_eq!(der(&issued.ca_pem), *fixture.ca.certificate());
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        assert_eq!(
            parsed.public_key().subject_public_key.data.as_ref(),
            key.public_key_raw()
        );
    }
}

#[tokio::test]
async fn a_certificate_is_refused_outside_of_its_time() {
    let fixture = fixture().await;
    let made = fixture.ca.make_identity(&app(), 3600, NOW).unwrap();
    let certificate = der(&made.certificate_pem);
    for (time, accepted) in [
        (NOW - 301, false),
        (NOW - 300, true),
        (NOW + 3600, true),
        (NOW + 3601, false),
    ] {
        assert_eq!(accepts(&fixture.ca, &certificate, time), accepted, "{time}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (ours, theirs) = (fixture().await, fixture().await);
    let made = theirs.ca.make_identity(&app(), 3600, NOW).unwrap();
    assert!(accepts(&theirs.ca, &der(&made.certificate_pem), NOW));
    assert!(!accepts(&ours.ca, &der(&made.certificate_pem), NOW));
}

#[tokio::test]
async fn a_clients_certificate_cannot_sign_another() {
    let fixture = fixture().await;
    let made = fixture.ca.make_identity(&app(), 3600, NOW).unwrap();
    let key = KeyPair::from_pem(&made.key_pem).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&made.certificate_pem, key).unwrap();
    let mut params = make_params(NOW, NOW + 3600).unwrap();
    let admin = "spiffe://fieldkeep/tenant/default/admin";
    params.subject_alt_names = vec![SanType::URI(admin.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let forged = params
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap();
    let chain = [der(&made.certificate_pem)];
    let verdict = client_verifier(&fixture.ca).verify_client_cert(forged.der(), &chain, at(NOW));
    assert!(verdict.is_err());
}

#[tokio::test]
async fn server_and_client_certificates_do_not_serve_as_each_other() {
    let fixture = fixture().await;
    let names = ["localhost", "127.0.0.1", "::1", "kms.example.org"].map(str::to_owned);
    let server = fixture
        .ca
        .make_server_certificate(&names, MAX_TTL_S, NOW)
        .unwrap();
    let client = fixture.ca.make_identity(&app(), 3600, NOW).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(
        roots(&fixture.ca),
        Arc::new(default_provider()),
    )
    .build()
    .unwrap();
    let check = |pem: &str, name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&der(pem), &[], &name, &[], at(NOW + 1))
    };
    for name in &names {
        check(&server.certificate_pem, name).unwrap();
    }
    assert!(check(&server.certificate_pem, "other.example.org").is_err());
    assert!(check(&client.certificate_pem, "localhost").is_err());
    assert!(!accepts(&fixture.ca, &der(&server.certificate_pem), NOW));
    assert!(principal_from_certificate(&der(&server.certificate_pem), "fieldkeep").is_err());
}

#[tokio::test]
async fn each_certificate_has_one_use() {
    let fixture = fixture().await;
    let uses = |pem: &str| {
        let certificate = der(pem);
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let extension = parsed.extended_key_usage().unwrap().unwrap().value;
        (
            extension.client_auth,
            extension.server_auth,
            extension.any,
            extension.other.len(),
        )
    };
    let client = fixture.ca.make_identity(&app(), 60, NOW).unwrap();
    assert_eq!(uses(&client.certificate_pem), (true, false, false, 0));
    let names = ["localhost".to_owned()];
    let server = fixture.ca.make_server_certificate(&names, 60, NOW).unwrap();
    assert_eq!(uses(&server.certificate_pem), (false, true, false, 0));
}

#[tokio::test]
async fn the_names_of_a_request_are_not_taken_over() {
    let fixture = fixture().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let admin = "spiffe://fieldkeep/tenant/default/admin";
    params.subject_alt_names = vec![SanType::URI(admin.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, "admin");
    let csr = params.serialize_request(&key).unwrap();
    let issued = fixture
        .ca
        .issue(csr.der(), &app(), 60, CLIENT_TTL_S, NOW)
        .unwrap();
    let principal = principal_from_certificate(&der(&issued.certificate_pem), "fieldkeep").unwrap();
    assert_eq!(principal.identity(), app());
    let (_, parsed) = x509_parser::parse_x509_certificate(&der(&issued.certificate_pem))
        .map(|(rest, parsed)| (rest.to_vec(), parsed.subject().to_string()))
        .unwrap();
    assert_eq!(parsed, "O=acme, CN=app");
}

#[tokio::test]
async fn requests_that_prove_nothing_are_refused() {
    let fixture = fixture().await;
    let csr = request(&KeyPair::generate().unwrap());
    let mut bad_signature = csr.clone();
    *bad_signature.last_mut().unwrap() ^= 1;
    assert!(problem(&fixture.ca, &bad_signature).contains("not signed"));
    let mut extended = csr.clone();
    extended.push(0);
    assert!(problem(&fixture.ca, &extended).contains("after its end"));
    assert!(problem(&fixture.ca, &csr[..csr.len() - 1]).contains("PKCS #10"));
    assert!(problem(&fixture.ca, b"-----BEGIN CERTIFICATE REQUEST-----").contains("PKCS #10"));
    assert!(problem(&fixture.ca, &vec![0x30; 8193]).contains("8,192"));
    assert!(problem(&fixture.ca, &[]).contains("PKCS #10"));
}

#[tokio::test]
async fn a_request_with_another_key_in_it_is_refused() {
    let fixture = fixture().await;
    let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut csr = request(&mine);
    let at = csr
        .windows(65)
        .position(|window| window == mine.public_key_raw())
        .unwrap();
    csr[at..at + 65].copy_from_slice(other.public_key_raw());
    assert!(problem(&fixture.ca, &csr).contains("not signed"));
}

#[tokio::test]
async fn lives_out_of_range_are_refused_and_none_outlives_the_ca() {
    let fixture = fixture().await;
    let csr = request(&KeyPair::generate().unwrap());
    let issue = |ttl, now| fixture.ca.issue(&csr, &app(), ttl, CLIENT_TTL_S, now);
    let refusal = issue(CLIENT_TTL_S + 1, NOW).unwrap_err().to_string();
    assert!(
        refusal.contains("1 to 86400 seconds, not 86401") && refusal.contains("cert renew"),
        "{refusal}"
    );
    let longer = |ttl| fixture.ca.make_identity(&app(), ttl, NOW);
    longer(OPERATOR_TTL_S).unwrap();
    assert!(matches!(
        longer(OPERATOR_TTL_S + 1),
        Err(CaError::Ttl { .. })
    ));
    assert!(matches!(issue(u64::MAX, NOW), Err(CaError::Ttl { .. })));
    let seconds_of = |ttl| issue(ttl, NOW).unwrap().not_after - i64::try_from(NOW).unwrap();
    assert_eq!(seconds_of(0), i64::try_from(CLIENT_TTL_S).unwrap());
    assert_eq!(seconds_of(60), 60);
    let end = NOW + CA_TTL_S;
    assert_eq!(
        issue(3600, end - 60).unwrap().not_after,
        i64::try_from(end).unwrap()
    );
    assert!(matches!(issue(3600, end), Err(CaError::Expired)));
}

#[tokio::test]
async fn server_names_are_checked() {
    let fixture = fixture().await;
    for name in [
        "",
        "a b",
        "*.example.org",
        "http://x",
        "ex_ample/",
        "1.2.3.4/8",
    ] {
        let made = fixture
            .ca
            .make_server_certificate(&[name.to_owned()], 60, NOW);
        assert!(matches!(made, Err(CaError::ServerName { .. })), "{name:?}");
    }
}

#[tokio::test]
async fn serial_numbers_are_random() {
    let fixture = fixture().await;
    let serial = || {
        let made = fixture.ca.make_identity(&app(), 60, NOW).unwrap();
        let certificate = der(&made.certificate_pem);
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        parsed.raw_serial().to_vec()
    };
    let (first, second) = (serial(), serial());
    assert_ne!(first, second);
    assert!(first.len() >= 14, "{first:?}");
}

#[tokio::test]
async fn the_ca_opens_again_and_its_key_is_not_in_the_store() {
    let fixture = fixture().await;
    let made = fixture.ca.make_identity(&app(), 3600, NOW).unwrap();
    let store = Arc::clone(fixture.keystore.store());
    let again = Keystore::open(Arc::clone(&store), &fixture.root, CacheOptions::default())
        .await
        .unwrap();
    let ca = Ca::open(&again).await.unwrap();
    assert!(accepts(&ca, &der(&made.certificate_pem), NOW));
    ca.check_trust_domain("fieldkeep").unwrap();
    let message = ca.check_trust_domain("other").unwrap_err().to_string();
    assert!(
        message.contains("`other`") && message.contains("`fieldkeep`"),
        "{message}"
    );

    let key = fixture.ca.key.0.serialized_der();
    for (_, record) in store.scan(b"", None, 1000).await.unwrap() {
        assert!(
            !record
                .value
                .windows(32)
                .any(|window| key.windows(32).any(|part| part == window))
        );
    }
}

#[tokio::test]
async fn a_store_has_one_ca() {
    let fixture = fixture().await;
    let second = Ca::make(&fixture.keystore, "fieldkeep", operation(), NOW).await;
    assert!(matches!(
        second,
        Err(CaError::Keystore(KeystoreError::Conflict { .. }))
    ));
}

#[tokio::test]
async fn a_store_without_a_ca_says_so() {
    let dir = TempDir::new().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let keystore = Keystore::init(Arc::new(MemoryStore::new()), &root, NOW)
        .await
        .unwrap();
    let Err(error) = Ca::open(&keystore).await else {
        panic!("there is none")
    };
    assert!(
        matches!(error, CaError::NotInitialised) && error.to_string().contains("fieldkeep init")
    );
}
