//! Masks, from the command line to the reply.

use std::process::Output;

use fieldkeep_client::{BatchDecrypt, Client, DecryptItem, Decrypted};
use fieldkeep_harness::Identity;
use serde_json::{Value, json};

use crate::fixture::{Fixture, reason};

const CARD: &str = "4111111111111234";
const SHOWN: &str = "***1234";
const FIELD: &str = "customer.card";

/// A caller of the tenant `default` who may see fields masked alone.
fn support(f: &Fixture) -> Identity {
    let folder = f.home.path().join("identities");
    let admin = &f.admin_identity;
    f.server
        .issue(admin, "default", "support", "masked-reader", &folder)
}

fn run(f: &Fixture, identity: &Identity, arguments: &[&str]) -> Output {
    f.server.command(identity, arguments).output().unwrap()
}

/// Everything that the command line printed.
fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

async fn batch_and_stream(client: &Client, ciphertext: &[u8]) -> Vec<Decrypted> {
    let batch = BatchDecrypt {
        field: FIELD.into(),
        ..BatchDecrypt::default()
    };
    let items = vec![DecryptItem::new(ciphertext.to_vec()); 3];
    let mut streamed =
        client.decrypt_stream(batch.clone(), futures_util::stream::iter(items.clone()));
    let mut values = vec![streamed.next().await.unwrap().unwrap().unwrap()];
    let batch = BatchDecrypt { items, ..batch };
    let results = client.decrypt_batch(batch).await.unwrap();
    values.extend(results.into_iter().map(Result::unwrap));
    values
}

#[tokio::test]
async fn a_masked_reader_sees_the_mask_by_every_call() {
    let f = Fixture::start();
    let support = support(&f);
    let sealed = f.app().field("pii", FIELD).encrypt(CARD.as_bytes()).await;
    let sealed = sealed.unwrap();
    let client = f.server.data_client(&support);
    let one = client.field("pii", FIELD);
    assert_eq!(reason(one.decrypt(&sealed).await), "PERMISSION_DENIED");

    let admin = f.admin();
    let set = admin.masks().set("", FIELD, "last:4").await.unwrap();
    assert_eq!(
        (set.tenant.as_str(), set.mask.as_str()),
        ("tenants/default", "last:4")
    );
    let shown = one.reveal(&sealed).await.unwrap();
    assert_eq!(
        (&shown.plaintext[..], shown.masked),
        (SHOWN.as_bytes(), true)
    );
    assert_eq!(one.decrypt(&sealed).await.unwrap(), SHOWN.as_bytes());
    for value in batch_and_stream(&client, &sealed).await {
        assert_eq!(value, shown);
    }
    for value in batch_and_stream(&f.app(), &sealed).await {
        assert_eq!(
            (&value.plaintext[..], value.masked),
            (CARD.as_bytes(), false)
        );
    }
    // It is there after a restart, and not of another tenant.
    let f = f.restart();
    let client = f.server.data_client(&support);
    let shown = client.field("pii", FIELD).reveal(&sealed).await.unwrap();
    assert!(shown.masked && shown.plaintext == SHOWN);
    let masks = f.admin().masks().list("other").collect().await.unwrap();
    assert!(masks.is_empty());
    f.admin().masks().remove("default", FIELD).await.unwrap();
    let refused = client.field("pii", FIELD).reveal(&sealed).await;
    assert_eq!(reason(refused), "PERMISSION_DENIED");
    let none = f.admin().masks().remove("default", FIELD).await;
    assert_eq!(reason(none), "SETTING_NOT_FOUND");
}

#[tokio::test]
async fn an_access_admin_who_sees_a_field_masked_shows_himself_no_more() {
    let f = Fixture::start();
    let support = support(&f);
    let admin = f.admin();
    let grant = crate::fixture::role("access-admin", "tenants/default/identities/support");
    admin.grants().create(grant).await.unwrap();
    let own = f.server.admin_client(&support);
    let wide = own.masks().set("default", FIELD, "last:4").await;
    assert_eq!(reason(wide), "SELF_GRANT");
    own.masks().set("default", FIELD, "fixed").await.unwrap();
    admin.masks().set("default", FIELD, "last:4").await.unwrap();
    own.masks().remove("default", FIELD).await.unwrap();
}

#[test]
fn masks_are_set_listed_and_removed_from_the_command_line() {
    let f = Fixture::start();
    let (support, admin) = (support(&f), &f.admin_identity);
    let field = ["--field", FIELD];
    let sealed = f.server.run(
        &f.app_identity,
        &[&["encrypt", "--key", "pii", CARD][..], &field].concat(),
    );
    let decrypt = [&["decrypt", sealed.trim()][..], &field].concat();
    let refused = run(&f, &support, &decrypt);
    let (out, err) = said(&refused);
    assert_eq!((refused.status.code(), out.as_str()), (Some(3), ""));
    assert!(
        err.contains("fieldkeep mask set customer.card MASK --tenant default"),
        "{err}"
    );

    let set = ["mask", "set", FIELD, "last:4", "--format", "json"];
    let set: Value = serde_json::from_str(&f.server.run(admin, &set)).unwrap();
    assert_eq!(set["mask"], "last:4");
    assert_eq!(set["set_by"], "tenants/default/identities/admin");
    let listed = f
        .server
        .run(admin, &["mask", "list", "--tenant", "default"]);
    assert!(
        listed.contains(FIELD) && listed.contains("last:4"),
        "{listed}"
    );
    let none = f.server.run(admin, &["mask", "list", "--tenant", "other"]);
    assert_eq!(none.trim(), "no masks");

    let opened = run(&f, &support, &decrypt);
    let (out, err) = said(&opened);
    assert_eq!((opened.status.code(), out.as_str()), (Some(0), SHOWN));
    assert!(err.contains("note: the value is masked"), "{err}");
    let opened = run(
        &f,
        &support,
        &[&decrypt[..], &["--format", "json"]].concat(),
    );
    let (out, err) = said(&opened);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&out["plaintext"], &out["masked"]),
        (&json!(SHOWN), &json!(true))
    );
    assert_eq!(err, "");
    let whole = run(&f, &f.app_identity, &decrypt);
    assert_eq!(said(&whole), (CARD.to_owned(), String::new()));

    let file = f.home.path().join("cards.csv");
    std::fs::write(&file, format!("card\n{}\n", sealed.trim())).unwrap();
    let column = format!("card=pii:{FIELD}");
    let data = [
        "data",
        "decrypt",
        "--no-context",
        "--column",
        &column,
        "--output",
        "-",
        "--input",
    ];
    let data = [&data[..], &[file.to_str().unwrap()]].concat();
    let (out, err) = said(&run(&f, &support, &data));
    assert_eq!(out, format!("card\n{SHOWN}\n"), "{err}");
    assert!(err.contains("1 of them masked"), "{err}");

    let wrong = run(&f, admin, &["mask", "set", FIELD, "last:5"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).1.contains("`last` shows 1 to 4 characters"));
    let unasked = run(&f, admin, &["mask", "remove", FIELD]);
    assert_eq!(unasked.status.code(), Some(2));
    let dry = f.server.run(admin, &["mask", "remove", FIELD, "--dry-run"]);
    assert!(dry.contains("only masked sees nothing of it"), "{dry}");
    assert_eq!(run(&f, &support, &decrypt).status.code(), Some(0));
    f.server.run(admin, &["mask", "remove", FIELD, "--yes"]);
    assert_eq!(run(&f, &support, &decrypt).status.code(), Some(3));
    let again = run(&f, admin, &["mask", "remove", FIELD, "--yes"]);
    assert_eq!(again.status.code(), Some(4), "{:?}", said(&again));
}
