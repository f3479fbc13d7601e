//! Administration: who may, what a repeated call does, what is on record.

use bytes::Bytes;
use fieldkeep_proto::v1::Decision;

use super::*;
use crate::service::access::{CreateGrant, IssueCertificate, LocalName, RevokeGrant};
use crate::service::audit::ListRecords;
use crate::service::keys::{
    ChangeState, CreateKey, CreateTenant, DescribeKey, ListKeys, ListTenants, Page, RotateKey,
};
use crate::service::operation::Repeatable;
use crate::service::system::ReadStatus;

const ID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

fn request(id: &str, message: &[u8]) -> Repeatable {
    Repeatable::parse(id, message).unwrap()
}

fn records(page: Page) -> ListRecords {
    ListRecords {
        page,
        filter: fieldkeep_audit::filter::Filter::default(),
        item: None,
    }
}

fn create(key_name: &str, id: &str) -> CreateKey {
    CreateKey {
        key: key(key_name),
        settings: Suite::KcXaes256Gcm.into(),
        request: request(id, key_name.as_bytes()),
    }
}

fn identity(text: &str) -> LocalName {
    LocalName {
        tenant: None,
        name: name(text),
    }
}

#[tokio::test]
async fn the_data_role_manages_nothing() {
    let f = Fixture::make().await;
    let refused = f.perform("acme/app", create("k", "")).await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    let described = f.perform("acme/app", DescribeKey { key: key("pii") }).await;
    assert_eq!(refused_by(&described.unwrap_err()), "no-grant");
    let read = f.perform("acme/app", ReadStatus).await;
    assert_eq!(refused_by(&read.unwrap_err()), "no-grant");
    let page = Page {
        after: None,
        limit: 10,
    };
    let listed = f.perform("acme/app", records(page)).await;
    assert_eq!(refused_by(&listed.unwrap_err()), "no-grant");
}

#[tokio::test]
async fn a_change_is_on_record_with_what_it_left_in_the_store() {
    let f = Fixture::make().await;
    let info = f.perform("acme/boss", create("k", "")).await.unwrap();
    assert_eq!((info.tenant.as_str(), info.primary), ("acme", 1));
    let record = f.last_record();
    assert_eq!(
        (record.decision(), record.rule.as_str()),
        (Decision::Allowed, f.rule_of("acme/boss").as_str())
    );
    assert_eq!(
        record.store_revision,
        f.keystore.store().revision().await.unwrap()
    );
    assert!(!record.changes.is_empty());
    for change in &record.changes {
        let change = crate::audit::record::change_of(change).unwrap();
        f.keystore.check_change(&change).await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_request_has_its_first_outcome_and_another_with_its_id_is_refused() {
    let f = Fixture::make().await;
    let first = f.perform("acme/boss", create("k", ID)).await.unwrap();
    let revision = f.keystore.store().revision().await.unwrap();
    let second = f.perform("acme/boss", create("k", ID)).await.unwrap();
    assert_eq!(first.handle, second.handle);
    assert_eq!(f.keystore.store().revision().await.unwrap(), revision);
    assert_eq!(
        f.perform("acme/boss", create("l", ID)).await.unwrap_err(),
        Failure::RequestIdReused
    );
    assert_eq!(
        f.perform("acme/boss", create("k", "")).await.unwrap_err(),
        Failure::AlreadyExists("k".into())
    );
}

#[tokio::test]
async fn keys_rotate_and_change_state() {
    let f = Fixture::make().await;
    let rotate = RotateKey {
        key: key("pii"),
        request: request("", b""),
    };
    assert_eq!(f.perform("acme/boss", rotate).await.unwrap().primary, 2);
    let state = |version, enabled| ChangeState {
        key: key("pii"),
        version,
        enabled,
        request: request("", b""),
    };
    assert_eq!(
        f.perform("acme/boss", state(Some(2), false))
            .await
            .unwrap_err(),
        Failure::PrimaryVersion
    );
    assert_eq!(
        f.perform("acme/boss", state(Some(9), false))
            .await
            .unwrap_err(),
        Failure::VersionNotFound(9)
    );
    f.perform("acme/boss", state(Some(1), false)).await.unwrap();
    assert!(
        !f.perform("acme/boss", state(None, false))
            .await
            .unwrap()
            .enabled
    );
    let described = f
        .perform("acme/boss", DescribeKey { key: key("pii") })
        .await
        .unwrap();
    assert_eq!(
        described
            .versions
            .iter()
            .map(|v| (v.number, v.enabled))
            .collect::<Vec<_>>(),
        [(2, true), (1, false)]
    );
}

#[tokio::test]
async fn listings_go_on_where_they_ended() {
    let f = Fixture::make().await;
    for n in 0..5 {
        f.perform("acme/boss", create(&format!("k{n}"), ""))
            .await
            .unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = Page { after, limit: 2 };
        let listed = f
            .perform("acme/boss", ListKeys { tenant: None, page })
            .await
            .unwrap();
        seen.extend(listed.entries.into_iter().map(|info| info.name.to_string()));
        after = listed.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["k0", "k1", "k2", "k3", "k4", "pii"]);
    let page = Page {
        after: None,
        limit: 10,
    };
    let tenants = f.perform("acme/boss", ListTenants { page }).await.unwrap();
    let names: Vec<String> = tenants
        .entries
        .iter()
        .map(|tenant| tenant.name.to_string())
        .collect();
    assert_eq!(names, ["acme", "default", "other"]);
}

fn grant(role: Role, who: &str, id: &str) -> CreateGrant {
    CreateGrant {
        wanted: wanted(role, who, &["*"], &["*"]),
        request: request(id, who.as_bytes()),
    }
}

fn revoke(id: GrantId) -> RevokeGrant {
    RevokeGrant {
        id,
        request: request("", b""),
    }
}

#[tokio::test]
async fn rights_are_granted_and_end_at_once() {
    let f = Fixture::make().await;
    let refused = f.encrypt("acme/new", b"x").await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    let granted = f
        .perform("acme/boss", grant(Role::Data, "acme/new", ""))
        .await
        .unwrap();
    assert_eq!(&*granted.granted_by, "tenants/acme/identities/boss");
    f.encrypt("acme/new", b"x").await.unwrap();
    f.perform("acme/boss", revoke(granted.id)).await.unwrap();
    let refused = f.encrypt("acme/new", b"x").await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    assert!(matches!(
        f.perform("acme/boss", revoke(granted.id)).await,
        Err(Failure::GrantNotFound { .. })
    ));
    let own = GrantId::parse(&f.rule_of("acme/boss")["grant:".len()..]).unwrap();
    assert_eq!(
        f.perform("acme/boss", revoke(own)).await.unwrap_err(),
        Failure::LastGrantor
    );
    let own_data = grant(Role::Data, "acme/boss", "");
    assert_eq!(
        f.perform("acme/boss", own_data).await.unwrap_err(),
        Failure::SelfGrant
    );
    assert_eq!(f.last_record().rule, "self-grant");
}

#[tokio::test]
async fn an_admin_who_revokes_himself_still_hears_of_it() {
    let f = Fixture::make().await;
    let mut second = grant(Role::Admin, "acme/second", "");
    second.wanted.scope = Scope::All;
    second.wanted.cross_tenant = true;
    f.perform("acme/boss", second).await.unwrap();
    let own = GrantId::parse(&f.rule_of("acme/boss")["grant:".len()..]).unwrap();
    f.perform("acme/boss", revoke(own)).await.unwrap();
    assert!(f.perform("acme/boss", ReadStatus).await.is_err());
    let boss = "tenants/acme/identities/boss";
    assert!(f.access.snapshot().grants_of(boss).is_empty());
}

#[tokio::test]
async fn a_change_goes_on_when_its_caller_is_gone() {
    let f = Fixture::make().await;
    let call = f.call::<CreateTenant>("acme/boss");
    {
        let operation = CreateTenant {
            tenant: name("late"),
            request: request("", b""),
        };
        let mut creating = Box::pin(f.service.perform(call, Ok(operation)));
        let _ = futures_util::poll!(&mut creating);
    }
    // Other calls give it the time that it needs, and more.
    for _ in 0..1000 {
        f.encrypt("acme/app", b"x").await.unwrap();
        let done = |record: &AuditRecord| record.action == "tenant" && record.code == 0;
        if f.keystore.tenant(&name("late")).await.is_ok() && f.records().iter().any(done) {
            return;
        }
    }
    panic!("the change was given up");
}

#[tokio::test]
async fn certificates_are_for_tenants_that_exist() {
    let f = Fixture::make().await;
    let issue = |tenant: Option<&str>| IssueCertificate {
        identity: LocalName {
            tenant: tenant.map(name),
            name: name("x"),
        },
        csr_der: Bytes::from_static(b"not a request"),
        ttl_s: 0,
    };
    assert_eq!(
        f.perform("acme/boss", issue(Some("nowhere")))
            .await
            .unwrap_err(),
        Failure::TenantNotFound("nowhere".into())
    );
    let malformed = f.perform("acme/boss", issue(None)).await.unwrap_err();
    assert!(matches!(
        malformed,
        Failure::Invalid {
            field: "csr_der",
            ..
        }
    ));
}

#[tokio::test]
async fn the_trail_and_the_state_can_be_read() {
    let f = Fixture::make().await;
    f.encrypt("acme/app", b"x").await.unwrap();
    let page = Page {
        after: None,
        limit: 1,
    };
    let listed = f.perform("acme/boss", records(page)).await.unwrap();
    assert_eq!(listed.entries[0].1.action, "encrypt");
    let status = f.perform("acme/boss", ReadStatus).await.unwrap();
    assert_eq!(
        (status.store, status.root_provider.as_str()),
        ("memory", "key-file")
    );
    assert!(status.audit_records >= 2 && status.calls >= 3);
}

#[tokio::test]
async fn what_was_granted_made_or_issued_is_on_record() {
    let f = Fixture::make().await;
    let detail = || f.last_record().detail;
    f.perform("acme/boss", create("k", "")).await.unwrap();
    assert_eq!(detail(), "suite=1");
    let disable = ChangeState {
        key: key("k"),
        version: None,
        enabled: false,
        request: request("", b""),
    };
    f.perform("acme/boss", disable).await.unwrap();
    assert_eq!(detail(), "enabled=false");
    f.perform("acme/app", grant(Role::Auditor, "acme/new", ""))
        .await
        .unwrap_err();
    let pairs = "role=auditor tenant=acme keys=* fields=*";
    assert_eq!(detail(), pairs, "what was refused");
    let granted = f
        .perform("acme/boss", grant(Role::Auditor, "acme/new", ""))
        .await
        .unwrap();
    assert_eq!(detail(), format!("id={} {pairs}", granted.id));
    f.perform("acme/boss", revoke(granted.id)).await.unwrap();
    assert_eq!(
        detail(),
        format!("from=tenants/acme/identities/new {pairs}")
    );
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&signing_key)
        .unwrap();
    let issue = IssueCertificate {
        identity: identity("new"),
        csr_der: Bytes::copy_from_slice(csr.der()),
        ttl_s: 60,
    };
    let issued = f.perform("acme/boss", issue).await.unwrap();
    assert_eq!(detail(), issued.detail);
    assert!(detail().contains(&format!(" not_after={} spki_sha256=", NOW + 60)));
    f.encrypt("acme/app", b"x").await.unwrap();
    assert_eq!(detail(), "");
}

/// Performs a change twice with one request id. The second record is all that there would be if the first had not been
/// written: it must say what the store holds.
async fn repeat<O: Operation>(f: &Fixture, make: impl Fn() -> O) {
    let changes = || {
        let record = f.last_record();
        assert_eq!(record.code, 0);
        record.changes
    };
    assert!(f.perform("acme/boss", make()).await.is_ok());
    let first = changes();
    assert!(!first.is_empty());
    assert!(f.perform("acme/boss", make()).await.is_ok());
    assert_eq!(changes(), first);
}

#[tokio::test]
async fn the_record_of_a_repeated_change_says_what_the_store_holds() {
    let f = Fixture::make().await;
    // Requests count by RPC, of which this fixture has but one.
    let id = |n: usize| format!("{}{n}", &ID[..ID.len() - 1]);
    repeat(&f, || create("k", &id(0))).await;
    repeat(&f, || CreateTenant {
        tenant: name("new"),
        request: request(&id(1), b"new"),
    })
    .await;
    repeat(&f, || RotateKey {
        key: key("pii"),
        request: request(&id(2), b"pii"),
    })
    .await;
    repeat(&f, || grant(Role::Data, "acme/new", &id(3))).await;
    let granted = f.access.snapshot().grants_of("tenants/acme/identities/new")[0].id;
    repeat(&f, || RevokeGrant {
        id: granted,
        request: request(&id(4), b"new"),
    })
    .await;
    assert!(f.last_record().changes[0].value_sha256.is_empty());
    let disable = || ChangeState {
        key: key("k"),
        version: None,
        enabled: false,
        request: request(&id(5), b"k"),
    };
    f.perform("acme/boss", disable()).await.unwrap();
    f.perform("acme/boss", disable()).await.unwrap();
    let record = f.last_record();
    for change in &record.changes {
        let change = crate::audit::record::change_of(change).unwrap();
        f.keystore.check_change(&change).await.unwrap();
    }
    assert_eq!(&*record.changes[0].store_key, b"k/acme/k");
    assert_eq!(record.changes[0].generation, 2);
}
