//! The decision: which rule allows a call, or why none does.

use std::{collections::HashMap, sync::Arc};

use super::{
    binding::{Role, RoleBinding},
    principal::{Identity, Principal},
};

/// What a call does, as far as rights are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Encrypts fields.
    Encrypt,
    /// Decrypts fields.
    Decrypt,
    /// Re-encrypts fields.
    ReEncrypt,
    /// Creates a key.
    KeyCreate,
    /// Describes or lists keys.
    KeyRead,
    /// Rotates a key.
    KeyRotate,
    /// Sets when a key rotates by itself.
    KeySetRotation,
    /// Enables or disables a key or a version.
    KeyChangeState,
    /// Creates a tenant.
    TenantCreate,
    /// Lists tenants.
    TenantRead,
    /// Grants a role.
    RoleGrant,
    /// Lists roles.
    RoleRead,
    /// Revokes a role.
    RoleRevoke,
    /// Signs a certificate.
    CertificateIssue,
    /// Reads the audit trail.
    AuditRead,
    /// Reads the service's state.
    StatusRead,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 16] = [
        Action::Encrypt,
        Action::Decrypt,
        Action::ReEncrypt,
        Action::KeyCreate,
        Action::KeyRead,
        Action::KeyRotate,
        Action::KeySetRotation,
        Action::KeyChangeState,
        Action::TenantCreate,
        Action::TenantRead,
        Action::RoleGrant,
        Action::RoleRead,
        Action::RoleRevoke,
        Action::CertificateIssue,
        Action::AuditRead,
        Action::StatusRead,
    ];

    /// The action's name in the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Encrypt => "encrypt",
            Action::Decrypt => "decrypt",
            Action::ReEncrypt => "re-encrypt",
            Action::KeyCreate => "key-create",
            Action::KeyRead => "key-read",
            Action::KeyRotate => "key-rotate",
            Action::KeySetRotation => "key-set-rotation",
            Action::KeyChangeState => "key-change-state",
            Action::TenantCreate => "tenant-create",
            Action::TenantRead => "tenant-read",
            Action::RoleGrant => "role-grant",
            Action::RoleRead => "role-read",
            Action::RoleRevoke => "role-revoke",
            Action::CertificateIssue => "certificate-issue",
            Action::AuditRead => "audit-read",
            Action::StatusRead => "status-read",
        }
    }

    /// The one role that may do it. Duties are separate: what touches fields is never an admin's.
    fn role(self) -> Role {
        match self {
            Action::Encrypt | Action::Decrypt | Action::ReEncrypt => Role::Data,
            Action::KeyCreate
            | Action::KeyRead
            | Action::KeyRotate
            | Action::KeySetRotation
            | Action::KeyChangeState
            | Action::TenantCreate
            | Action::TenantRead
            | Action::RoleGrant
            | Action::RoleRead
            | Action::RoleRevoke
            | Action::CertificateIssue
            | Action::AuditRead
            | Action::StatusRead => Role::Admin,
        }
    }
}

/// The rule that allowed a call: `role:data` or `role:admin`.
pub type Rule = &'static str;

/// No rule allows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Denied {
    /// Why, for the audit trail: `no-role`, `wrong-role`, `foreign-tenant` or `certificate-expired`.
    pub rule: &'static str,
    /// The role that the identity has, which lacks this right.
    pub role: Option<Role>,
}

impl Denied {
    /// The identity has no role.
    pub const NO_ROLE: Denied = Denied::new("no-role", None);
    /// A data identity reached for another tenant.
    pub const FOREIGN_TENANT: Denied = Denied::new("foreign-tenant", Some(Role::Data));
    const CERTIFICATE_EXPIRED: Denied = Denied::new("certificate-expired", None);

    const fn new(rule: &'static str, role: Option<Role>) -> Denied {
        Denied { rule, role }
    }

    /// The identity's role does not have the right.
    #[must_use]
    pub const fn wrong_role(role: Role) -> Denied {
        Denied::new("wrong-role", Some(role))
    }

    /// What the caller is told: which role it has, what that lacks, and what to do.
    fn message(&self) -> &'static str {
        match (self.rule, self.role) {
            ("no-role", _) => {
                "the identity has no role: an admin grants one with `fieldkeep role grant`"
            }
            ("wrong-role", Some(Role::Admin)) => {
                "the identity has the role `admin`, which has no right to encrypt, decrypt or re-encrypt: use an identity with the role `data`"
            }
            ("wrong-role", _) => {
                "the identity has the role `data`, which only encrypts, decrypts and re-encrypts: use an identity with the role `admin`"
            }
            ("foreign-tenant", _) => {
                "the identity has the role `data`, which uses only keys of its own tenant: use an identity of that tenant"
            }
            _ => "the client certificate has expired: get a new one and connect again",
        }
    }
}

/// The roles of all identities at one moment.
#[derive(Debug, Default)]
pub struct AccessSnapshot {
    /// By resource name.
    bindings: HashMap<Arc<str>, RoleBinding>,
}

impl AccessSnapshot {
    pub(super) fn new(bindings: impl IntoIterator<Item = RoleBinding>) -> AccessSnapshot {
        let entry = |binding: RoleBinding| (Arc::clone(binding.identity.resource()), binding);
        AccessSnapshot {
            bindings: bindings.into_iter().map(entry).collect(),
        }
    }

    /// Decides whether `principal` may do `action` on what belongs to `tenant` at `now`, Unix seconds.
    ///
    /// # Errors
    /// [`Denied`] with the reason.
    pub fn authorize(
        &self,
        principal: &Principal,
        action: Action,
        tenant: &str,
        now: i64,
    ) -> Result<Rule, Denied> {
        // A certificate is good to the end of the second that it names (RFC 5280, section 4.1.2.5).
        if now > principal.not_after {
            return Err(Denied::CERTIFICATE_EXPIRED);
        }
        let binding = self
            .bindings
            .get(principal.resource.as_ref())
            .ok_or(Denied::NO_ROLE)?;
        match (binding.role, action.role()) {
            (Role::Data, Role::Data) if principal.tenant.as_str() == tenant => Ok("role:data"),
            (Role::Data, Role::Data) => Err(Denied::FOREIGN_TENANT),
            (Role::Admin, Role::Admin) => Ok("role:admin"),
            (role @ Role::Admin, Role::Data) | (role @ Role::Data, Role::Admin) => {
                Err(Denied::wrong_role(role))
            }
        }
    }

    /// The role of the identity with this resource name.
    pub fn binding(&self, resource: &str) -> Option<&RoleBinding> {
        self.bindings.get(resource)
    }

    /// How many identities have a role.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether no identity has a role.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// Whether this identity, and no other, is an admin.
    pub(super) fn is_last_admin(&self, resource: &str) -> bool {
        let is_admin = |binding: &&RoleBinding| binding.role == Role::Admin;
        self.bindings
            .get(resource)
            .is_some_and(|binding| is_admin(&binding))
            && self.bindings.values().filter(is_admin).count() == 1
    }

    /// The same roles, but for one identity.
    pub(super) fn with(&self, identity: &Identity, binding: Option<RoleBinding>) -> AccessSnapshot {
        let mut bindings = self.bindings.clone();
        match binding {
            Some(binding) => bindings.insert(Arc::clone(identity.resource()), binding),
            None => bindings.remove(identity.resource().as_ref()),
        };
        AccessSnapshot { bindings }
    }
}
