//! What the audit trail costs: calls with the trail and without it, in interleaved rounds.
//!
//! The service has no switch for that. Without the trail means another program, of the same code and for this benchmark alone.

use std::{
    fmt::Write as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fieldkeep_harness::binary;

use crate::{
    load::Measured,
    process,
    report::spread,
    rows::Row,
    servers::{Place, Target},
    system::{BATCHES_IN_FLIGHT, CONNECTIONS, IN_FLIGHT, Side, measure, runtime},
};

/// The program without the trail, beside the service.
const WITHOUT: &str = "fieldkeep-without-audit";

/// What a server does about the records of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trail {
    Without,
    Synced,
    Window,
}

/// In the order of the servers.
const TRAILS: [Trail; 3] = [Trail::Without, Trail::Synced, Trail::Window];

/// What is measured against no trail, and how much slower it may be, percent. Only records of Encrypt are ever synced after their
/// replies.
const BARS: [(Row, Trail, u32); 6] = [
    (Row::Encrypt, Trail::Synced, 12),
    (Row::Encrypt, Trail::Window, 8),
    (Row::Decrypt, Trail::Synced, 12),
    (Row::BatchEncrypt, Trail::Synced, 3),
    (Row::BatchEncrypt, Trail::Window, 3),
    (Row::BatchDecrypt, Trail::Synced, 3),
];

impl Trail {
    fn title(self) -> &'static str {
        match self {
            Trail::Without => "none",
            Trail::Synced => "fdatasync before the reply",
            Trail::Window => "`window_ms = 100`",
        }
    }
}

/// A server and what calls it.
struct Server {
    place: Place,
    target: Target,
    side: Side,
}

/// One row, and what was measured in each round: of each trail that matters to it, none first.
struct Load {
    row: Row,
    trails: Vec<Trail>,
    rounds: Vec<Vec<Sample>>,
}

struct Sample {
    measured: Measured,
    /// Syncs of the trail in 1,000 calls, warm-up included.
    syncs: f64,
}

/// Measures those of `rows` that have a bar, and returns the table.
pub(crate) fn run(rows: &[Row], rounds: usize, length: Duration) -> String {
    let mut loads: Vec<Load> = rows.iter().filter_map(|&row| Load::of(row)).collect();
    assert!(!loads.is_empty(), "none of these rows is measured here");
    let (service, without) = (binary(), binary().with_file_name(WITHOUT));
    assert!(
        version(&without).contains("without-audit") && !version(&service).contains("without-audit"),
        "one program of each kind"
    );
    let runtime = runtime(2);
    // A client belongs to the runtime that it is made in.
    let _inside = runtime.enter();
    let servers = TRAILS.map(|trail| {
        let place = Place::make();
        if trail == Trail::Window {
            place.configure("[audit]\nwindow_ms = 100");
        }
        let target = place.serve_by(Command::new(match trail {
            Trail::Without => &without,
            Trail::Synced | Trail::Window => &service,
        }));
        let clients = place.clients(&target, CONNECTIONS);
        let side = Side {
            pool: runtime.block_on(place.pool(&target, &clients[0])),
            clients,
            pid: target.pid(),
        };
        Server {
            place,
            target,
            side,
        }
    });
    for round in 0..rounds {
        for load in &mut loads {
            let mut samples: Vec<(usize, Sample)> = Vec::new();
            for turn in 0..load.trails.len() {
                // Another one begins each round, so that none always runs on a warmer machine.
                let at = (turn + round) % load.trails.len();
                let trail = load.trails[at];
                let server = &servers[trail as usize];
                let before = Counted::of(&server.target);
                let measured = runtime.block_on(measure(load.row, &server.side, length));
                let syncs = Counted::of(&server.target).since(&before).check(trail);
                eprintln!(
                    "round {}: {:.0} calls/s, {:.1} us, {syncs:.2} syncs in 1,000 calls, {}, {}",
                    round + 1,
                    measured.rate,
                    measured.cpu_us,
                    load.title(),
                    trail.title()
                );
                samples.push((at, Sample { measured, syncs }));
                settle(server.side.pid);
            }
            samples.sort_by_key(|(at, _)| *at);
            let samples = samples.into_iter().map(|(_, sample)| sample);
            load.rounds.push(samples.collect());
        }
    }
    for Server {
        place,
        target,
        side,
    } in servers
    {
        drop(side);
        target.stop();
        drop(place);
    }
    table(&loads, rounds, length)
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    String::from_utf8(output.stdout).expect("a version")
}

/// What a server counts.
struct Counted {
    calls: f64,
    records: f64,
    syncs: f64,
}

impl Counted {
    fn of(target: &Target) -> Self {
        let text = target.metrics();
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum()
        };
        Self {
            calls: sum("fieldkeep_calls_total{"),
            records: sum("fieldkeep_journal_frames_total{journal=\"audit\"}"),
            syncs: sum("fieldkeep_journal_syncs_total{journal=\"audit\"}"),
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            records: self.records - before.records,
            syncs: self.syncs - before.syncs,
        }
    }

    /// Syncs in 1,000 calls. Asserts that the calls are on record, or are not.
    fn check(self, trail: Trail) -> f64 {
        let Self {
            calls,
            records,
            syncs,
        } = self;
        assert!(calls > 0.0, "the server counts its calls");
        match trail {
            Trail::Without => assert!(records < calls / 100.0, "{records} records"),
            Trail::Synced => assert!(records >= calls, "{records} records of {calls} calls"),
            // The last ones are not durable yet.
            Trail::Window => assert!(records > 0.0, "no records"),
        }
        syncs / calls * 1_000.0
    }
}

/// Waits until a server is done with what it does behind its calls, such as the index of its records, so that it takes nothing from
/// the next one.
fn settle(pid: u32) {
    let begun = Instant::now();
    loop {
        let before = process::cpu(pid);
        thread::sleep(Duration::from_millis(200));
        let used = process::cpu(pid) - before;
        if used <= Duration::from_millis(10) || begun.elapsed() > Duration::from_secs(30) {
            return;
        }
    }
}

impl Load {
    fn of(row: Row) -> Option<Self> {
        let measured = BARS.iter().filter(|(of, ..)| *of == row);
        let mut trails = vec![Trail::Without];
        trails.extend(measured.map(|(_, trail, _)| *trail));
        (trails.len() > 1).then(|| Self {
            row,
            trails,
            rounds: Vec::new(),
        })
    }

    /// Without the baseline, which is not measured here.
    fn title(&self) -> &'static str {
        let title = self.row.title();
        title.split_once(" / ").map_or(title, |(load, _)| load)
    }

    /// How many calls a second fewer, percent of those without the trail in the same round; and how many there may be.
    fn cost(&self, at: usize) -> Option<(String, u32)> {
        let trail = self.trails[at];
        let (.., bar) = BARS
            .iter()
            .find(|(row, of, _)| (*row, *of) == (self.row, trail))?;
        let rate = |sample: &Sample| sample.measured.rate;
        let costs = self
            .rounds
            .iter()
            .map(|round| 100.0 * (1.0 - rate(&round[at]) / rate(&round[0])));
        Some((spread(costs, 1), *bar))
    }
}

fn table(loads: &[Load], rounds: usize, length: Duration) -> String {
    let mut text = format!(
        "Load: {CONNECTIONS} connections x {IN_FLIGHT} in flight ({BATCHES_IN_FLIGHT} for batches), mTLS 1.3, 29-byte field, one context pair; servers and load generator on all cores; \
         {rounds} rounds of {} s, in each of which every trail has its turn. Median (smallest to largest). The cost is how many calls/s fewer, percent of those without the trail in the same round. \
         Without it runs `{WITHOUT}`: the same code, built so that calls on fields leave no records.\n\n\
         | load | trail | cost, % | at most | calls/s | p50 us | p99 us | server CPU us a call | fdatasyncs in 1,000 calls |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        length.as_secs(),
    );
    for load in loads {
        for (at, trail) in load.trails.iter().enumerate() {
            let of = || load.rounds.iter().map(|round| &round[at]);
            let measured = || of().map(|sample| &sample.measured);
            let (cost, bar) = load.cost(at).map_or_else(Default::default, |(cost, bar)| {
                (format!("**{cost}**"), bar.to_string())
            });
            let _ = writeln!(
                text,
                "| {} | {} | {cost} | {bar} | {} | {} | {} | {} | {} |",
                load.title(),
                trail.title(),
                spread(measured().map(|m| m.rate), 0),
                spread(measured().map(|m| f64::from(m.percentile_us(50.0))), 0),
                spread(measured().map(|m| f64::from(m.percentile_us(99.0))), 0),
                spread(measured().map(|m| m.cpu_us), 1),
                spread(of().map(|sample| sample.syncs), 2),
            );
        }
    }
    text
}
