//! Records of issuers: what can be configured, and what never can.

use super::{
    super::{IssuerError, MAX_RECORD_BYTES, ScopeGroup, issuer_key},
    *,
};

fn problem(change: impl FnOnce(&mut IssuerRecord)) -> IssuerError {
    let mut record = record();
    change(&mut record);
    Issuer::new(login(), record).unwrap_err()
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number}")).collect()
}

#[test]
fn record_comes_back_as_it_was() {
    let full = IssuerRecord {
        jwks_url: "https://keys.example.com/jwks".into(),
        audiences: vec!["a".into(), "b".into()],
        algorithms: vec!["ES256".into(), "PS512".into(), "EdDSA".into()],
        token_types: vec!["at+jwt".into()],
        tenant: String::new(),
        tenant_claim: "/org/tenant".into(),
        name_claim: "azp".into(),
        name_rule: "escape".into(),
        groups_claim: "groups".into(),
        scope_claim: "scp".into(),
        scopes: vec![ScopeGroup {
            scope: "read".into(),
            group: "readers".into(),
        }],
        acr_values: vec!["urn:mfa".into()],
        amr_values: vec!["otp".into()],
        cross_tenant: true,
        leeway_seconds: Some(0),
        max_age_seconds: Some(3600),
        created: NOW,
        created_by: "tenants/default/identities/admin".into(),
        ..record()
    };
    for record in [record(), full] {
        let issuer = issuer(record.clone());
        let key = issuer_key("login");
        let read = Issuer::decode(&key, &issuer.record().encode_payload()).unwrap();
        assert_eq!((read.record(), &read), (&record, &issuer));
    }
    assert_eq!(issuer_key("login"), "sys/issuer/login");
}

#[test]
fn record_of_another_version() {
    let payload = record().encode_payload();
    let mut newer = payload.clone();
    newer.extend([0xd8, 0x06, 1]);
    for (key, payload) in [
        ("sys/issuer/login", newer.as_slice()),
        ("sys/issuer/login", &payload[..payload.len() - 1]),
        ("sys/issuer/login", b""),
        ("sys/issuer/Login", &payload),
        ("sys/role/login", &payload),
    ] {
        assert!(
            matches!(
                Issuer::decode(key, payload),
                Err(IssuerError::UnknownRecord { .. })
            ),
            "{key}"
        );
    }
}

#[test]
fn unsigned_tokens_and_shared_secrets_cannot_be_configured() {
    for name in [
        "none", "HS256", "HS384", "HS512", "es256", "RS1", "ES256K", "A128KW", "dir", "*",
    ] {
        let wrong = problem(|record| record.algorithms = vec!["ES256".into(), name.into()]);
        assert_eq!(wrong, IssuerError::Algorithm, "{name}");
    }
    assert!(matches!(
        problem(|record| record.algorithms.clear()),
        IssuerError::Count { .. }
    ));
}

#[test]
fn urls_that_keys_are_not_fetched_from() {
    for url in [
        "",
        "http://login.example.com",
        "https://u:p@login.example.com",
        "https://login.example.com?x",
        "https://login.example.com#x",
        "ldap://x",
    ] {
        assert!(
            matches!(
                problem(|record| record.url = url.into()),
                IssuerError::Url { setting: "url", .. }
            ),
            "{url}"
        );
    }
    for url in ["http://127.0.0.1/keys", "http://localhost/keys"] {
        assert_eq!(
            problem(|record| record.jwks_url = url.into()),
            IssuerError::InsecureKeys
        );
    }
    let local = IssuerRecord {
        url: "http://127.0.0.1:8200/x".into(),
        jwks_url: String::new(),
        ..record()
    };
    assert!(Issuer::new(login(), local).is_ok());
    let too_long_for_discovery = format!("https://login.example.com/{}", "a".repeat(480));
    assert!(matches!(
        problem(|record| record.url = too_long_for_discovery),
        IssuerError::Url { .. }
    ));
}

#[test]
fn settings_that_are_missing_or_out_of_bounds() {
    assert!(matches!(
        problem(|r| r.audiences.clear()),
        IssuerError::Count {
            setting: "audiences",
            ..
        }
    ));
    assert!(matches!(
        problem(|r| r.audiences = texts(9)),
        IssuerError::Count { .. }
    ));
    assert!(matches!(
        problem(|r| r.audiences = vec!["a".into(), "a".into()]),
        IssuerError::Count { .. }
    ));
    assert!(matches!(
        problem(|r| r.audiences = vec![String::new()]),
        IssuerError::Text { .. }
    ));
    assert!(matches!(
        problem(|r| r.audiences = vec!["a\n".into()]),
        IssuerError::Text { .. }
    ));
    assert!(matches!(
        problem(|r| r.audiences = vec!["a".repeat(257)]),
        IssuerError::Text { .. }
    ));
    assert!(matches!(
        problem(|r| r.tenants.clear()),
        IssuerError::Count {
            setting: "tenants",
            ..
        }
    ));
    assert!(matches!(
        problem(|r| r.tenants = vec!["*".into()]),
        IssuerError::Name {
            setting: "tenants",
            ..
        }
    ));
    assert!(matches!(
        problem(|r| r.tenants = texts(65)),
        IssuerError::Count { .. }
    ));
    assert_eq!(
        problem(|r| r.tenant = "initech".into()),
        IssuerError::TenantNotListed
    );
    assert_eq!(problem(|r| r.tenant.clear()), IssuerError::TenantSource);
    assert_eq!(
        problem(|r| r.tenant_claim = "org".into()),
        IssuerError::TenantSource
    );
    for unknown in ["", "root", "Decrypter", "decrypter "] {
        let refused = problem(|r| r.ceiling = unknown.into());
        assert_eq!(refused, IssuerError::Ceiling, "{unknown}");
    }
    assert!(matches!(
        problem(|r| r.name_claim = "a\u{0}".into()),
        IssuerError::Text { .. }
    ));
    assert_eq!(
        problem(|r| r.name_rule = "fold".into()),
        IssuerError::NameRule
    );
    assert_eq!(
        problem(|r| r.token_types = vec!["JWE".into()]),
        IssuerError::TokenType
    );
    assert_eq!(
        problem(|r| r.leeway_seconds = Some(121)),
        IssuerError::Leeway
    );
    assert_eq!(
        problem(|r| r.max_age_seconds = Some(59)),
        IssuerError::MaxAge
    );
    assert_eq!(
        problem(|r| r.max_age_seconds = Some(604_801)),
        IssuerError::MaxAge
    );
    assert_eq!(
        problem(|r| r.root_certificate = b"no certificate".to_vec()),
        IssuerError::Root
    );
    let scope = |scope: &str, group: &str| {
        vec![ScopeGroup {
            scope: scope.into(),
            group: group.into(),
        }]
    };
    assert!(matches!(
        problem(|r| r.scopes = scope("a b", "readers")),
        IssuerError::Text { .. }
    ));
    assert!(matches!(
        problem(|r| r.scopes = scope("a", "No Group")),
        IssuerError::Name { .. }
    ));
    let long = |number: usize| ScopeGroup {
        scope: format!("{number}{}", "s".repeat(200)),
        group: "g".into(),
    };
    assert_eq!(
        problem(|r| r.scopes = (0..64).map(long).collect()),
        IssuerError::TooLarge
    );
    assert_eq!(MAX_RECORD_BYTES, 4055);
}

#[test]
fn two_issuers_with_one_url() {
    let world = World::new();
    let other = Issuer::new(Name::parse("other").unwrap(), record()).unwrap();
    let refused = world.jwt.set_issuers([issuer(record()), other]);
    assert_eq!(refused, Err(IssuerError::DuplicateUrl { other: login() }));
}
