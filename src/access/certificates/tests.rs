use fieldkeep_keystore::{root::key_file::KeyFile, store::memory::MemoryStore};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;
use crate::access::ca::Ca;

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

struct Fixture {
    keystore: Keystore,
    ca: Ca,
    certificates: Certificates,
    _dir: tempfile::TempDir,
}

fn operation() -> Operation {
    records::make_operation().unwrap()
}

impl Fixture {
    async fn make() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let root = KeyFile::create(dir.path().join("root.key")).unwrap();
        let keystore = Keystore::init(Arc::new(MemoryStore::new()), &root, NOW)
            .await
            .unwrap();
        let acme = name("acme");
        keystore
            .create_tenant(&acme, operation(), NOW)
            .await
            .unwrap();
        let made = Ca::make(&keystore, "fieldkeep", operation(), NOW).await;
        let ca = made.unwrap().value;
        let certificates = load(&keystore, &ca).await;
        Fixture {
            keystore,
            ca,
            certificates,
            _dir: dir,
        }
    }

    async fn again(&self) -> Certificates {
        load(&self.keystore, &self.ca).await
    }
}

async fn load(keystore: &Keystore, ca: &Ca) -> Certificates {
    Certificates::load(keystore, ca.certificate(), "fieldkeep", NOW)
        .await
        .unwrap()
}

fn corp(domain: &str, tenant: &str) -> CaRoot {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    CaRoot {
        binding: Binding {
            name: name("corp"),
            trust_domain: domain.to_owned(),
            tenants: vec![name(tenant)],
            ceiling: Role::Data,
        },
        certificate_pem: certificate.pem(),
        created: NOW,
        created_by: "admin".into(),
    }
}

#[tokio::test]
async fn revocations_are_there_at_once_after_a_restart_and_on_the_list() {
    let f = Fixture::make().await;
    let app = Identity::new(name("acme"), name("app"));
    let serial = Revoked::serial(name("acme"), "ab12").unwrap();
    for what in [serial, Revoked::Identity(app.clone())] {
        let revoked = f.certificates.revoke(what, "admin", operation(), NOW).await;
        assert_eq!(revoked.unwrap().value.connections, 0);
    }
    for certificates in [f.certificates.clone(), f.again().await] {
        let state = certificates.trust().state();
        let other = Identity::new(name("acme"), name("other"));
        assert!(state.revocations().is_revoked(&"1".into(), &app, NOW));
        assert!(!state.revocations().is_revoked(&"1".into(), &app, NOW + 1));
        assert!(state.revocations().is_revoked(&"ab12".into(), &other, NOW));
        assert_eq!(certificates.issuing_time(&app, NOW), NOW + 1);
    }
    let list = async |tenant: Option<&Name>, after: Option<&str>, limit| {
        let found = f.certificates.list_revocations(tenant, after, limit).await;
        found
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    let all = list(None, None, 10).await;
    assert_eq!(
        all,
        ["sys/revoked-before/acme/app", "sys/revoked/acme/ab12"]
    );
    assert_eq!(list(None, None, 1).await, all[..1]);
    assert_eq!(list(None, Some(&all[0]), 10).await, all[1..]);
    assert!(list(None, Some(&all[1]), 10).await.is_empty());
    assert_eq!(list(Some(&name("acme")), None, 10).await, all);
    assert!(list(Some(&name("other")), None, 10).await.is_empty());
}

#[tokio::test]
async fn an_identity_is_revoked_again_later() {
    let f = Fixture::make().await;
    let app = Identity::new(name("acme"), name("app"));
    for now in [NOW, NOW + 100] {
        let what = Revoked::Identity(app.clone());
        f.certificates
            .revoke(what, "admin", operation(), now)
            .await
            .unwrap();
        assert_eq!(f.certificates.issuing_time(&app, now), now + 1);
    }
}

#[tokio::test]
async fn a_ca_is_added_once_read_back_and_removed() {
    let f = Fixture::make().await;
    let root = corp("corp.example", "acme");
    f.certificates
        .add_root(root.clone(), operation(), NOW)
        .await
        .unwrap();
    let twice = f
        .certificates
        .add_root(root.clone(), operation(), NOW)
        .await;
    assert!(matches!(twice, Err(CertificatesError::RootExists(_))));
    let again = f.again().await;
    assert_eq!(again.list_roots().await.unwrap(), [root]);
    assert_eq!(again.trust().state().roots().len(), 2);
    let corp = name("corp");
    f.certificates
        .remove_root(&corp, operation(), NOW)
        .await
        .unwrap();
    assert_eq!(f.certificates.trust().state().roots().len(), 1);
    assert_eq!(f.again().await.trust().state().roots().len(), 1);
    let gone = f.certificates.remove_root(&corp, operation(), NOW).await;
    assert!(matches!(gone, Err(CertificatesError::RootNotFound(_))));
}

#[tokio::test]
async fn what_may_not_be_a_root_is_refused() {
    let f = Fixture::make().await;
    let add = async |root| f.certificates.add_root(root, operation(), NOW).await;
    assert!(matches!(
        add(corp("fieldkeep", "acme")).await,
        Err(CertificatesError::OwnTrustDomain(_))
    ));
    assert!(matches!(
        add(corp("corp.example", "nobody")).await,
        Err(CertificatesError::Keystore(KeystoreError::TenantNotFound(
            _
        )))
    ));
    let one = corp("corp.example", "acme");
    let two = format!("{0}{0}", one.certificate_pem);
    for pem in [String::new(), two, "x".repeat(MAX_ROOT_PEM_BYTES + 1)] {
        let root = CaRoot {
            certificate_pem: pem,
            ..one.clone()
        };
        assert!(matches!(add(root).await, Err(CertificatesError::Pem)));
    }
}
