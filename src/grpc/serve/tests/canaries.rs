//! Secrets are planted wherever a caller can give one, every RPC of the contract is called, and everything that was written is
//! searched: the store's files, the audit trail, the log of the process, the metrics.

use std::io;
use std::sync::{Arc, Mutex};

use fieldkeep_harness::canary::Canaries;
use fieldkeep_keystore::store::Store;
use fieldkeep_keystore::store::sled::{SledOptions, SledStore};
use fieldkeep_proto::v1::{
    AuditItems, ContextPair, CreateJoinTokenRequest, CreateJoinTokenResponse, EnrollRequest,
    GetStatusRequest, SetKeyAuditItemsRequest,
};
use tracing_subscriber::fmt::MakeWriter;

use super::credentials::{made, nobody, with_headers};
use super::matrix::{Cell, Secrets, csr, path, rows, unknown_join_token};
use super::*;
use crate::service::tests::agree;

const STATUS: &str = "/fieldkeep.v1.SystemService/GetStatus";
const ENROLL: &str = "/fieldkeep.v1.CertificateService/Enroll";
const SET_AUDIT_ITEMS: &str = "/fieldkeep.v1.KeyService/SetKeyAuditItems";
const JOIN_TOKEN: &str = "/fieldkeep.v1.CertificateService/CreateJoinToken";

/// What the process logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// A service over a store on the disk.
struct OnDisk {
    f: Fixture,
    store: Arc<SledStore>,
    dir: tempfile::TempDir,
}

impl OnDisk {
    async fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) =
            SledStore::open(&dir.path().join("store"), SledOptions::default()).unwrap();
        let store = Arc::new(store);
        let f = Fixture::make_in(Arc::clone(&store) as Arc<dyn Store>).await;
        Self { f, store, dir }
    }
}

fn context(value: &str) -> Vec<ContextPair> {
    vec![ContextPair {
        name: "id".into(),
        value: value.to_owned(),
    }]
}

/// Seals `plaintext` under the key of a tenant.
async fn sealed(f: &Fixture, tenant: &str, secrets: &Secrets) -> Bytes {
    let request = EncryptRequest {
        plaintext: secrets.plaintext.clone(),
        context: secrets.context.clone(),
        ..encrypt()
    };
    let caller = format!("{tenant}/app");
    let response = call(f, Listener::Data, &caller, ENCRYPT, &request).await;
    message::<EncryptResponse>(response).await.ciphertext
}

/// Calls every RPC as an admin, as an application and as nobody in particular.
async fn call_everything(f: &Fixture, secrets: &Secrets) {
    for (service, (rpc, _, _, make)) in rows() {
        let path = path(service, rpc);
        for caller in ["acme/boss", "acme/app", "acme/nobody"] {
            for tenant in ["acme", "other"] {
                let cell = Cell {
                    tenant,
                    ciphertext: sealed(f, tenant, secrets).await,
                    victim: "g-0123456789abcdef".into(),
                    secrets: secrets.clone(),
                };
                let body = frame(&make(&cell));
                let response = send(f, Listener::Admin, caller, &path, body).await;
                drop(response.into_body().collect().await);
                if rpc.starts_with("Disable") {
                    // The calls that follow are to find their key.
                    enable(f, &cell).await;
                }
            }
        }
    }
}

async fn enable(f: &Fixture, cell: &Cell) {
    for name in ["EnableKey", "EnableKeyVersion"] {
        let all = rows();
        let (service, row) = all.iter().find(|(_, row)| row.0 == name).unwrap();
        let body = frame(&(row.3)(cell));
        let reply = send(f, Listener::Admin, "acme/boss", &path(service, name), body).await;
        drop(reply.into_body().collect().await);
    }
}

/// Calls that are malformed around a secret, whose refusals say what is wrong.
async fn call_malformed(f: &Fixture, secrets: &Secrets) {
    let value = &secrets.context[0].value;
    let twice = [secrets.context.clone(), secrets.context.clone()].concat();
    for context in [twice, context(&value.repeat(200))] {
        let request = EncryptRequest {
            plaintext: secrets.plaintext.clone(),
            context: context.clone(),
            ..encrypt()
        };
        let response = call(f, Listener::Data, "acme/app", ENCRYPT, &request).await;
        assert_eq!(reason(&response), "INVALID_REQUEST");
        let request = DecryptRequest {
            // Who mixes up the two shows a plaintext where a ciphertext should be.
            ciphertext: secrets.plaintext.clone(),
            field: "email".into(),
            context,
        };
        call(f, Listener::Data, "acme/app", DECRYPT, &request).await;
    }
    let long = EncryptRequest {
        plaintext: Bytes::from(secrets.plaintext.repeat(4_000)),
        ..encrypt()
    };
    call(f, Listener::Data, "acme/app", ENCRYPT, &long).await;
    // Not a message, with a plaintext in it.
    let body = frame(&[&[0xFF, 0xFF][..], &secrets.plaintext].concat());
    send(f, Listener::Data, "acme/app", ENCRYPT, body).await;
}

/// Credentials of callers: genuine, wrong and malformed ones.
async fn show_credentials(f: &Fixture, canaries: &mut Canaries) {
    let key = made(f, "app", &[]).await.secret;
    canaries.plant("API key", &key.as_bytes()[20..60]);
    let wrong = canaries.text("token of the caller");
    let jwt = format!("eyJhbGciOiJFUzI1NiJ9.{}.{wrong}", canaries.text("claims"));
    let connection = nobody("127.0.0.1:9");
    for credential in [&key, &key[..60].to_owned(), &wrong, &jwt] {
        let value = format!("Bearer {credential}");
        with_headers(f, &connection, &[&value], ENCRYPT, &encrypt()).await;
        with_headers(f, &connection, &[credential], ENCRYPT, &encrypt()).await;
    }
    let request = CreateJoinTokenRequest {
        identity: "tenants/acme/identities/worker".into(),
        ttl_seconds: 0,
    };
    let response = call(f, Listener::Admin, "acme/boss", JOIN_TOKEN, &request).await;
    let token = message::<CreateJoinTokenResponse>(response).await.token;
    canaries.plant("join token", &token.as_bytes()[21..61]);
    let secret = data_encoding::HEXLOWER.decode(&token.as_bytes()[21..61]);
    canaries.plant("join token's secret", &secret.unwrap());
    let enroll = |token: &str| EnrollRequest {
        token: token.to_owned(),
        csr_der: csr(),
    };
    for token in [&token, &token, &token[..50].to_owned()] {
        with_headers(f, &connection, &[], ENROLL, &enroll(token)).await;
    }
}

#[tokio::test]
async fn no_secret_is_written_anywhere() {
    let log = Log::default();
    let subscriber = || {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish()
    };
    // While there is but one subscriber, threads of other tests, which have none, decide for all what is logged.
    let _second = tracing::Dispatch::new(subscriber());
    let _logging = tracing::subscriber::set_default(subscriber());
    let OnDisk { f, store, dir } = OnDisk::make().await;
    let mut canaries = Canaries::default();
    let join_secret = canaries.bytes("unknown join token")[..20]
        .try_into()
        .unwrap();
    let join_token = unknown_join_token(&join_secret);
    canaries.plant("unknown join token's secret", &join_secret);
    canaries.plant("unknown join token", &join_token.as_bytes()[21..61]);
    let secrets = Secrets {
        plaintext: canaries.bytes("plaintext").into(),
        context: context(&canaries.text("context value")),
        join_token,
        token: canaries.text("token to check"),
    };
    // What the trail has of each item is more than without it.
    for tenant in ["acme", "other"] {
        let request = SetKeyAuditItemsRequest {
            name: format!("tenants/{tenant}/keys/pii"),
            audit_items: AuditItems::Hashes.into(),
            ..Default::default()
        };
        let response = call(&f, Listener::Admin, "acme/boss", SET_AUDIT_ITEMS, &request).await;
        assert!(Status::from_header_map(response.headers()).is_none());
    }
    call_everything(&f, &secrets).await;
    call_malformed(&f, &secrets).await;
    show_credentials(&f, &mut canaries).await;
    let status = call(
        &f,
        Listener::Admin,
        "acme/boss",
        STATUS,
        &GetStatusRequest {},
    )
    .await;
    assert!(Status::from_header_map(status.headers()).is_none());

    let records = f.records();
    for rpc in ["Encrypt", "BatchDecrypt", "ReEncryptStream"] {
        let hashed = records.iter().any(|record| {
            let mut used = record.resources.iter();
            record.rpc.ends_with(&format!("/{rpc}")) && used.any(|one| !one.item_hashes.is_empty())
        });
        assert!(hashed, "{rpc} left no hash of an item");
    }
    agree(&records, &f.keystore).await;
    store.compact().await.unwrap();
    let page = f.metrics.render().unwrap();
    let log = log.0.lock().unwrap().clone();
    assert!(page.contains("fieldkeep_calls_total"));
    let found = [
        canaries.found_below(dir.path()),
        canaries.found_below(f.dir()),
        canaries.found_in(&log),
        canaries.found_in(page.as_bytes()),
    ];
    assert!(found.concat().is_empty(), "{found:#?}");
    assert!(!log.is_empty(), "nothing was logged");
}
