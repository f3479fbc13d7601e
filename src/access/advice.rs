//! What a caller who is refused is told: what he lacks, and the command that would give it.

use std::fmt;

use super::{
    condition::Unmet,
    grant::{Scope, Who},
    principal::Principal,
    role::Role,
    snapshot::{Asked, Denied, Missing},
};

/// Why `who` may not do what was asked, and what to do about it. Of another tenant's things it names the tenant alone.
#[must_use]
pub fn message(principal: &Principal, asked: &Asked<'_>, denied: &Denied) -> String {
    let who = &principal.resource;
    let what = What(asked);
    let own = principal.tenant.as_str() == asked.tenant || asked.tenant == Scope::ALL;
    let command = command(&Who::Identity(principal.identity()), asked);
    let ask = Ask(command.as_deref());
    let grant = denied.grant.map_or_else(
        || String::from("its grant"),
        |grant| format!("the grant `{grant}`"),
    );
    match denied.missing {
        Missing::Credential => format!("the credential of `{who}` has ended: get a new one"),
        Missing::Proof => format!("the credential of `{who}` counts no longer: get a new one"),
        Missing::Ceiling => format!(
            "`{who}` may not {what}: its credential is never good for that; use one of an issuer that is trusted with it"
        ),
        Missing::Grant if own => format!("`{who}` has no right to {what}{ask}"),
        Missing::Grant | Missing::Tenant => format!(
            "`{who}` has no right to {} in the tenant `{}`, which is not its own: use an identity of that tenant",
            asked.action, asked.tenant
        ),
        Missing::Ended => {
            format!("`{who}` has no right to {what} any more, since {grant} has ended{ask}")
        }
        Missing::Condition(unmet) => {
            let unmet = match unmet {
                Unmet::Context => "with the encryption context that",
                Unmet::Time => "at the times that",
                Unmet::Network => "from the networks that",
                Unmet::Method => "with the credentials that",
                Unmet::SecondFactor => "with the second factor that",
            };
            format!("`{who}` may {what} only {unmet} {grant} asks for")
        }
    }
}

/// The command that grants `who` what was asked, with the smallest role that has it; `None` if no one command does.
#[must_use]
pub fn command(who: &Who, asked: &Asked<'_>) -> Option<String> {
    let role = Role::smallest_with(asked.action)?;
    if asked.tenant == Scope::ALL && role.is_data() {
        return None;
    }
    let (name, group) = match who {
        Who::Identity(identity) => (identity.name(), ""),
        Who::Group(group) => (group.name(), " --group"),
    };
    let tenant = who.tenant();
    let mut command =
        format!("fieldkeep grant create {name}{group} --tenant {tenant} --role {role}");
    if asked.tenant == Scope::ALL {
        command.push_str(" --all-tenants");
    } else if asked.tenant != tenant.as_str() {
        command.push_str(&format!(" --open {}", asked.tenant));
    }
    if let (Some(key), true) = (asked.key, role.takes_keys()) {
        command.push_str(&format!(" --key {key}"));
    }
    if let (Some(field), true) = (asked.field, role.is_data()) {
        command.push_str(&format!(" --field {field}"));
    }
    Some(command)
}

/// `decrypt the field x under the key y`.
struct What<'a>(&'a Asked<'a>);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.0;
        write!(f, "{}", asked.action)?;
        match (asked.field, asked.key) {
            (Some(field), Some(key)) => write!(f, " the field `{field}` under the key `{key}`")?,
            (Some(field), None) => write!(f, " the field `{field}`")?,
            (None, Some(key)) => write!(f, " the key `{key}`")?,
            (None, None) => {}
        }
        match asked.tenant {
            Scope::ALL => write!(f, " for all tenants"),
            _ => Ok(()),
        }
    }
}

/// `: an access admin grants it with ...`.
struct Ask<'a>(Option<&'a str>);

impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(command) => write!(f, ": an access admin grants it with `{command}`"),
            None => f.write_str(": ask an access admin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_crypto::names::Name;

    use super::*;
    use crate::access::{action::Action, grant::GrantId, principal::Identity};

    fn principal() -> Principal {
        let name = |text| Name::parse(text).unwrap();
        Principal::new(&Identity::new(name("acme"), name("app")), i64::MAX)
    }

    fn asked(action: Action, tenant: &'static str) -> Asked<'static> {
        Asked {
            action,
            tenant,
            key: Some("pii"),
            field: Some("customer.ssn"),
            context: None,
            network: [127, 0, 0, 1].into(),
            now: 0,
        }
    }

    #[test]
    fn a_refusal_names_what_is_missing_and_the_command_that_gives_it() {
        let told = message(
            &principal(),
            &asked(Action::Decrypt, "acme"),
            &Denied::of(Missing::Grant),
        );
        assert_eq!(
            told,
            "`tenants/acme/identities/app` has no right to decrypt the field `customer.ssn` under the key `pii`: an \
             access admin grants it with `fieldkeep grant create app --tenant acme --role decrypter --key pii --field \
             customer.ssn`"
        );
    }

    #[test]
    fn of_another_tenant_nothing_is_named_but_itself() {
        let told = message(
            &principal(),
            &asked(Action::Encrypt, "other"),
            &Denied::of(Missing::Tenant),
        );
        assert!(told.contains("tenant `other`"), "{told}");
        assert!(!told.contains("pii") && !told.contains("ssn"), "{told}");
    }

    #[test]
    fn a_condition_is_told_with_its_grant() {
        let denied = Denied {
            missing: Missing::Condition(Unmet::Network),
            grant: GrantId::parse("g-0123456789abcdef"),
        };
        let told = message(&principal(), &asked(Action::Decrypt, "acme"), &denied);
        assert!(told.contains("from the networks that the grant `g-0123456789abcdef` asks for"));
    }

    #[test]
    fn commands_say_what_the_role_takes_and_no_more() {
        let who = Who::Identity(principal().identity());
        let with = |action, tenant| command(&who, &asked(action, tenant)).unwrap_or_default();
        assert_eq!(
            with(Action::Rotate, "acme"),
            "fieldkeep grant create app --tenant acme --role key-operator --key pii"
        );
        assert_eq!(
            with(Action::Audit, Scope::ALL),
            "fieldkeep grant create app --tenant acme --role auditor --all-tenants"
        );
        assert_eq!(
            with(Action::Grant, "other"),
            "fieldkeep grant create app --tenant acme --role access-admin --open other"
        );
        assert_eq!(with(Action::Decrypt, Scope::ALL), "");
    }
}
