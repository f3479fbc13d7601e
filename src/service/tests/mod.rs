//! The service over a store in memory and a real audit trail.

mod batches;
mod busy;
mod fields;
mod intents;
mod items;
mod limits;
mod management;
mod masks;
mod one_way;
mod refusals;
mod reports;
mod rights;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::Suite;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_keystore::root::key_file::KeyFile;
use fieldkeep_keystore::store::memory::MemoryStore;
use fieldkeep_keystore::store::{Operation as StoreOperation, Store};
use fieldkeep_proto::v1::AuditRecord;
use tempfile::TempDir;

pub(crate) use self::intents::agree;
pub(crate) use self::one_way::UntilReleased;
use crate::access::ca::Ca;
use crate::access::certificates::Certificates;
use crate::access::grant::{GrantId, Scope, Wanted, Who};
use crate::access::limits::shed::{Place, ShedOptions};
use crate::access::pattern::Pattern;
use crate::access::principal::{Identity, Principal};
use crate::access::role::Role;
use crate::access::{Access, By};
use crate::audit::AuditLog;
use crate::service::call::{Call, Peer};
use crate::service::failure::Failure;
use crate::service::field::{Decrypt, Encrypt, Opened, Sealed};
use crate::service::keys::ChangeState;
use crate::service::operation::Repeatable;
use crate::service::perform::{Operation, Refusal, Reply};
use crate::service::refusals::RefusalOptions;
use crate::service::resource::{FieldName, KeyName};
use crate::service::system::{About, CertificateEnd};
use crate::service::vault::Vault;
use crate::service::{Clock, Core, Limits, Parts, Service};
use crate::telemetry::Metrics;

pub(crate) const NOW: u64 = 1_800_000_000;
const ROOT_KEY: &str = "root.key";
const AUDIT: &str = "audit";
const AUDIT_RECORD_BYTES: usize = crate::audit::MAX_RECORD_BYTES;

struct TestClock(AtomicU64);

impl Clock for Arc<TestClock> {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1_000_000
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1_000_000_000
    }
}

/// A service with the tenants `acme` and `other`, each with a key `pii` and an identity `app` that is granted the role data;
/// `acme` also has an admin of all tenants, `boss`.
pub(crate) struct Fixture {
    pub(crate) service: Service,
    pub(crate) keystore: Keystore,
    access: Access,
    audit: AuditLog,
    clock: Arc<TestClock>,
    pub(crate) metrics: Metrics,
    dir: TempDir,
}

impl Fixture {
    pub(crate) async fn make() -> Self {
        Self::make_with(AUDIT_RECORD_BYTES).await
    }

    /// A fixture whose trail takes no record longer than `max_payload_bytes`.
    async fn make_with(max_payload_bytes: usize) -> Self {
        Self::make_within(max_payload_bytes, each_on_record()).await
    }

    /// A fixture with streams that end after `stream_idle` without a message.
    pub(crate) async fn make_impatient(stream_idle: Duration) -> Self {
        let limits = Limits {
            stream_idle,
            ..each_on_record()
        };
        Self::make_within(AUDIT_RECORD_BYTES, limits).await
    }

    /// A fixture that sheds what goes beyond `calls` under way.
    pub(crate) async fn make_narrow(calls: u32) -> Self {
        let limits = Limits {
            shed: ShedOptions {
                calls,
                ..ShedOptions::default()
            },
            ..each_on_record()
        };
        Self::make_within(AUDIT_RECORD_BYTES, limits).await
    }

    /// A place of `identity` among the calls under way.
    pub(crate) fn place(&self, identity: &str) -> Option<Place> {
        let call = self.call::<Encrypt>(identity);
        self.service.place(&call, None).ok().flatten()
    }

    /// How many calls are under way.
    pub(crate) fn under_way(&self) -> u32 {
        self.service.core().overload.under_way()
    }

    /// A fixture whose changes of rights wait for nobody long.
    async fn make_unsettled() -> Self {
        let limits = Limits {
            settling: Duration::from_millis(50),
            ..each_on_record()
        };
        Self::make_within(AUDIT_RECORD_BYTES, limits).await
    }

    async fn make_within(max_payload_bytes: usize, limits: Limits) -> Self {
        let options = fieldkeep_journal::Options {
            segment_bytes: 1 << 20,
            max_payload_bytes,
            // A task that outlives its test may still write when the directory is gone; that must not end the other tests.
            on_fatal: fieldkeep_journal::FatalHook::new(|_| {}),
            ..Default::default()
        };
        let disk = Arc::new(fieldkeep_journal::SystemDisk);
        Self::make_on(disk, options, limits).await
    }

    /// A fixture with its trail on `disk`.
    async fn make_on(
        disk: Arc<dyn fieldkeep_journal::Disk>,
        options: fieldkeep_journal::Options,
        limits: Limits,
    ) -> Self {
        Self::make_over(Arc::new(MemoryStore::new()), disk, options, limits).await
    }

    /// A fixture with its keys in `store`, which is empty, and the usual trail.
    pub(crate) async fn make_in(store: Arc<dyn Store>) -> Self {
        let disk = Arc::new(fieldkeep_journal::SystemDisk);
        let options = fieldkeep_journal::Options {
            segment_bytes: 1 << 20,
            max_payload_bytes: AUDIT_RECORD_BYTES,
            on_fatal: fieldkeep_journal::FatalHook::new(|_| {}),
            ..Default::default()
        };
        Self::make_over(store, disk, options, each_on_record()).await
    }

    /// Where its trail is, and its root key.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A fixture with its keys in `store`, which is empty.
    async fn make_over(
        store: Arc<dyn Store>,
        disk: Arc<dyn fieldkeep_journal::Disk>,
        options: fieldkeep_journal::Options,
        limits: Limits,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = KeyFile::create(dir.path().join(ROOT_KEY)).unwrap();
        let keystore = Keystore::init(store, &root, NOW).await.unwrap();
        let access = Access::load(&keystore).await.unwrap();
        let ca = Ca::make(&keystore, "fieldkeep", operation(), NOW)
            .await
            .unwrap()
            .value;
        let audit = AuditLog::open_on(
            disk,
            &dir.path().join(AUDIT),
            options,
            crate::audit::keys::LogKeys::testing,
            None,
        )
        .unwrap();
        let clock = Arc::new(TestClock(AtomicU64::new(NOW)));
        for tenant in ["acme", "other"] {
            let tenant = name(tenant);
            keystore
                .create_tenant(&tenant, operation(), NOW)
                .await
                .unwrap();
            keystore
                .create_key(
                    &tenant,
                    &name("pii"),
                    Suite::KcXaes256Gcm.into(),
                    operation(),
                    NOW,
                )
                .await
                .unwrap();
            let app = Who::Identity(Identity::new(tenant.clone(), name("app")));
            let wanted = Wanted::all_of(Role::Data, Scope::Tenant(tenant), app);
            access
                .grant(wanted, By::Init, operation(), NOW)
                .await
                .unwrap();
        }
        let boss = Who::Identity(Identity::new(name("acme"), name("boss")));
        let wanted = Wanted::all_of(Role::Admin, Scope::All, boss);
        access
            .grant(wanted, By::Init, operation(), NOW)
            .await
            .unwrap();
        let certificates = Certificates::load(&keystore, ca.certificate(), "fieldkeep", NOW)
            .await
            .unwrap();
        let core = Core::new(Parts {
            api_key_hash: keystore.derive_api_key_hash_key(),
            certificates,
            vault: Vault::new(keystore.clone()),
            access: access.clone(),
            audit: audit.clone(),
            ca,
            limits,
            clock: Arc::new(Arc::clone(&clock)),
            about: About {
                started_s: NOW,
                certificate_end: CertificateEnd::default(),
                data_dir: None,
            },
        })
        .unwrap();
        let (service, hub) = core.on_runtime();
        tokio::spawn(hub);
        Self {
            service,
            keystore,
            access,
            audit,
            clock,
            metrics: Metrics::new().unwrap(),
            dir,
        }
    }

    /// A call of `identity`, `tenant/name`, for an operation of type `O`.
    fn call<O: Operation>(&self, identity: &str) -> Call {
        Call {
            peer: peer(identity),
            request_id: self.service.core().request_ids().next(),
            started: Instant::now(),
            rpc: "test/Rpc",
            action: O::ACTION,
            request_bytes: 0,
            wants_receipt: false,
            metrics: self.metrics.rpc("test/Rpc"),
            trace: None,
        }
    }

    async fn perform<O: Operation>(
        &self,
        identity: &str,
        operation: O,
    ) -> Result<O::Output, Failure> {
        value(
            self.service
                .perform(self.call::<O>(identity), Ok(operation))
                .await,
        )
    }

    async fn encrypt(&self, identity: &str, plaintext: &'static [u8]) -> Result<Sealed, Failure> {
        self.perform(identity, encrypt("pii", plaintext)).await
    }

    /// Takes everything back that is granted to `acme/app`.
    pub(crate) async fn revoke_app(&self) {
        revoke_all(&self.access, "tenants/acme/identities/app").await;
    }

    /// Takes everything back that is granted to an identity.
    pub(crate) async fn revoke_all_of(&self, tenant: &str, text: &str) {
        revoke_all(&self.access, &format!("tenants/{tenant}/identities/{text}")).await;
    }

    /// Grants `wanted`.
    pub(crate) async fn grant(&self, wanted: Wanted) -> GrantId {
        let granted = self.access.grant(wanted, By::Init, operation(), NOW).await;
        granted.unwrap().value.id
    }

    /// The rule of the record of a call that the one grant of `identity`, `tenant/name`, allowed.
    pub(crate) fn rule_of(&self, identity: &str) -> String {
        let (tenant, text) = identity.split_once('/').unwrap();
        let resource = format!("tenants/{tenant}/identities/{text}");
        self.access.snapshot().grants_of(&resource)[0]
            .id
            .as_rule()
            .to_owned()
    }

    /// Disables the key `pii` of `acme`.
    pub(crate) async fn disable_pii(&self) {
        let disable = ChangeState {
            key: key("pii"),
            version: None,
            enabled: false,
            request: Repeatable::parse("", b"").unwrap(),
        };
        self.perform("acme/boss", disable).await.unwrap();
    }

    /// Sets the clock forward.
    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Sets the clock, Unix seconds.
    pub(crate) fn set_time(&self, now_s: u64) {
        self.clock.0.store(now_s, Ordering::SeqCst);
    }

    /// The records of the trail, oldest first.
    pub(crate) fn records(&self) -> Vec<AuditRecord> {
        self.audit
            .read_from(0)
            .map(|entry| entry.unwrap().1)
            .collect()
    }

    pub(crate) fn last_record_index(&self) -> u64 {
        self.audit.len()
    }

    /// The same as [`Fixture::last_record`], without a look at all others.
    pub(crate) fn newest_record(&self) -> AuditRecord {
        self.audit.list(None, 1).unwrap().remove(0).1
    }

    pub(crate) fn last_record(&self) -> AuditRecord {
        self.records().pop().unwrap()
    }
}

/// Limits of a fixture whose clock stands still, so that refusals would soon be too many for records of their own.
pub(super) fn each_on_record() -> Limits {
    Limits {
        refusals: RefusalOptions {
            of_one: u32::MAX,
            unauthenticated: u32::MAX,
        },
        ..Limits::default()
    }
}

/// Takes everything back that is granted to the identity with this resource name.
pub(crate) async fn revoke_all(access: &Access, resource: &str) {
    let ids: Vec<GrantId> = access
        .snapshot()
        .grants_of(resource)
        .iter()
        .map(|grant| grant.id)
        .collect();
    for id in ids {
        access.revoke(id, operation(), NOW).await.unwrap();
    }
}

/// What is granted to `who`, `tenant/name`: `role` for these keys and fields of its tenant.
pub(crate) fn wanted(role: Role, who: &str, keys: &[&str], fields: &[&str]) -> Wanted {
    let (tenant, text) = who.split_once('/').unwrap();
    let patterns = |texts: &[&str]| {
        let parse = |text: &&str| Pattern::parse(text).unwrap();
        texts.iter().map(parse).collect()
    };
    let who = Who::Identity(Identity::new(name(tenant), name(text)));
    Wanted {
        keys: patterns(keys),
        fields: patterns(fields),
        ..Wanted::all_of(role, Scope::Tenant(name(tenant)), who)
    }
}

/// The rule of a refusal.
pub(crate) fn refused_by(failure: &Failure) -> &'static str {
    match failure {
        Failure::PermissionDenied(refused) => refused.rule,
        other => panic!("{other:?}"),
    }
}

fn value<T>(outcome: Result<Reply<T>, Refusal>) -> Result<T, Failure> {
    outcome
        .map(|reply| reply.into_parts().0)
        .map_err(|refusal| refusal.failure)
}

/// The peer of a connection of `identity`, `tenant/name`.
pub(crate) fn peer(identity: &str) -> Arc<Peer> {
    let (tenant, app) = identity.split_once('/').unwrap();
    let principal = Principal::new(&Identity::new(name(tenant), name(app)), (NOW + 1000) as i64)
        .with_serial(&[0, 0x0a, 0xf1]);
    Arc::new(Peer::new(Some(principal), "127.0.0.1:9".parse().unwrap()))
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn key(text: &str) -> KeyName {
    KeyName::parse(text.into()).unwrap()
}

fn field(text: &str) -> FieldName {
    FieldName::parse(text.into()).unwrap()
}

fn context(value: &str) -> EncodedContext {
    EncodedContext::encode([("id", value)]).unwrap()
}

pub(crate) fn operation() -> StoreOperation {
    let mut id = [0; 16];
    fieldkeep_crypto::random::fill(&mut id).unwrap();
    StoreOperation {
        id,
        fingerprint: [0; 32],
    }
}

fn encrypt(key_name: &str, plaintext: &'static [u8]) -> Encrypt {
    Encrypt {
        key: key(key_name),
        field: field("email"),
        context: context("42"),
        plaintext: Bytes::from_static(plaintext),
    }
}

fn decrypt(ciphertext: &Bytes) -> Decrypt {
    Decrypt {
        field: field("email"),
        context: context("42"),
        ciphertext: ciphertext.clone(),
    }
}

/// A value that leaves as it is.
fn whole(plaintext: &[u8]) -> Opened {
    Opened {
        plaintext: Bytes::copy_from_slice(plaintext),
        masked: false,
    }
}
