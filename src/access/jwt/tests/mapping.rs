//! Who the caller is, by the claims of a good token.

use serde_json::json;

use super::{super::ScopeGroup, *};
use crate::access::{principal::Ceiling, role::Role};

fn groups(verified: &Principal) -> Vec<&str> {
    verified.groups.iter().map(AsRef::as_ref).collect()
}

#[tokio::test]
async fn caller_of_a_plain_token() {
    let verified = World::new().claim(|_| {}).await.unwrap();
    assert_eq!(
        (verified.tenant.as_str(), verified.name.as_str()),
        ("acme", "billing")
    );
    assert_eq!(verified.credential.as_ref(), "login/token-1");
    let ceiling = Ceiling {
        cross_tenant: false,
        actions: Role::Decrypter.actions(),
    };
    assert_eq!(verified.ceiling, ceiling);
    assert!(verified.groups.is_empty() && !verified.second_factor);
}

#[tokio::test]
async fn tenant_outside_of_the_issuers_bound() {
    let record = IssuerRecord {
        tenant: String::new(),
        tenant_claim: "org".into(),
        ..record()
    };
    let world = World::with(Signer::p256(), record);
    let verified = world
        .claim(|claims| claims["org"] = json!("globex"))
        .await
        .unwrap();
    assert_eq!(verified.tenant.as_str(), "globex");
    for tenant in ["initech", "Globex", "globex ", "acme/../globex", "", "*"] {
        let refused = world.claim(|claims| claims["org"] = json!(tenant)).await;
        assert_eq!(
            refused,
            Err(TokenError::Tenant { issuer: login() }),
            "{tenant}"
        );
    }
    for tenant in [json!(["globex"]), json!(null), json!(1)] {
        let refused = world.claim(|claims| claims["org"] = tenant).await;
        assert!(
            matches!(refused, Err(TokenError::Claim { .. })),
            "{refused:?}"
        );
    }
    assert!(matches!(
        world.claim(|_| {}).await,
        Err(TokenError::Claim { .. })
    ));
}

#[tokio::test]
async fn claim_does_not_choose_a_fixed_tenant() {
    let verified = World::new()
        .claim(|claims| claims["tenant"] = json!("globex"))
        .await
        .unwrap();
    assert_eq!(verified.tenant.as_str(), "acme");
}

#[tokio::test]
async fn name_that_maps_outside_of_the_grammar() {
    let world = World::new();
    for sub in [
        "Billing",
        "billing/../admin",
        "billing\n",
        "",
        "ada@example.com",
        ".billing",
        &"a".repeat(64),
    ] {
        let refused = world.claim(|claims| claims["sub"] = json!(sub)).await;
        assert!(
            matches!(refused, Err(TokenError::Subject { .. })),
            "{sub}: {refused:?}"
        );
    }
    for sub in [json!(1), json!(null), json!(["billing"])] {
        let refused = world.claim(|claims| claims["sub"] = sub).await;
        assert!(
            matches!(refused, Err(TokenError::Claim { .. })),
            "{refused:?}"
        );
    }
    let world = World::with(
        Signer::p256(),
        IssuerRecord {
            name_rule: "escape".into(),
            name_claim: "email".into(),
            ..record()
        },
    );
    let verified = world
        .claim(|claims| claims["email"] = json!("Ada@example.com"))
        .await
        .unwrap();
    assert_eq!(verified.name.as_str(), "x__41da_40example.com");
}

#[tokio::test]
async fn groups_of_a_claim_and_of_scopes() {
    let scope = |scope: &str, group: &str| ScopeGroup {
        scope: scope.into(),
        group: group.into(),
    };
    let record = IssuerRecord {
        groups_claim: "/realm_access/roles".into(),
        scopes: vec![
            scope("fields:read", "readers"),
            scope("fields:write", "writers"),
            scope("fields:read", "auditors"),
        ],
        ..record()
    };
    let world = World::with(Signer::p256(), record.clone());
    let verified = world
        .claim(|claims| {
            claims["realm_access"] =
                json!({"roles": ["staff", "readers", "No Name", 7, "../x", "staff"]});
            claims["scope"] = json!("openid fields:read  fields:readx FIELDS:WRITE");
            claims["groups"] = json!(["not-this-claim"]);
        })
        .await
        .unwrap();
    assert_eq!(
        groups(&verified),
        [
            "tenants/acme/groups/auditors",
            "tenants/acme/groups/readers",
            "tenants/acme/groups/staff"
        ]
    );

    let listed = World::with(
        Signer::p256(),
        IssuerRecord {
            scope_claim: "scp".into(),
            ..record
        },
    );
    let verified = listed
        .claim(|claims| claims["scp"] = json!(["fields:write", "openid"]))
        .await
        .unwrap();
    assert_eq!(groups(&verified), ["tenants/acme/groups/writers"]);
}

#[tokio::test]
async fn scope_without_a_group_gives_none() {
    let world = World::new();
    let verified = world
        .claim(|claims| claims["scope"] = json!("admin"))
        .await
        .unwrap();
    assert!(verified.groups.is_empty());
}

#[tokio::test]
async fn more_groups_than_are_taken() {
    let world = World::with(
        Signer::p256(),
        IssuerRecord {
            groups_claim: "groups".into(),
            ..record()
        },
    );
    let listed = |count: usize| {
        (0..count)
            .map(|number| format!("g{number}"))
            .collect::<Vec<_>>()
    };
    assert!(
        world
            .claim(|claims| claims["groups"] = json!(listed(128)))
            .await
            .is_ok()
    );
    let refused = world
        .claim(|claims| claims["groups"] = json!(listed(129)))
        .await;
    assert_eq!(refused, Err(TokenError::TooManyGroups { issuer: login() }));
}

#[tokio::test]
async fn second_factor_only_by_a_listed_value() {
    let record = IssuerRecord {
        acr_values: vec!["urn:mfa".into()],
        amr_values: vec!["otp".into(), "hwk".into()],
        ..record()
    };
    let world = World::with(Signer::p256(), record);
    for (name, value, expected) in [
        ("acr", json!("urn:mfa"), true),
        ("acr", json!("urn:mfa2"), false),
        ("acr", json!(["urn:mfa"]), false),
        ("amr", json!(["pwd", "otp"]), true),
        ("amr", json!(["pwd"]), false),
        ("amr", json!([["otp"]]), false),
        ("amr", json!("pwd otp"), false),
        ("mfa", json!(true), false),
    ] {
        let verified = world
            .claim(|claims| claims[name] = value.clone())
            .await
            .unwrap();
        assert_eq!(verified.second_factor, expected, "{name} {value}");
    }
    let none = World::new()
        .claim(|claims| claims["amr"] = json!(["otp", "mfa"]))
        .await
        .unwrap();
    assert!(!none.second_factor);
}

#[tokio::test]
async fn token_id_that_does_not_fit_a_record_is_replaced_by_a_hash() {
    let world = World::new();
    for jti in [
        json!(null),
        json!(""),
        json!(7),
        json!("a\nb"),
        json!("a b"),
        json!("é"),
        json!("a".repeat(129)),
    ] {
        let verified = world
            .claim(|claims| claims["jti"] = jti.clone())
            .await
            .unwrap();
        assert!(
            verified.credential.starts_with("login/sha256:")
                && verified.credential.len() == "login/".len() + 39,
            "{jti}"
        );
    }
}
