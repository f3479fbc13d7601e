//! Lists that come in pages, and the rest of administration.

use std::time::Duration;

use fieldkeep_client::Error;
use tonic::{Code, Status};

use crate::fake::{Fake, Step};

#[tokio::test]
async fn every_list_runs_through_all_pages() {
    let fake = Fake::start().await;
    let client = fake.client();
    let keys = client.keys().list("default").collect().await.unwrap();
    let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names[0], "tenants/default/keys/k0");
    assert_eq!(names.len(), 5);
    assert_eq!(fake.calls().len(), 3);
    assert_eq!(client.tenants().list().collect().await.unwrap().len(), 5);
    let grants = client.grants().list("t", "").collect().await.unwrap();
    assert_eq!(grants[4].principal, "tenants/t/identities/i4");
    let grants = client.grants().list("", "").collect().await.unwrap();
    assert_eq!(grants[0].principal, "/identities/i0");
    let groups = client.groups().list("t").collect().await.unwrap();
    assert_eq!(groups[4].name, "tenants/t/groups/g4");
    let members = client.groups().members("g").collect().await.unwrap();
    assert_eq!(
        (members[1].group.as_str(), members[1].member.as_str()),
        ("g", "i1")
    );
    let asked = fieldkeep_proto::v1::WhoCanRequest {
        action: "decrypt".into(),
        ..Default::default()
    };
    let holders = client.who_can(asked).collect().await.unwrap();
    assert_eq!(holders[3].identities, ["decrypt3"]);
    assert_eq!(client.audit().list().collect().await.unwrap()[4].index, 4);
}

#[tokio::test]
async fn pages_have_the_size_asked_for_and_end() {
    let fake = Fake::start().await;
    let client = fake.client();
    let mut pages = client.audit().list().page_size(3);
    let mut sizes = Vec::new();
    while let Some(page) = pages.next_page().await.unwrap() {
        sizes.push(page.len());
    }
    assert_eq!(sizes, [3, 2]);
    assert!(pages.next_page().await.unwrap().is_none());
}

#[tokio::test]
async fn a_page_that_failed_can_be_asked_for_again() {
    let fake = Fake::start().await;
    let client = fake.client();
    let mut pages = client.tenants().list();
    fake.script([
        Step::Answer,
        Step::Fail(Status::new(Code::Internal, "once")),
    ]);
    assert_eq!(pages.next_page().await.unwrap().unwrap().len(), 2);
    pages.next_page().await.unwrap_err();
    let page = pages.next_page().await.unwrap().unwrap();
    assert_eq!(page[0].name, "tenants/t2");
}

#[tokio::test]
async fn a_list_that_never_ends_is_an_error() {
    let fake = Fake::start().await;
    let error = fake
        .client()
        .keys()
        .list("loop")
        .collect()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Reply { .. }), "{error:?}");
}

#[tokio::test]
async fn status_key_and_certificate() {
    let fake = Fake::start().await;
    let client = fake.client();
    assert_eq!(client.status().await.unwrap().version, "0.0.0-fake");
    assert_eq!(client.keys().show("pii").await.unwrap().name, "pii");
    let issued = client
        .issue_certificate(&b"csr"[..], "app", Duration::from_millis(1500))
        .await
        .unwrap();
    assert_eq!(issued.certificate_pem, "app 2", "the life is rounded up");
}

#[tokio::test]
async fn a_tail_ends_with_the_services_and_proofs_are_asked_for_as_given() {
    let fake = Fake::start().await;
    let client = fake.client();
    let request = fieldkeep_proto::v1::TailRecordsRequest {
        start_index: Some(7),
        ..Default::default()
    };
    let mut tail = client.audit().tail(request).await.unwrap();
    let mut steps = Vec::new();
    while let Some(step) = tail.next_step().await.unwrap() {
        steps.push((step.entries.len(), step.next_index));
    }
    assert_eq!(steps, [(1, 8), (0, 8)]);
    let audit = client.audit();
    assert_eq!(audit.checkpoint().await.unwrap().checkpoint, "a note");
    assert_eq!(audit.prove(5, None).await.unwrap().proof, "5 0");
    assert_eq!(audit.prove(5, Some([1; 32])).await.unwrap().proof, "5 32");
    assert_eq!(audit.prove_consistency("old").await.unwrap().proof, "old");
}

#[tokio::test]
async fn a_report_is_whole_with_its_signature_alone() {
    let fake = Fake::start().await;
    let client = fake.client();
    let mut request = fieldkeep_proto::v1::MakeReportRequest::default();
    let made = client.audit().make_report(request).await.unwrap();
    assert_eq!(made.report, b"a report");
    assert_eq!(made.signature, "a signature");
    request.start_time_us = 1_800_000_000_000_000;
    let error = client.audit().make_report(request).await.unwrap_err();
    assert!(matches!(error, Error::Reply { .. }), "{error:?}");
}
