//! What happens in the demo, and what must come of it.

use fieldkeep_client::{Client, Error, ErrorKind};

use super::super::data::Direction;
use super::super::failure::{Exit, Failure};
use super::super::grant::{NewGrant, grant_once};
use super::super::output::thousands;
use super::closing::{Rate, audit, look_at_disk, show_rates, single_calls};
use super::files::{COLUMNS, CUSTOMERS, SHOWN, convert, rows, versions, write_customers};
use super::scene::Scene;
use super::world::World;

/// The identities of the story.
struct People {
    /// Of the tenant that owns the data.
    app: Client,
    /// Of another tenant.
    other: Client,
}

/// Tells the story.
pub(super) async fn tell(world: &World, scene: &Scene) -> Result<(), Failure> {
    let mut rates = Vec::new();
    let people = set_up(world, scene).await?;
    encrypt(world, scene, &people, &mut rates).await?;
    who_can_read(world, scene, &people).await?;
    rotate(world, scene, &people, &mut rates).await?;
    restore(world, scene, &people, &mut rates).await?;
    audit(world, scene).await?;
    look_at_disk(world, scene).await?;
    rates.push(single_calls(&people.app).await?);
    show_rates(scene, &rates)
}

async fn set_up(world: &World, scene: &Scene) -> Result<People, Failure> {
    scene.title("2. Make tenants, a key and identities, as the admin")?;
    let admin = world.admin();
    for tenant in ["acme", "globex"] {
        admin.tenants().create(tenant).await?;
    }
    scene.done("tenants acme and globex, each with a key-encryption key of its own")?;
    let key = admin.keys().create("tenants/acme/keys/pii").await?;
    scene.done(&format!("key acme/pii, version {}", key.primary_version))?;
    let app = world.identity("acme", "app").await?;
    let other = world.identity("globex", "other").await?;
    for identity in [
        "tenants/acme/identities/app",
        "tenants/globex/identities/other",
    ] {
        grant_once(admin, identity, &NewGrant::role("data")).await?;
    }
    scene.done(
        "identities acme/app and globex/other, each granted the role `data` in its own tenant",
    )?;
    Ok(People { app, other })
}

async fn encrypt(
    world: &World,
    scene: &Scene,
    people: &People,
    rates: &mut Vec<Rate>,
) -> Result<(), Failure> {
    scene.title("3. Encrypt a file of customers, as acme/app")?;
    let (plain, sealed) = (world.path("customers.csv"), world.path("sealed.csv"));
    write_customers(&plain)?;
    let (counts, elapsed) = convert(
        &people.app,
        Direction::Encrypt,
        Some("pii"),
        &plain,
        &sealed,
    )
    .await?;
    rates.push(Rate {
        what: "encrypt a file",
        count: counts.values,
        unit: "values",
        elapsed,
    });
    scene.done(&format!(
        "{} rows, {} values of {} columns encrypted, each bound to its field and its row's id",
        thousands(counts.rows),
        thousands(counts.values),
        COLUMNS.len()
    ))?;
    expect(
        counts.rows == 3_000 && counts.values > 10_000,
        "the whole file is encrypted",
    )?;
    let (before, after) = (rows(CUSTOMERS)?, rows(&read(&sealed)?)?);
    let shown = ["id", "name", "email", "ssn", "notes"];
    for (what, file) in [("before:", &before), ("after:", &after)] {
        scene.say("")?;
        scene.say(&format!("  {what}"))?;
        let cells = |id: &&str| {
            file.get(*id)
                .map(|row| shown.map(|column| cut(row.get(column))).to_vec())
        };
        scene.table(&shown, SHOWN.iter().filter_map(cells).collect())?;
    }
    Ok(())
}

/// A value as a cell: long ones lose their middle.
fn cut(value: Option<&String>) -> String {
    let value = value.map(String::as_str).unwrap_or_default();
    if value.chars().count() <= 28 {
        return value.to_owned();
    }
    let start: String = value.chars().take(18).collect();
    format!("{start}... ({} bytes)", value.len())
}

async fn who_can_read(world: &World, scene: &Scene, people: &People) -> Result<(), Failure> {
    scene.title("4. Who can read it?")?;
    let sealed = rows(&read(&world.path("sealed.csv"))?)?;
    let id = SHOWN[0];
    let value = |id: &str| {
        sealed
            .get(id)
            .and_then(|row| row.get("email"))
            .cloned()
            .unwrap_or_default()
    };
    let text = value(id);
    let plain = rows(CUSTOMERS)?
        .get(id)
        .and_then(|row| row.get("email"))
        .cloned()
        .unwrap_or_default();
    let open = |client: &Client, text: String, id: &'static str| {
        let client = client.clone();
        async move {
            client
                .field("pii", "customer.email")
                .context("id", id)
                .decrypt_str(&text)
                .await
        }
    };
    let opened = open(&people.app, text.clone(), id).await?;
    expect(opened == plain, "the owner reads what was encrypted")?;
    scene.done(&format!("acme/app, the same tenant: {opened}"))?;
    let foreign = open(&people.other, text.clone(), id).await;
    refused(
        scene,
        "globex/other, another tenant",
        foreign,
        ErrorKind::DecryptionFailed,
    )?;
    let admin = open(world.admin(), text.clone(), id).await;
    refused(
        scene,
        "default/admin, who manages everything and reads nothing",
        admin,
        ErrorKind::Refused,
    )?;
    let moved = open(&people.app, text.clone(), SHOWN[1]).await;
    refused(
        scene,
        "acme/app, but the value was moved to another row",
        moved,
        ErrorKind::DecryptionFailed,
    )?;
    let field = people
        .app
        .field("pii", "customer.phone")
        .context("id", id)
        .decrypt_str(&text)
        .await;
    refused(
        scene,
        "acme/app, but as another field",
        field,
        ErrorKind::DecryptionFailed,
    )?;
    scene.say("  Why a value did not open is never told to a caller; the audit trail below has it.")
}

fn refused(
    scene: &Scene,
    who: &str,
    outcome: Result<String, Error>,
    kind: ErrorKind,
) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == kind => scene.refused(&format!("{who}: {error}")),
        Err(error) => {
            Err(Failure::from(error)
                .while_doing(format_args!("{who} is refused for another reason")))
        }
        Ok(_) => Err(Failure::new(
            Exit::Failed,
            format_args!("{who} could decrypt"),
        )),
    }
}

async fn rotate(
    world: &World,
    scene: &Scene,
    people: &People,
    rates: &mut Vec<Rate>,
) -> Result<(), Failure> {
    scene.title("5. Rotate the key and re-encrypt")?;
    let key = world.admin().keys().rotate("tenants/acme/keys/pii").await?;
    expect(key.primary_version == 2, "the rotation makes version 2")?;
    scene.done("acme/pii now encrypts with version 2; version 1 still decrypts")?;
    let (sealed, renewed) = (world.path("sealed.csv"), world.path("renewed.csv"));
    let direction = Direction::ReEncrypt {
        keep_going: false,
        dry_run: false,
    };
    let (counts, elapsed) = convert(&people.app, direction, None, &sealed, &renewed).await?;
    rates.push(Rate {
        what: "re-encrypt a file",
        count: counts.values,
        unit: "values",
        elapsed,
    });
    scene.done(&format!(
        "{} values re-encrypted; no plaintext left the service",
        thousands(counts.values)
    ))?;
    let (old, new) = (
        versions(&rows(&read(&sealed)?)?),
        versions(&rows(&read(&renewed)?)?),
    );
    let count = |counts: &std::collections::BTreeMap<u32, u64>, version| {
        counts.get(&version).copied().unwrap_or_default()
    };
    expect(
        count(&old, 1) == counts.values && count(&new, 2) == counts.values,
        "every value moves to version 2",
    )?;
    expect(count(&new, 1) == 0, "no value stays at version 1")?;
    let row = |version: u32| {
        vec![
            version.to_string(),
            thousands(count(&old, version)),
            thousands(count(&new, version)),
        ]
    };
    scene.table(
        &["key version", "values before", "values after"],
        vec![row(1), row(2)],
    )?;
    world
        .admin()
        .keys()
        .disable_version("tenants/acme/keys/pii", 1)
        .await?;
    scene.done("version 1 is disabled: old copies of the file open no more")?;
    let text = rows(&read(&sealed)?)?
        .get(SHOWN[0])
        .and_then(|row| row.get("email"))
        .cloned()
        .unwrap_or_default();
    let old_copy = people
        .app
        .field("pii", "customer.email")
        .context("id", SHOWN[0])
        .decrypt_str(&text)
        .await;
    refused(
        scene,
        "acme/app, with a value of the old copy",
        old_copy,
        ErrorKind::FailedPrecondition,
    )
}

async fn restore(
    world: &World,
    scene: &Scene,
    people: &People,
    rates: &mut Vec<Rate>,
) -> Result<(), Failure> {
    scene.title("6. Decrypt the file again, as acme/app")?;
    let (renewed, opened) = (world.path("renewed.csv"), world.path("opened.csv"));
    let direction = Direction::Decrypt { keep_going: false };
    let (counts, elapsed) = convert(&people.app, direction, None, &renewed, &opened).await?;
    rates.push(Rate {
        what: "decrypt a file",
        count: counts.values,
        unit: "values",
        elapsed,
    });
    expect(
        read(&opened)? == CUSTOMERS,
        "the file comes back byte for byte",
    )?;
    scene.done(&format!(
        "{} values decrypted; the file is the one we began with, byte for byte",
        thousands(counts.values)
    ))
}

/// Ends the demo if something is not as it says.
pub(super) fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format_args!("the demo expected that {what}, and it was not so"),
    )
    .help("please report this as a bug"))
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| super::super::failure::file_failure("read", path, &error))
}
