//! The record of an issuer: `sys/issuer/{name}`.

use prost::Message as _;

/// The longest payload of a system record, bytes.
pub const MAX_RECORD_BYTES: usize = 4055;

/// What the store keys of all issuers begin with.
pub const PREFIX: &str = "sys/issuer/";

/// What an operator says of an issuer, as it is stored. [`super::issuer::Issuer`] is the same, checked. Texts that are
/// empty, and numbers that are absent, have the default that stands with them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IssuerRecord {
    /// The issuer's URL, equal byte for byte to the claim `iss`.
    #[prost(string, tag = "1")]
    pub url: String,
    /// Where its keys are. Default: what its discovery document says.
    #[prost(string, tag = "2")]
    pub jwks_url: String,
    /// The one certificate, in DER, that its TLS certificate must descend from. Default: Mozilla's public roots.
    #[prost(bytes = "vec", tag = "3")]
    pub root_certificate: Vec<u8>,
    /// A token must be for one of these: the claim `aud`. 1 to 8.
    #[prost(string, repeated, tag = "4")]
    pub audiences: Vec<String>,
    /// The signature algorithms that it uses, such as `ES256`. At least one.
    #[prost(string, repeated, tag = "5")]
    pub algorithms: Vec<String>,
    /// `JWT`, `at+jwt`, or both. Default: both. A token without `typ` is a `JWT`.
    #[prost(string, repeated, tag = "6")]
    pub token_types: Vec<String>,
    /// The tenant of all its callers. Either this or `tenant_claim`.
    #[prost(string, tag = "7")]
    pub tenant: String,
    /// The claim that names the caller's tenant.
    #[prost(string, tag = "8")]
    pub tenant_claim: String,
    /// The claim that names the caller. Default: `sub`.
    #[prost(string, tag = "9")]
    pub name_claim: String,
    /// `exact` or `escape`. Default: `exact`.
    #[prost(string, tag = "10")]
    pub name_rule: String,
    /// The claim that lists the caller's groups. Default: none.
    #[prost(string, tag = "11")]
    pub groups_claim: String,
    /// The claim that lists the scopes. Default: `scope`.
    #[prost(string, tag = "12")]
    pub scope_claim: String,
    /// Which group a scope gives.
    #[prost(message, repeated, tag = "13")]
    pub scopes: Vec<ScopeGroup>,
    /// The values of `acr` that mean a second factor.
    #[prost(string, repeated, tag = "14")]
    pub acr_values: Vec<String>,
    /// The values of `amr` any of which means a second factor.
    #[prost(string, repeated, tag = "15")]
    pub amr_values: Vec<String>,
    /// The tenants that it may vouch for. At least one.
    #[prost(string, repeated, tag = "16")]
    pub tenants: Vec<String>,
    /// The name of the highest role of its callers, such as `decrypter`.
    #[prost(string, tag = "17")]
    pub ceiling: String,
    /// Whether a grant may let its callers reach other tenants.
    #[prost(bool, tag = "18")]
    pub cross_tenant: bool,
    /// By how much its clock may differ, seconds. Default: 30, at most 120.
    #[prost(uint32, optional, tag = "19")]
    pub leeway_seconds: Option<u32>,
    /// How long after its issue a token is taken, whatever its `exp` says, seconds. Default: a day, at most a week.
    #[prost(uint32, optional, tag = "20")]
    pub max_age_seconds: Option<u32>,
    /// When it was made, Unix seconds.
    #[prost(uint64, tag = "21")]
    pub created: u64,
    /// Who made it: the resource name of an identity.
    #[prost(string, tag = "22")]
    pub created_by: String,
}

/// A scope, and the group that it gives.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScopeGroup {
    /// The scope, without spaces.
    #[prost(string, tag = "1")]
    pub scope: String,
    /// The group's name.
    #[prost(string, tag = "2")]
    pub group: String,
}

impl IssuerRecord {
    /// The payload. It may be longer than [`MAX_RECORD_BYTES`], which [`super::issuer::Issuer::new`] refuses.
    pub fn encode_payload(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Reads a payload. One that has more than this version knows is refused: what is not known may be a restriction.
    pub fn decode_payload(payload: &[u8]) -> Option<IssuerRecord> {
        let record = IssuerRecord::decode(payload).ok()?;
        (record.encode_to_vec() == payload).then_some(record)
    }
}

/// The store key of the issuer with this name.
pub fn issuer_key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The name of the issuer with this store key.
pub(super) fn name_of_key(store_key: &str) -> Option<&str> {
    store_key.strip_prefix(PREFIX)
}
