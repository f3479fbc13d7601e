use std::{convert::Infallible, io, sync::atomic::AtomicBool, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fieldkeep_keystore::{
    root::key_file::KeyFile,
    store::{
        CommitError, Committed, Record, Store, StoreError, Transaction, memory::MemoryStore,
        watch::Watch,
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;
use crate::access::{ca::Ca, principal::Identity};

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A store that can do what it is told and say that it failed.
struct Forgetful {
    store: MemoryStore,
    forgets: AtomicBool,
}

#[async_trait]
impl Store for Forgetful {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.store.get(key).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, StoreError> {
        self.store.scan(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let committed = self.store.commit(transaction).await?;
        if self.forgets.load(Ordering::SeqCst) {
            return Err(CommitError::Io(io::Error::other("the reply was lost")));
        }
        Ok(committed)
    }

    async fn operation(&self, id: &[u8; 16]) -> Result<Option<u64>, StoreError> {
        self.store.operation(id).await
    }

    async fn watch(&self, from: u64) -> Result<Watch, StoreError> {
        self.store.watch(from).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.store.revision().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }

    fn kind(&self) -> &'static str {
        self.store.kind()
    }
}

struct Fixture {
    store: Arc<Forgetful>,
    keystore: Keystore,
    ca: Ca,
    certificates: Certificates,
    _dir: tempfile::TempDir,
}

fn operation() -> Operation {
    Operation::make().unwrap()
}

impl Fixture {
    async fn make() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let root = KeyFile::create(dir.path().join("root.key")).unwrap();
        let store = Arc::new(Forgetful {
            store: MemoryStore::new(),
            forgets: AtomicBool::new(false),
        });
        let in_use: Arc<dyn Store> = Arc::clone(&store) as _;
        let keystore = Keystore::init(in_use, &root, NOW).await.unwrap();
        let acme = name("acme");
        keystore
            .create_tenant(&acme, operation(), NOW)
            .await
            .unwrap();
        let made = Ca::make(&keystore, "fieldkeep", operation(), NOW).await;
        let ca = made.unwrap().value;
        let certificates = load(&keystore, &ca).await;
        Fixture {
            store,
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

/// How a certificate is dated that is issued at `now`.
async fn issuing_time(certificates: &Certificates, identity: &Identity, now: u64) -> u64 {
    let issue = |revocations: &Revocations| {
        Ok::<_, Infallible>(revocations.issuing_time(identity.resource(), now))
    };
    certificates.issue_with(now, issue).await.unwrap()
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
        assert_eq!(issuing_time(&certificates, &app, NOW).await, NOW + 1);
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
        assert_eq!(issuing_time(&f.certificates, &app, now).await, now + 1);
    }
    // With a clock that was set back, and from another machine's view: what is revoked stays so.
    let what = Revoked::Identity(app.clone());
    let again = f.certificates.revoke(what, "admin", operation(), NOW).await;
    assert_eq!(again.unwrap().value.revocation.time, NOW + 101);
}

#[tokio::test]
async fn a_revocation_covers_what_was_issued_before_it_although_its_call_began_earlier() {
    let f = Fixture::make().await;
    let app = Identity::new(name("acme"), name("app"));
    let is_revoked = |issued_at| {
        let state = f.certificates.trust().state();
        state.revocations().is_revoked(&"1".into(), &app, issued_at)
    };
    let revoke = || {
        let what = Revoked::Identity(app.clone());
        f.certificates.revoke(what, "admin", operation(), NOW)
    };
    let issued_at = issuing_time(&f.certificates, &app, NOW + 5).await;
    revoke().await.unwrap();
    assert!(is_revoked(issued_at));
    // Once more: what was issued since then is dated after the first one.
    let issued_at = issuing_time(&f.certificates, &app, NOW).await;
    assert!(!is_revoked(issued_at));
    revoke().await.unwrap();
    assert!(is_revoked(issued_at));
}

#[tokio::test]
async fn a_revocation_waits_for_whoever_issues_and_they_for_it() {
    let f = Fixture::make().await;
    let app = Identity::new(name("acme"), name("app"));
    let short = Duration::from_millis(20);
    let issuing = f.certificates.inner.writer.read().await;
    let what = Revoked::Identity(app.clone());
    let mut revoke = Box::pin(f.certificates.revoke(what, "admin", operation(), NOW));
    assert!(tokio::time::timeout(short, &mut revoke).await.is_err());
    drop(issuing);
    revoke.await.unwrap();
    let revoking = f.certificates.inner.writer.write().await;
    let mut issue = Box::pin(issuing_time(&f.certificates, &app, NOW));
    assert!(tokio::time::timeout(short, &mut issue).await.is_err());
    drop(revoking);
    assert_eq!(issue.await, NOW + 1);
}

#[tokio::test]
async fn a_revocation_counts_also_if_its_outcome_is_not_known() {
    let f = Fixture::make().await;
    let app = Identity::new(name("acme"), name("app"));
    let once = operation();
    let revoke = || {
        let what = Revoked::Identity(app.clone());
        f.certificates.revoke(what, "admin", once, NOW)
    };
    f.store.forgets.store(true, Ordering::SeqCst);
    assert!(revoke().await.is_err());
    let state = f.certificates.trust().state();
    assert!(state.revocations().is_revoked(&"1".into(), &app, NOW));
    f.store.forgets.store(false, Ordering::SeqCst);
    let repeated = revoke().await.unwrap();
    assert!(repeated.repeated);
    assert_eq!(repeated.value.revocation.time, NOW);
}

#[tokio::test]
async fn the_repetition_of_an_addition_is_no_addition_beyond_the_most() {
    let f = Fixture::make().await;
    let one = corp("corp.example", "acme");
    let root = |number: usize| {
        let mut root = one.clone();
        root.binding.name = name(&format!("corp-{number}"));
        root.binding.trust_domain = format!("corp{number}.example");
        root
    };
    let last = operation();
    for number in 1..MAX_ROOTS {
        let added = f
            .certificates
            .add_root(root(number), operation(), NOW)
            .await;
        added.unwrap();
    }
    for _ in 0..2 {
        let added = f.certificates.add_root(root(MAX_ROOTS), last, NOW).await;
        added.unwrap();
    }
    let beyond = f.certificates.add_root(root(0), operation(), NOW).await;
    assert!(matches!(beyond, Err(CertificatesError::TooManyRoots)));
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
