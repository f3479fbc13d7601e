//! Random lives of a journal against a list.

use proptest::prelude::*;

use super::{open, small};
use crate::Options;
use crate::simulated::SimulatedDisk;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    Wait,
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
        8 => prop::collection::vec(payload, 1..4).prop_map(Step::Append),
        4 => Just(Step::Wait),
        3 => (0u64..200, 0u64..20).prop_map(|(from, count)| Step::Read(from, count)),
        1 => (0u64..200).prop_map(Step::Prune),
        1 => prop::sample::select(vec![1024u64, 2048, 4096]).prop_map(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_as_a_list_that_forgets_its_oldest(steps in prop::collection::vec(step(), 1..60)) {
        let mut disk = SimulatedDisk::new();
        let options = small();
        let mut journal = open(&disk, options.clone()).unwrap().0;
        let mut model: Vec<Vec<u8>> = Vec::new();
        let mut pruned_below = 1;
        for step in steps {
            match step {
                Step::Append(payloads) => {
                    let payloads_taken: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
                    let ticket = journal.append_all(&payloads_taken).unwrap();
                    model.extend(payloads);
                    prop_assert_eq!(ticket.sequence, model.len() as u64);
                }
                Step::Wait => {
                    journal.wait_blocking(crate::Ticket { sequence: model.len() as u64 }).unwrap();
                    prop_assert_eq!(journal.durable(), model.len() as u64);
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
                    prop_assert!(recovered.next > durable && recovered.next <= model.len() as u64 + 1);
                    model.truncate(recovered.next as usize - 1);
                    disk = left;
                    journal = opened;
                }
            }
            prop_assert!(journal.first() <= pruned_below.max(1));
            prop_assert_eq!(journal.next(), model.len() as u64 + 1);
        }
        journal.wait_blocking(crate::Ticket { sequence: model.len() as u64 }).unwrap();
        let first = journal.first();
        let kept: Vec<Vec<u8>> = journal.read(first).unwrap().map(|item| item.unwrap().1).collect();
        prop_assert_eq!(&kept[..], &model[(first as usize - 1).min(model.len())..]);
        journal.verify().unwrap();
    }
}
