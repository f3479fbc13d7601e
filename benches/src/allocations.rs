//! Heap allocations and instructions a call, counted by valgrind: the difference between a run of many calls and one of few.

use std::{fmt::Write as _, sync::Arc};

use futures_util::{StreamExt as _, stream};

use crate::{
    rows::Row,
    servers::{Place, Target},
    system::runtime,
};

const COUNT_ALLOCATIONS: [&str; 4] = [
    "valgrind",
    "--tool=memcheck",
    "--leak-check=no",
    "--undef-value-errors=no",
];
/// Calls in flight on the one connection, so that the figures are those of a loaded server.
const IN_FLIGHT: usize = 32;

#[derive(Clone, Copy, Default)]
struct Counts {
    allocations: f64,
    bytes: f64,
    instructions: f64,
}

/// Counts `calls` calls of each row (a hundredth of that for batches) and returns the table. `profiles` is where the profiles of
/// instructions go, for `callgrind_annotate`.
pub(crate) fn run(rows: &[Row], calls: u64, profiles: Option<&str>) -> String {
    let place = Place::make();
    let mut text = String::from(
        "A call: the difference between runs of N and of 10 N calls, 32 in flight on one connection (2 for batches), under valgrind. User-space instructions.\n\n\
         | load | allocations a call | bytes a call | instructions a call | baseline: allocations | bytes | instructions |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for &row in rows {
        let calls = if row.is_batch() {
            (calls / 100).max(2)
        } else {
            calls
        };
        let ours = count(row, calls, &place, profiles, |wrapper| {
            place.fieldkeep(wrapper)
        });
        let bare = count(row, calls, &place, None, |wrapper| place.bare(wrapper));
        let line = format!(
            "| {} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} |",
            row.title(),
            ours.allocations,
            ours.bytes,
            ours.instructions,
            bare.allocations,
            bare.bytes,
            bare.instructions,
        );
        eprintln!("{line}");
        let _ = writeln!(text, "{line}");
    }
    text
}

fn count(
    row: Row,
    calls: u64,
    place: &Place,
    profiles: Option<&str>,
    start: impl Fn(&[&str]) -> Target,
) -> Counts {
    let out = profiles.map_or_else(
        || String::from("--callgrind-out-file=/dev/null"),
        |folder| format!("--callgrind-out-file={folder}/callgrind.{row:?}.%p"),
    );
    let count_instructions = ["valgrind", "--tool=callgrind", &out];

    let measure = |calls| {
        let log = drive(row, calls, place, start(&COUNT_ALLOCATIONS));
        let heap = line(&log, "total heap usage:");
        let log = drive(row, calls, place, start(&count_instructions));
        Counts {
            allocations: heap[0],
            bytes: heap[2],
            instructions: line(&log, "Collected :")[0],
        }
    };
    let (few, many) = (measure(calls), measure(calls * 10));
    assert!(
        many.allocations > few.allocations + calls as f64,
        "the server has an allocator that valgrind cannot count: build it with --no-default-features"
    );
    let each = |few: f64, many: f64| (many - few) / (calls * 9) as f64;
    Counts {
        allocations: each(few.allocations, many.allocations),
        bytes: each(few.bytes, many.bytes),
        instructions: each(few.instructions, many.instructions),
    }
}

/// Makes `calls` calls, ends the server and returns valgrind's log.
fn drive(row: Row, calls: u64, place: &Place, target: Target) -> String {
    let runtime = runtime(1);
    let _inside = runtime.enter();
    let clients = place.clients(&target, 1);
    runtime.block_on(async {
        let pool = place.pool(&target, &clients[0]).await;
        let in_flight = match row {
            Row::OneAtATime => 1,
            row if row.is_batch() => 2,
            _ => IN_FLIGHT,
        };
        stream::iter(0..calls)
            .map(|number| row.call(clients[0].clone(), number, Arc::clone(&pool)))
            .buffer_unordered(in_flight)
            .collect::<()>()
            .await;
    });
    drop(clients);
    target.stop()
}

/// The numbers of the line of `log` that has `title`.
fn line(log: &str, title: &str) -> Vec<f64> {
    let line = log
        .lines()
        .find_map(|line| Some(line.split_once(title)?.1))
        .unwrap_or_else(|| panic!("valgrind did not say `{title}`:\n{log}"));
    line.split_whitespace()
        .filter_map(|word| word.replace(',', "").parse().ok())
        .collect()
}
