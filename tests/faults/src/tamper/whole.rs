//! Damage that goes through the whole log, or to the files beside it.

use std::{fs, path::PathBuf};

use super::{
    damage::{Damage, Expect, Kind, pick},
    segment::{Frame, frames, renumber, with_frames},
    trail::{SegmentFile, Trail, name},
};
use crate::random::Random;

/// A damage that only a verification of the whole log can judge.
pub(crate) fn choose(trail: &Trail, random: &mut Random) -> Damage {
    match random.below(4) {
        0 | 1 => delete_and_renumber(trail, random),
        2 => tiles(trail, random),
        _ => mark(trail, random),
    }
}

/// Takes one record out, and moves all behind it up by one, to the end of the log.
fn delete_and_renumber(trail: &Trail, random: &mut Random) -> Damage {
    let place = random.below(trail.files.len() as u64) as usize;
    let files = &trail.files[place..];
    let index =
        files[0].records.start + random.below(files[0].records.end - files[0].records.start);
    // All files from this one on.
    let segment = SegmentFile {
        id: files[0].id,
        records: files[0].records.start..trail.records,
    };
    let mut damage = Damage::of(Kind::Delete, &segment, None, Expect::Record(index..=index));
    damage.files.clear();
    for file in files {
        let bytes = trail.read(file);
        let mut frames: Vec<Frame> = frames(&bytes);
        frames.retain(|frame| frame.is_seal || frame.sequence != index + 1);
        let first = match file.id == files[0].id {
            true => file.records.start + 1,
            false => file.records.start,
        };
        renumber(&mut frames, first);
        let changed = with_frames(&bytes, first, &frames);
        damage
            .files
            .push((PathBuf::from(name(file.id)), Some(changed)));
    }
    damage.files.push((PathBuf::from("durable"), None));
    damage
}

/// Changes a hash in a file of tiles, or removes the file: they are made from the records.
fn tiles(trail: &Trail, random: &mut Random) -> Damage {
    let why = "the tiles, which are made from the records";
    let mut damage = Damage::of(
        Kind::Flip,
        pick(&trail.files, random),
        None,
        Expect::Harmless(why),
    );
    let number = random.below(trail.records / 65_536);
    let path = PathBuf::from(format!("tree/{number:016x}.tiles"));
    let bytes = (random.below(4) > 0).then(|| {
        let mut bytes = fs::read(trail.dir().join(&path)).expect("the tiles can be read");
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        bytes
    });
    damage.files = vec![(path, bytes)];
    damage
}

/// Changes a bit of the journal's mark.
fn mark(trail: &Trail, random: &mut Random) -> Damage {
    let why = "the mark `durable` of a log that is whole";
    let mut damage = Damage::of(
        Kind::Flip,
        pick(&trail.files, random),
        None,
        Expect::Harmless(why),
    );
    let path = PathBuf::from("durable");
    let mut bytes = fs::read(trail.dir().join(&path)).expect("the mark can be read");
    let at = random.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << random.below(8);
    damage.files = vec![(path, Some(bytes))];
    damage
}
