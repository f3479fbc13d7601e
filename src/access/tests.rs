mod oracle;

use fieldkeep_crypto::{names::Name, random};
use fieldkeep_keystore::{info::CacheOptions, root::key_file::KeyFile, store::memory::MemoryStore};
use tempfile::TempDir;

use super::{
    action::Action,
    condition::{Conditions, Daily, Unmet},
    grant::{Scope, Who},
    pattern::Pattern,
    principal::{Ceiling, Method, Principal},
    role::Role,
    snapshot::{Allowed, Asked, Denied, Missing},
    *,
};

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

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    let parse = |text: &&str| Pattern::parse(text).unwrap();
    texts.iter().map(parse).collect()
}

/// Everything of `role` in the tenant of `who`, `tenant/name`.
fn of(role: Role, who: &str) -> Wanted {
    let (tenant, text) = who.split_once('/').unwrap();
    let who = Who::Identity(identity(tenant, text));
    Wanted::all_of(role, Scope::Tenant(name(tenant)), who)
}

fn admin(who: &str) -> Wanted {
    let (tenant, text) = who.split_once('/').unwrap();
    Wanted::all_of(
        Role::Admin,
        Scope::All,
        Who::Identity(identity(tenant, text)),
    )
}

fn asked<'a>(action: Action, tenant: &'a str, key: &'a str, field: &'a str) -> Asked<'a> {
    Asked {
        action,
        tenant,
        key: Some(key),
        field: Some(field),
        context: None,
        network: [127, 0, 0, 1].into(),
        now: NOW_S,
    }
}

fn of_tenant(action: Action, tenant: &str) -> Asked<'_> {
    Asked {
        key: None,
        field: None,
        ..asked(action, tenant, "", "")
    }
}

async fn fixture() -> Fixture {
    let dir = TempDir::new().unwrap();
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let keystore = Keystore::init(Arc::new(MemoryStore::new()), &root, NOW)
        .await
        .unwrap();
    for tenant in ["acme", "other"] {
        keystore
            .create_tenant(&name(tenant), operation(), NOW)
            .await
            .unwrap();
    }
    let access = Access::load(&keystore).await.unwrap();
    Fixture {
        _dir: dir,
        root,
        keystore,
        access,
    }
}

impl Fixture {
    async fn grant(&self, wanted: Wanted) -> Result<GrantId, AccessError> {
        let granted = self.access.grant(wanted, By::Init, operation(), NOW).await;
        granted.map(|changed| changed.value.id)
    }

    async fn grant_by(&self, who: &str, wanted: Wanted) -> Result<GrantId, AccessError> {
        let (tenant, text) = who.split_once('/').unwrap();
        let by = By::Caller(Box::new(principal(tenant, text)));
        let granted = self.access.grant(wanted, by, operation(), NOW).await;
        granted.map(|changed| changed.value.id)
    }

    async fn revoke(&self, id: GrantId) -> Result<(), AccessError> {
        let revoked = self.access.revoke(id, operation(), NOW).await;
        revoked.map(|changed| changed.value)
    }

    fn decide(&self, who: &str, asked: &Asked<'_>) -> Result<Allowed, Missing> {
        let (tenant, text) = who.split_once('/').unwrap();
        self.decide_for(&principal(tenant, text), asked)
    }

    fn decide_for(&self, who: &Principal, asked: &Asked<'_>) -> Result<Allowed, Missing> {
        let decided = self.access.snapshot().authorize(who, asked);
        decided.map_err(|denied| denied.missing)
    }
}

#[tokio::test]
async fn every_role_may_do_its_own_in_its_tenant_and_nothing_else() {
    let f = fixture().await;
    for role in Role::ALL {
        let who = format!("acme/{role}");
        f.grant(of(*role, &who)).await.unwrap();
        for action in Action::ALL {
            for tenant in ["acme", "other", "*"] {
                let decided = f.decide(&who, &of_tenant(*action, tenant));
                let expected = role.actions().has(*action) && tenant == "acme";
                assert_eq!(decided.is_ok(), expected, "{role} {action} {tenant}");
            }
            assert_eq!(
                f.decide("acme/nobody", &of_tenant(*action, "acme")),
                Err(Missing::Grant)
            );
            assert!(
                f.decide("other/admin", &of_tenant(*action, "acme"))
                    .is_err()
            );
        }
    }
}

/// Every action, with a grant for its own tenant, for another and for all, of every kind of pattern.
#[tokio::test]
async fn every_action_is_bounded_by_the_scope_of_its_grant() {
    let f = fixture().await;
    f.grant(admin("acme/keeper")).await.unwrap();
    let own_or_other = |tenant| Scope::Tenant(name(tenant));
    let mut cells = 0;
    for action in Action::ALL {
        let role = Role::smallest_with(*action).unwrap();
        let keys: &[&str] = if role.takes_keys() {
            &["*", "k*", "k1"]
        } else {
            &["*"]
        };
        let fields: &[&str] = if role.is_data() {
            &["*", "f*", "f1"]
        } else {
            &["*"]
        };
        for scope in [own_or_other("acme"), own_or_other("other"), Scope::All] {
            if role.is_data() && scope == Scope::All {
                continue;
            }
            for (key, field) in keys
                .iter()
                .flat_map(|key| fields.iter().map(move |field| (key, field)))
            {
                let id = f
                    .grant(Wanted {
                        keys: patterns(&[key]),
                        fields: patterns(&[field]),
                        cross_tenant: true,
                        scope: scope.clone(),
                        ..of(role, "acme/app")
                    })
                    .await
                    .unwrap();
                for tenant in ["acme", "other", "*"] {
                    for key_of in [Some("k1"), Some("k2"), Some("x"), None] {
                        for field_of in [Some("f1"), Some("f2"), Some("x"), None] {
                            let asked = Asked {
                                key: key_of,
                                field: field_of,
                                ..of_tenant(*action, tenant)
                            };
                            let covers =
                                |text: &str, name| Pattern::parse(text).unwrap().covers(name);
                            let expected = (scope == Scope::All || scope.as_str() == tenant)
                                && covers(key, key_of)
                                && covers(field, field_of);
                            let decided = f.decide("acme/app", &asked);
                            assert_eq!(
                                decided.is_ok(),
                                expected,
                                "{action} {scope} {key} {field} {asked:?}"
                            );
                            cells += 1;
                        }
                    }
                }
                f.revoke(id).await.unwrap();
            }
        }
    }
    assert!(cells > 5_000, "{cells}");
}

#[tokio::test]
async fn keys_and_fields_are_narrowed_by_name_and_by_beginning() {
    let f = fixture().await;
    let id = f
        .grant(Wanted {
            keys: patterns(&["pii", "card*"]),
            fields: patterns(&["customer.*", "note"]),
            ..of(Role::Data, "acme/app")
        })
        .await
        .unwrap();
    let decide = |key, field| f.decide("acme/app", &asked(Action::Decrypt, "acme", key, field));
    for (key, field, allowed) in [
        ("pii", "customer.ssn", true),
        ("cards", "note", true),
        ("card", "customer.x", true),
        ("pii", "notes", false),
        ("pii", "customer", false),
        ("pii2", "note", false),
        ("car", "note", false),
    ] {
        assert_eq!(decide(key, field).is_ok(), allowed, "{key} {field}");
    }
    let allowed = decide("pii", "note").unwrap();
    assert_eq!((allowed.grant, allowed.masked), (id, false));
    assert_eq!(
        f.decide("acme/app", &of_tenant(Action::Decrypt, "acme")),
        Err(Missing::Grant)
    );
}

#[tokio::test]
async fn another_tenant_opens_only_if_the_grant_and_the_credential_say_so() {
    let f = fixture().await;
    let wanted = Wanted {
        scope: Scope::Tenant(name("other")),
        cross_tenant: true,
        ..of(Role::Decrypter, "acme/app")
    };
    f.grant(wanted).await.unwrap();
    let there = asked(Action::Decrypt, "other", "pii", "f");
    assert!(f.decide("acme/app", &there).is_ok());
    assert!(
        f.access
            .snapshot()
            .opens_data_of_others(&principal("acme", "app"))
    );
    let bound = Principal {
        ceiling: Ceiling {
            cross_tenant: false,
            ..Ceiling::NONE
        },
        ..principal("acme", "app")
    };
    assert_eq!(f.decide_for(&bound, &there), Err(Missing::Tenant));
    let at_home = asked(Action::Decrypt, "acme", "pii", "f");
    assert_eq!(f.decide("acme/app", &at_home), Err(Missing::Grant));
}

#[tokio::test]
async fn a_ceiling_stands_above_every_grant() {
    let f = fixture().await;
    f.grant(admin("acme/boss")).await.unwrap();
    let bound = Principal {
        ceiling: Ceiling {
            cross_tenant: true,
            actions: Role::Auditor.actions(),
        },
        ..principal("acme", "boss")
    };
    assert!(f.decide_for(&bound, &of_tenant(Action::Audit, "*")).is_ok());
    assert_eq!(
        f.decide_for(&bound, &of_tenant(Action::Grant, "*")),
        Err(Missing::Ceiling)
    );
}

#[tokio::test]
async fn each_condition_must_hold() {
    let f = fixture().await;
    let conditions = Conditions {
        context: vec![("region".into(), "eu".into())],
        not_before: Some(NOW),
        daily: Daily::new(0, 12 * 60),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        methods: vec![Method::Mtls],
        second_factor: true,
    };
    let id = f
        .grant(Wanted {
            conditions,
            expires: Some(NOW + 200_000),
            ..of(Role::Decrypter, "acme/app")
        })
        .await
        .unwrap();
    let context = |value| {
        fieldkeep_crypto::context::EncodedContext::encode([("id", "7"), ("region", value)]).unwrap()
    };
    let (eu, us) = (context("eu"), context("us"));
    let morning = NOW_S / 86_400 * 86_400 + 86_400 + 3_600;
    let good = Asked {
        context: Some(&eu),
        network: [10, 1, 2, 3].into(),
        now: morning,
        ..asked(Action::Decrypt, "acme", "pii", "f")
    };
    let who = Principal {
        second_factor: true,
        not_after: i64::MAX,
        ..principal("acme", "app")
    };
    assert!(f.decide_for(&who, &good).is_ok());
    let unmet = |asked: Asked<'_>| f.decide_for(&who, &asked).unwrap_err();
    for other in [Some(&us), None] {
        let missing = unmet(Asked {
            context: other,
            ..good
        });
        assert_eq!(missing, Missing::Condition(Unmet::Context));
    }
    let elsewhere = [192, 168, 0, 1].into();
    let missing = unmet(Asked {
        network: elsewhere,
        ..good
    });
    assert_eq!(missing, Missing::Condition(Unmet::Network));
    for now in [NOW_S - 1, morning + 12 * 3_600] {
        assert_eq!(
            unmet(Asked { now, ..good }),
            Missing::Condition(Unmet::Time)
        );
    }
    assert_eq!(
        unmet(Asked {
            now: NOW_S + 200_000,
            ..good
        }),
        Missing::Ended
    );
    let by_token = Principal {
        method: Method::Jwt,
        ..who.clone()
    };
    assert_eq!(
        f.decide_for(&by_token, &good),
        Err(Missing::Condition(Unmet::Method))
    );
    let one_factor = Principal {
        second_factor: false,
        ..who.clone()
    };
    let denied = f
        .access
        .snapshot()
        .authorize(&one_factor, &good)
        .unwrap_err();
    let expected = Denied {
        missing: Missing::Condition(Unmet::SecondFactor),
        grant: Some(id),
    };
    assert_eq!(denied, expected);
}

#[tokio::test]
async fn a_grant_ends_on_time() {
    let f = fixture().await;
    let ends = Wanted {
        expires: Some(NOW + 5),
        ..of(Role::Decrypter, "acme/app")
    };
    f.grant(ends).await.unwrap();
    let at = |now| {
        let asked = asked(Action::Decrypt, "acme", "k", "f");
        f.decide("acme/app", &Asked { now, ..asked })
    };
    assert!(at(NOW_S + 4).is_ok());
    assert_eq!(at(NOW_S + 5), Err(Missing::Ended));
}

#[tokio::test]
async fn an_expired_credential_has_no_right_whatever_is_granted() {
    let f = fixture().await;
    f.grant(of(Role::Data, "acme/app")).await.unwrap();
    let at = |now| {
        let asked = asked(Action::Encrypt, "acme", "k", "f");
        f.decide("acme/app", &Asked { now, ..asked })
    };
    assert!(at(NOW_S + 10).is_ok());
    assert_eq!(at(NOW_S + 11), Err(Missing::Credential));
}

#[tokio::test]
async fn members_have_what_their_group_has() {
    let f = fixture().await;
    let support = Group::new(name("acme"), name("support"));
    let group = Wanted {
        who: Who::Group(support.clone()),
        ..of(Role::Decrypter, "acme/x")
    };
    f.grant(group).await.unwrap();
    let asked = asked(Action::Decrypt, "acme", "k", "f");
    assert_eq!(f.decide("acme/alice", &asked), Err(Missing::Grant));
    let alice = identity("acme", "alice");
    let join = |member: Identity| {
        f.access
            .join(support.clone(), member, By::Init, operation(), NOW)
    };
    assert_eq!(join(alice.clone()).await.unwrap().changes.len(), 1);
    assert!(join(alice.clone()).await.unwrap().changes.is_empty());
    assert!(f.decide("acme/alice", &asked).is_ok());
    // What a token vouches for counts too, and what it does not vouch for comes from the store.
    let vouched = Principal {
        groups: Arc::from([Arc::clone(support.resource())]),
        ..principal("acme", "bob")
    };
    assert!(f.decide_for(&vouched, &asked).is_ok());
    // A member of another tenant has nothing through a grant that opens its own tenant alone.
    join(identity("other", "eve")).await.unwrap();
    assert_eq!(f.decide("other/eve", &asked), Err(Missing::Tenant));
    f.access
        .leave(support.clone(), alice.clone(), operation(), NOW)
        .await
        .unwrap();
    assert_eq!(f.decide("acme/alice", &asked), Err(Missing::Grant));
    let again = f.access.leave(support, alice, operation(), NOW).await;
    assert!(matches!(again, Err(AccessError::NotAMember { .. })));
}

#[tokio::test]
async fn nobody_gives_himself_a_right_to_values() {
    let f = fixture().await;
    f.grant(admin("acme/boss")).await.unwrap();
    let own = f
        .grant_by("acme/boss", of(Role::Decrypter, "acme/boss"))
        .await;
    assert!(matches!(own, Err(AccessError::SelfGrant)));
    // A right that touches no value may be his own.
    f.grant_by("acme/boss", of(Role::Auditor, "acme/boss"))
        .await
        .unwrap();
    let support = Group::new(name("acme"), name("support"));
    let to_group = Wanted {
        who: Who::Group(support.clone()),
        ..of(Role::Decrypter, "acme/x")
    };
    let boss = principal("acme", "boss");
    let by = || By::Caller(Box::new(boss.clone()));
    let join = |by| {
        f.access.join(
            support.clone(),
            identity("acme", "boss"),
            by,
            operation(),
            NOW,
        )
    };
    join(by()).await.unwrap();
    let own_group = f.grant_by("acme/boss", to_group.clone()).await;
    assert!(matches!(own_group, Err(AccessError::SelfGrant)));
    f.access
        .leave(support.clone(), identity("acme", "boss"), operation(), NOW)
        .await
        .unwrap();
    f.grant_by("acme/boss", to_group.clone()).await.unwrap();
    assert!(matches!(join(by()).await, Err(AccessError::SelfGrant)));
    // Nor by a group that his token vouches for.
    let vouched = Principal {
        groups: Arc::from([Arc::clone(support.resource())]),
        ..boss.clone()
    };
    let by = By::Caller(Box::new(vouched));
    let granted = f.access.grant(to_group, by, operation(), NOW).await;
    assert!(matches!(granted, Err(AccessError::SelfGrant)));
    assert!(
        f.decide("acme/boss", &asked(Action::Decrypt, "acme", "k", "f"))
            .is_err()
    );
}

#[tokio::test]
async fn the_last_who_can_grant_for_all_stays() {
    let f = fixture().await;
    let first = f.grant(admin("acme/a")).await.unwrap();
    assert!(matches!(
        f.revoke(first).await,
        Err(AccessError::LastGrantor)
    ));
    // Neither one that ends nor one of a single tenant takes its place.
    let ends = Wanted {
        expires: Some(NOW + 9),
        ..admin("acme/b")
    };
    f.grant(ends).await.unwrap();
    f.grant(of(Role::AccessAdmin, "acme/b")).await.unwrap();
    assert!(matches!(
        f.revoke(first).await,
        Err(AccessError::LastGrantor)
    ));
    // Nor a group without members, nor may its last member leave.
    let admins = Group::new(name("acme"), name("admins"));
    let of_group = Wanted {
        who: Who::Group(admins.clone()),
        ..admin("acme/x")
    };
    f.grant(of_group).await.unwrap();
    assert!(matches!(
        f.revoke(first).await,
        Err(AccessError::LastGrantor)
    ));
    let carol = identity("acme", "carol");
    f.access
        .join(admins.clone(), carol.clone(), By::Init, operation(), NOW)
        .await
        .unwrap();
    f.revoke(first).await.unwrap();
    let left = f.access.leave(admins, carol, operation(), NOW).await;
    assert!(matches!(left, Err(AccessError::LastGrantor)));
}

#[tokio::test]
async fn of_two_revocations_at_once_one_leaves_a_grantor() {
    let f = fixture().await;
    let a = f.grant(admin("acme/a")).await.unwrap();
    let b = f.grant(admin("acme/b")).await.unwrap();
    let (a, b) = tokio::join!(f.revoke(a), f.revoke(b));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1);
}

#[tokio::test]
async fn a_change_is_published_before_it_is_acknowledged() {
    let f = fixture().await;
    let before = f.access.snapshot().generation();
    let id = f.grant(of(Role::Data, "acme/app")).await.unwrap();
    assert_ne!(f.access.snapshot().generation(), before);
    let now = f.access.snapshot().generation();
    let asked = asked(Action::Decrypt, "acme", "k", "f");
    assert!(f.decide("acme/app", &asked).is_ok());
    f.revoke(id).await.unwrap();
    assert_ne!(f.access.snapshot().generation(), now);
    assert_eq!(f.decide("acme/app", &asked), Err(Missing::Grant));
    assert!(matches!(
        f.revoke(id).await,
        Err(AccessError::GrantNotFound(_))
    ));
}

#[tokio::test]
async fn rights_are_settled_when_nobody_holds_older_ones() {
    let f = fixture().await;
    let first = f.access.snapshot();
    f.grant(of(Role::Data, "acme/app")).await.unwrap();
    let second = f.access.snapshot();
    f.grant(of(Role::Data, "acme/b")).await.unwrap();
    let soon = Duration::from_millis(20);
    assert_eq!(f.access.settled(soon).await, Err(Unsettled));
    drop(first);
    assert_eq!(f.access.settled(soon).await, Err(Unsettled));
    drop(second);
    // Who holds the present ones holds nobody up.
    let _third = f.access.snapshot();
    assert_eq!(f.access.settled(soon).await, Ok(()));
}

#[tokio::test]
async fn a_change_whose_caller_went_away_is_published() {
    let f = fixture().await;
    {
        let change = f
            .access
            .grant(of(Role::Data, "acme/app"), By::Init, operation(), NOW);
        let mut change = std::pin::pin!(change);
        // Polled once, so that it has begun, and dropped.
        assert!(futures_util::poll!(change.as_mut()).is_pending());
    }
    // A later change waits for the first; so when it is there, the first is.
    f.grant(of(Role::Data, "acme/other")).await.unwrap();
    let asked = asked(Action::Encrypt, "acme", "k", "f");
    assert!(f.decide("acme/app", &asked).is_ok());
}

#[tokio::test]
async fn repeated_operations_get_their_first_outcome() {
    let f = fixture().await;
    let (grant, wanted) = (operation(), of(Role::Data, "acme/app"));
    let make = |now| f.access.grant(wanted.clone(), By::Init, grant, now);
    let first = make(NOW).await.unwrap();
    let again = make(NOW + 5).await.unwrap();
    assert!(again.repeated && again.changes.is_empty());
    assert_eq!(
        (again.revision, &again.value),
        (first.revision, &first.value)
    );
    let (revoke, id) = (operation(), first.value.id);
    let first = f.access.revoke(id, revoke, NOW).await.unwrap();
    let again = f.access.revoke(id, revoke, NOW).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.revision, first.revision);
    // The repeated grant does not bring the right back.
    assert!(make(NOW).await.unwrap().repeated);
    assert_eq!(f.access.snapshot().grant_count(), 0);
    let other = Operation {
        fingerprint: [2; 32],
        ..grant
    };
    let error = f
        .access
        .grant(wanted, By::Init, other, NOW)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AccessError::Keystore(KeystoreError::OperationReused)),
        "{error}"
    );
}

#[tokio::test]
async fn a_grant_needs_its_tenants() {
    let f = fixture().await;
    for wanted in [
        of(Role::Data, "nowhere/app"),
        Wanted {
            scope: Scope::Tenant(name("nowhere")),
            cross_tenant: true,
            ..of(Role::Data, "acme/app")
        },
    ] {
        let error = f.grant(wanted).await.unwrap_err();
        assert!(
            matches!(
                error,
                AccessError::Keystore(KeystoreError::TenantNotFound(_))
            ),
            "{error}"
        );
    }
    assert_eq!(f.access.snapshot().grant_count(), 0);
}

#[tokio::test]
async fn grants_for_the_same_are_bounded() {
    let f = fixture().await;
    for _ in 0..index::MAX_ALIKE {
        f.grant(of(Role::Data, "acme/app")).await.unwrap();
    }
    let one_more = f.grant(of(Role::Encrypter, "acme/app")).await;
    assert!(matches!(one_more, Err(AccessError::Full { .. })));
    let narrower = Wanted {
        keys: patterns(&["pii"]),
        ..of(Role::Data, "acme/app")
    };
    f.grant(narrower).await.unwrap();
}

#[tokio::test]
async fn rights_are_there_after_a_restart() {
    let f = fixture().await;
    f.grant(admin("acme/boss")).await.unwrap();
    let id = f.grant(of(Role::Data, "acme/app")).await.unwrap();
    let gone = f.grant(of(Role::Data, "acme/gone")).await.unwrap();
    f.revoke(gone).await.unwrap();
    let support = Group::new(name("acme"), name("support"));
    f.access
        .join(
            support.clone(),
            identity("other", "alice"),
            By::Init,
            operation(),
            NOW,
        )
        .await
        .unwrap();
    let store = Arc::clone(f.keystore.store());
    let keystore = Keystore::open(store, &f.root, CacheOptions::default())
        .await
        .unwrap();
    let access = Access::load(&keystore).await.unwrap();
    let (before, after) = (f.access.snapshot(), access.snapshot());
    assert_eq!(after.grant_count(), 2);
    assert_eq!(after.grant(&id), before.grant(&id));
    let alice = identity("other", "alice");
    let membership = |snapshot: &AccessSnapshot| {
        snapshot
            .membership(&support, alice.resource())
            .cloned()
            .unwrap()
    };
    assert_eq!(membership(&after), membership(&before));
}

#[tokio::test]
async fn roles_of_a_version_before_grants_are_refused_at_start() {
    let f = fixture().await;
    f.keystore
        .change_system_record("sys/role/acme/app", None, Some(b"x"), operation(), NOW)
        .await
        .unwrap();
    let error = Access::load(&f.keystore).await.err().unwrap().to_string();
    assert!(
        error.contains("sys/role/acme/app") && error.contains("fieldkeep init"),
        "{error}"
    );
}

#[tokio::test]
async fn more_records_than_a_page_are_loaded() {
    let f = fixture().await;
    let page = records::PAGE;
    for number in 0..page + 3 {
        f.grant(of(Role::Data, &format!("acme/app-{number}")))
            .await
            .unwrap();
    }
    let loaded = Access::load(&f.keystore).await.unwrap().snapshot();
    assert_eq!(loaded.grant_count(), page + 3);
    let ids: Vec<GrantId> = loaded.grants(None).map(|grant| grant.id).collect();
    assert!(ids.is_sorted());
    let rest = loaded.grants(Some(&ids[page])).count();
    assert_eq!(rest, 2);
}

#[tokio::test]
async fn a_planted_grant_is_refused_at_start() {
    let f = fixture().await;
    f.grant(of(Role::Data, "acme/app")).await.unwrap();
    let store = f.keystore.store();
    let known = store.scan(b"sys/grant/", None, 10).await.unwrap();
    let value = known[0].1.value.clone();
    let transaction = fieldkeep_keystore::store::Transaction {
        operation: operation(),
        expect: Vec::new(),
        puts: vec![(b"sys/grant/g-00000000000000ff".to_vec().into(), value)],
        deletes: Vec::new(),
        now: NOW,
    };
    store.commit(transaction).await.unwrap();
    let error = Access::load(&f.keystore).await.err().unwrap();
    assert!(matches!(error, AccessError::Keystore(_)), "{error}");
}
