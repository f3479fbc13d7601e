//! The index against a list: whatever is granted, changed and asked, both decide the same.

use std::collections::BTreeMap;

use fieldkeep_crypto::context::EncodedContext;
use proptest::prelude::*;

use super::*;
use crate::access::settings::Settings;
use crate::access::snapshot::Difference;

/// The grants of the list that allow what is asked, tried one after the other.
fn listed(
    grants: &[Arc<Grant>],
    memberships: &[Arc<Membership>],
    principal: &Principal,
    asked: &Asked<'_>,
) -> Vec<GrantId> {
    if asked.now > principal.not_after || !principal.ceiling.actions.has(asked.action) {
        return Vec::new();
    }
    let is_in = |group: &Arc<str>| {
        principal.groups.contains(group)
            || memberships.iter().any(|membership| {
                membership.group.resource() == group
                    && *membership.member.resource() == principal.resource
            })
    };
    let allows = |grant: &&Arc<Grant>| {
        let what = &grant.what;
        let who = what.who.resource();
        let own = asked.tenant == principal.tenant.as_str();
        (*who == principal.resource || is_in(who))
            && what.role.actions().has(asked.action)
            && (what.scope == Scope::All || what.scope.as_str() == asked.tenant)
            && (own || what.cross_tenant && principal.ceiling.cross_tenant)
            && what.keys.iter().any(|key| key.covers(asked.key))
            && what.fields.iter().any(|field| field.covers(asked.field))
            && what.expires.is_none_or(|end| asked.now < end as i64)
            && what
                .conditions
                .check(principal, &asked.circumstances())
                .is_ok()
    };
    grants.iter().filter(allows).map(|grant| grant.id).collect()
}

const TENANTS: [&str; 2] = ["acme", "other"];
const NAMES: [&str; 5] = ["a", "ab", "abc", "b", "ba"];
const PATTERNS: [&str; 7] = ["*", "a*", "ab*", "a", "ab", "b*", "ba"];

fn tenant() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&TENANTS[..])
}

fn who() -> impl Strategy<Value = Who> {
    (tenant(), 0..2usize, any::<bool>()).prop_map(|(tenant, number, group)| {
        let own = name(["x", "y"][number]);
        if group {
            Who::Group(Group::new(name(tenant), own))
        } else {
            Who::Identity(Identity::new(name(tenant), own))
        }
    })
}

fn some_patterns() -> impl Strategy<Value = Vec<Pattern>> {
    let pattern = prop::sample::select(&PATTERNS[..]);
    prop::collection::btree_set(pattern, 1..3).prop_map(|texts| {
        texts
            .into_iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect()
    })
}

fn context() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    let name = prop::sample::select(vec!["region", "zone"]);
    let value = prop::sample::select(vec!["eu", "us"]);
    prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => prop::collection::btree_map(name, value, 1..3),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let scope = prop::option::weighted(0.8, tenant());
    let expires = prop::option::weighted(0.2, prop::sample::select(vec![NOW, NOW + 9]));
    let role = prop::sample::select(Role::ALL);
    let network =
        prop::option::weighted(0.2, prop::sample::select(vec!["10.0.0.0/8", "127.0.0.1"]));
    (
        who(),
        scope,
        role,
        some_patterns(),
        some_patterns(),
        expires,
        network,
        context(),
        any::<bool>(),
    )
        .prop_map(
            |(who, scope, role, keys, fields, expires, network, context, cross_tenant)| Wanted {
                scope: scope.map_or(Scope::All, |tenant| Scope::Tenant(name(tenant))),
                who,
                cross_tenant,
                role,
                keys,
                fields,
                conditions: Conditions {
                    context: context
                        .into_iter()
                        .map(|(name, value)| (name.into(), value.into()))
                        .collect(),
                    networks: network
                        .into_iter()
                        .map(|text| text.parse().unwrap())
                        .collect(),
                    ..Conditions::default()
                },
                expires,
            },
        )
}

#[derive(Clone, Debug)]
enum Step {
    Grant(Wanted),
    Revoke(prop::sample::Index),
    Join(Group, Identity),
    Leave(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let group = (tenant(), prop::sample::select(vec!["x", "y"]));
    let member = (tenant(), prop::sample::select(vec!["x", "y"]));
    prop_oneof![
        6 => wanted().prop_map(Step::Grant),
        2 => any::<prop::sample::Index>().prop_map(Step::Revoke),
        3 => (group, member).prop_map(|(group, member)| Step::Join(
            Group::new(name(group.0), name(group.1)),
            Identity::new(name(member.0), name(member.1)),
        )),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ]
}

fn apply(snapshot: AccessSnapshot, step: &Step, number: u64) -> AccessSnapshot {
    match step {
        Step::Grant(wanted) => {
            let grant = Grant {
                id: GrantId::of_bytes(number.to_be_bytes()),
                what: wanted.clone(),
                created: NOW,
                granted_by: "init".into(),
            };
            snapshot.with(Difference::Granted(Arc::new(grant)))
        }
        Step::Revoke(index) => {
            let ids: Vec<GrantId> = snapshot.grants(None).map(|grant| grant.id).collect();
            if ids.is_empty() {
                return snapshot;
            }
            snapshot.with(Difference::Revoked(*index.get(&ids)))
        }
        Step::Join(group, member) => snapshot.with(Difference::Joined(Arc::new(Membership {
            group: group.clone(),
            member: member.clone(),
            created: NOW,
            added_by: "init".into(),
        }))),
        Step::Leave(index) => {
            let all: Vec<_> = snapshot.memberships(None).cloned().collect();
            if all.is_empty() {
                return snapshot;
            }
            let one = index.get(&all);
            let (group, member) = (one.group.resource(), one.member.resource());
            snapshot.with(Difference::Left(Arc::clone(group), Arc::clone(member)))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_index_decides_as_a_list_does(
        steps in prop::collection::vec(step(), 1..80),
        callers in prop::collection::vec(
            (tenant(), prop::sample::select(vec!["x", "y"]), any::<bool>(), any::<bool>(), context()), 3),
    ) {
        let mut snapshot = AccessSnapshot::new([], [], Settings::default());
        for (number, step) in (1u64..).zip(&steps) {
            snapshot = apply(snapshot, step, number);
        }
        let grants: Vec<_> = snapshot.grants(None).cloned().collect();
        let memberships: Vec<_> = snapshot.memberships(None).cloned().collect();
        // Built at once, as at a start, it is the same.
        let built = AccessSnapshot::new(
            grants.iter().map(|grant| Grant::clone(grant)),
            memberships.iter().map(|membership| Membership::clone(membership)),
            Settings::default(),
        );
        for (tenant, text, cross_tenant, vouched, context) in callers {
            let context = EncodedContext::encode(context).unwrap();
            let mut caller = principal(tenant, text);
            caller.ceiling.cross_tenant = cross_tenant;
            if vouched {
                let group = Group::new(name("acme"), name("x"));
                caller.groups = Arc::from([Arc::clone(group.resource())]);
            }
            for action in [Action::Decrypt, Action::Describe, Action::Grant] {
                for tenant in ["acme", "other", "*"] {
                    for key in NAMES.iter().copied().map(Some).chain([None]) {
                        for field in [Some("ab"), Some("b"), None] {
                            let asked = Asked {
                                key,
                                field,
                                context: Some(&context),
                                ..asked(action, tenant, "", "")
                            };
                            let expected = listed(&grants, &memberships, &caller, &asked);
                            let decided = snapshot.authorize(&caller, &asked);
                            prop_assert_eq!(decided.is_ok(), !expected.is_empty(), "{:?}", asked);
                            prop_assert_eq!(built.authorize(&caller, &asked).is_ok(), !expected.is_empty());
                            if let Ok(allowed) = decided {
                                prop_assert!(expected.contains(&allowed.grant));
                                let again = snapshot.still_counts(&caller, &allowed.grant, asked.network, asked.now);
                                prop_assert_eq!(again, Ok(()));
                                let one = action::ActionSet::of(&[action]);
                                prop_assert!(snapshot.may_ever(&caller, one, asked.now).is_ok());
                                if action.is_data() && tenant != caller.tenant.as_str() {
                                    prop_assert!(snapshot.opens_data_of_others(&caller));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
