//! Damage to a trail: every change that counts is found and located, and nothing makes the verification panic.

mod checkpoint;
mod damage;
mod judge;
mod segment;
mod trail;
mod whole;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use fieldkeep::audit::{
    AuditError,
    verify::{Verified, VerifyError, Wanted, segment::verify_segment, verify},
};
use tokio::runtime::Runtime;

use self::{
    damage::{Damage, Expect, Kind},
    judge::{Tally, Verdict, judge},
    trail::{Scratch, Trail},
};
use crate::random::Random;

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    /// Records of the log.
    pub(crate) records: u64,
    /// Damages, of which the segment and the checkpoint are verified.
    pub(crate) cases: u64,
    /// Damages, of which the whole log is verified.
    pub(crate) whole: u64,
}

/// One in so many damages to the tail is also met by a start of the service's own code.
const START_ONE_IN: u64 = 20;
/// Damages that are told of one by one.
const TOLD: u64 = 20;

/// Makes a log and damages copies of it. Whether all went as it must.
pub(crate) fn run(length: Length, seed: u64) -> bool {
    let runtime = crate::runtime();
    let started = Instant::now();
    let trail = Trail::make(&runtime, length.records, &mut Random::new(seed));
    println!(
        "tamper: a log of {} records in {} files, made in {:.0} s",
        trail.records,
        trail.files.len(),
        started.elapsed().as_secs_f64()
    );
    let undamaged = verify_undamaged(&trail);
    let run = Run {
        trail: &trail,
        runtime: &runtime,
        seed,
        next: AtomicU64::new(0),
        told: AtomicU64::new(0),
    };
    let alone = run.all(length.cases, false);
    println!(
        "tamper: {} damages, each segment verified with the checkpoint, after {:.0} s:\n{alone}",
        length.cases,
        started.elapsed().as_secs_f64()
    );
    run.next.store(0, Ordering::Relaxed);
    let whole = run.all(length.whole, true);
    println!(
        "tamper: {} damages, the whole log verified, after {:.0} s:\n{whole}",
        length.whole,
        started.elapsed().as_secs_f64()
    );
    let wrong = alone.wrong() + whole.wrong() + u64::from(!undamaged);
    println!(
        "tamper: {} damages to a log of {} records, {wrong} wrong (seed {seed})",
        length.cases + length.whole,
        trail.records
    );
    wrong == 0
}

/// What is not damaged verifies, or the rest would mean nothing.
fn verify_undamaged(trail: &Trail) -> bool {
    let scratch = Scratch::make(trail);
    let segment = &trail.files[trail.files.len() / 2];
    let damage = Damage {
        files: Vec::new(),
        has_seal_key: true,
        ..Damage::of(Kind::Flip, segment, None, Expect::Harmless("nothing"))
    };
    let said = [
        say(trail, &scratch, &damage, false),
        say(trail, &scratch, &damage, true),
    ];
    let whole = said.iter().all(|said| {
        said.as_ref()
            .is_ok_and(|verified| verified.checkpoint == trail.newest().head)
    });
    if !whole {
        eprintln!("tamper: the undamaged log does not verify: {said:?}");
    }
    whole
}

struct Run<'a> {
    trail: &'a Trail,
    runtime: &'a Runtime,
    seed: u64,
    next: AtomicU64,
    told: AtomicU64,
}

impl Run<'_> {
    /// Makes and judges `cases` damages, on all processors.
    fn all(&self, cases: u64, whole: bool) -> Tally {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut tally = Tally::default();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(move || self.some(cases, whole)))
                .collect();
            for worker in workers {
                tally.join(worker.join().expect("a worker ends"));
            }
        });
        tally
    }

    fn some(&self, cases: u64, whole: bool) -> Tally {
        let scratch = Scratch::make(self.trail);
        let mut tally = Tally::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= cases {
                return tally;
            }
            // Each has its own numbers, whichever thread it falls to.
            let mut random = Random::new(self.seed ^ (number << 1 | u64::from(whole)) << 20);
            let damage = choose(self.trail, whole, &mut random);
            for (name, bytes) in &damage.files {
                scratch.put(name, bytes.as_deref());
            }
            let said = catch_unwind(AssertUnwindSafe(|| {
                say(self.trail, &scratch, &damage, whole)
            }));
            let verdict = match &said {
                Ok(said) => judge(self.trail, &damage, said),
                Err(_) => Verdict::Wrong("a panic".to_owned()),
            };
            if let Verdict::Wrong(why) = &verdict
                && self.told.fetch_add(1, Ordering::Relaxed) < TOLD
            {
                let segment = damage.segment.id;
                eprintln!(
                    "damage {number} ({:?}, segment {segment:016x}): {why}",
                    damage.kind
                );
            }
            tally.add(damage.kind, &verdict);
            if damage.kind == Kind::Tail
                && !damage.newest_is_kept
                && number.is_multiple_of(START_ONE_IN)
            {
                tally.starts += 1;
                tally.wrong_starts += u64::from(!self.starts_as_it_must(number, &damage));
            }
            for (name, _) in &damage.files {
                scratch.restore(name);
            }
        }
    }

    /// Opens the damaged trail as the service does at its start.
    fn starts_as_it_must(&self, number: u64, damage: &Damage) -> bool {
        let scratch = Scratch::make(self.trail);
        for (name, bytes) in &damage.files {
            scratch.put(name, bytes.as_deref());
        }
        let open = trail::open(scratch.dir(), &self.trail.keystore);
        let opened = self.runtime.block_on(open);
        let right = match (&damage.expect, &opened) {
            (Expect::Record(_), Err(AuditError::Lost(_) | AuditError::Open(_))) => true,
            (Expect::Harmless(_), Ok(log)) => log.len() == self.trail.records,
            (Expect::Limit(_), Ok(_)) => true,
            _ => false,
        };
        if !right {
            let said = opened.map(|log| log.len());
            eprintln!(
                "damage {number} at the start: {:?}: {said:?}",
                damage.expect
            );
        }
        right
    }
}

fn choose(trail: &Trail, whole: bool, random: &mut Random) -> Damage {
    let kind = match random.below(100) {
        0..25 => Kind::Flip,
        25..45 => Kind::FlipFixed,
        45..58 => Kind::Delete,
        58..70 => Kind::Swap,
        70..82 => Kind::Insert,
        82..90 => Kind::Truncate,
        90..95 => Kind::Checkpoint,
        _ => Kind::Tail,
    };
    match kind {
        Kind::Checkpoint => checkpoint::to_file(trail, random),
        Kind::Tail => checkpoint::to_tail(trail, random),
        // Some damages are only worth a verification of the whole log.
        Kind::Delete | Kind::Flip if whole && random.below(2) == 0 => whole::choose(trail, random),
        kind => damage::to_segment(trail, kind, random),
    }
}

/// What a verification says of the damaged segment, or of the whole log.
fn say(
    trail: &Trail,
    scratch: &Scratch,
    damage: &Damage,
    whole: bool,
) -> Result<Verified, VerifyError> {
    let kept = [trail.newest().note.clone()];
    let seal = trail.keystore.derive_audit_seal_key();
    let wanted = Wanted {
        dir: scratch.dir(),
        key: &trail.key,
        checkpoints: if damage.newest_is_kept { &kept } else { &[] },
        archive: None,
        seal: damage.has_seal_key.then_some(&seal),
    };
    match whole {
        true => verify(&wanted, &mut |_, _| {}),
        false => verify_segment(&wanted, damage.segment.id),
    }
}
