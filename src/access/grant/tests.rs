use bytes::Bytes;
use fieldkeep_keystore::info::SystemRecord;

use super::*;
use crate::access::{condition::Daily, principal::Method};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn app() -> Who {
    Who::Identity(Identity::new(name("acme"), name("app")))
}

fn acme() -> Scope {
    Scope::Tenant(name("acme"))
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts
        .iter()
        .map(|text| Pattern::parse(text).unwrap())
        .collect()
}

fn full() -> Grant {
    Grant {
        id: GrantId::parse("g-0123456789abcdef").unwrap(),
        what: Wanted {
            keys: patterns(&["pii", "cards.*"]),
            fields: patterns(&["customer.*", "card.number"]),
            conditions: Conditions {
                context: vec![("region".into(), "eu".into()), ("id".into(), String::new())],
                not_before: Some(7),
                daily: Daily::new(0, 60),
                networks: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
                methods: vec![Method::Jwt, Method::ApiKey],
                second_factor: true,
            },
            expires: Some(99),
            ..Wanted::all_of(Role::Data, acme(), app())
        },
        created: 5,
        granted_by: "init".into(),
    }
}

fn record(payload: Vec<u8>) -> SystemRecord {
    SystemRecord {
        payload: Bytes::from(payload),
        generation: 1,
    }
}

#[test]
fn ids_have_one_text() {
    let id = GrantId::of_bytes([1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert_eq!(id.as_str(), "g-0123456789abcdef");
    assert_eq!(id.as_rule(), "grant:g-0123456789abcdef");
    assert_eq!(GrantId::parse(id.as_str()), Some(id));
    assert_ne!(GrantId::make().unwrap(), GrantId::make().unwrap());
    for text in [
        "",
        "g-",
        "g-0123456789abcde",
        "g-0123456789ABCDEF",
        "g-0123456789abcdef0",
        "0123456789abcdef",
    ] {
        assert_eq!(GrantId::parse(text), None, "{text}");
    }
}

#[test]
fn a_grant_comes_back_from_its_record_as_it_was() {
    let group = Who::Group(Group::new(name("other"), name("support")));
    let wide = Grant {
        what: Wanted::all_of(Role::Admin, Scope::All, group),
        ..full()
    };
    for grant in [full(), wide] {
        let decoded = decode(&key_of(&grant.id), &record(grant.encode())).unwrap();
        assert_eq!(decoded, grant);
    }
    assert_eq!(key_of(&full().id), "sys/grant/g-0123456789abcdef");
}

#[test]
fn a_record_that_is_not_understood_grants_nothing() {
    let grant = full();
    let key = key_of(&grant.id);
    for key in ["sys/grant/", "sys/grant/x", "sys/group/g-0123456789abcdef"] {
        assert!(decode(key, &record(grant.encode())).is_err(), "{key}");
    }
    // A role, a method and minutes that this version does not know.
    for (tag, value) in [(4u8, 99u8), (10, 1)] {
        let mut payload = grant.encode();
        payload.extend([tag << 3, value]);
        assert!(decode(&key, &record(payload)).is_err(), "{tag}");
    }
    let mut payload = grant.encode();
    payload.extend([12 << 3 | 2, 1, b'x']);
    assert!(decode(&key, &record(payload)).is_err());
    assert!(decode(&key, &record(vec![0xff])).is_err());
    // A record of all tenants under a role of values was never granted.
    let forged = Grant {
        what: Wanted {
            scope: Scope::All,
            ..grant.what
        },
        ..grant
    };
    assert!(decode(&key, &record(forged.encode())).is_err());
}

#[test]
fn what_makes_no_sense_is_not_granted() {
    let good = full().what;
    assert_eq!(good.check(5), Ok(()));
    let all = |role| Wanted::all_of(role, Scope::All, app());
    assert_eq!(all(Role::Data).check(0), Err(GrantError::DataForAll));
    assert_eq!(all(Role::Admin).check(0), Ok(()));
    let silent = Wanted {
        cross_tenant: false,
        ..all(Role::Admin)
    };
    assert_eq!(silent.check(0), Err(GrantError::CrossTenant));
    let keys = Wanted {
        keys: patterns(&["pii"]),
        ..Wanted::all_of(Role::AccessAdmin, acme(), app())
    };
    assert_eq!(keys.check(0), Err(GrantError::Keys));
    let operator = Wanted {
        keys: patterns(&["pii"]),
        ..Wanted::all_of(Role::KeyOperator, acme(), app())
    };
    assert_eq!(operator.check(0), Ok(()));
    let fields = Wanted {
        fields: patterns(&["f"]),
        ..operator.clone()
    };
    assert_eq!(fields.check(0), Err(GrantError::Fields));
    let context = Wanted {
        conditions: good.conditions.clone(),
        ..operator
    };
    assert_eq!(context.check(0), Err(GrantError::Context));
    for (keys, fields, expected) in [
        (0, 1, Err(GrantError::TooMany)),
        (1, 0, Err(GrantError::TooMany)),
        (32, 8, Ok(())),
        (32, 9, Err(GrantError::TooMany)),
        (33, 1, Err(GrantError::TooMany)),
    ] {
        let numbered = |count| (0..count).map(|n| Pattern::parse(&format!("n{n}")).unwrap());
        let wanted = Wanted {
            keys: numbered(keys).collect(),
            fields: numbered(fields).collect(),
            ..good.clone()
        };
        assert_eq!(wanted.check(0), expected, "{keys} {fields}");
    }
    assert_eq!(good.check(99), Err(GrantError::Ended));
    let never = Wanted {
        expires: Some(7),
        ..good
    };
    assert_eq!(never.check(0), Err(GrantError::Ended));
}
