//! Rotation on a schedule: finds the keys that are due, plans, and carries the plan out.
//!
//! A pass over all keys, a page a second, finds those that are due within the hour; they are held in memory, so that they
//! have their turn on time. Keys that change, or that reach a limit of use, are looked at within a second. What is due is
//! read again just before it is planned for, and the store refuses a rotation of a version that is not primary any more:
//! nothing rotates twice.

mod clock;
mod due;
mod intent;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_keystore::info::KeyCursor;
use fieldkeep_keystore::rotation::plan::{Act, Candidate, Now, next, plan};
use futures_util::{StreamExt, stream};
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use self::clock::ClockWatch;
use self::due::Due;
use self::intent::Intent;
use crate::config::RotationConfig;
use crate::service::Service;
use crate::service::failure::Failure;
use crate::service::perform::own::OwnAct;
use crate::service::schedule::KeyId;
use crate::telemetry::{Metrics, RotationMetrics};

/// How often the planner runs.
const TICK: Duration = Duration::from_secs(1);
/// The most keys that one run scans.
const PAGE: usize = 1_000;
/// How often a pass over all keys begins. A pass over a million takes a quarter of an hour.
const PASS: Duration = Duration::from_secs(60);
/// Keys that are due later than this are left to a later pass, seconds.
const HORIZON_S: u64 = 3_600;
/// How long a key rests whose act failed for a cause of its own, seconds.
const REST_S: u64 = 300;
/// The most keys that rest; further ones are tried again sooner.
const MAX_RESTING: usize = 10_000;
/// The most acts that are under way at once.
const IN_FLIGHT: usize = 16;

/// The planner.
pub struct Rotation {
    service: Service,
    metrics: Arc<Metrics>,
    per_second: usize,
    clock: Mutex<ClockWatch>,
}

/// What a run leaves for the next.
struct State {
    due: Due,
    cursor: Option<KeyCursor>,
    next_pass: Instant,
    /// Until when keys rest, Unix seconds.
    resting: HashMap<KeyId, u64>,
    /// The generation of the stored plan, and whether it has acts.
    generation: Option<u64>,
    planned: bool,
}

impl Rotation {
    /// A planner for `service`. `now_us` and `steady` are this moment, from which jumps of the clock are counted.
    #[must_use]
    pub fn new(service: Service, metrics: Arc<Metrics>, config: RotationConfig) -> Self {
        let clock = ClockWatch::new(service.core().now_us(), Instant::now());
        Self {
            service,
            metrics,
            per_second: config.per_second.max(1),
            clock: Mutex::new(clock),
        }
    }

    pub(super) fn failures(&self) -> IntCounter {
        self.figures().failures.clone()
    }

    fn figures(&self) -> &RotationMetrics {
        &self.metrics.rotation
    }

    /// Runs until `stopped` says so.
    ///
    /// # Errors
    /// The store or the trail cannot be used now. What was planned is found again by the next run.
    pub(super) async fn run(&self, stopped: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut state = self.recover().await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = stopped.clone();
        loop {
            let goes_on = tokio::select! {
                // An error is a service that is gone.
                _ = stopping.wait_for(|stop| *stop) => false,
                _ = ticks.tick() => true,
            };
            if !goes_on {
                return self.settle(&mut state).await;
            }
            self.tick(&mut state, &stopped).await?;
        }
    }

    /// Gives the acts of an interrupted plan that were done their records. Those that were not done are planned anew.
    async fn recover(&self) -> Result<State, Failure> {
        let core = self.service.core();
        let mut state = State {
            due: Due::default(),
            cursor: None,
            next_pass: Instant::now(),
            resting: HashMap::new(),
            generation: None,
            planned: false,
        };
        let Some(stored) = core.stored_plan().await? else {
            return Ok(state);
        };
        state.generation = Some(stored.generation);
        let intent = Intent::decode(stored.payload.as_ref()).map_err(Failure::internal)?;
        if intent.is_empty() {
            return Ok(state);
        }
        state.planned = true;
        if core.needs_probe() {
            return Err(Failure::AuditUnavailable);
        }
        let (audit, index) = (core.audit().clone(), intent.audit_index);
        let recorded = tokio::task::spawn_blocking(move || intent::recorded(&audit, index))
            .await
            .map_err(Failure::internal)?
            .map_err(Failure::internal)?;
        for act in intent.acts()? {
            let id = self.service.own_request_id(&act);
            if !recorded.contains(id.as_bytes().as_slice()) && self.was_done(&act).await? {
                tracing::warn!(tenant = %act.id.tenant, key = %act.id.key, "a rotation was interrupted before its record; writing it now");
                self.perform(act).await?;
            }
        }
        self.settle(&mut state).await?;
        Ok(state)
    }

    /// Whether the store says that `act` is not to be done any more.
    async fn was_done(&self, act: &OwnAct) -> Result<bool, Failure> {
        let Some(candidate) = self.candidate(&act.id).await? else {
            return Ok(false);
        };
        Ok(match act.act {
            Act::Rotate { from, .. } => candidate.primary > from,
            Act::Retire { through } => candidate
                .oldest
                .is_none_or(|oldest| oldest.version > through),
        })
    }

    /// One run: looks, plans, and carries out.
    async fn tick(
        &self,
        state: &mut State,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let now = self.now();
        self.look(state, now).await?;
        let (due, lag) = state.due.overdue(now.unix_s);
        self.figures().due.set(count(due));
        self.figures().waiting.set(count(state.due.len()));
        self.figures()
            .lag_s
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.figures()
            .last_run_s
            .set(i64::try_from(now.unix_s).unwrap_or(i64::MAX));
        let acts = self.plan(state, now).await?;
        if acts.is_empty() {
            return self.settle(state).await;
        }
        let begun = Instant::now();
        let mut done = 0;
        for part in intent::parts(&acts, self.per_second) {
            self.store(state, part).await?;
            self.carry_out(state, part, begun, done, now, stopped)
                .await?;
            done += part.len();
        }
        Ok(())
    }

    fn now(&self) -> Now {
        let now_us = self.service.core().now_us();
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let steady = clock.is_steady(now_us, Instant::now()).unwrap_or_else(|seconds| {
            tracing::warn!(seconds, "the clock jumped; no version retires by itself until the service is started again with the right time");
            self.figures().clock_jumped.set(1);
            false
        });
        Now {
            unix_s: now_us / 1_000_000,
            steady,
        }
    }

    /// Takes notice of keys that changed, and of the next page of all keys.
    async fn look(&self, state: &mut State, now: Now) -> Result<(), Failure> {
        let core = self.service.core();
        state.resting.retain(|_, until| *until > now.unix_s);
        let (changed, all) = core.take_changed();
        for id in changed {
            let candidate = self.candidate(&id).await?;
            state.note(id, candidate.as_ref(), now);
        }
        if all {
            state.cursor = None;
            state.next_pass = Instant::now();
        }
        if state.cursor.is_none() && Instant::now() < state.next_pass {
            return Ok(());
        }
        if state.cursor.is_none() {
            state.next_pass = Instant::now() + PASS;
        }
        let page = core.candidates(state.cursor.as_ref(), PAGE).await?;
        for candidate in &page.candidates {
            state.note(id_of(candidate), Some(candidate), now);
        }
        for damaged in &page.damaged {
            self.figures().damaged.inc();
            tracing::error!(error = %damaged, "a key cannot be read and does not rotate by itself");
        }
        state.cursor = page.next;
        Ok(())
    }

    /// A key as it is now; `None` if it does not rotate by itself, or cannot be read.
    async fn candidate(&self, id: &KeyId) -> Result<Option<Candidate>, Failure> {
        match self.service.core().candidate(id).await {
            Err(failure) if is_of_key(&failure) => {
                self.figures().damaged.inc();
                tracing::error!(tenant = %id.tenant, key = %id.key, error = %failure.detail(), "a key cannot be read and does not rotate by itself");
                Ok(None)
            }
            other => other,
        }
    }

    /// What is to be done now, with keys as they are now.
    async fn plan(&self, state: &mut State, now: Now) -> Result<Vec<OwnAct>, Failure> {
        let mut candidates = Vec::new();
        for id in state.due.take(now.unix_s, self.per_second) {
            candidates.extend(self.candidate(&id).await?);
        }
        let planned = plan(now, &candidates, self.per_second);
        for candidate in &candidates {
            // After its act it is looked at again, like every key that changed.
            state.note(id_of(candidate), Some(candidate), now);
        }
        let act = |planned: fieldkeep_keystore::rotation::plan::Planned| {
            let candidate = candidates.get(planned.index)?;
            Some(OwnAct {
                id: id_of(candidate),
                handle: candidate.handle,
                act: planned.act,
                due: planned.due,
            })
        };
        Ok(planned.into_iter().filter_map(act).collect())
    }

    /// Stores what is about to be carried out.
    async fn store(&self, state: &mut State, acts: &[OwnAct]) -> Result<(), Failure> {
        let core = self.service.core();
        let intent = Intent::new(core.audit().len(), acts).encode_to_vec();
        state.generation = Some(core.store_plan(state.generation, &intent).await?);
        state.planned = !acts.is_empty();
        Ok(())
    }

    /// Stores that all acts have their records.
    async fn settle(&self, state: &mut State) -> Result<(), Failure> {
        if state.planned {
            self.store(state, &[]).await?;
        }
        Ok(())
    }

    /// Carries acts out, those of one key one after the other. They are spread over the second that `begun` began, in which
    /// `before` acts came before these.
    async fn carry_out(
        &self,
        state: &mut State,
        acts: &[OwnAct],
        begun: Instant,
        before: usize,
        now: Now,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let place = TICK / u32::try_from(self.per_second).unwrap_or(u32::MAX);
        let broken = AtomicBool::new(false);
        let (acts, broken) = (by_key(acts), &broken);
        let under_way = acts
            .into_iter()
            .enumerate()
            .map(|(index, acts)| async move {
                let index = u32::try_from(before + index).unwrap_or(u32::MAX);
                tokio::time::sleep_until((begun + place.saturating_mul(index)).into()).await;
                for act in acts {
                    if *stopped.borrow() || broken.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let id = act.id.clone();
                    if let Err(failure) = self.perform(act).await {
                        let of_key = is_of_key(&failure);
                        broken.fetch_or(!of_key, Ordering::Relaxed);
                        return Err((id, of_key, failure));
                    }
                }
                Ok(())
            });
        let mut ended = stream::iter(under_way).buffer_unordered(IN_FLIGHT);
        let mut outcome = Ok(());
        while let Some(result) = ended.next().await {
            match result {
                Ok(()) => {}
                Err((id, true, failure)) => {
                    tracing::error!(tenant = %id.tenant, key = %id.key, error = %failure.detail(), "a key did not rotate by itself; it is tried again later");
                    state.rest(id, now.unix_s + REST_S);
                }
                Err((_, false, failure)) => outcome = Err(failure),
            }
        }
        outcome
    }

    async fn perform(&self, act: OwnAct) -> Result<(), Failure> {
        let rpc = self.metrics.rpc(act.rpc());
        let (cause, rotates) = (act.cause(), matches!(act.act, Act::Rotate { .. }));
        let outcome = self.service.perform_own(act, rpc).await;
        let ok = outcome.is_ok();
        if rotates {
            self.figures().rotated(cause, ok);
        } else {
            self.figures().retired(ok);
        }
        match outcome {
            // Another rotation came first, which is as good.
            Ok(_) | Err(Failure::Conflict) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

impl State {
    /// Notes when a key is due, if that is soon.
    fn note(&mut self, id: KeyId, candidate: Option<&Candidate>, now: Now) {
        let at = candidate
            .and_then(|candidate| due_at(candidate, now))
            .map(|at| self.resting.get(&id).map_or(at, |until| at.max(*until)))
            .filter(|at| *at <= now.unix_s.saturating_add(HORIZON_S));
        self.due.set(id, at);
    }

    fn rest(&mut self, id: KeyId, until: u64) {
        if self.resting.len() < MAX_RESTING {
            self.resting.insert(id.clone(), until);
        }
        self.due.set(id, Some(until));
    }
}

/// When something is to be done with a key, Unix seconds.
fn due_at(candidate: &Candidate, now: Now) -> Option<u64> {
    let rotation = next(candidate, now.unix_s).and_then(|next| next.at);
    let retire_after = candidate.policy.parts().retire_after;
    let retirement = match (candidate.oldest, retire_after) {
        // After a jump of the clock nothing retires.
        (Some(oldest), Some(after)) if candidate.enabled && now.steady => {
            Some(oldest.since.saturating_add(after))
        }
        _ => None,
    };
    [rotation, retirement].into_iter().flatten().min()
}

fn id_of(candidate: &Candidate) -> KeyId {
    KeyId {
        tenant: candidate.tenant.clone(),
        key: candidate.name.clone(),
    }
}

/// Acts by their keys, in the order of each key's first.
fn by_key(acts: &[OwnAct]) -> Vec<Vec<OwnAct>> {
    let mut places: HashMap<&KeyId, usize> = HashMap::new();
    let mut grouped: Vec<Vec<OwnAct>> = Vec::new();
    for act in acts {
        let place = *places.entry(&act.id).or_insert(grouped.len());
        match grouped.get_mut(place) {
            Some(group) => group.push(act.clone()),
            None => grouped.push(vec![act.clone()]),
        }
    }
    grouped
}

/// Whether a failure concerns one key, so that others may go on.
fn is_of_key(failure: &Failure) -> bool {
    !failure.is_transient() && !matches!(failure, Failure::NoSpace)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
