//! Damage to the checkpoint file, and to what came after the newest checkpoint.

use std::path::PathBuf;

use fieldkeep::audit::checkpoint::CHECKPOINT_FILE;

use super::{
    damage::{Damage, Expect, Kind, forged, pick},
    segment::{Frame, Place, fix_frame, frames, header, places, renumber, with_frames},
    trail::{Trail, name, slots},
};
use crate::random::Random;

const SLOT_BYTES: u64 = 512;

/// A damage to the checkpoint file.
pub(crate) fn to_file(trail: &Trail, random: &mut Random) -> Damage {
    let file = pick(&trail.files, random);
    let mut bytes = slots(trail.newest(), &trail.behind);
    let slot = random.below(2);
    flip(&mut bytes, slot, random);
    let mut damage = Damage {
        kind: Kind::Checkpoint,
        segment: file.clone(),
        files: Vec::new(),
        expect: Expect::Harmless("one of the two checkpoints; the other one stands"),
        newest_is_kept: false,
        has_seal_key: false,
    };
    let mut checkpoint = Some(bytes);
    match random.below(10) {
        0..5 => {}
        5..8 => {
            if let Some(bytes) = &mut checkpoint {
                flip(bytes, 1 - slot, random);
            }
            damage.expect = Expect::NoCheckpoint;
        }
        8 => {
            let old = pick(&trail.kept, random);
            checkpoint = Some(slots(old, old));
            damage.expect = Expect::Harmless("an older checkpoint, which the log has as well");
            damage.newest_is_kept = true;
        }
        _ => {
            let old = pick(&trail.kept, random).clone();
            if old.head.size == trail.records {
                checkpoint = None;
                damage.expect = Expect::NoCheckpoint;
            } else {
                // The whole directory as it was then. Only who kept a newer checkpoint can tell.
                checkpoint = Some(slots(&old, &old));
                cut_back(trail, old.head.size, &mut damage);
            }
        }
    }
    damage
        .files
        .push((PathBuf::from(CHECKPOINT_FILE), checkpoint));
    damage
}

fn flip(bytes: &mut [u8], slot: u64, random: &mut Random) {
    let at = (slot * SLOT_BYTES + random.below(SLOT_BYTES)) as usize;
    bytes[at] ^= 1 << random.below(8);
}

/// Cuts the log off behind its first `size` records, which end a commit.
fn cut_back(trail: &Trail, size: u64, damage: &mut Damage) {
    damage.files.push((PathBuf::from("durable"), None));
    for file in &trail.files {
        let path = PathBuf::from(name(file.id));
        if file.records.start >= size {
            damage.files.push((path, None));
        } else if file.records.end >= size {
            let mut bytes = trail.read(file);
            let places = places(&bytes);
            let seal = places
                .iter()
                .find(|place| place.is_seal && place.index + 1 == size)
                .expect("a checkpoint is over whole commits");
            bytes[seal.at + seal.bytes..].fill(0);
            damage.segment = file.clone();
            damage.files.push((path, Some(bytes)));
        }
    }
    damage.expect = Expect::Record(size..=size);
    damage.newest_is_kept = true;
}

/// A damage to the records behind the newest checkpoint, which only their seals vouch for.
pub(crate) fn to_tail(trail: &Trail, random: &mut Random) -> Damage {
    let file = trail.last_file();
    let bytes = trail.read(file);
    let mut damage = Damage::of(Kind::Tail, file, None, Expect::NoCheckpoint);
    damage.has_seal_key = true;
    let (changed, expect) = change_tail(trail, bytes, &mut damage, random);
    damage.expect = expect;
    damage.files = damage
        .files
        .drain(1..)
        .chain([
            (PathBuf::from(name(file.id)), Some(changed)),
            (
                PathBuf::from(CHECKPOINT_FILE),
                Some(slots(&trail.behind, &trail.behind)),
            ),
        ])
        .collect();
    damage
}

fn change_tail(
    trail: &Trail,
    mut bytes: Vec<u8>,
    damage: &mut Damage,
    random: &mut Random,
) -> (Vec<u8>, Expect) {
    let first = trail.last_file().records.start + 1;
    let mut frames = frames(&bytes);
    // The frames of whole commits behind the checkpoint; a commit has a record at least.
    let signed = trail.behind.head.size.max(first - 1);
    let from = frames
        .iter()
        .position(|frame| !frame.is_seal && frame.sequence > signed)
        .expect("the last file ends behind the checkpoint");
    let of = |frames: &[Frame], seals: bool| -> Vec<usize> {
        (from..frames.len())
            .filter(|at| frames[*at].is_seal == seals)
            .collect()
    };
    let (records, seals) = (of(&frames, false), of(&frames, true));
    let at = *pick(&records, random);
    let index = frames[at].sequence - 1;
    let mut expect = Expect::Record(index..=index);
    match random.below(10) {
        0 => {
            let places = tail_places(&bytes, from, false);
            let place = pick(&places, random);
            let length = frames[from..]
                .iter()
                .find(|frame| frame.sequence == place.index + 1 && !frame.is_seal)
                .map_or(1, |frame| frame.payload.len());
            let within = 32 + random.below(length as u64) as usize;
            bytes[place.at + within] ^= 1 << random.below(8);
            fix(&mut bytes, place);
            return (bytes, Expect::Record(place.index..=place.index));
        }
        1 => {
            // A seal; any record of its commit may be named.
            let seal = *pick(&seals, random);
            let place = tail_places(&bytes, seal, true)[0];
            bytes[place.at + 32 + random.below(32) as usize] ^= 1 << random.below(8);
            fix(&mut bytes, &place);
            let begins = frames[..seal]
                .iter()
                .rposition(|frame| frame.is_seal)
                .map_or(0, |before| before + 1);
            return (
                bytes,
                Expect::Record(frames[begins].sequence - 1..=place.index),
            );
        }
        2 => {
            // Records without a seal: no part of the log, unless the mark claims them.
            frames.extend((0..=random.below(3)).map(|_| forged(random)));
            expect = Expect::Harmless("records without a seal, which are no part of the log");
        }
        3 => {
            // The end of the log, the mark, and what the frames that stay say of how far it was synced: those that a start has written
            // anew say more than their own place. The directory alone cannot tell.
            let seal = *pick(&seals, random);
            frames.truncate(seal + 1);
            damage.files.push((PathBuf::from("durable"), None));
            let cut = frames[seal].sequence;
            for frame in &mut frames {
                frame.durable_through = frame.durable_through.min(cut);
            }
            if cut == trail.records {
                expect = Expect::Harmless("nothing cut off");
            } else if random.below(2) == 0 {
                expect = Expect::Limit(
                    "whole commits cut off behind the newest checkpoint, and the journal's mark removed",
                );
            } else {
                damage.newest_is_kept = true;
                expect = Expect::Record(cut..=cut);
            }
        }
        4 => {
            frames.remove(at);
        }
        5 => frames.insert(at, forged(random)),
        6 => {
            let other = *pick(&records, random);
            let (from, to) = (at.min(other), at.max(other));
            let index = frames[from].sequence - 1;
            let payload = frames[from].payload.clone();
            frames[from].payload = std::mem::replace(&mut frames[to].payload, payload);
            expect = match from == to {
                true => Expect::Harmless("a swap of a record with itself"),
                false => Expect::Record(index..=index),
            };
        }
        _ => {
            // Forged commits, each with a seal that is made up or was another commit's.
            for _ in 0..=random.below(2) {
                frames.extend((0..=random.below(4)).map(|_| forged(random)));
                let mut seal = frames[*pick(&seals, random)].clone();
                if random.below(2) == 0 {
                    seal.payload = (0..32).map(|_| random.next() as u8).collect();
                }
                frames.push(seal);
            }
            expect = Expect::Record(trail.records..=trail.records);
        }
    }
    renumber(&mut frames, first);
    (with_frames(&bytes, first, &frames), expect)
}

/// The places of the frames from number `from` on that are seals, or that are records.
fn tail_places(bytes: &[u8], from: usize, seals: bool) -> Vec<Place> {
    let places = places(bytes);
    places[from..]
        .iter()
        .filter(|place| place.is_seal == seals)
        .copied()
        .collect()
}

fn fix(bytes: &mut [u8], place: &Place) {
    let salt = header(bytes).salt;
    fix_frame(bytes, salt, place.at, place.bytes);
}
