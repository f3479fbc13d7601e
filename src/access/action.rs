//! What a call does, as far as rights are concerned: one table of actions, and sets of them.

use std::fmt;

/// What an action is done to, which decides what a grant of it may be narrowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The values of fields under keys: data rights, of which no grant covers all tenants.
    Fields,
    /// Keys, and what belongs to them.
    Keys,
    /// A tenant, or the whole service.
    Tenant,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident = $bit:literal, $name:literal, $reach:ident;)*) => {
        /// One right. Each is separate: none includes another.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Action {
            $($(#[$doc])* $action = $bit,)*
        }

        impl Action {
            /// Every action, in the order of its bits.
            pub const ALL: &[Action] = &[$(Action::$action),*];

            /// The action's name in commands and in the audit trail.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Action::$action => $name,)*
                }
            }

            /// What it is done to.
            #[must_use]
            pub const fn reach(self) -> Reach {
                match self {
                    $(Action::$action => Reach::$reach,)*
                }
            }
        }
    };
}

// The bits are stored in records. They are never renumbered.
actions! {
    /// Encrypts fields.
    Encrypt = 0, "encrypt", Fields;
    /// Decrypts fields.
    Decrypt = 1, "decrypt", Fields;
    /// Decrypts fields and gets them through the mask that is set for them.
    DecryptMasked = 2, "decrypt-masked", Fields;
    /// Encrypts fields again under the newest version of the same key.
    ReEncrypt = 3, "re-encrypt", Fields;
    /// Computes blind indexes of fields.
    Index = 4, "index", Fields;
    /// Reads what is known about keys, grants and groups, never a value.
    Describe = 5, "describe", Keys;
    /// Creates keys, enables and disables them and their versions, sets when they rotate.
    Manage = 6, "manage", Keys;
    /// Rotates keys.
    Rotate = 7, "rotate", Keys;
    /// Destroys keys and versions.
    Destroy = 8, "destroy", Keys;
    /// Grants and revokes rights, and says who is in which group.
    Grant = 9, "grant", Tenant;
    /// Signs certificates and makes other credentials.
    Certificate = 10, "certificate", Tenant;
    /// Reads the audit trail.
    Audit = 11, "audit", Tenant;
    /// Creates tenants.
    Tenant = 12, "tenant", Tenant;
    /// Reads the service's state.
    Status = 13, "status", Tenant;
    /// Sets limits.
    Limit = 14, "limit", Tenant;
}

impl Action {
    /// The action of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Action> {
        Action::ALL
            .iter()
            .copied()
            .find(|action| action.as_str() == name)
    }

    /// Whether it is done to the values of fields.
    #[must_use]
    pub const fn is_data(self) -> bool {
        matches!(self.reach(), Reach::Fields)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of actions, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ActionSet(u32);

impl ActionSet {
    /// No action.
    pub const NONE: ActionSet = ActionSet(0);
    /// Every action.
    pub const ALL: ActionSet = ActionSet::of(Action::ALL);

    /// The set of `actions`.
    #[must_use]
    pub const fn of(actions: &[Action]) -> ActionSet {
        let (mut bits, mut rest) = (0, actions);
        while let [first, others @ ..] = rest {
            bits |= 1 << (*first as u8);
            rest = others;
        }
        ActionSet(bits)
    }

    /// The set with these bits; `None` if one of them is no action of this version.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<ActionSet> {
        if bits & !ActionSet::ALL.0 == 0 {
            Some(ActionSet(bits))
        } else {
            None
        }
    }

    /// The bits, as records keep them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether `action` is in it.
    #[must_use]
    pub const fn has(self, action: Action) -> bool {
        self.0 & (1 << (action as u8)) != 0
    }

    /// Whether one of `others` is in it.
    #[must_use]
    pub const fn has_any(self, others: ActionSet) -> bool {
        self.0 & others.0 != 0
    }

    /// What is in one of the two.
    #[must_use]
    pub const fn with(self, others: ActionSet) -> ActionSet {
        ActionSet(self.0 | others.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The actions in it, in the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL
            .iter()
            .copied()
            .filter(move |action| self.has(*action))
    }
}

/// The names, separated by `, `.
impl fmt::Display for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, action) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{action}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_its_own_bit_and_name() {
        for (bit, action) in Action::ALL.iter().enumerate() {
            assert_eq!(*action as usize, bit);
            assert_eq!(ActionSet::of(&[*action]).bits(), 1 << bit);
            assert_eq!(Action::parse(action.as_str()), Some(*action));
        }
        assert_eq!(Action::parse("Encrypt"), None);
        assert_eq!(ActionSet::ALL.iter().count(), Action::ALL.len());
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = ActionSet::of(&[Action::Encrypt, Action::Audit]);
        assert!(set.has(Action::Audit) && !set.has(Action::Decrypt));
        assert_eq!(set.to_string(), "encrypt, audit");
        assert_eq!(ActionSet::from_bits(set.bits()), Some(set));
        assert_eq!(ActionSet::from_bits(1 << 31), None);
        assert!(!set.has_any(ActionSet::of(&[Action::Index])));
    }
}
