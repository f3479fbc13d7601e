//! Who may do what.

use fieldkeep_client::{Client, Error};
use fieldkeep_proto::v1::Role;

use crate::fixture::{Fixture, reason};

const DENIED: &str = "PERMISSION_DENIED";

/// Every call of the control plane, by name.
async fn control_plane(client: &Client) -> Vec<(&'static str, Result<(), Error>)> {
    vec![
        ("create key", client.keys().create("made").await.map(drop)),
        ("show key", client.keys().show("pii").await.map(drop)),
        (
            "list keys",
            client.keys().list("default").next_page().await.map(drop),
        ),
        ("rotate key", client.keys().rotate("pii").await.map(drop)),
        ("disable key", client.keys().disable("pii").await.map(drop)),
        ("enable key", client.keys().enable("pii").await.map(drop)),
        (
            "disable version",
            client.keys().disable_version("pii", 1).await.map(drop),
        ),
        (
            "enable version",
            client.keys().enable_version("pii", 1).await.map(drop),
        ),
        (
            "create tenant",
            client.tenants().create("made").await.map(drop),
        ),
        (
            "list tenants",
            client.tenants().list().next_page().await.map(drop),
        ),
        (
            "grant role",
            client.roles().grant("someone", Role::Data).await.map(drop),
        ),
        (
            "list roles",
            client.roles().list("").next_page().await.map(drop),
        ),
        (
            "revoke role",
            client.roles().revoke("someone").await.map(drop),
        ),
        ("audit", client.audit().list().next_page().await.map(drop)),
        ("status", client.status().await.map(drop)),
    ]
}

#[tokio::test]
async fn a_data_identity_has_no_control_plane() {
    let f = Fixture::start();
    for (name, result) in control_plane(&f.server.admin_client(&f.app_identity)).await {
        assert_eq!(reason(result), DENIED, "{name}");
    }
}

#[tokio::test]
async fn an_admin_has_the_control_plane_and_no_plaintext() {
    let f = Fixture::start();
    let sealed = f.app().field("pii", "f").encrypt(b"secret").await.unwrap();
    for client in [f.admin(), f.server.data_client(&f.admin_identity)] {
        let field = client.field("pii", "f");
        assert_eq!(reason(field.encrypt(b"x").await), DENIED);
        assert_eq!(reason(field.decrypt(&sealed).await), DENIED);
        assert_eq!(reason(field.reencrypt(&sealed).await), DENIED);
    }
    for (name, result) in control_plane(&f.admin()).await {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn no_record_no_right() {
    let f = Fixture::start();
    f.server.run(
        &f.admin_identity,
        &[
            "cert",
            "issue",
            "nobody",
            "--tenant",
            "default",
            "--out",
            f.home.path().join("identities").to_str().unwrap(),
        ],
    );
    let nobody = f.server.admin_client(&f.home.identity("nobody"));
    assert_eq!(reason(nobody.field("pii", "f").encrypt(b"x").await), DENIED);
    for (name, result) in control_plane(&nobody).await {
        assert_eq!(reason(result), DENIED, "{name}");
    }
}

#[tokio::test]
async fn a_data_identity_stays_in_its_tenant() {
    let f = Fixture::start();
    let foreign = "tenants/other/keys/pii";
    assert_eq!(
        reason(f.app().field(foreign, "f").encrypt(b"x").await),
        DENIED
    );
    // A name that does not exist there is told no differently.
    assert_eq!(
        reason(
            f.app()
                .field("tenants/other/keys/none", "f")
                .encrypt(b"x")
                .await
        ),
        DENIED
    );
    assert_eq!(
        reason(
            f.app()
                .field("tenants/none/keys/none", "f")
                .encrypt(b"x")
                .await
        ),
        DENIED
    );
    let own = f
        .app()
        .field("tenants/default/keys/pii", "f")
        .encrypt(b"x")
        .await
        .unwrap();
    assert_eq!(f.app().field("pii", "f").decrypt(&own).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_revoked_role_ends_on_an_open_connection() {
    let f = Fixture::start();
    let app = f.app();
    app.field("pii", "f").encrypt(b"x").await.unwrap();
    f.admin().roles().revoke("app").await.unwrap();
    assert_eq!(reason(app.field("pii", "f").encrypt(b"x").await), DENIED);
    assert_eq!(
        reason(f.admin().roles().revoke("app").await),
        "IDENTITY_NOT_FOUND"
    );
    f.admin().roles().grant("app", Role::Data).await.unwrap();
    app.field("pii", "f").encrypt(b"x").await.unwrap();
}

#[tokio::test]
async fn one_identity_never_has_both_roles() {
    let f = Fixture::start();
    assert_eq!(
        reason(f.admin().roles().grant("app", Role::Admin).await),
        "ROLE_CONFLICT"
    );
    assert_eq!(
        reason(f.admin().roles().grant("admin", Role::Data).await),
        "ROLE_CONFLICT"
    );
    assert!(
        f.admin().roles().revoke("admin").await.is_err(),
        "the last admin stays"
    );
}

#[tokio::test]
async fn roles_survive_a_restart() {
    let f = Fixture::start();
    f.admin().roles().revoke("app").await.unwrap();
    let f = f.restart();
    assert_eq!(
        reason(f.app().field("pii", "f").encrypt(b"x").await),
        DENIED
    );
    f.other().field("pii", "f").encrypt(b"x").await.unwrap();
    let roles = f.admin().roles().list("").collect().await.unwrap();
    let names: Vec<&str> = roles.iter().map(|r| r.identity.as_str()).collect();
    assert_eq!(
        names,
        [
            "tenants/default/identities/admin",
            "tenants/other/identities/app-other"
        ]
    );
}
