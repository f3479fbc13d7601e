//! The proof that a call was admitted, and what it may do with it: every right that the call uses is asked for here, and
//! remembered until its reply leaves.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_keystore::store::Operation as StoreOperation;

use crate::access::Access;
use crate::access::action::{Action, ActionSet};
use crate::access::advice;
use crate::access::condition::Unmet;
use crate::access::grant::{GrantId, Scope};
use crate::access::limits::{Admission, Limits};
use crate::access::mask::FieldMask;
use crate::access::principal::{Method, Principal};
use crate::access::snapshot::{AccessSnapshot, Asked, Denied, Missing};
use crate::access::trust::Ended;
use crate::service::call::Call;
use crate::service::failure::{Failure, Refused};
use crate::service::intent::Intents;
use crate::service::masking::{RULE_MASK_CHANGED, Sight};
use crate::service::operation::Planned;
use crate::service::record::Account;

/// The most grants that one record names. Further ones are counted.
const MAX_NAMED: usize = 8;

/// What an operation is about, as far as it is known before it runs.
#[derive(Clone, Copy, Debug)]
pub enum Asks<'a> {
    /// Fields, each of which is asked for when it is found out under which key it is.
    OfFields,
    /// One field under a key that is named, which the operation asks for at once.
    Field,
    /// The caller himself, which needs no right: a credential that counts is enough.
    Oneself,
    /// Something whose tenant is found out when it is looked up, and is asked for then.
    Found,
    /// What belongs to a tenant, or to all (`*`), or one of its keys.
    Of {
        /// The tenant, or `*`.
        tenant: &'a str,
        /// The key; `None`: all of them, or none.
        key: Option<&'a str>,
    },
}

impl Asks<'_> {
    /// What belongs to all tenants.
    pub const ALL: Asks<'static> = Asks::Of {
        tenant: Scope::ALL,
        key: None,
    };
}

/// One field under one key, and what is to be done to it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is to be done.
    pub action: Action,
    /// The key's tenant.
    pub tenant: &'a str,
    /// The key.
    pub key: &'a str,
    /// The field.
    pub field: &'a str,
}

/// The right to a key and a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Right {
    /// The caller has it, whatever the encryption context, and sees so much of the value.
    Whole(Sight),
    /// It depends on the encryption context, so that it is asked for again for each item.
    ByItem,
}

/// The proof that a caller may do something to a field under a key. Only a [`Permit`] makes one.
#[derive(Clone, Debug)]
pub struct Entitled<'a> {
    ask: Ask<'a>,
    right: Right,
}

impl<'a> Entitled<'a> {
    /// To what.
    #[must_use]
    pub fn ask(&self) -> &Ask<'a> {
        &self.ask
    }

    /// How.
    #[must_use]
    pub fn right(&self) -> &Right {
        &self.right
    }
}

/// The proof that a call was admitted. Only [`crate::service::Service::perform`] makes one, and without one no key can be
/// reached.
pub struct Permit<'a> {
    access: &'a Access,
    intents: Intents<'a>,
    call: &'a Call,
    action: Action,
    principal: &'a Principal,
    now_us: u64,
    /// `None` if there are none.
    limits: Option<Arc<Limits>>,
    used: Mutex<Used>,
}

/// What a call has used of its rights so far.
struct Used {
    /// `None` while it was given back.
    snapshot: Option<Arc<AccessSnapshot>>,
    grounds: Grounds,
    under_way: Vec<Admission>,
}

/// What is left of a permit when its operation has ended.
pub(super) struct Finished {
    /// What the call relied on.
    pub(super) grounds: Grounds,
    /// Where limits count the call as under way, until this is dropped.
    pub(super) under_way: Vec<Admission>,
}

/// The grants and masks that a call relies on, and the generation of the first snapshot that it asked.
#[derive(Clone, Debug)]
pub struct Grounds {
    generation: u64,
    /// Whether nothing but the caller's credential was asked for.
    oneself: bool,
    /// Most calls rely on one, which costs them no allocation.
    first: Option<GrantId>,
    few: Vec<GrantId>,
    more: BTreeSet<GrantId>,
    /// Those that values leave through.
    masks: BTreeSet<Arc<FieldMask>>,
}

impl<'a> Permit<'a> {
    /// Takes the present snapshot, and asks nothing yet.
    pub(super) fn new(
        intents: Intents<'a>,
        call: &'a Call,
        principal: &'a Principal,
        action: Action,
        now_us: u64,
    ) -> Permit<'a> {
        let access = &intents.core.access;
        let snapshot = access.snapshot();
        let grounds = Grounds {
            generation: snapshot.generation(),
            oneself: false,
            first: None,
            few: Vec::new(),
            more: BTreeSet::new(),
            masks: BTreeSet::new(),
        };
        let limits = snapshot.settings().limits();
        Permit {
            access,
            intents,
            call,
            action,
            principal,
            now_us,
            limits: (!limits.is_empty()).then(|| Arc::clone(limits)),
            used: Mutex::new(Used {
                snapshot: Some(snapshot),
                grounds,
                under_way: Vec::new(),
            }),
        }
    }

    /// Who calls.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.principal
    }

    /// The RPC's name.
    #[must_use]
    pub fn rpc(&self) -> &'static str {
        self.call.rpc
    }

    /// What the call is for.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// The limits when the call began; `None` without any.
    pub(in crate::service) fn limits(&self) -> Option<&Arc<Limits>> {
        self.limits.as_ref()
    }

    /// Keeps what counts the call as under way until it has ended.
    pub(in crate::service) fn hold(&self, admission: Admission) {
        self.used().under_way.push(admission);
    }

    /// When the call was admitted, Unix seconds.
    #[must_use]
    pub fn now_s(&self) -> u64 {
        self.now_us / 1_000_000
    }

    /// The caller's address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.call.peer.network()
    }

    /// Why the caller's connection does not count any more, if it does not.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.call.peer.ended()
    }

    /// The rights as they are now, for operations that read them. They must not be kept across an await.
    #[must_use]
    pub fn snapshot(&self) -> Arc<AccessSnapshot> {
        self.access.snapshot()
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // A poisoned lock still guards a whole list.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller may do what the call is for to anything at all.
    pub(super) fn admit(&self) -> Result<(), Failure> {
        let mut used = self.used();
        let snapshot = used.snapshot(self.access);
        let network = self.network();
        admit(snapshot, self.principal, self.action, network, self.now_us)
    }

    /// Whether the caller's credential counts.
    pub(super) fn check_oneself(&self) -> Result<(), Failure> {
        let mut used = self.used();
        let snapshot = used.snapshot(self.access);
        oneself(snapshot, self.call, self.principal, self.now_us)?;
        used.grounds.oneself = true;
        Ok(())
    }

    /// Whether the caller may do the permitted action to what `tenant` has, or to one of its keys. `tenant` is `*` for what
    /// belongs to all.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, tenant: &str, key: Option<&str>) -> Result<(), Failure> {
        let asked = Asked {
            action: self.action,
            tenant,
            key,
            field: None,
            context: None,
            network: self.network(),
            now: seconds(self.now_us),
        };
        self.decide(&asked)
            .map(drop)
            .map_err(|denied| refused(self.principal, &asked, &denied))
    }

    /// The right to a field under a key, in a context that is known.
    ///
    /// # Errors
    /// The refusal.
    pub fn entitle<'k>(
        &self,
        ask: Ask<'k>,
        context: &EncodedContext,
    ) -> Result<Entitled<'k>, Failure> {
        let right = self.allowed(&ask, context).map(Right::Whole)?;
        Ok(Entitled { ask, right })
    }

    /// The right to a field under a key, whatever the context; or that it depends on that.
    ///
    /// # Errors
    /// The refusal.
    pub fn entitle_any<'k>(&self, ask: Ask<'k>) -> Result<Entitled<'k>, Failure> {
        let right = match self.find(&ask, None) {
            Ok(sight) => Right::Whole(sight),
            Err(denied) if denied.missing == Missing::Condition(Unmet::Context) => Right::ByItem,
            Err(denied) => return Err(refused(self.principal, &self.asked(&ask, None), &denied)),
        };
        Ok(Entitled { ask, right })
    }

    /// The right of one item, in its own context: how much the caller sees of its value.
    ///
    /// # Errors
    /// The refusal.
    pub fn allowed(&self, ask: &Ask<'_>, context: &EncodedContext) -> Result<Sight, Failure> {
        self.find(ask, Some(context))
            .map_err(|denied| refused(self.principal, &self.asked(ask, Some(context)), &denied))
    }

    /// Who may decrypt sees the value; who may only decrypt masked sees its mask.
    fn find(&self, ask: &Ask<'_>, context: Option<&EncodedContext>) -> Result<Sight, Denied> {
        let asked = self.asked(ask, context);
        let found = self.decide(&asked);
        let by_context = |denied: &Denied| denied.missing == Missing::Condition(Unmet::Context);
        match found {
            Err(denied) if ask.action == Action::Decrypt => {
                // It may turn out that an item is not to be masked.
                if context.is_none() && by_context(&denied) {
                    return Err(denied);
                }
                let masked = Asked {
                    action: Action::DecryptMasked,
                    ..asked
                };
                self.decide(&masked).map_err(|other| {
                    if context.is_none() && by_context(&other) {
                        other
                    } else {
                        denied
                    }
                })
            }
            found => found,
        }
    }

    fn asked<'k>(&self, ask: &Ask<'k>, context: Option<&'k EncodedContext>) -> Asked<'k> {
        Asked {
            action: ask.action,
            tenant: ask.tenant,
            key: Some(ask.key),
            field: Some(ask.field),
            context,
            network: self.network(),
            now: seconds(self.now_us),
        }
    }

    /// Asks, and remembers what the call relies on from then on. A mask is of the snapshot that decided.
    fn decide(&self, asked: &Asked<'_>) -> Result<Sight, Denied> {
        let mut used = self.used();
        let snapshot = used.snapshot(self.access);
        let allowed = snapshot.authorize(self.principal, asked)?;
        let sight = Sight::of(allowed, snapshot, asked);
        used.grounds.add(allowed.grant);
        if let Sight::Masked(mask) = &sight {
            used.grounds.masks.insert(Arc::clone(mask));
        }
        Ok(sight)
    }

    /// Gives the snapshot back, so that a change of rights does not wait for what the call does from now on. What is asked
    /// later is asked of the newest.
    pub fn release(&self) {
        self.used().snapshot = None;
    }

    /// Begins an operation of the store: writes its intent, with what `account` says by now, and gives the operation when that
    /// is durable. `store_key` is the record that is about to be changed. To be called when the caller has all rights that the
    /// call needs, once in a call.
    ///
    /// # Errors
    /// The audit trail cannot be written, or the store not be asked: nothing may be done.
    pub(in crate::service) async fn begin(
        &self,
        planned: Planned,
        store_key: Bytes,
        account: &mut Account,
    ) -> Result<StoreOperation, Failure> {
        let rule = self.used().grounds.rule();
        self.intents
            .write(self.call, rule.as_str(), planned, store_key, account)
            .await
    }

    /// What the call relied on, and where it counts.
    pub(super) fn finish(self) -> Finished {
        let used = self
            .used
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Finished {
            grounds: used.grounds,
            under_way: used.under_way,
        }
    }
}

impl Used {
    fn snapshot(&mut self, access: &Access) -> &AccessSnapshot {
        self.snapshot.get_or_insert_with(|| access.snapshot())
    }
}

impl Grounds {
    fn add(&mut self, grant: GrantId) {
        let Some(first) = self.first else {
            self.first = Some(grant);
            return;
        };
        if first == grant || self.few.contains(&grant) {
            return;
        }
        if self.few.len() + 1 < MAX_NAMED {
            self.few.push(grant);
        } else {
            self.more.insert(grant);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &GrantId> {
        self.first.iter().chain(&self.few).chain(&self.more)
    }

    /// The rule that allowed the call, as its record names it.
    pub(super) fn rule(&self) -> Rule {
        match (self.first, self.few.as_slice()) {
            (None, _) if self.oneself => Rule::Named(RULE_ONESELF),
            (None, _) => Rule::Named(RULE_ADMITTED),
            (Some(only), []) => Rule::Grant(only),
            (Some(first), others) => {
                let mut text = first.as_rule().to_owned();
                for other in others {
                    let _ = write!(text, ",{other}");
                }
                if !self.more.is_empty() {
                    let _ = write!(text, ",+{}", self.more.len());
                }
                Rule::Grants(text)
            }
        }
    }
}

/// The rule of a call that was admitted and asked for nothing, since no item of it was valid.
const RULE_ADMITTED: &str = "admitted";
/// The rule of a call about the caller himself.
const RULE_ONESELF: &str = "oneself";

/// What decided a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) enum Rule {
    Named(&'static str),
    Grant(GrantId),
    Grants(String),
}

impl Rule {
    /// As the record has it.
    pub(in crate::service) fn as_str(&self) -> &str {
        match self {
            Rule::Named(rule) => rule,
            Rule::Grant(grant) => grant.as_rule(),
            Rule::Grants(grants) => grants,
        }
    }
}

/// Whether a call of `principal` for `action` can be anything but refused: whether it may do that to anything at all.
pub(in crate::service) fn admit(
    snapshot: &AccessSnapshot,
    principal: &Principal,
    action: Action,
    network: IpAddr,
    now_us: u64,
) -> Result<(), Failure> {
    snapshot
        .may_ever(principal, admitting(action), seconds(now_us))
        .map_err(|denied| {
            let asked = anything(principal, action, network, seconds(now_us));
            refused(principal, &asked, &denied)
        })
}

/// Whether the credential of `principal` counts, which is all that he needs to ask about himself.
fn oneself(
    snapshot: &AccessSnapshot,
    call: &Call,
    principal: &Principal,
    now_us: u64,
) -> Result<(), Failure> {
    let now = seconds(now_us);
    snapshot.check_credential(principal, now).map_err(|denied| {
        let asked = anything(principal, call.action, call.peer.network(), now);
        refused(principal, &asked, &denied)
    })
}

/// `action` in the caller's own tenant.
fn anything(principal: &Principal, action: Action, network: IpAddr, now: i64) -> Asked<'_> {
    Asked {
        action,
        tenant: principal.tenant.as_str(),
        key: None,
        field: None,
        context: None,
        network,
        now,
    }
}

/// The rights of which a call for `action` needs one, at least.
fn admitting(action: Action) -> ActionSet {
    match action {
        Action::Decrypt => ActionSet::of(&[Action::Decrypt, Action::DecryptMasked]),
        // To another key it needs the right to decrypt.
        Action::ReEncrypt => ActionSet::of(&[Action::ReEncrypt, Action::Decrypt]),
        action => ActionSet::of(&[action]),
    }
}

/// Whether everything that a call relied on still counts in `snapshot`.
///
/// # Errors
/// [`Failure::PermissionDenied`] if the caller may not do such a thing at all any more; [`Failure::RightWithdrawn`] if only
/// what the call relied on is gone, or a mask is another one, so that it has to be asked again what is allowed now.
pub(in crate::service) fn recheck(
    snapshot: &AccessSnapshot,
    call: &Call,
    principal: &Principal,
    grounds: &Grounds,
    now_us: u64,
) -> Result<(), Failure> {
    if grounds.oneself {
        return oneself(snapshot, call, principal, now_us);
    }
    let network = call.peer.network();
    admit(snapshot, principal, call.action, network, now_us)?;
    let counts = |id| snapshot.still_counts(principal, id, network, seconds(now_us));
    if let Some(denied) = grounds.iter().map(counts).find_map(Result::err) {
        return Err(Failure::RightWithdrawn(denied.rule(principal.method)));
    }
    // Another mask may show less than the one that values were shown through.
    let settings = snapshot.settings();
    let changed = |relied: &Arc<FieldMask>| {
        let now = settings.mask(relied.tenant.as_str(), relied.field.as_str());
        now.is_none_or(|now| now.mask != relied.mask)
    };
    if grounds.masks.iter().any(changed) {
        return Err(Failure::RightWithdrawn(RULE_MASK_CHANGED));
    }
    Ok(())
}

impl Grounds {
    /// Whether nothing changed since the first question was asked.
    pub(in crate::service) fn are_of(&self, snapshot: &AccessSnapshot) -> bool {
        self.generation == snapshot.generation()
    }
}

/// The refusal of what was asked.
pub(in crate::service) fn refused(
    principal: &Principal,
    asked: &Asked<'_>,
    denied: &Denied,
) -> Failure {
    let rule = denied.rule(principal.method);
    let told = match (denied.missing, principal.method) {
        (Missing::Credential, Method::Mtls) => Some("the certificate has expired; issue a new one"),
        (Missing::Credential, Method::Jwt) => Some("the token has expired; get a new one"),
        (Missing::Credential, Method::ApiKey) => Some("the API key has expired; make a new one"),
        (Missing::Proof, Method::ApiKey) => Some(
            "the API key was revoked or rotated; use the one that took its place, or ask for a new one",
        ),
        (Missing::Proof, _) => Some("the token's issuer was changed or removed; get a new token"),
        _ => None,
    };
    if let Some(told) = told {
        return Failure::Unauthenticated { rule, told };
    }
    Failure::PermissionDenied(Refused {
        rule,
        message: advice::message(principal, asked, denied).into(),
    })
}

fn seconds(us: u64) -> i64 {
    i64::try_from(us / 1_000_000).unwrap_or(i64::MAX)
}
