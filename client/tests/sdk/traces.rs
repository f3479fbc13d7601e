//! The trace context of the caller.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use fieldkeep_client::{BatchEncrypt, EncryptItem};
use opentelemetry::{
    Context,
    trace::{
        FutureExt as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    },
};

use crate::fake::{Fake, Step, status};

fn context(state: &[(&str, &str)]) -> Context {
    let state = TraceState::from_key_value(state.iter().copied()).unwrap();
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        SpanId::from(0x00ad_6b71_6920_3331),
        TraceFlags::SAMPLED,
        false,
        state,
    ))
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00ad6b7169203331-01";

#[tokio::test]
async fn calls_carry_the_current_context_on_every_try() {
    let fake = Fake::start().await;
    let client = fake.client();
    let busy = status(tonic::Code::Unavailable, "STORE_UNAVAILABLE", "not now");
    fake.script([Step::Fail(busy)]);
    let field = client.field("pii", "f");
    let call = field.encrypt(b"x");
    call.with_context(context(&[("vendor", "1"), ("other", "2")]))
        .await
        .unwrap();
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(call.traceparent, PARENT);
        assert_eq!(call.tracestate, "vendor=1,other=2");
    }
}

#[tokio::test]
async fn all_calls_of_a_split_batch_carry_it() {
    let fake = Fake::start().await;
    let client = fake.client();
    let batch = BatchEncrypt {
        items: vec![EncryptItem::new("x"); 10_001],
        ..BatchEncrypt::default()
    };
    let call = client.encrypt_batch(batch);
    call.with_context(context(&[])).await.unwrap();
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(
            (call.traceparent.as_str(), call.tracestate.as_str()),
            (PARENT, "")
        );
    }
}

#[tokio::test]
async fn without_a_span_nothing_is_sent() {
    let fake = Fake::start().await;
    fake.client().field("pii", "f").encrypt(b"x").await.unwrap();
    assert_eq!(fake.calls()[0].traceparent, "");
}
