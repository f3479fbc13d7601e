use fieldkeep_crypto::random;
use fieldkeep_keystore::{info::CacheOptions, root::key_file::KeyFile, store::memory::MemoryStore};
use tempfile::TempDir;

use super::{principal::Principal, *};

const NOW: u64 = 1_800_000_000;
const NOW_S: i64 = 1_800_000_000;

struct Fixture {
    _dir: TempDir,
    root: KeyFile,
    keystore: Keystore,
    access: Access,
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn identity(tenant: &str, text: &str) -> Identity {
    Identity::new(name(tenant), name(text))
}

fn principal(tenant: &str, text: &str) -> Principal {
    Principal::new(&identity(tenant, text), NOW_S + 10)
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
    keystore
        .create_tenant(&name("acme"), operation(), NOW)
        .await
        .unwrap();
    let access = Access::load(&keystore).await.unwrap();
    Fixture {
        _dir: dir,
        root,
        keystore,
        access,
    }
}

impl Fixture {
    async fn grant(
        &self,
        tenant: &str,
        text: &str,
        role: Role,
    ) -> Result<Changed<RoleBinding>, AccessError> {
        self.access
            .grant(&identity(tenant, text), role, "init", operation(), NOW)
            .await
    }

    async fn revoke(&self, tenant: &str, text: &str) -> Result<Changed<()>, AccessError> {
        self.access
            .revoke(&identity(tenant, text), operation(), NOW)
            .await
    }

    fn decide(&self, who: &Principal, action: Action, tenant: &str) -> Result<Rule, &'static str> {
        self.access
            .snapshot()
            .authorize(who, action, tenant, NOW_S)
            .map_err(|denied| denied.rule)
    }
}

#[tokio::test]
async fn each_role_may_do_its_own_and_nothing_else() {
    let fixture = fixture().await;
    fixture
        .grant("default", "admin", Role::Admin)
        .await
        .unwrap();
    fixture.grant("acme", "app", Role::Data).await.unwrap();
    let (admin, app) = (principal("default", "admin"), principal("acme", "app"));
    let nobody = principal("acme", "nobody");
    for action in Action::ALL {
        let of_data = matches!(
            action,
            Action::Encrypt | Action::Decrypt | Action::ReEncrypt
        );
        for tenant in ["default", "acme", "other"] {
            let expected_admin = if of_data {
                Err("wrong-role")
            } else {
                Ok("role:admin")
            };
            assert_eq!(
                fixture.decide(&admin, action, tenant),
                expected_admin,
                "{action:?} {tenant}"
            );
            let expected_app = match (of_data, tenant) {
                (true, "acme") => Ok("role:data"),
                (true, _) => Err("foreign-tenant"),
                (false, _) => Err("wrong-role"),
            };
            assert_eq!(
                fixture.decide(&app, action, tenant),
                expected_app,
                "{action:?} {tenant}"
            );
            assert_eq!(fixture.decide(&nobody, action, tenant), Err("no-role"));
        }
    }
}

#[tokio::test]
async fn an_admin_of_another_tenants_name_has_no_role() {
    let fixture = fixture().await;
    fixture
        .grant("default", "admin", Role::Admin)
        .await
        .unwrap();
    let impostor = principal("acme", "admin");
    assert_eq!(
        fixture.decide(&impostor, Action::KeyCreate, "acme"),
        Err("no-role")
    );
}

#[tokio::test]
async fn an_expired_certificate_has_no_right_whatever_its_role() {
    let fixture = fixture().await;
    fixture.grant("acme", "app", Role::Data).await.unwrap();
    let snapshot = fixture.access.snapshot();
    let app = principal("acme", "app");
    let at = |now| {
        snapshot
            .authorize(&app, Action::Encrypt, "acme", now)
            .map_err(|denied| denied.rule)
    };
    assert_eq!(at(app.not_after), Ok("role:data"));
    assert_eq!(at(app.not_after + 1), Err("certificate-expired"));
}

#[tokio::test]
async fn a_change_is_published_before_it_is_acknowledged() {
    let fixture = fixture().await;
    let before = fixture.access.snapshot();
    let app = principal("acme", "app");
    let granted = fixture.grant("acme", "app", Role::Data).await.unwrap();
    assert_eq!(granted.changes.len(), 1);
    assert!(!fixture.access.is_current(&before));
    assert_eq!(
        fixture.decide(&app, Action::Decrypt, "acme"),
        Ok("role:data")
    );

    let held = fixture.access.snapshot();
    assert!(fixture.access.is_current(&held));
    let revoked = fixture.revoke("acme", "app").await.unwrap();
    assert_eq!(revoked.changes[0].digest, None);
    assert!(!fixture.access.is_current(&held));
    assert_eq!(
        fixture.decide(&app, Action::Decrypt, "acme"),
        Err("no-role")
    );
}

#[tokio::test]
async fn a_change_whose_caller_went_away_is_published() {
    let fixture = fixture().await;
    let who = identity("acme", "app");
    {
        let change = fixture
            .access
            .grant(&who, Role::Data, "init", operation(), NOW);
        let mut change = std::pin::pin!(change);
        // Polled once, so that it has begun, and dropped.
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(change.as_mut().poll(context)))
                .await;
        assert!(polled.is_pending());
    }
    // A later change waits for the first; so when it is there, the first is.
    fixture.grant("acme", "other", Role::Data).await.unwrap();
    assert_eq!(
        fixture.decide(&principal("acme", "app"), Action::Encrypt, "acme"),
        Ok("role:data")
    );
}

#[tokio::test]
async fn an_identity_has_one_role() {
    let fixture = fixture().await;
    fixture.grant("acme", "app", Role::Data).await.unwrap();
    let error = fixture.grant("acme", "app", Role::Admin).await.unwrap_err();
    assert!(
        matches!(
            error,
            AccessError::RoleConflict {
                role: Role::Data,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("revoke that first"));
    let again = fixture.grant("acme", "app", Role::Data).await.unwrap();
    assert!(again.changes.is_empty());
    assert_eq!(again.value.role, Role::Data);
}

#[tokio::test]
async fn a_role_needs_its_tenant() {
    let fixture = fixture().await;
    let error = fixture
        .grant("nowhere", "app", Role::Data)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            AccessError::Keystore(KeystoreError::TenantNotFound(_))
        ),
        "{error}"
    );
    assert!(fixture.access.snapshot().is_empty());
}

#[tokio::test]
async fn the_last_admin_stays() {
    let fixture = fixture().await;
    fixture
        .grant("default", "admin", Role::Admin)
        .await
        .unwrap();
    fixture.grant("acme", "app", Role::Data).await.unwrap();
    let error = fixture.revoke("default", "admin").await.unwrap_err();
    assert!(matches!(error, AccessError::LastAdmin { .. }));
    assert!(
        error
            .to_string()
            .contains("grant `admin` to another identity first"),
        "{error}"
    );
    assert!(
        fixture
            .decide(&principal("default", "admin"), Action::RoleGrant, "acme")
            .is_ok()
    );

    fixture
        .grant("default", "second", Role::Admin)
        .await
        .unwrap();
    fixture.revoke("default", "admin").await.unwrap();
    let error = fixture.revoke("default", "second").await.unwrap_err();
    assert!(matches!(error, AccessError::LastAdmin { .. }));
}

#[tokio::test]
async fn of_two_revocations_at_once_one_leaves_an_admin() {
    let fixture = fixture().await;
    fixture.grant("default", "a", Role::Admin).await.unwrap();
    fixture.grant("default", "b", Role::Admin).await.unwrap();
    let (a, b) = tokio::join!(
        fixture.revoke("default", "a"),
        fixture.revoke("default", "b")
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1);
}

#[tokio::test]
async fn what_was_never_granted_is_not_revoked() {
    let fixture = fixture().await;
    let error = fixture.revoke("acme", "app").await.unwrap_err();
    assert!(matches!(error, AccessError::IdentityNotFound { .. }));
}

#[tokio::test]
async fn repeated_operations_get_their_first_outcome() {
    let fixture = fixture().await;
    let who = identity("acme", "app");
    let grant = operation();
    let first = fixture
        .access
        .grant(&who, Role::Data, "init", grant, NOW)
        .await
        .unwrap();
    let again = fixture
        .access
        .grant(&who, Role::Data, "init", grant, NOW + 5)
        .await
        .unwrap();
    assert!(again.repeated && again.changes.is_empty());
    assert_eq!(
        (again.revision, &again.value),
        (first.revision, &first.value)
    );

    let revoke = operation();
    let first = fixture.access.revoke(&who, revoke, NOW).await.unwrap();
    let again = fixture.access.revoke(&who, revoke, NOW).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.revision, first.revision);
    // The repeated grant does not bring the role back.
    let late = fixture
        .access
        .grant(&who, Role::Data, "init", grant, NOW)
        .await
        .unwrap();
    assert!(late.repeated);
    assert!(fixture.access.snapshot().is_empty());

    let other = Operation {
        fingerprint: [2; 32],
        ..grant
    };
    let error = fixture
        .access
        .grant(&who, Role::Admin, "init", other, NOW)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AccessError::Keystore(KeystoreError::OperationReused)),
        "{error}"
    );
}

#[tokio::test]
async fn the_revocation_that_left_one_admin_can_be_repeated() {
    let fixture = fixture().await;
    fixture.grant("default", "a", Role::Admin).await.unwrap();
    fixture.grant("default", "b", Role::Admin).await.unwrap();
    let revoke = operation();
    fixture
        .access
        .revoke(&identity("default", "a"), revoke, NOW)
        .await
        .unwrap();
    // Granted again, `a` is an admin beside `b`; then `b` goes, and `a` is the last.
    fixture.grant("default", "a", Role::Admin).await.unwrap();
    fixture.revoke("default", "b").await.unwrap();
    assert!(
        fixture
            .access
            .revoke(&identity("default", "a"), revoke, NOW)
            .await
            .unwrap()
            .repeated
    );
    assert!(
        fixture
            .decide(&principal("default", "a"), Action::RoleRead, "acme")
            .is_ok()
    );
}

#[tokio::test]
async fn roles_are_there_after_a_restart() {
    let fixture = fixture().await;
    fixture
        .grant("default", "admin", Role::Admin)
        .await
        .unwrap();
    fixture.grant("acme", "app", Role::Data).await.unwrap();
    fixture.grant("acme", "gone", Role::Data).await.unwrap();
    fixture.revoke("acme", "gone").await.unwrap();
    let store = Arc::clone(fixture.keystore.store());
    let keystore = Keystore::open(store, &fixture.root, CacheOptions::default())
        .await
        .unwrap();
    let access = Access::load(&keystore).await.unwrap();
    let snapshot = access.snapshot();
    assert_eq!(snapshot.len(), 2);
    let binding = snapshot.binding("tenants/acme/identities/app").unwrap();
    assert_eq!(
        (binding.role, binding.created, binding.granted_by.as_ref()),
        (Role::Data, NOW, "init")
    );
}

#[tokio::test]
async fn more_roles_than_a_page_are_loaded_and_listed() {
    let fixture = fixture().await;
    let count = MAX_PAGE + 7;
    for number in 0..count {
        fixture
            .grant("acme", &format!("app-{number:05}"), Role::Data)
            .await
            .unwrap();
    }
    fixture
        .grant("default", "admin", Role::Admin)
        .await
        .unwrap();
    let loaded = Access::load(&fixture.keystore).await.unwrap();
    assert_eq!(loaded.snapshot().len(), count + 1);

    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = fixture
            .access
            .list(Some(&name("acme")), after.as_deref(), 300)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.identity.to_string());
        assert!(page.len() <= 300);
        seen.extend(page.into_iter().map(|binding| binding.identity.to_string()));
    }
    assert_eq!(seen.len(), count);
    assert!(seen.is_sorted());
    assert!(
        seen.iter()
            .all(|resource| resource.starts_with("tenants/acme/"))
    );

    let all = fixture
        .access
        .list(None, Some("tenants/acme/identities/app-01006"), usize::MAX)
        .await
        .unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].identity, identity("default", "admin"));
}

#[tokio::test]
async fn page_tokens_that_name_no_identity_are_refused() {
    let fixture = fixture().await;
    for token in [
        "",
        "app",
        "sys/role/",
        "tenants/acme/keys/k",
        "tenants/acme/identities/",
    ] {
        let error = fixture
            .access
            .list(None, Some(token), 10)
            .await
            .unwrap_err();
        assert!(
            matches!(error, AccessError::PageToken(_)),
            "{token:?}: {error}"
        );
    }
}

#[tokio::test]
async fn the_roles_of_a_tenant_are_not_those_of_its_prefix() {
    let fixture = fixture().await;
    fixture
        .keystore
        .create_tenant(&name("acme-2"), operation(), NOW)
        .await
        .unwrap();
    fixture.grant("acme", "app", Role::Data).await.unwrap();
    fixture.grant("acme-2", "app", Role::Data).await.unwrap();
    let page = fixture
        .access
        .list(Some(&name("acme")), None, 10)
        .await
        .unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].identity, identity("acme", "app"));
}
