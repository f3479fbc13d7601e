//! One damage to a trail, made by somebody who has the disk and no key, and what must be said of it.

use std::{ops::RangeInclusive, path::PathBuf};

use fieldkeep_harness::records::usual;
use prost::Message as _;

use super::{
    segment::{
        Frame, HEADER_BYTES, Place, end, fix_frame, fix_header, frame_bytes, frames, header,
        places, renumber, with_frames,
    },
    trail::{SegmentFile, Trail, name},
};
use crate::random::Random;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One bit is another one.
    Flip,
    /// The same, with the checksum of the frame or header computed anew.
    FlipFixed,
    /// A record, or a whole file, is taken out.
    Delete,
    /// Two records change places.
    Swap,
    /// A record is put in.
    Insert,
    /// A file is cut off.
    Truncate,
    /// The checkpoint file is damaged, or an older one put back.
    Checkpoint,
    /// What came after the newest checkpoint is changed, or added to.
    Tail,
}

/// What must be said of it.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// One of these records is the first that is wrong.
    Record(RangeInclusive<u64>),
    /// The log begins with this record, which those who verify it are told.
    BeginsAt(u64),
    /// The header of the very first segment, from which all else is read, is wrong: no record can be named.
    FirstHeader,
    /// There is no checkpoint to believe.
    NoCheckpoint,
    /// It verifies, since nothing that counts was changed.
    Harmless(&'static str),
    /// Nothing that counts was changed; it may be told all the same.
    Unimportant(&'static str),
    /// It cannot be told from the directory alone, as docs/threat-model.md says.
    Limit(&'static str),
}

/// One damage.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub(crate) kind: Kind,
    /// The segment to verify.
    pub(crate) segment: SegmentFile,
    /// Files and their bytes; those without are removed.
    pub(crate) files: Vec<(PathBuf, Option<Vec<u8>>)>,
    pub(crate) expect: Expect,
    /// Whether the checkpoint over the whole log was kept elsewhere, and is compared.
    pub(crate) newest_is_kept: bool,
    /// Whether who verifies has the key of the seals.
    pub(crate) has_seal_key: bool,
}

impl Damage {
    pub(crate) fn of(
        kind: Kind,
        segment: &SegmentFile,
        bytes: Option<Vec<u8>>,
        expect: Expect,
    ) -> Self {
        Self {
            kind,
            files: vec![(PathBuf::from(name(segment.id)), bytes)],
            segment: segment.clone(),
            expect,
            newest_is_kept: false,
            has_seal_key: false,
        }
    }
}

/// A damage to one segment of the journal; not one of `Checkpoint` or `Tail`.
pub(crate) fn to_segment(trail: &Trail, kind: Kind, random: &mut Random) -> Damage {
    let file = pick(&trail.files, random);
    let bytes = trail.read(file);
    match kind {
        Kind::Flip => flip(trail, file, bytes, random),
        Kind::FlipFixed => flip_fixed(file, bytes, random),
        Kind::Delete => delete(file, &bytes, random),
        Kind::Swap => swap(file, &bytes, random),
        Kind::Insert => insert(file, &bytes, random),
        Kind::Truncate | Kind::Checkpoint | Kind::Tail => truncate(trail, file, bytes, random),
    }
}

pub(crate) fn pick<'a, T>(from: &'a [T], random: &mut Random) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

fn one(index: u64) -> Expect {
    Expect::Record(index..=index)
}

/// The first record behind those of a file: what is named when they are whole and what follows them is wrong.
fn behind(file: &SegmentFile) -> Expect {
    one(file.records.end)
}

fn first_of(file: &SegmentFile) -> Expect {
    one(file.records.start)
}

fn at_place(place: &Place) -> Expect {
    let after = u64::from(place.is_seal);
    Expect::Record(place.index..=place.index + after)
}

fn flip(trail: &Trail, file: &SegmentFile, mut bytes: Vec<u8>, random: &mut Random) -> Damage {
    let places = places(&bytes);
    let used = end(&places);
    let unused = bytes.len() - used;
    let at = if random.below(20) == 0 && unused > 0 {
        used + random.below(unused as u64) as usize
    } else {
        random.below(used as u64) as usize
    };
    bytes[at] ^= 1 << random.below(8);
    let expect = if at < HEADER_BYTES {
        first_of(file)
    } else if let Some(place) = places
        .iter()
        .find(|place| (place.at..place.at + place.bytes).contains(&at))
    {
        at_place(place)
    } else if file.id == trail.last_file().id {
        Expect::Harmless(
            "the zeroes behind the end of the log: an unfinished write, which no start takes for records",
        )
    } else {
        behind(file)
    };
    Damage::of(Kind::Flip, file, Some(bytes), expect)
}

fn flip_fixed(file: &SegmentFile, mut bytes: Vec<u8>, random: &mut Random) -> Damage {
    let bit = 1 << random.below(8);
    let salt = header(&bytes).salt;
    if random.below(10) == 0 {
        let at = random.below(60) as usize;
        bytes[at] ^= bit;
        let grew =
            u64::from_be_bytes(bytes[24..32].try_into().expect("8 bytes")) > bytes.len() as u64;
        fix_header(&mut bytes);
        let expect = match at {
            16..24 | 40..56 if file.id == 1 => Expect::FirstHeader,
            24..32 if grew => behind(file),
            24..32 => Expect::Harmless(
                "a header's size that is less than the file's, which is read to its end",
            ),
            56..60 => Expect::Harmless("a header's number of copies"),
            _ => first_of(file),
        };
        return Damage::of(Kind::FlipFixed, file, Some(bytes), expect);
    }
    let places = places(&bytes);
    let want_seal = random.below(10) == 0;
    let wanted: Vec<&Place> = places
        .iter()
        .filter(|place| place.is_seal == want_seal)
        .collect();
    let place = **pick(&wanted, random);
    let within = random.below(place.bytes as u64 - 4) as usize;
    bytes[place.at + within] ^= bit;
    let length = &bytes[place.at + 4..place.at + 8];
    let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
    // If its length is another one, its checksum is elsewhere.
    let frame_bytes = frame_bytes(length);
    if place.at + frame_bytes <= bytes.len() {
        fix_frame(&mut bytes, salt, place.at, frame_bytes);
    }
    let expect = match within {
        24..32 => Expect::Unimportant("what a frame says of how far the log was synced"),
        32..64 if place.is_seal => {
            Expect::Harmless("the seal of a commit that a checkpoint is signed over")
        }
        _ => at_place(&place),
    };
    Damage::of(Kind::FlipFixed, file, Some(bytes), expect)
}

/// Which frames are records.
fn records(frames: &[Frame]) -> Vec<usize> {
    (0..frames.len())
        .filter(|at| !frames[*at].is_seal)
        .collect()
}

fn delete(file: &SegmentFile, bytes: &[u8], random: &mut Random) -> Damage {
    let first = file.records.start + 1;
    let damage = |bytes, expect| Damage::of(Kind::Delete, file, bytes, expect);
    let mut frames = frames(bytes);
    let places = records(&frames);
    let at = *pick(&places, random);
    let index = frames[at].sequence - 1;
    match random.below(10) {
        // The whole file. What is missing at the beginning looks as if it had been pruned.
        0 if file.id == 1 => damage(None, Expect::BeginsAt(file.records.end)),
        0 => damage(None, first_of(file)),
        // The first record, with a header that says so.
        1 => {
            frames.remove(places[0]);
            renumber(&mut frames, first + 1);
            let expect = match file.id {
                1 => Expect::BeginsAt(1),
                _ => first_of(file),
            };
            damage(Some(with_frames(bytes, first + 1, &frames)), expect)
        }
        // Nothing else is touched.
        2 => {
            frames.remove(at);
            damage(Some(with_frames(bytes, first, &frames)), one(index))
        }
        // All behind it in its file is renumbered, and a made-up record takes the last number, so that the next file fits.
        3..7 => {
            frames.remove(at);
            frames.insert(last_record(&frames) + 1, forged(random));
            renumber(&mut frames, first);
            damage(Some(with_frames(bytes, first, &frames)), one(index))
        }
        _ => {
            frames.remove(at);
            renumber(&mut frames, first);
            damage(Some(with_frames(bytes, first, &frames)), one(index))
        }
    }
}

fn last_record(frames: &[Frame]) -> usize {
    frames
        .iter()
        .rposition(|frame| !frame.is_seal)
        .unwrap_or_default()
}

/// A record that the service never wrote.
pub(crate) fn forged(random: &mut Random) -> Frame {
    Frame {
        is_seal: false,
        sequence: 0,
        durable_through: 0,
        payload: usual(1 << 40 | random.below(1 << 40)).encode_to_vec(),
    }
}

fn swap(file: &SegmentFile, bytes: &[u8], random: &mut Random) -> Damage {
    let mut frames = frames(bytes);
    let places = records(&frames);
    let (one_place, other) = (*pick(&places, random), *pick(&places, random));
    let other = match one_place == other {
        // Another one, if there is one.
        true => *places
            .get(usize::from(other == places[0]))
            .unwrap_or(&other),
        false => other,
    };
    let (from, to) = (one_place.min(other), one_place.max(other));
    let index = frames[from].sequence - 1;
    let payload = frames[from].payload.clone();
    frames[from].payload = std::mem::replace(&mut frames[to].payload, payload);
    let expect = if from == to {
        Expect::Harmless("a swap of the only record of a file with itself")
    } else {
        one(index)
    };
    let changed = with_frames(bytes, file.records.start + 1, &frames);
    Damage::of(Kind::Swap, file, Some(changed), expect)
}

fn insert(file: &SegmentFile, bytes: &[u8], random: &mut Random) -> Damage {
    let first = file.records.start + 1;
    let mut frames = frames(bytes);
    let at = *pick(&records(&frames), random);
    let index = frames[at].sequence - 1;
    frames.insert(at, forged(random));
    if random.below(2) == 0 {
        // The last one goes, so that the next file fits.
        frames.remove(last_record(&frames));
    }
    renumber(&mut frames, first);
    let changed = with_frames(bytes, first, &frames);
    Damage::of(Kind::Insert, file, Some(changed), one(index))
}

fn truncate(trail: &Trail, file: &SegmentFile, mut bytes: Vec<u8>, random: &mut Random) -> Damage {
    let places = places(&bytes);
    if random.below(3) > 0 {
        let at = random.below(bytes.len() as u64) as usize;
        bytes.truncate(at);
        let whole = places
            .iter()
            .filter(|place| !place.is_seal && place.at + place.bytes <= at)
            .count();
        let expect = one(file.records.start + whole as u64);
        return Damage::of(Kind::Truncate, file, Some(bytes), expect);
    }
    // Behind a whole commit, and filled up with zeroes.
    let seals: Vec<&Place> = places.iter().filter(|place| place.is_seal).collect();
    let seal = **pick(&seals, random);
    let cut = seal.at + seal.bytes;
    bytes[cut..].fill(0);
    let mut damage = Damage::of(Kind::Truncate, file, Some(bytes), one(seal.index + 1));
    if file.id == trail.last_file().id {
        // The journal's own mark would say so.
        damage.files.push((PathBuf::from("durable"), None));
        if seal.index + 1 == trail.records {
            damage.expect = Expect::Harmless("zeroes in the place of zeroes");
        }
    } else if seal.index + 1 == file.records.end {
        damage.expect = Expect::Harmless("zeroes in the place of zeroes");
    }
    damage
}
