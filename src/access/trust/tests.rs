use std::task::{Context, Waker};

use fieldkeep_crypto::names::Name;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use time::OffsetDateTime;

use super::*;
use crate::access::{
    principal::Identity,
    revocation::{Revocation, Revoked},
    role::Role,
};

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn make() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn intermediate(&self) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "intermediate");
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    fn client(&self, uri: &str) -> CertificateDer<'static> {
        let date = |s: u64| OffsetDateTime::from_unix_timestamp(s.try_into().unwrap()).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date(NOW - 300);
        params.not_after = date(NOW + 3_600);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.0).unwrap().der().clone()
    }

    fn built_in(&self) -> Arc<Root> {
        Arc::new(Root::built_in(self.0.der(), "fieldkeep").unwrap())
    }

    fn external(&self, root: &str, domain: &str, tenants: &[&str]) -> Arc<Root> {
        let binding = Binding {
            name: name(root),
            trust_domain: domain.to_owned(),
            tenants: tenants.iter().map(|tenant| name(tenant)).collect(),
            ceiling: Role::Data,
        };
        Arc::new(Root::external(self.0.der(), binding).unwrap())
    }
}

fn state(roots: &[Arc<Root>]) -> TrustState {
    TrustState::new(roots.to_vec(), Arc::default())
}

const APP: &str = "spiffe://fieldkeep/tenant/acme/app";
const CORP: &str = "spiffe://corp.example/tenant/acme/app";

/// Who a chain names, and by which CA; `None`: nobody.
fn named(state: &TrustState, chain: &[CertificateDer<'_>]) -> Option<(String, Option<String>)> {
    let credential = state.authenticate(chain, NOW).unwrap()?;
    let root = credential.root.map(|root| root.as_str().to_owned());
    Some((credential.principal.resource.to_string(), root))
}

#[test]
fn each_ca_names_its_own_and_forgeries_name_nobody() {
    let (ours, corp) = (Authority::make(), Authority::make());
    let roots = [
        ours.built_in(),
        corp.external("corp", "corp.example", &["acme"]),
    ];
    let state = state(&roots);
    let resource = "tenants/acme/identities/app".to_owned();
    assert_eq!(
        named(&state, &[ours.client(APP)]),
        Some((resource.clone(), None))
    );
    let by_corp = Some((resource, Some("corp".to_owned())));
    assert_eq!(named(&state, &[corp.client(CORP)]), by_corp);
    for (forger, uri) in [
        // Another's trust domain.
        (&corp, APP),
        (&ours, CORP),
        // A tenant that the CA is not bound to.
        (&corp, "spiffe://corp.example/tenant/other/app"),
        (&corp, "spiffe://corp.example/tenant/default/admin"),
        (&corp, "spiffe://CORP.example/tenant/acme/app"),
        (&corp, "spiffe://corp.example.evil/tenant/acme/app"),
    ] {
        assert_eq!(named(&state, &[forger.client(uri)]), None, "{uri}");
    }
}

#[test]
fn a_chain_is_that_of_the_root_it_ends_in_also_through_an_intermediate() {
    let (ours, corp) = (Authority::make(), Authority::make());
    let between = corp.intermediate();
    let roots = [
        ours.built_in(),
        corp.external("corp", "corp.example", &["acme"]),
    ];
    let state = state(&roots);
    let chain = |uri| [between.client(uri), between.0.der().clone()];
    assert_eq!(
        named(&state, &chain(CORP)).unwrap().1.as_deref(),
        Some("corp")
    );
    assert_eq!(named(&state, &chain(APP)), None);
    // Our own CA's certificate beside it does not make it ours.
    let mixed = [
        between.client(APP),
        between.0.der().clone(),
        ours.0.der().clone(),
    ];
    assert_eq!(named(&state, &mixed), None);
}

#[test]
fn what_no_ca_signed_and_what_has_ended_is_refused() {
    let (ours, foreign) = (Authority::make(), Authority::make());
    let state = state(&[ours.built_in()]);
    let refused = |chain: &[CertificateDer<'_>], now| state.authenticate(chain, now).unwrap_err();
    let unknown = rustls::Error::from(CertificateError::UnknownIssuer);
    assert_eq!(refused(&[foreign.client(APP)], NOW), unknown);
    let expired = refused(&[ours.client(APP)], NOW + 3_601);
    assert!(format!("{expired:?}").contains("Expired"), "{expired:?}");
}

#[test]
fn a_serial_of_another_ca_has_its_name_before_it() {
    let (ours, corp) = (Authority::make(), Authority::make());
    let state = state(&[
        ours.built_in(),
        corp.external("corp", "corp.example", &["acme"]),
    ]);
    let serial = |chain: &[CertificateDer<'_>]| {
        let credential = state.authenticate(chain, NOW).unwrap().unwrap();
        (
            credential.principal.credential.to_string(),
            credential.issued_at,
        )
    };
    assert!(!serial(&[ours.client(APP)]).0.contains('.'));
    assert_eq!(serial(&[ours.client(APP)]).1, NOW, "ours are backdated");
    assert!(serial(&[corp.client(CORP)]).0.starts_with("corp."));
    assert_eq!(serial(&[corp.client(CORP)]).1, NOW - 300);
}

#[test]
fn revoked_ones_get_no_connection_and_lose_the_one_they_have() {
    let ours = Authority::make();
    let trust = Trust::new(state(&[ours.built_in()]));
    let (app, other) = (
        [ours.client(APP)],
        [ours.client("spiffe://fieldkeep/tenant/acme/other")],
    );
    let enter = |chain: &[CertificateDer<'_>]| trust.enter(chain, NOW + 3_600, NOW);
    let (open, _) = enter(&app).unwrap();
    let (kept, _) = enter(&other).unwrap();
    let identity = Identity::new(name("acme"), name("app"));
    let revocation = Revocation {
        what: Revoked::Identity(identity),
        time: NOW,
        until: 0,
        by: "admin".into(),
    };
    let revocations = Arc::new(Revocations::new([revocation]));
    let next = TrustState::new(vec![ours.built_in()], revocations);
    assert_eq!(trust.publish(next), 1);
    assert_eq!(open.standing().ended(), Some(Ended::Revoked));
    assert_eq!(kept.standing().ended(), None);
    let revoked = rustls::Error::from(CertificateError::Revoked);
    assert_eq!(enter(&app).unwrap_err(), revoked);
}

#[test]
fn a_removed_ca_ends_its_connections_alone() {
    let (ours, corp) = (Authority::make(), Authority::make());
    let external = corp.external("corp", "corp.example", &["acme"]);
    let trust = Trust::new(state(&[ours.built_in(), external]));
    let (by_corp, credential) = trust.enter(&[corp.client(CORP)], NOW + 60, NOW).unwrap();
    let (by_ours, _) = trust.enter(&[ours.client(APP)], NOW + 60, NOW).unwrap();
    let (nobody, none) = trust.enter(&[], NOW + 60, NOW).unwrap();
    assert!(none.is_none());
    assert_eq!(trust.publish(state(&[ours.built_in()])), 1);
    assert_eq!(by_corp.standing().ended(), Some(Ended::CaRemoved));
    assert_eq!(by_ours.standing().ended(), None);
    assert_eq!(nobody.standing().ended(), None);
    assert!(trust.enter(&[corp.client(CORP)], NOW + 60, NOW).is_err());
    let credential = credential.unwrap();
    let ceiling = credential.principal.ceiling;
    assert_eq!(ceiling.actions, Role::Data.actions());
    assert!(!ceiling.cross_tenant);
}

#[test]
fn a_connection_that_names_nobody_is_closed_after_a_minute() {
    let ours = Authority::make();
    let trust = Trust::new(state(&[ours.built_in()]));
    let is_cut = |place: &Place| {
        let context = Context::from_waker(Waker::noop());
        place.standing().poll_cut(&context)
    };
    let (app, _) = trust.enter(&[ours.client(APP)], NOW + 3_600, NOW).unwrap();
    let (nobody, _) = trust.enter(&[], NOW + 3_600, NOW).unwrap();
    // A certificate of another trust domain.
    let (nameless, none) = trust.enter(&[ours.client(CORP)], NOW + 3_600, NOW).unwrap();
    assert!(none.is_none());
    let (brief, _) = trust.enter(&[], NOW + 10, NOW).unwrap();
    trust.connections().sweep(NOW + 11);
    assert!(is_cut(&brief) && !is_cut(&nobody) && !is_cut(&nameless));
    trust.connections().sweep(NOW + NAMELESS_S);
    assert!(!is_cut(&nobody) && !is_cut(&nameless));
    // One on which a token named somebody.
    let (token, _) = trust.enter(&[], NOW + 3_600, NOW).unwrap();
    token.standing().name();
    trust.connections().sweep(NOW + NAMELESS_S + 1);
    assert!(is_cut(&nobody) && is_cut(&nameless) && !is_cut(&app));
    assert!(!is_cut(&token));
    trust.connections().sweep(NOW + 3_601);
    assert!(is_cut(&token));
}

#[test]
fn only_the_certificate_of_a_ca_can_be_a_root() {
    let ours = Authority::make();
    let leaf = ours.client(APP);
    assert!(matches!(
        Root::built_in(&leaf, "fieldkeep"),
        Err(RootError::NotCa)
    ));
    let junk = CertificateDer::from(vec![0; 16]);
    assert!(matches!(
        Root::built_in(&junk, "fieldkeep"),
        Err(RootError::Malformed)
    ));
}
