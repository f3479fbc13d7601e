use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, SanType, date_time_ymd,
};

use super::*;

const GOOD: &str = "spiffe://fieldkeep/tenant/acme/app-1";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn certificate(names: Vec<SanType>) -> Vec<u8> {
    signed(|params| params.subject_alt_names = names)
}

fn signed(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.not_after = date_time_ymd(2031, 2, 3);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn refusal(der: &[u8]) -> PrincipalError {
    principal_from_certificate(der, "fieldkeep").unwrap_err()
}

#[test]
fn one_spiffe_uri_names_the_principal() {
    let principal = principal_from_certificate(&certificate(vec![uri(GOOD)]), "fieldkeep").unwrap();
    assert_eq!(principal.tenant.as_str(), "acme");
    assert_eq!(principal.name.as_str(), "app-1");
    assert_eq!(principal.resource.as_ref(), "tenants/acme/identities/app-1");
    assert_eq!(
        principal.not_after,
        date_time_ymd(2031, 2, 3).unix_timestamp()
    );
    assert_eq!(principal.identity().spiffe_uri("fieldkeep"), GOOD);
}

#[test]
fn uris_of_another_form_are_refused() {
    let long = format!("spiffe://fieldkeep/tenant/acme/{}", "a".repeat(64));
    for text in [
        "",
        "spiffe://fieldkeep",
        "spiffe://fieldkeep/",
        "spiffe://fieldkeep/tenant/acme",
        "spiffe://fieldkeep/tenant/acme/",
        "spiffe://fieldkeep/tenant//app",
        "spiffe://fieldkeep/tenant/acme/app/",
        "spiffe://fieldkeep/tenant/acme/app/more",
        "spiffe://fieldkeep/tenant/acme/../other/app",
        "spiffe://fieldkeep//tenant/acme/app",
        "spiffe://fieldkeep/Tenant/acme/app",
        "spiffe://fieldkeep/tenant/Acme/app",
        "spiffe://fieldkeep/tenant/acme/a%70p",
        "spiffe://fieldkeep/tenant/acme/app?x=1",
        "spiffe://fieldkeep/tenant/acme/app#x",
        "spiffe://fieldkeep/tenant/acme/app\0",
        "spiffe://fieldkeep/tenant/acme/app ",
        " spiffe://fieldkeep/tenant/acme/app",
        "spiffe://fieldkeep/tenant/acme/.app",
        "spiffe://fieldkeep/namespace/acme/app",
        "SPIFFE://fieldkeep/tenant/acme/app",
        "https://fieldkeep/tenant/acme/app",
        &long,
    ] {
        assert_eq!(
            refusal(&certificate(vec![uri(text)])),
            PrincipalError::Form,
            "{text:?}"
        );
    }
}

#[test]
fn another_trust_domain_is_refused() {
    for text in [
        "spiffe://other/tenant/acme/app",
        "spiffe://Fieldkeep/tenant/acme/app",
        "spiffe://fieldkeep.evil/tenant/acme/app",
        "spiffe://fieldkeep:443/tenant/acme/app",
        "spiffe://user@fieldkeep/tenant/acme/app",
        "spiffe:///tenant/acme/app",
    ] {
        assert_eq!(
            refusal(&certificate(vec![uri(text)])),
            PrincipalError::TrustDomain,
            "{text:?}"
        );
    }
    let der = certificate(vec![uri(GOOD)]);
    assert_eq!(
        principal_from_certificate(&der, "other").unwrap_err(),
        PrincipalError::TrustDomain
    );
}

#[test]
fn any_number_of_names_but_one_is_refused() {
    let dns = || SanType::DnsName("fieldkeep".try_into().unwrap());
    for names in [
        vec![],
        vec![dns()],
        vec![SanType::Rfc822Name(GOOD.try_into().unwrap())],
        vec![SanType::DnsName(GOOD.try_into().unwrap())],
        vec![uri(GOOD), uri(GOOD)],
        vec![uri(GOOD), uri("spiffe://fieldkeep/tenant/acme/admin")],
        vec![uri(GOOD), dns()],
        vec![dns(), uri(GOOD)],
    ] {
        assert_eq!(
            refusal(&certificate(names.clone())),
            PrincipalError::NotOneUri,
            "{names:?}"
        );
    }
}

#[test]
fn a_second_extension_of_names_is_refused() {
    // SubjectAltName ::= SEQUENCE OF [6] IA5String
    let other = "spiffe://fieldkeep/tenant/acme/admin";
    let mut content = vec![
        0x30,
        u8::try_from(other.len()).unwrap() + 2,
        0x86,
        u8::try_from(other.len()).unwrap(),
    ];
    content.extend(other.as_bytes());
    let der = signed(|params| {
        params.subject_alt_names = vec![uri(GOOD)];
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
    });
    assert!(matches!(
        refusal(&der),
        PrincipalError::NotOneUri | PrincipalError::Malformed
    ));
}

#[test]
fn the_certificate_of_a_ca_is_refused() {
    let der = signed(|params| {
        params.subject_alt_names = vec![uri(GOOD)];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    assert_eq!(refusal(&der), PrincipalError::Ca);
}

#[test]
fn the_subject_names_nobody() {
    let der = signed(|params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, GOOD)
    });
    assert_eq!(refusal(&der), PrincipalError::NotOneUri);
}

#[test]
fn truncated_extended_and_other_bytes_are_refused() {
    let der = certificate(vec![uri(GOOD)]);
    for length in 0..der.len() {
        assert_eq!(
            refusal(&der[..length]),
            PrincipalError::Malformed,
            "{length} bytes"
        );
    }
    let mut extended = der.clone();
    extended.push(0);
    assert_eq!(refusal(&extended), PrincipalError::Malformed);
    assert_eq!(
        refusal(b"-----BEGIN CERTIFICATE-----"),
        PrincipalError::Malformed
    );
}

#[test]
fn no_flipped_bit_makes_the_reader_panic() {
    let der = certificate(vec![uri(GOOD)]);
    for position in 0..der.len() {
        for bit in 0..8 {
            let mut flipped = der.clone();
            flipped[position] ^= 1 << bit;
            // Refused, or a name in the grammar: TLS has verified the signature before this is called.
            drop(principal_from_certificate(&flipped, "fieldkeep"));
        }
    }
}

#[test]
fn identities_have_a_long_and_a_short_form() {
    let own = Name::parse("acme").unwrap();
    let parse = |text: &str| Identity::parse(text, &own).map(|identity| identity.to_string());
    assert_eq!(parse("app").unwrap(), "tenants/acme/identities/app");
    assert_eq!(
        parse("tenants/default/identities/app").unwrap(),
        "tenants/default/identities/app"
    );
    for text in [
        "",
        "App",
        "/app",
        "app/",
        "tenants/acme",
        "tenants/acme/identities/",
        "tenants//identities/app",
        "tenants/acme/keys/app",
        "tenants/acme/identities/app/more",
        "tenants/acme/identities/APP",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}
