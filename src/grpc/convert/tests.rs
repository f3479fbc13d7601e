use bytes::Bytes;
use fieldkeep_keystore::info::AuditItems;
use fieldkeep_proto::v1::{
    AuditFilter, AuditItem, BatchDecryptRequest, BatchEncryptRequest, BatchReEncryptRequest,
    ContextPair, CreateGrantRequest, CreateKeyRequest, Decision, DecryptItem, DecryptRequest,
    EncryptItem, EncryptRequest, ExplainAccessRequest, GetGrantRequest, GrantConditions,
    IssueCertificateRequest, ListKeysRequest, ListRecordsRequest, ReEncryptItem,
    SetKeyAuditItemsRequest, TailRecordsRequest,
};

use super::*;
use crate::service::Limits;

fn pair(name: &str, value: &str) -> ContextPair {
    ContextPair {
        name: name.into(),
        value: value.into(),
    }
}

fn reason<T>(parsed: Result<T, Failure>) -> &'static str {
    parsed.err().map_or("valid", |failure| failure.verdict().1)
}

fn part<T>(parsed: Result<T, Failure>) -> &'static str {
    match parsed {
        Err(Failure::Invalid { field, .. }) => field,
        Err(other) => other.verdict().1,
        Ok(_) => "valid",
    }
}

fn encrypt_request() -> EncryptRequest {
    EncryptRequest {
        key: "pii".into(),
        field: "customer.email".into(),
        context: vec![pair("id", "42")],
        plaintext: Bytes::from_static(b"x"),
    }
}

#[test]
fn each_part_of_an_encrypt_is_named_when_it_is_wrong() {
    let limits = Limits::default();
    let with = |change: &dyn Fn(&mut EncryptRequest)| {
        let mut request = encrypt_request();
        change(&mut request);
        part(field::encrypt(request, &limits))
    };
    assert_eq!(with(&|_| ()), "valid");
    assert_eq!(with(&|r| r.plaintext = Bytes::new()), "valid");
    assert_eq!(with(&|r| r.plaintext = vec![0; 65_536].into()), "valid");
    assert_eq!(
        with(&|r| r.plaintext = vec![0; 65_537].into()),
        "FIELD_TOO_LARGE"
    );
    assert_eq!(with(&|r| r.key = String::new()), "key");
    assert_eq!(with(&|r| r.key = "tenants/a/keys/".into()), "key");
    assert_eq!(with(&|r| r.field = "Customer".into()), "field");
    assert_eq!(with(&|r| r.context.push(pair("id", "43"))), "context");
    assert_eq!(with(&|r| r.context = vec![pair("Id", "")]), "context");
    assert_eq!(
        with(&|r| r.context = vec![pair("id", &"x".repeat(4096))]),
        "context"
    );
    assert_eq!(
        with(&|r| r.context = (0..17).map(|n| pair(&format!("n{n}"), "")).collect()),
        "context"
    );
}

#[test]
fn a_ciphertext_may_be_as_long_as_the_longest_field_makes_it() {
    let limits = Limits::default();
    let request = |bytes: usize| DecryptRequest {
        ciphertext: vec![0; bytes].into(),
        field: "f".into(),
        context: Vec::new(),
    };
    assert_eq!(
        reason(field::decrypt(request(65_536 + 86), &limits)),
        "valid"
    );
    assert_eq!(
        reason(field::decrypt(request(65_536 + 87), &limits)),
        "FIELD_TOO_LARGE"
    );
}

#[test]
fn items_take_what_they_leave_empty_from_the_top() {
    let item = |key: &str, field: &str| EncryptItem {
        key: key.into(),
        field: field.into(),
        ..Default::default()
    };
    let request = BatchEncryptRequest {
        key: "pii".into(),
        field: "email".into(),
        context: vec![pair("id", "1")],
        items: vec![
            item("", ""),
            item("other", ""),
            item("", "phone"),
            item("pii", "email"),
            item("", ""),
        ],
    };
    let batch = batch::encrypt(request, &Limits::default()).unwrap();
    let targets: Vec<(&str, &str)> = batch
        .targets
        .iter()
        .map(|(key, field)| (key.key(), field.as_str()))
        .collect();
    assert_eq!(
        targets,
        [("pii", "email"), ("other", "email"), ("pii", "phone")]
    );
    let indexes: Vec<usize> = batch
        .items
        .iter()
        .flatten()
        .map(|item| item.target)
        .collect();
    assert_eq!(indexes, [0, 1, 2, 0, 0]);
    assert!(
        batch
            .items
            .iter()
            .flatten()
            .all(|item| item.context.is_none())
    );
    assert!(!batch.shared.is_empty());
}

#[test]
fn a_bad_item_stays_alone_and_a_bad_default_does_not() {
    let limits = Limits::default();
    let item = |field: &str| EncryptItem {
        field: field.into(),
        ..Default::default()
    };
    let request = |key: &str, context| BatchEncryptRequest {
        key: key.into(),
        field: String::new(),
        context,
        items: vec![item("email"), item("E-Mail"), item(""), item("email")],
    };
    let parsed = batch::encrypt(request("pii", Vec::new()), &limits).unwrap();
    let outcomes: Vec<bool> = parsed.items.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, false, true]);
    assert_eq!(
        part(batch::encrypt(request("P", Vec::new()), &limits)),
        "key"
    );
    assert_eq!(
        part(batch::encrypt(request("pii", vec![pair("", "")]), &limits)),
        "context"
    );
}

#[test]
fn an_items_context_replaces_the_batchs() {
    let own = DecryptItem {
        context: vec![pair("id", "2")],
        field: "f".into(),
        ..Default::default()
    };
    let request = BatchDecryptRequest {
        context: vec![pair("id", "1")],
        items: vec![own],
        ..Default::default()
    };
    let batch = batch::decrypt(request, &Limits::default()).unwrap();
    let expected = context(&[pair("id", "2")]).unwrap();
    assert_eq!(
        batch.items[0]
            .as_ref()
            .unwrap()
            .context
            .as_ref()
            .unwrap()
            .as_bytes(),
        expected.as_bytes()
    );
}

#[test]
fn destinations_are_the_items_own_the_batchs_or_none() {
    let item = |destination: &str| ReEncryptItem {
        destination_key: destination.into(),
        field: "f".into(),
        ..Default::default()
    };
    let request = |default: &str| BatchReEncryptRequest {
        destination_key: default.into(),
        items: vec![item(""), item("own"), item("bad name")],
        ..Default::default()
    };
    let destinations = |default: &str| -> Vec<Option<Option<usize>>> {
        let batch = batch::reencrypt(request(default), &Limits::default()).unwrap();
        batch
            .items
            .iter()
            .map(|item| item.as_ref().ok().map(|(_, destination)| *destination))
            .collect()
    };
    assert_eq!(destinations(""), [Some(None), Some(Some(0)), None]);
    assert_eq!(
        destinations("default"),
        [Some(Some(0)), Some(Some(1)), None]
    );
}

#[test]
fn batches_beyond_a_limit_are_refused_before_any_work() {
    let items = |count| BatchEncryptRequest {
        items: vec![EncryptItem::default(); count],
        ..Default::default()
    };
    let limits = Limits {
        batch_items: 10,
        ..Limits::default()
    };
    assert_eq!(reason(batch::encrypt(items(10), &limits)), "valid");
    assert_eq!(
        reason(batch::encrypt(items(11), &limits)),
        "BATCH_TOO_LARGE"
    );
    assert_eq!(Limits::default().batch_items, 10_000);
    let limits = Limits {
        reply_bytes: 2000,
        ..Limits::default()
    };
    assert_eq!(reason(batch::encrypt(items(4), &limits)), "valid");
    assert_eq!(reason(batch::encrypt(items(5), &limits)), "REPLY_TOO_LARGE");
}

#[test]
fn the_reply_is_never_longer_than_was_computed() {
    let failures = vec![
        Failure::KeyNotFound("k".repeat(63).into()),
        Failure::invalid("destination_key", "x".repeat(100)),
        Failure::internal("x"),
        Failure::KeyDisabled,
    ];
    for failure in failures {
        let response = batch::encrypted(vec![Err(failure)]);
        assert!(response.encoded_len() < 384, "{response:?}");
    }
}

#[test]
fn page_tokens_come_back_and_others_are_refused() {
    let token = token(Some("tenants/acme/identities/app".into()));
    let list = |page_size, page_token: &str| {
        admin::list_keys(ListKeysRequest {
            parent: String::new(),
            page_size,
            page_token: page_token.into(),
        })
    };
    assert_eq!(
        list(0, &token).unwrap().page.after.as_deref(),
        Some("tenants/acme/identities/app")
    );
    assert_eq!(
        list(0, "").unwrap().page,
        Page {
            after: None,
            limit: 100
        }
    );
    assert_eq!(list(5, "").unwrap().page.limit, 5);
    assert_eq!(list(100_000, "").unwrap().page.limit, 1_000);
    for bad in [
        "!",
        "Zg==",
        "Zm9v\n",
        "_w",
        &"a".repeat(513),
        &data_encoding::BASE64URL_NOPAD.encode(b"a b"),
    ] {
        assert_eq!(part(list(0, bad)), "page_token", "{bad}");
    }
}

#[test]
fn a_filter_of_the_trail_is_taken_as_it_is_or_its_part_is_named() {
    let filter = AuditFilter {
        start_time_us: 5,
        field: String::from("customer.*"),
        decision: Decision::Refused.into(),
        failed: true,
        ..AuditFilter::default()
    };
    let asked = |filter| {
        audit::list_records(ListRecordsRequest {
            page_size: 3,
            page_token: token(Some("17".into())),
            filter: Some(filter),
        })
    };
    let parsed = asked(filter.clone()).unwrap();
    assert_eq!(parsed.page.after.as_deref(), Some("17"));
    assert_eq!(
        (parsed.filter.from_us, parsed.filter.to_us),
        (Some(5), None)
    );
    assert_eq!(parsed.filter.field.as_deref(), Some("customer.*"));
    assert_eq!(parsed.filter.decision, Some(Decision::Refused));
    for (wrong, named) in [
        (
            AuditFilter {
                end_time_us: 5,
                ..filter.clone()
            },
            "filter.end_time_us",
        ),
        (
            AuditFilter {
                decision: 9,
                ..filter.clone()
            },
            "filter.decision",
        ),
        (
            AuditFilter {
                request_id: Bytes::from_static(b"short"),
                ..filter.clone()
            },
            "filter.request_id",
        ),
        (
            AuditFilter {
                action: "a".repeat(513),
                ..filter.clone()
            },
            "filter.action",
        ),
    ] {
        assert_eq!(part(asked(wrong)), named);
    }
}

#[test]
fn an_item_is_looked_for_under_one_key_and_in_one_field() {
    let asked = |key: &str, field: &str, names: &[&str]| {
        let item = AuditItem {
            context: names.iter().map(|name| pair(name, "4711")).collect(),
        };
        let filter = Some(AuditFilter {
            key: key.into(),
            field: field.into(),
            item: Some(item),
            ..AuditFilter::default()
        });
        let list = part(audit::list_records(ListRecordsRequest {
            filter: filter.clone(),
            ..Default::default()
        }));
        let tail = part(audit::tail(TailRecordsRequest {
            filter,
            ..Default::default()
        }));
        assert_eq!(list, tail);
        list
    };
    let key = "tenants/acme/keys/pii";
    assert_eq!(asked(key, "ssn", &["id"]), "valid");
    assert_eq!(asked(key, "ssn", &[]), "valid");
    for (wrong, field, names, named) in [
        ("", "ssn", &["id"][..], "filter.key"),
        ("pii", "ssn", &["id"], "filter.key"),
        ("tenants/acme", "ssn", &["id"], "filter.key"),
        (key, "", &["id"], "filter.field"),
        (key, "customer.*", &["id"], "filter.field"),
        (key, "ssn", &["ID"], "context"),
        (key, "ssn", &["id", "id"], "context"),
    ] {
        assert_eq!(
            asked(wrong, field, names),
            named,
            "{wrong} {field} {names:?}"
        );
    }
}

#[test]
fn what_the_trail_has_of_items_is_counts_or_hashes() {
    let asked = |items: i32| {
        let create = admin::create_key(CreateKeyRequest {
            name: "k".into(),
            audit_items: items,
            ..Default::default()
        });
        let set = admin::set_audit_items(SetKeyAuditItemsRequest {
            name: "k".into(),
            audit_items: items,
            ..Default::default()
        });
        let create = create.map(|create| create.settings.audit_items);
        assert_eq!(create, set.map(|set| set.items));
        create
    };
    assert_eq!(asked(0), Ok(AuditItems::Counts));
    assert_eq!(asked(1), Ok(AuditItems::Counts));
    assert_eq!(asked(2), Ok(AuditItems::Hashes));
    assert_eq!(part(asked(3)), "audit_items");
}

#[test]
fn parents_roles_suites_and_identities() {
    let parent = |text: &str| {
        part(admin::list_keys(ListKeysRequest {
            parent: text.into(),
            ..Default::default()
        }))
    };
    assert_eq!((parent("tenants/acme"), parent("")), ("valid", "valid"));
    assert_eq!(
        (parent("acme"), parent("tenants/"), parent("tenants/a/b")),
        ("parent", "parent", "parent")
    );
    let issue = |identity: &str| {
        part(access::issue_certificate(IssueCertificateRequest {
            identity: identity.into(),
            ..Default::default()
        }))
    };
    assert_eq!(
        (issue("app"), issue("tenants/a/identities/b")),
        ("valid", "valid")
    );
    for bad in [
        "",
        "App",
        "tenants/a",
        "tenants/a/identities/",
        "identities/a",
        "tenants//identities/b",
        "tenants/a/groups/b",
    ] {
        assert_eq!(issue(bad), "identity", "{bad}");
    }
    let create = |suite, id: &str| {
        part(admin::create_key(CreateKeyRequest {
            name: "k".into(),
            suite,
            request_id: id.into(),
            ..Default::default()
        }))
    };
    assert_eq!((create(0, ""), create(1, "")), ("valid", "valid"));
    assert_eq!(create(2, ""), "suite");
    assert_eq!(create(0, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), "valid");
    assert_eq!(create(0, "1"), "request_id");
}

#[test]
fn grants_say_all_that_they_mean() {
    let good = || CreateGrantRequest {
        principal: "tenants/acme/identities/app".into(),
        role: "data".into(),
        keys: vec!["pii".into()],
        fields: vec!["customer.*".into(), "customer.*".into()],
        ..Default::default()
    };
    let parsed = access::create_grant(good()).unwrap().wanted;
    assert_eq!(parsed.scope.as_str(), "acme");
    assert_eq!(parsed.fields.len(), 1);
    let with = |change: fn(&mut CreateGrantRequest)| {
        let mut request = good();
        change(&mut request);
        part(access::create_grant(request))
    };
    assert_eq!(
        with(|request| request.principal = "app".into()),
        "principal"
    );
    assert_eq!(
        with(|request| request.principal = "tenants/a/groups/g".into()),
        "valid"
    );
    assert_eq!(
        with(|request| request.principal = "tenants/a/groups/".into()),
        "group"
    );
    assert_eq!(with(|request| request.role = "root".into()), "role");
    assert_eq!(with(|request| request.tenant = "*".into()), "valid");
    assert_eq!(with(|request| request.tenant = "a/b".into()), "tenant");
    assert_eq!(with(|request| request.keys = vec!["a*b".into()]), "keys");
    assert_eq!(with(|request| request.fields = vec!["F".into()]), "fields");
    assert_eq!(with(|request| request.keys = vec!["k".into(); 33]), "keys");
    let conditions: [GrantConditions; 3] = [
        GrantConditions {
            daily: "8-18".into(),
            ..Default::default()
        },
        GrantConditions {
            networks: vec!["10.0.0.1/8".into()],
            ..Default::default()
        },
        GrantConditions {
            methods: vec!["password".into()],
            ..Default::default()
        },
    ];
    for wrong in conditions {
        let request = CreateGrantRequest {
            conditions: Some(wrong),
            ..good()
        };
        assert_eq!(part(access::create_grant(request)), "conditions");
    }
    let show = |text: &str| part(access::show_grant(GetGrantRequest { name: text.into() }));
    assert_eq!((show("g-0123456789abcdef"), show("g-1")), ("valid", "name"));
    let explain = |action: &str, address: &str| {
        part(access::explain(ExplainAccessRequest {
            principal: "alice".into(),
            action: action.into(),
            address: address.into(),
            ..Default::default()
        }))
    };
    assert_eq!(explain("decrypt", "10.0.0.1"), "valid");
    assert_eq!(explain("read", ""), "action");
    assert_eq!(explain("decrypt", "here"), "address");
}
