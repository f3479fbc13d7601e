//! The built-in roles: named sets of actions. Duties are separate: no role may both grant rights and touch the values of
//! fields.

use std::fmt;

use super::action::{Action, ActionSet, Reach};

macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident = $code:literal, $name:literal, [$($action:ident),*];)*) => {
        /// A named set of actions, which a grant gives as a whole.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Role {
            $($(#[$doc])* $role,)*
        }

        impl Role {
            /// Every role.
            pub const ALL: &[Role] = &[$(Role::$role),*];

            /// The role's name in commands and messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Role::$role => $name,)*
                }
            }

            /// What it may do.
            #[must_use]
            pub const fn actions(self) -> ActionSet {
                match self {
                    $(Role::$role => ActionSet::of(&[$(Action::$action),*]),)*
                }
            }

            /// The number in records and messages. These are never renumbered.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self {
                    $(Role::$role => $code,)*
                }
            }
        }
    };
}

roles! {
    /// Encrypts, and reads nothing back.
    Encrypter = 1, "encrypter", [Encrypt];
    /// Decrypts.
    Decrypter = 2, "decrypter", [Decrypt];
    /// Decrypts, and sees the masks alone.
    MaskedReader = 3, "masked-reader", [DecryptMasked];
    /// Moves ciphertexts to the newest version of their key, and sees no value.
    ReEncrypter = 4, "re-encrypter", [ReEncrypt];
    /// An application that writes and reads its own fields.
    Data = 5, "data", [Encrypt, Decrypt, ReEncrypt, Index];
    /// Looks at keys and rotates them.
    KeyOperator = 6, "key-operator", [Describe, Rotate];
    /// Creates, disables and rotates keys.
    KeyAdmin = 7, "key-admin", [Describe, Manage, Rotate];
    /// Destroys keys.
    KeyDestroyer = 8, "key-destroyer", [Describe, Destroy];
    /// Decides who may do what, and issues credentials.
    AccessAdmin = 9, "access-admin", [Grant, Certificate, Describe];
    /// Reads the trail and who may do what.
    Auditor = 10, "auditor", [Audit, Describe, Status];
    /// Keeps the service running.
    Operator = 11, "operator", [Status, Describe, Limit];
    /// The first identity: everything of the control plane, no right to any value. Not for daily use.
    Admin = 12, "admin", [
        Describe, Manage, Rotate, Destroy, Grant, Certificate, Audit, Tenant, Status, Limit
    ];
}

impl Role {
    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.iter().copied().find(|role| role.as_str() == name)
    }

    /// The role with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Role> {
        Role::ALL.iter().copied().find(|role| role.code() == code)
    }

    /// Whether it may touch the values of fields.
    #[must_use]
    pub fn is_data(self) -> bool {
        self.actions().iter().any(Action::is_data)
    }

    /// Whether a grant of it may be narrowed to keys.
    #[must_use]
    pub fn takes_keys(self) -> bool {
        self.actions()
            .iter()
            .all(|action| action.reach() != Reach::Tenant)
    }

    /// The smallest role that has `action`, for advice.
    #[must_use]
    pub fn smallest_with(action: Action) -> Option<Role> {
        Role::ALL
            .iter()
            .copied()
            .filter(|role| role.actions().has(action))
            .min_by_key(|role| role.actions().bits().count_ones())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_role_both_grants_and_touches_values() {
        for role in Role::ALL {
            let actions = role.actions();
            let data = actions.iter().any(Action::is_data);
            assert!(!(data && actions.has(Action::Grant)), "{role}");
            assert!(!(data && actions.has(Action::Certificate)), "{role}");
            assert_eq!(role.is_data(), data);
            // Whoever sets an issuer says which groups its callers are in.
            assert!(
                !actions.has(Action::Certificate) || actions.has(Action::Grant),
                "{role}"
            );
        }
    }

    #[test]
    fn names_and_numbers_are_unique_and_frozen() {
        let names: BTreeSet<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        assert_eq!(names.len(), Role::ALL.len());
        for (role, code) in Role::ALL.iter().zip(1..) {
            assert_eq!(role.code(), code, "{role}");
            assert_eq!(Role::from_code(code), Some(*role));
            assert_eq!(Role::parse(role.as_str()), Some(*role));
        }
        assert_eq!((Role::from_code(0), Role::parse("root")), (None, None));
    }

    #[test]
    fn every_action_is_in_a_role() {
        for action in Action::ALL {
            assert!(Role::smallest_with(*action).is_some(), "{action}");
        }
        assert_eq!(Role::smallest_with(Action::Decrypt), Some(Role::Decrypter));
        assert_eq!(
            Role::smallest_with(Action::Describe),
            Some(Role::KeyOperator)
        );
    }
}
