//! Names of resources as calls give them: `{key}` in the caller's tenant or `tenants/{tenant}/keys/{key}`.

use fieldkeep_crypto::names::{Field, NameError, check_name};

use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::service::failure::Failure;
use crate::service::perform::permit::{Ask, Asks};

/// The name of a key, checked. The tenant of the short form is the caller's, known only once there is a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    text: Box<str>,
    /// Where the tenant and the key stand in a full name; `None`: `text` is the key.
    full: Option<Full>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Full {
    tenant_end: usize,
    key_end: usize,
}

const TENANTS: &str = "tenants/";
const KEYS: &str = "/keys/";
const VERSIONS: &str = "/versions/";

impl KeyName {
    /// Parses `{key}` or `tenants/{tenant}/keys/{key}`.
    ///
    /// # Errors
    /// If it is neither, or a part is not a name.
    pub fn parse(text: String) -> Result<Self, ResourceError> {
        let full = match text.strip_prefix(TENANTS) {
            None => {
                check_name(&text).map_err(|problem| ResourceError::Part {
                    part: "key",
                    problem,
                })?;
                None
            }
            Some(rest) => {
                let (tenant, key) = rest.split_once(KEYS).ok_or(ResourceError::KeyForm)?;
                check_name(tenant).map_err(|problem| ResourceError::Part {
                    part: "tenant",
                    problem,
                })?;
                check_name(key).map_err(|problem| ResourceError::Part {
                    part: "key",
                    problem,
                })?;
                Some(Full {
                    tenant_end: TENANTS.len() + tenant.len(),
                    key_end: text.len(),
                })
            }
        };
        Ok(Self {
            text: text.into_boxed_str(),
            full,
        })
    }

    /// Parses a key's name with `/versions/{v}` behind it.
    ///
    /// # Errors
    /// If there is no version from 1 to 2^32-1 in plain decimal, or the rest is no key's name.
    pub fn parse_version(text: &str) -> Result<(Self, u32), ResourceError> {
        let (key, version) = text
            .rsplit_once(VERSIONS)
            .ok_or(ResourceError::VersionForm)?;
        let plain = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
        let number = version
            .parse()
            .ok()
            .filter(|_| plain)
            .ok_or(ResourceError::VersionForm)?;
        Ok((Self::parse(key.to_owned())?, number))
    }

    /// The tenant: the one that the name has, otherwise the caller's.
    #[must_use]
    pub fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        self.full
            .and_then(|full| self.text.get(TENANTS.len()..full.tenant_end))
            .unwrap_or_else(|| caller.tenant.as_str())
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.full
            .and_then(|full| self.text.get(full.tenant_end + KEYS.len()..full.key_end))
            .unwrap_or(&self.text)
    }

    /// What a call to manage it is about.
    pub(super) fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant(caller),
            key: Some(self.key()),
        }
    }

    /// The right to seal `field` under it.
    pub(super) fn seal<'a>(&'a self, caller: &'a Principal, field: &'a FieldName) -> Ask<'a> {
        Ask {
            action: Action::Encrypt,
            tenant: self.tenant(caller),
            key: self.key(),
            field: field.as_str(),
        }
    }

    /// The full form, `tenants/{tenant}/keys/{key}`.
    #[must_use]
    pub fn resource(&self, caller: &Principal) -> String {
        key_resource(self.tenant(caller), self.key())
    }
}

/// `tenants/{tenant}/keys/{key}`.
#[must_use]
pub fn key_resource(tenant: &str, key: &str) -> String {
    [TENANTS, tenant, KEYS, key].concat()
}

/// `tenants/{tenant}`.
#[must_use]
pub fn tenant_resource(tenant: &str) -> String {
    [TENANTS, tenant].concat()
}

/// `tenants/{tenant}/identities/{name}`.
#[must_use]
pub fn identity_resource(tenant: &str, name: &str) -> String {
    [TENANTS, tenant, "/identities/", name].concat()
}

/// The name of a field, checked and owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(Box<str>);

impl FieldName {
    /// Checks a field's name.
    ///
    /// # Errors
    /// If it is not in the grammar of names.
    pub fn parse(text: String) -> Result<Self, NameError> {
        Field::parse(&text)?;
        Ok(Self(text.into_boxed_str()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that keys take.
    ///
    /// # Errors
    /// Never in practice: the text was checked when this was made.
    pub fn field(&self) -> Result<Field<'_>, Failure> {
        Field::parse(&self.0).map_err(Failure::internal)
    }
}

/// Why a text is not the name of a resource.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// It begins like a full name and is none.
    #[error("a key is named `{{key}}` or `tenants/{{tenant}}/keys/{{key}}`")]
    KeyForm,
    /// There is no version, or it is not a number from 1.
    #[error(
        "a key version is named `{{key}}/versions/{{v}}` or `tenants/{{tenant}}/keys/{{key}}/versions/{{v}}`"
    )]
    VersionForm,
    /// A part is not in the grammar of names.
    #[error("the {part} is not a name: {problem}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: NameError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::principal::Identity;
    use fieldkeep_crypto::names::Name;

    fn caller() -> Principal {
        let name = |text| Name::parse(text).unwrap();
        Principal::new(&Identity::new(name("acme"), name("app")), i64::MAX)
    }

    #[test]
    fn short_and_full_names() {
        let short = KeyName::parse("pii".into()).unwrap();
        assert_eq!((short.tenant(&caller()), short.key()), ("acme", "pii"));
        let full = KeyName::parse("tenants/other/keys/pii".into()).unwrap();
        assert_eq!((full.tenant(&caller()), full.key()), ("other", "pii"));
        assert_eq!(full.resource(&caller()), "tenants/other/keys/pii");
        assert_eq!(short.resource(&caller()), "tenants/acme/keys/pii");
    }

    #[test]
    fn versions() {
        let (key, version) = KeyName::parse_version("tenants/t/keys/k/versions/12").unwrap();
        assert_eq!((key.key(), version), ("k", 12));
        assert_eq!(
            KeyName::parse_version("k/versions/4294967295").unwrap().1,
            u32::MAX
        );
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in [
            "",
            "tenants/",
            "tenants/t",
            "tenants/t/keys/",
            "tenants//keys/k",
            "a/b",
            "K",
            "tenants/t/keys/k/x",
        ] {
            assert!(KeyName::parse(text.into()).is_err(), "{text}");
        }
        for text in [
            "k",
            "k/versions/",
            "k/versions/0",
            "k/versions/01",
            "k/versions/+1",
            "k/versions/4294967296",
            "/versions/1",
        ] {
            assert!(KeyName::parse_version(text).is_err(), "{text}");
        }
    }
}
