//! Who may do what.

use fieldkeep_client::{Client, Error};
use fieldkeep_proto::v1::{ExplainAccessRequest, WhoCanRequest};

use crate::fixture::{APP, Fixture, reason, revoke_all, role};

const DENIED: &str = "PERMISSION_DENIED";
const SOMEONE: &str = "tenants/default/identities/someone";
const GROUP: &str = "tenants/default/groups/support";

/// Whether `app` may do something to a field under the key `pii`.
fn asked(action: &str, field: &str) -> ExplainAccessRequest {
    ExplainAccessRequest {
        principal: APP.into(),
        action: action.into(),
        key: "tenants/default/keys/pii".into(),
        field: field.into(),
        ..ExplainAccessRequest::default()
    }
}

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
            "grant",
            client
                .grants()
                .create(role("data", SOMEONE))
                .await
                .map(drop),
        ),
        (
            "list grants",
            client.grants().list("", "").next_page().await.map(drop),
        ),
        (
            "add to a group",
            client.groups().add(GROUP, SOMEONE).await.map(drop),
        ),
        (
            "list a group",
            client.groups().members(GROUP).next_page().await.map(drop),
        ),
        (
            "list groups",
            client.groups().list("").next_page().await.map(drop),
        ),
        (
            "take out of a group",
            client.groups().remove(GROUP, SOMEONE).await,
        ),
        (
            "explain access",
            client.explain_access(asked("decrypt", "f")).await.map(drop),
        ),
        (
            "who can",
            client
                .who_can(WhoCanRequest {
                    action: "decrypt".into(),
                    ..WhoCanRequest::default()
                })
                .next_page()
                .await
                .map(drop),
        ),
        (
            "set a mask",
            client.masks().set("", "f", "fixed").await.map(drop),
        ),
        (
            "list masks",
            client.masks().list("").next_page().await.map(drop),
        ),
        ("remove a mask", client.masks().remove("", "f").await),
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
async fn a_revoked_grant_ends_on_an_open_connection() {
    let f = Fixture::start();
    let app = f.app();
    app.field("pii", "f").encrypt(b"x").await.unwrap();
    revoke_all(&f.admin(), APP).await;
    assert_eq!(reason(app.field("pii", "f").encrypt(b"x").await), DENIED);
    assert_eq!(
        reason(f.admin().grants().revoke("g-0123456789abcdef").await),
        "GRANT_NOT_FOUND"
    );
    f.admin().grants().create(role("data", APP)).await.unwrap();
    app.field("pii", "f").encrypt(b"x").await.unwrap();
}

#[tokio::test]
async fn rights_go_down_to_the_field_and_say_what_is_missing() {
    let f = Fixture::start();
    revoke_all(&f.admin(), APP).await;
    let mut narrow = role("data", APP);
    narrow.keys = vec!["pii".into()];
    narrow.fields = vec!["customer.*".into()];
    let grant = f.admin().grants().create(narrow).await.unwrap();
    let app = f.app();
    app.field("pii", "customer.ssn")
        .encrypt(b"x")
        .await
        .unwrap();
    let refused = app.field("pii", "note").encrypt(b"x").await.unwrap_err();
    let told = refused.to_string();
    assert!(
        told.contains(
            "fieldkeep grant create app --tenant default --role encrypter --key pii --field note"
        ),
        "{told}"
    );
    let explained = f
        .admin()
        .explain_access(asked("decrypt", "customer.ssn"))
        .await
        .unwrap();
    assert_eq!(
        (explained.allowed, explained.grant),
        (true, grant.name.clone())
    );
    let explained = f
        .admin()
        .explain_access(asked("decrypt", "note"))
        .await
        .unwrap();
    assert_eq!(
        (explained.allowed, explained.rule.as_str()),
        (false, "no-grant")
    );
    assert!(
        explained.command.contains("--role decrypter"),
        "{}",
        explained.command
    );
    let who = WhoCanRequest {
        action: "decrypt".into(),
        key: "tenants/default/keys/pii".into(),
        field: "customer.ssn".into(),
        ..WhoCanRequest::default()
    };
    let holders = f.admin().who_can(who).collect().await.unwrap();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].identities, [APP]);
    assert_eq!(holders[0].grant.as_ref().unwrap().name, grant.name);
}

#[tokio::test]
async fn nobody_gives_himself_a_right_to_values_and_the_last_grantor_stays() {
    let f = Fixture::start();
    let own = "tenants/default/identities/admin";
    assert_eq!(
        reason(f.admin().grants().create(role("decrypter", own)).await),
        "SELF_GRANT"
    );
    let group = "tenants/default/groups/readers";
    f.admin().groups().add(group, own).await.unwrap();
    assert_eq!(
        reason(f.admin().grants().create(role("decrypter", group)).await),
        "SELF_GRANT"
    );
    let grants = f.admin().grants().list("", own).collect().await.unwrap();
    assert_eq!(grants.len(), 1);
    assert_eq!(
        reason(f.admin().grants().revoke(&grants[0].name).await),
        "LAST_GRANTOR"
    );
}

#[tokio::test]
async fn grants_and_groups_survive_a_restart() {
    let f = Fixture::start();
    revoke_all(&f.admin(), APP).await;
    f.admin().groups().add(GROUP, APP).await.unwrap();
    f.admin()
        .grants()
        .create(role("encrypter", GROUP))
        .await
        .unwrap();
    let f = f.restart();
    let app = f.app();
    let sealed = app.field("pii", "f").encrypt(b"x").await.unwrap();
    assert_eq!(reason(app.field("pii", "f").decrypt(&sealed).await), DENIED);
    f.other().field("pii", "f").encrypt(b"x").await.unwrap();
    let groups = f.admin().groups().list("default").collect().await.unwrap();
    assert_eq!((groups[0].name.as_str(), groups[0].members), (GROUP, 1));
    f.admin().groups().remove(GROUP, APP).await.unwrap();
    assert_eq!(reason(app.field("pii", "f").encrypt(b"x").await), DENIED);
}

#[test]
fn the_command_line_grants_explains_and_tests() {
    let f = Fixture::start();
    let admin = |arguments: &[&str]| f.server.run(&f.admin_identity, arguments);
    admin(&["group", "add", "support", "alice"]);
    admin(&[
        "grant",
        "create",
        "support",
        "--group",
        "--role",
        "decrypter",
        "--key",
        "pii",
        "--field",
        "customer.*",
        "--context",
        "region=eu",
        "--for",
        "30d",
    ]);
    let listed = admin(&["grant", "list"]);
    assert!(
        listed.contains("tenants/default/groups/support"),
        "{listed}"
    );
    let explain = |context: &str| {
        admin(&[
            "access",
            "explain",
            "--as",
            "alice",
            "--action",
            "decrypt",
            "--key",
            "pii",
            "--field",
            "customer.ssn",
            "--context",
            context,
        ])
    };
    assert!(explain("region=eu").contains("allow"));
    let denied = explain("region=us");
    assert!(denied.contains("condition-context"), "{denied}");
    let who = admin(&[
        "access",
        "who",
        "--can",
        "decrypt",
        "--key",
        "pii",
        "--field",
        "customer.ssn",
    ]);
    assert!(who.contains("tenants/default/identities/alice"), "{who}");

    let file = f.home.path().join("expectations.toml");
    let expect = |result: &str| {
        let text = format!(
            "[[expect]]\nwho = \"alice\"\naction = \"decrypt\"\nkey = \"pii\"\nfield = \"customer.ssn\"\n\
             context = {{ region = \"eu\" }}\nresult = \"{result}\"\n\
             [[expect]]\nwho = \"alice\"\naction = \"encrypt\"\nkey = \"pii\"\nfield = \"f\"\nresult = \"deny\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = f.server.command(
            &f.admin_identity,
            ["access", "test", file.to_str().unwrap()],
        );
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, said) = expect("allow");
    assert!(code == Some(0) && said.contains("2 as expected"), "{said}");
    let (code, said) = expect("deny");
    assert!(code == Some(1) && said.contains("customer.ssn"), "{said}");
}
