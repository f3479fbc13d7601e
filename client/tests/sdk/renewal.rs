//! Identity files that change while a client is in use.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use fieldkeep_client::{Client, ConfigError, Error, reason};
use tokio::sync::Notify;

use crate::{
    fake::{Fake, Step},
    identities::{Authority, Identity},
};

/// The three files of a client.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn write(ca: &Authority, identity: &Identity) -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(files.path("ca.pem"), &ca.pem).unwrap();
        fs::write(files.path("app.pem"), &identity.certificate).unwrap();
        fs::write(files.path("app.key"), &identity.key).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client(&self, fake: &Fake, check: Duration) -> Client {
        Client::builder()
            .address(fake.address.to_string())
            .ca_file(self.path("ca.pem"))
            .identity_files(self.path("app.pem"), self.path("app.key"))
            .identity_check(check)
            .build()
            .unwrap()
    }
}

const ALWAYS: Duration = Duration::ZERO;
const NEVER: Duration = Duration::from_secs(1_000_000);

#[tokio::test]
async fn a_new_identity_is_used_by_new_connections_and_cuts_no_call() {
    let fake = Fake::start().await;
    let files = Files::write(&fake.authority, &fake.authority.client());
    let client = files.client(&fake, ALWAYS);
    let go_on = Arc::new(Notify::new());
    fake.script([Step::Wait(Arc::clone(&go_on))]);
    let field = client.field("pii", "f");
    let rest = async {
        fake.arrived(1).await;
        field.encrypt(b"with the same files").await.unwrap();
        let before = fake.accepted();
        let identity = fake.authority.client();
        fs::write(files.path("app.pem"), &identity.certificate).unwrap();
        fs::write(files.path("app.key"), &identity.key).unwrap();
        field.encrypt(b"with new files").await.unwrap();
        assert_eq!(fake.accepted(), before + 1);
        field.encrypt(b"on the new connection").await.unwrap();
        assert_eq!(fake.accepted(), before + 1);
        go_on.notify_one();
    };
    let (under_way, ()) = tokio::join!(field.encrypt(b"x"), rest);
    under_way.unwrap();
    assert_eq!(fake.calls().len(), 4, "none was tried again");
    assert!(client.identity_problem().is_none());
}

#[tokio::test]
async fn a_half_written_pair_is_left_until_it_is_whole() {
    let fake = Fake::start().await;
    let files = Files::write(&fake.authority, &fake.authority.client());
    let client = files.client(&fake, ALWAYS);
    let field = client.field("pii", "f");
    field.encrypt(b"x").await.unwrap();

    let identity = fake.authority.client();
    fs::write(files.path("app.pem"), &identity.certificate).unwrap();
    field.encrypt(b"x").await.unwrap();
    assert_eq!(fake.accepted(), 1, "the present connection goes on");
    let problem = client.identity_problem().unwrap();
    assert!(
        matches!(*problem, ConfigError::KeyMismatch { .. }),
        "{problem}"
    );

    fs::remove_file(files.path("app.key")).unwrap();
    field.encrypt(b"x").await.unwrap();
    let problem = client.identity_problem().unwrap();
    assert!(
        matches!(*problem, ConfigError::Unreadable { .. }),
        "{problem}"
    );

    fs::write(files.path("app.key"), &identity.key).unwrap();
    field.encrypt(b"x").await.unwrap();
    assert!(client.identity_problem().is_none());
    assert_eq!(fake.accepted(), 2);
}

#[tokio::test]
async fn a_refused_certificate_is_reason_enough_to_look_again() {
    let fake = Fake::start().await;
    let files = Files::write(&fake.authority, &fake.authority.expired_client());
    let client = files.client(&fake, NEVER);
    let field = client.field("pii", "f");
    let error = field.encrypt(b"x").await.unwrap_err();
    assert!(
        matches!(error, Error::CertificateRefused { .. }),
        "{error:?}"
    );
    let identity = fake.authority.client();
    fs::write(files.path("app.pem"), &identity.certificate).unwrap();
    fs::write(files.path("app.key"), &identity.key).unwrap();
    field.encrypt(b"x").await.unwrap();
}

#[tokio::test]
async fn a_new_ca_is_taken_over_when_the_old_one_is_not_the_services() {
    let fake = Fake::start().await;
    let files = Files::write(&Authority::make(), &fake.authority.client());
    let client = files.client(&fake, NEVER);
    let field = client.field("pii", "f");
    field.encrypt(b"x").await.unwrap_err();
    fs::write(files.path("ca.pem"), &fake.authority.pem).unwrap();
    field.encrypt(b"x").await.unwrap();
}

#[tokio::test]
async fn files_are_not_looked_at_before_the_interval_has_passed() {
    let fake = Fake::start().await;
    let files = Files::write(&fake.authority, &fake.authority.client());
    let client = files.client(&fake, NEVER);
    let field = client.field("pii", "f");
    fs::remove_file(files.path("app.key")).unwrap();
    field.encrypt(b"x").await.unwrap();
    assert!(client.identity_problem().is_none());
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_not_offered_for_renewal_again() {
    let fake = Fake::start().await;
    let identity = fake.authority.due_client();
    let address = fake.address.to_string();
    let builder = fake.authority.builder_as(&address, &identity);
    let client = builder.build().unwrap();
    fake.arrived(1).await;
    // The first pause after another failure is one second at most.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let calls: Vec<_> = fake.calls().iter().map(|call| call.rpc).collect();
    assert_eq!(calls, ["RenewCertificate"]);
    let problem = client.renewal_problem().unwrap();
    assert_eq!(problem.reason(), Some(reason::INVALID_REQUEST));
}
