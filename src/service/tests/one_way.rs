//! What `perform` promises, whatever the operation is.

use bytes::Bytes;
use fieldkeep_proto::v1::Decision;
use tonic::Code;

use super::*;
use crate::access::action::Action;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;

#[tokio::test]
async fn a_call_is_in_the_trail_when_its_reply_leaves() {
    let f = Fixture::make().await;
    let call = f.call::<Encrypt>("acme/app");
    let id = call.request_id;
    f.service
        .perform(call, Ok(encrypt("pii", b"a@b.c")))
        .await
        .unwrap();
    let record = f.last_record();
    assert_eq!(record.request_id, id.as_bytes()[..]);
    assert_eq!(record.principal, "tenants/acme/identities/app");
    assert_eq!(
        (record.authentication.as_str(), record.address.as_str()),
        ("mtls", "127.0.0.1:9")
    );
    assert_eq!(
        (record.rpc.as_str(), record.action.as_str()),
        ("test/Rpc", "encrypt")
    );
    assert_eq!(record.decision(), Decision::Allowed);
    assert_eq!(
        (record.rule.as_str(), record.code, record.reason.as_str()),
        (f.rule_of("acme/app").as_str(), 0, "")
    );
    assert_eq!(record.time_us, NOW * 1_000_000);
    let [resource] = &record.resources[..] else {
        panic!("{record:?}")
    };
    assert_eq!(
        (resource.name.as_str(), resource.version),
        ("tenants/acme/keys/pii", 1)
    );
    assert_eq!((resource.field.as_str(), resource.items), ("email", 0));
    assert_eq!(record.context_hash.len(), 16);
    assert_eq!(record.credential, "0af1");
}

#[tokio::test]
async fn without_a_grant_or_with_another_one_nothing_is_done() {
    let f = Fixture::make().await;
    for identity in ["acme/boss", "acme/nobody"] {
        let rule = "no-grant";
        let refused = f.encrypt(identity, b"x").await.unwrap_err();
        assert_eq!(refused_by(&refused), rule);
        let record = f.last_record();
        assert_eq!(record.decision(), Decision::Refused);
        assert_eq!((record.rule.as_str(), record.reason.as_str()), (rule, rule));
        assert_eq!(record.code, i32::from(Code::PermissionDenied));
        assert_eq!(record.resources[0].name, "tenants/acme/keys/pii");
    }
    assert_eq!(
        f.keystore.cache_stats().misses,
        0,
        "a key was looked up before the caller was authorized"
    );
}

#[tokio::test]
async fn a_call_without_a_valid_message_is_on_record() {
    let f = Fixture::make().await;
    let invalid = Failure::invalid("field", "x".repeat(5000));
    let refused = f
        .service
        .perform::<Encrypt>(f.call::<Encrypt>("acme/app"), Err(invalid.clone()))
        .await;
    assert_eq!(refused.unwrap_err().failure, invalid);
    let record = f.last_record();
    assert_eq!(
        (record.decision(), record.rule.as_str()),
        (Decision::Refused, "invalid")
    );
    assert!(record.reason.starts_with("invalid `field`: xxx") && record.reason.len() <= 512);
}

#[tokio::test]
async fn a_caller_without_a_name_is_refused_on_record() {
    let f = Fixture::make().await;
    let mut call = f.call::<Encrypt>("acme/app");
    call.peer = Arc::new(Peer::new(None, "127.0.0.1:9".parse().unwrap()));
    let refused = f
        .service
        .perform(call, Ok(encrypt("pii", b"x")))
        .await
        .unwrap_err();
    assert_eq!(refused.failure.verdict().0, Code::Unauthenticated);
    let record = f.last_record();
    assert_eq!(
        (record.principal.as_str(), record.rule.as_str()),
        ("", "unauthenticated")
    );
}

#[tokio::test]
async fn an_open_connection_outlives_its_certificate_without_rights() {
    let f = Fixture::make().await;
    f.clock.0.store(NOW + 2000, Ordering::SeqCst);
    let refused = f.encrypt("acme/app", b"x").await.unwrap_err();
    assert_eq!(refused.verdict().0, Code::Unauthenticated);
    assert_eq!(f.last_record().rule, "certificate-expired");
}

#[tokio::test]
async fn without_the_trail_there_is_no_reply() {
    // No record fits into ten bytes, so that every append fails.
    let f = Fixture::make_with(10).await;
    assert!(f.service.core().is_serving());
    assert_eq!(
        f.encrypt("acme/app", b"x").await,
        Err(Failure::AuditUnavailable)
    );
    assert!(!f.service.core().is_serving());
    // Nothing is even begun while it is so.
    let before = f.keystore.store().revision().await.unwrap();
    let create = crate::service::keys::CreateTenant {
        tenant: name("new"),
        request: Repeatable::parse("", b"").unwrap(),
    };
    assert_eq!(
        f.perform("acme/boss", create).await.unwrap_err(),
        Failure::AuditUnavailable
    );
    assert_eq!(f.keystore.store().revision().await.unwrap(), before);
}

/// Takes the caller's own rights away while it runs, as another call may do.
struct LosesItsRights;

impl Operation for LosesItsRights {
    const ACTION: Action = Action::Decrypt;
    type Output = &'static str;

    fn asks<'a>(&'a self, _: &'a Principal) -> Asks<'a> {
        Asks::OfFields
    }

    fn about(&self, _: &Principal, _: &mut Account) {}

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        _: &mut Account,
    ) -> Result<&'static str, Failure> {
        revoke_all(&core.access, &permit.principal().resource).await;
        Ok("plaintext")
    }
}

#[tokio::test]
async fn a_right_that_is_lost_while_the_call_runs_keeps_the_reply_back() {
    let f = Fixture::make().await;
    let refused = f.perform("acme/app", LosesItsRights).await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    let records = f.records();
    let [ran, refused] = &records[records.len() - 2..] else {
        panic!()
    };
    assert_eq!((ran.decision(), ran.code), (Decision::Allowed, 0));
    assert_eq!(
        (refused.decision(), refused.rule.as_str()),
        (Decision::Refused, "no-grant")
    );
    assert_eq!(ran.request_id, refused.request_id);
}

/// Never ends.
struct Hangs;

impl Operation for Hangs {
    const ACTION: Action = Action::Encrypt;
    type Output = ();

    fn asks<'a>(&'a self, _: &'a Principal) -> Asks<'a> {
        Asks::OfFields
    }

    fn about(&self, _: &Principal, _: &mut Account) {}

    async fn run(self, _: &Core, _: &Permit<'_>, account: &mut Account) -> Result<(), Failure> {
        account.used(String::from("begun"), 0, "", 0);
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_record() {
    let f = Fixture::make().await;
    let call = f.call::<Hangs>("acme/app");
    {
        let mut hanging = Box::pin(f.service.perform(call, Ok(Hangs)));
        assert!(futures_util::poll!(&mut hanging).is_pending());
    }
    // The next call's record comes after it, so that both are durable.
    f.encrypt("acme/app", b"x").await.unwrap();
    let records = f.records();
    let given_up = &records[records.len() - 2];
    assert_eq!(
        (given_up.code, given_up.resources[0].name.as_str()),
        (i32::from(Code::Cancelled), "begun")
    );
}

/// A change that ends when it is told to.
pub(crate) struct UntilReleased(Arc<tokio::sync::Notify>);

impl UntilReleased {
    /// Begins one, gives up waiting for it, and gives back what lets it end.
    pub(crate) async fn start_and_give_up(f: &Fixture) -> Arc<tokio::sync::Notify> {
        let release = Arc::new(tokio::sync::Notify::new());
        let call = f.call::<Self>("acme/boss");
        let operation = Self(Arc::clone(&release));
        let mut given_up = Box::pin(f.service.perform(call, Ok(operation)));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        tokio::task::yield_now().await;
        release
    }
}

impl Operation for UntilReleased {
    const ACTION: Action = Action::Manage;
    const CHANGES: bool = true;
    type Output = ();

    fn asks<'a>(&'a self, _: &'a Principal) -> Asks<'a> {
        Asks::OfFields
    }

    fn about(&self, _: &Principal, _: &mut Account) {}

    async fn run(self, _: &Core, _: &Permit<'_>, _: &mut Account) -> Result<(), Failure> {
        self.0.notified().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_route_with_another_action_reaches_nothing() {
    let f = Fixture::make().await;
    let mut call = f.call::<Encrypt>("acme/app");
    call.action = Action::Status;
    let refused = f
        .service
        .perform(call, Ok(encrypt("pii", b"x")))
        .await
        .unwrap_err();
    assert_eq!(refused.failure.verdict().0, Code::Internal);
}

#[tokio::test]
async fn a_service_that_shuts_down_takes_no_call() {
    let f = Fixture::make().await;
    f.service.core().start_draining();
    assert_eq!(
        f.encrypt("acme/app", b"x").await,
        Err(Failure::ShuttingDown)
    );
    assert!(!f.service.core().is_serving());
    assert_eq!(f.last_record().rule, "not-serving");
}

#[tokio::test]
async fn what_the_transport_refuses_is_on_record() {
    let f = Fixture::make().await;
    let refusal = f
        .service
        .refuse(
            f.call::<Encrypt>("acme/app"),
            Failure::RequestTooLarge { limit: 9 },
        )
        .await;
    assert_eq!(refusal.failure, Failure::RequestTooLarge { limit: 9 });
    let record = f.last_record();
    assert_eq!(
        (record.rule.as_str(), record.code),
        ("invalid", i32::from(Code::InvalidArgument))
    );
}

#[tokio::test]
async fn no_plaintext_or_context_value_is_in_the_trail() {
    let f = Fixture::make().await;
    let secret = b"alice.secret@example.org";
    let operation = Encrypt {
        key: key("pii"),
        field: field("email"),
        context: context("customer-4711"),
        plaintext: Bytes::from_static(secret),
    };
    f.perform("acme/app", operation).await.unwrap();
    let record = prost::Message::encode_to_vec(&f.last_record());
    for hidden in [&secret[..], b"customer-4711"] {
        assert!(!record.windows(hidden.len()).any(|window| window == hidden));
    }
}
