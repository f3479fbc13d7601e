//! Random lives of two directories against a list, sealed or not: killed at any point of a commit, run alone, damaged, lost.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{DIR, MIRROR, append, check_seals, mirrored, open, open_in, sealed, small};
use crate::simulated::SimulatedDisk;
use crate::{Disk, Journal, OpenError, Options, ReadError, Recovered, parse_header};

const DIRS: [&str; 2] = [DIR, MIRROR];

/// How a run of the journal ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Stop,
    Kill,
    /// Killed in the middle of a commit of so many frames. Whether each directory has them all or has them cut
    /// somewhere, and, if both have them, how many marks say so.
    MidCommit(u64, [Option<u16>; 2], usize),
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u16),
    Truncate(u16),
    Remove,
}

#[derive(Clone, Debug)]
enum Step {
    Together(Vec<u64>, End),
    Alone(usize, Vec<u64>, End),
    /// Of a directory's file; only while the other directory is whole and not behind.
    Damage(usize, usize, Damage),
    Lose(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let commits = || prop::collection::vec(1u64..5, 0..4);
    let cuts = [
        prop::option::of(any::<u16>()),
        prop::option::of(any::<u16>()),
    ];
    let end = prop_oneof![
        1 => Just(End::Stop),
        1 => Just(End::Kill),
        4 => (1u64..9, cuts, 0usize..=2)
            .prop_map(|(count, cuts, marks)| End::MidCommit(count, cuts, marks)),
    ]
    .boxed();
    let damage = prop_oneof![
        3 => any::<u16>().prop_map(Damage::Flip),
        1 => any::<u16>().prop_map(Damage::Truncate),
        2 => Just(Damage::Remove),
    ];
    prop_oneof![
        4 => (commits(), end.clone()).prop_map(|(commits, end)| Step::Together(commits, end)),
        4 => (0usize..2, commits(), end).prop_map(|(dir, commits, end)| Step::Alone(dir, commits, end)),
        2 => (0usize..2, any::<usize>(), damage).prop_map(|(dir, file, damage)| Step::Damage(dir, file, damage)),
        1 => (0usize..2).prop_map(Step::Lose),
    ]
}

struct Pair {
    disk: SimulatedDisk,
    is_sealed: bool,
    acknowledged: Vec<Vec<u8>>,
    /// Every frame that was ever written, acknowledged or not.
    written: HashSet<(u64, Vec<u8>)>,
    generation: u64,
    /// The directory that ran alone since both last ran together.
    alone: Option<usize>,
    /// The directory that was damaged or lost since then.
    damaged: Option<usize>,
}

impl Pair {
    /// Opens, in one directory or both; everything acknowledged must be there, and nothing that was not written.
    fn open(&mut self, alone: Option<usize>) -> Journal {
        let (journal, recovered) = self.try_open(alone).unwrap_or_else(|error| {
            // Only a directory in which no segment says to which log it belongs may be refused.
            let damaged = self.damaged.map(|dir| DIRS[dir]);
            assert!(
                matches!(&error, OpenError::Damaged { path, .. } if Some(path.as_path()) == damaged.map(Path::new)),
                "{error}"
            );
            let files = self.files(damaged.unwrap());
            assert!(!files.iter().any(|path| parse_header(&self.disk.bytes(path)).is_ok()));
            files.iter().for_each(|path| self.disk.remove(path).unwrap());
            self.try_open(alone).unwrap()
        });
        assert_eq!(recovered.first, 1);
        assert!(
            recovered.next > self.acknowledged.len() as u64,
            "{recovered:?}"
        );
        let served: Vec<Vec<u8>> = journal
            .read(1)
            .unwrap()
            .map(|item| item.unwrap().1)
            .collect();
        assert_eq!(served.len() as u64, recovered.next - 1);
        for (sequence, bytes) in (1..).zip(&served) {
            match self.acknowledged.get(sequence as usize - 1) {
                Some(expected) => assert_eq!(bytes, expected, "frame {sequence}"),
                None => assert!(self.written.contains(&(sequence, bytes.clone()))),
            }
        }
        self.acknowledged = served;
        check_seals(&journal);
        journal
    }

    fn options(&self, options: Options) -> Options {
        if self.is_sealed {
            sealed(options)
        } else {
            options
        }
    }

    fn try_open(&self, alone: Option<usize>) -> Result<(Journal, Recovered), OpenError> {
        match alone {
            None => open(&self.disk, self.options(mirrored())),
            Some(dir) => open_in(&self.disk, DIRS[dir], self.options(small())),
        }
    }

    /// Opens both; afterwards each holds everything, if need be after what the documentation says to do.
    fn open_together(&mut self) -> Journal {
        let mut journal = self.open(None);
        while let Err(refused) = journal.verify() {
            let ReadError::Damaged { path, segment, .. } = &refused else {
                panic!("{refused}")
            };
            assert_eq!(
                Some(path.as_path()),
                self.damaged.map(|dir| Path::new(DIRS[dir]))
            );
            drop(journal);
            self.disk
                .remove(&path.join(format!("{segment:016x}.seg")))
                .unwrap();
            journal = self.open(None);
        }
        (self.alone, self.damaged) = (None, None);
        journal
    }

    /// Segments and marks.
    fn files(&self, dir: &str) -> Vec<PathBuf> {
        let is_kept = |path: &PathBuf| {
            path.starts_with(dir) && path.extension().is_none_or(|end| end == "seg")
        };
        self.disk.paths().into_iter().filter(is_kept).collect()
    }

    fn write(&mut self, journal: &Journal, count: u64) -> Vec<Vec<u8>> {
        self.generation += 1;
        let first = journal.next();
        let ticket = append(journal, count, self.generation);
        journal.wait_blocking(ticket).unwrap();
        let frames = journal.read_range(first, count).unwrap();
        self.written.extend(frames.iter().cloned());
        frames.into_iter().map(|(_, bytes)| bytes).collect()
    }

    fn run(&mut self, journal: Journal, commits: &[u64], end: End) {
        for count in commits {
            let frames = self.write(&journal, *count);
            self.acknowledged.extend(frames);
        }
        let mut left = self.disk.fork();
        match end {
            End::Stop => {
                drop(journal);
                return;
            }
            End::Kill => {}
            End::MidCommit(count, cuts, marks) => {
                self.write(&journal, count);
                let after = self.disk.fork();
                let is_whole = cuts.iter().all(Option::is_none);
                for (at, (dir, cut)) in DIRS.iter().zip(cuts).enumerate() {
                    self.disk = after.clone();
                    for path in self.files(dir) {
                        let is_mark = path.ends_with("durable");
                        let (old, new) = (left.bytes(&path), after.bytes(&path));
                        match cut {
                            _ if is_mark => {
                                if is_whole && at < marks {
                                    left.tamper(&path, |bytes| *bytes = new);
                                }
                            }
                            None => left.tamper(&path, |bytes| *bytes = new),
                            // A segment gets its name only when its first write is durable.
                            Some(_) if old.is_empty() => {}
                            Some(cut) => {
                                let from = old.iter().zip(&new).position(|(old, new)| old != new);
                                let end = from.map_or(0, |from| from + usize::from(cut) % 400);
                                let end = end.min(new.len());
                                left.tamper(&path, |bytes| {
                                    bytes[..end].copy_from_slice(&new[..end])
                                });
                            }
                        }
                    }
                }
            }
        }
        drop(journal);
        std::mem::swap(&mut self.disk, &mut left);
    }

    fn step(&mut self, step: Step) {
        // The directory that may not be harmed, and that alone may go on.
        let needed = self.alone.or(self.damaged.map(|dir| 1 - dir));
        match step {
            Step::Together(commits, end) => {
                let journal = self.open_together();
                self.run(journal, &commits, end);
            }
            Step::Alone(dir, commits, end) => {
                let dir = needed.unwrap_or(dir);
                let journal = self.open(Some(dir));
                self.alone = Some(dir);
                self.run(journal, &commits, end);
            }
            Step::Damage(dir, file, damage) => {
                let dir = needed.map_or(dir, |needed| 1 - needed);
                self.damaged = Some(dir);
                let files = self.files(DIRS[dir]);
                let Some(path) = files.get(file % files.len().max(1)) else {
                    return;
                };
                match damage {
                    Damage::Flip(at) => self.disk.tamper(path, |bytes| {
                        let at = usize::from(at) % bytes.len().max(1);
                        bytes
                            .iter_mut()
                            .skip(at)
                            .take(1)
                            .for_each(|byte| *byte ^= 1);
                    }),
                    Damage::Truncate(at) => self.disk.tamper(path, |bytes| {
                        bytes.truncate(usize::from(at) % bytes.len().max(1));
                    }),
                    Damage::Remove => self.disk.remove(path).unwrap(),
                }
            }
            Step::Lose(dir) => {
                let dir = needed.map_or(dir, |needed| 1 - needed);
                self.damaged = Some(dir);
                let files = self.files(DIRS[dir]);
                files
                    .iter()
                    .for_each(|path| self.disk.remove(path).unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_whole_directory_is_enough_for_everything_that_was_acknowledged(
        steps in prop::collection::vec(step(), 1..24),
        is_sealed in any::<bool>(),
    ) {
        let mut pair = Pair {
            disk: SimulatedDisk::new(),
            is_sealed,
            acknowledged: Vec::new(),
            written: HashSet::new(),
            generation: 0,
            alone: None,
            damaged: None,
        };
        pair.step(Step::Together(vec![3; 12], End::Stop));
        for step in steps {
            pair.step(step);
        }
        pair.step(Step::Together(vec![1], End::Stop));
        pair.open_together().verify().unwrap();
    }
}
