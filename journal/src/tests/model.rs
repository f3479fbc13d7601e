//! Random lives of a journal against a list; sealed or not, with a window or without.

use std::time::Duration;

use proptest::prelude::*;

use super::{check_seals, open, sealed, small};
use crate::simulated::SimulatedDisk;
use crate::{AppendOptions, Options};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>, AppendOptions),
    Wait,
    WaitWritten,
    Read(u64, u64),
    Prune(u64),
    /// Closed and opened again with this segment size.
    Reopen(u64),
    /// Killed: the disk as it is.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop::collection::vec(any::<u8>(), 0..=200);
    prop_oneof![
        8 => (prop::collection::vec(payload, 1..4), any::<bool>(), any::<bool>()).prop_map(
            |(payloads, relaxed, privileged)| {
                Step::Append(payloads, AppendOptions { relaxed, privileged })
            }
        ),
        4 => Just(Step::Wait),
        4 => Just(Step::WaitWritten),
        3 => (0u64..200, 0u64..20).prop_map(|(from, count)| Step::Read(from, count)),
        1 => (0u64..200).prop_map(Step::Prune),
        1 => prop::sample::select(vec![1024u64, 2048, 4096]).prop_map(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_as_a_list_that_forgets_its_oldest(
        steps in prop::collection::vec(step(), 1..60),
        is_sealed in any::<bool>(),
        window_ms in prop::sample::select(vec![0, 5, 100]),
        reserve_bytes in prop::sample::select(vec![0, 300]),
    ) {
        let mut disk = SimulatedDisk::new();
        let options = Options {
            window: Duration::from_millis(window_ms),
            reserve_bytes,
            ..small()
        };
        let options = if is_sealed { sealed(options) } else { options };
        let mut journal = open(&disk, options.clone()).unwrap().0;
        let mut model: Vec<Vec<u8>> = Vec::new();
        let mut pruned_below = 1;
        let mut written = 0;
        for step in steps {
            match step {
                Step::Append(payloads, how) => {
                    let payloads_taken: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
                    let ticket = journal.append_with(&payloads_taken, how).unwrap();
                    model.extend(payloads);
                    prop_assert_eq!(ticket.sequence, model.len() as u64);
                }
                Step::Wait => {
                    journal.wait_blocking(crate::Ticket::at(model.len() as u64)).unwrap();
                    prop_assert_eq!(journal.durable(), model.len() as u64);
                }
                Step::WaitWritten => {
                    written = model.len() as u64;
                    journal.wait_written_blocking(crate::Ticket::at(written)).unwrap();
                }
                Step::Read(from, count) => {
                    let durable = journal.durable();
                    match journal.read_range(from, count) {
                        Ok(frames) => {
                            let upper = durable.min((from + count).saturating_sub(1));
                            prop_assert!(frames.len() as u64 >= (upper + 1).saturating_sub(from.max(1)).min(count));
                            for (at, (sequence, bytes)) in frames.iter().enumerate() {
                                prop_assert_eq!(*sequence, from + at as u64);
                                prop_assert_eq!(bytes, &model[*sequence as usize - 1]);
                            }
                        }
                        Err(error) => prop_assert!(from < journal.first(), "{error}"),
                    }
                }
                Step::Prune(before) => {
                    journal.prune_before(before).unwrap();
                    pruned_below = pruned_below.max(before);
                }
                Step::Reopen(segment_bytes) => {
                    drop(journal);
                    let (opened, recovered) = open(&disk, Options { segment_bytes, ..options.clone() }).unwrap();
                    prop_assert_eq!(recovered.next, model.len() as u64 + 1);
                    prop_assert_eq!(recovered.torn_frames_dropped, 0);
                    journal = opened;
                }
                Step::Kill => {
                    let durable = journal.durable();
                    let left = disk.fork();
                    drop(journal);
                    let (opened, recovered) = open(&left, options.clone()).unwrap();
                    // What was written is in the kernel's hands, which was not killed.
                    prop_assert!(recovered.next > durable.max(written));
                    prop_assert!(recovered.next <= model.len() as u64 + 1);
                    model.truncate(recovered.next as usize - 1);
                    disk = left;
                    journal = opened;
                }
            }
            prop_assert!(journal.first() <= pruned_below.max(1));
            prop_assert_eq!(journal.next(), model.len() as u64 + 1);
        }
        journal.wait_blocking(crate::Ticket::at(model.len() as u64)).unwrap();
        let first = journal.first();
        let kept: Vec<Vec<u8>> = journal.read(first).unwrap().map(|item| item.unwrap().1).collect();
        prop_assert_eq!(&kept[..], &model[(first as usize - 1).min(model.len())..]);
        journal.verify().unwrap();
        prop_assert_eq!(check_seals(&journal) > 0, is_sealed && !kept.is_empty());
    }
}
