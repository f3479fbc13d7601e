//! Finds values within one line of JSON and replaces them where they stand: not a byte of the rest changes.
//!
//! `serde_json` does the parsing, so that a line is checked as a whole; this only follows the paths and notes where in the
//! text their values are. A member that an object has twice is found twice: neither may be passed over.

use std::fmt;
use std::ops::Range;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::path::{Path, Step};

/// A value that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which of the paths.
    pub(super) path: usize,
    /// Where its text is, quotes included.
    pub(super) range: Range<usize>,
}

/// The values that `paths` name in `line`, in the order of the text. A path that leads nowhere finds nothing.
///
/// # Errors
/// The line is not one JSON value.
pub(super) fn find(line: &str, paths: &[Path]) -> Result<Vec<Found>, serde_json::Error> {
    let mut found = Vec::new();
    let walk = Walk {
        start: line.as_ptr() as usize,
        paths,
        active: (0..paths.len()).map(|path| (path, 0)).collect(),
        found: &mut found,
    };
    let mut deserializer = serde_json::Deserializer::from_str(line);
    walk.deserialize(&mut deserializer)?;
    deserializer.end()?;
    found.sort_by_key(|found| found.range.start);
    Ok(found)
}

/// Appends `line` to `out` with other text at some of its places, which are in order and do not overlap.
pub(super) fn splice<'v>(
    line: &[u8],
    replacements: impl IntoIterator<Item = (Range<usize>, &'v [u8])>,
    out: &mut Vec<u8>,
) {
    let mut copied = 0;
    for (range, text) in replacements {
        out.extend_from_slice(line.get(copied..range.start).unwrap_or_default());
        out.extend_from_slice(text);
        copied = range.end;
    }
    out.extend_from_slice(line.get(copied..).unwrap_or_default());
}

/// A walk through one value: the paths that lead here, with the number of steps taken.
struct Walk<'w> {
    /// The address of the line, from which places are counted.
    start: usize,
    paths: &'w [Path],
    active: Vec<(usize, usize)>,
    found: &'w mut Vec<Found>,
}

impl Walk<'_> {
    /// The walk into a member or an element, with the paths that go on there.
    fn enter(&mut self, goes_on: impl Fn(&Step) -> bool) -> Walk<'_> {
        let next = |&(path, taken): &(usize, usize)| {
            let step = self.paths.get(path)?.steps.get(taken)?;
            goes_on(step).then_some((path, taken + 1))
        };
        Walk {
            start: self.start,
            paths: self.paths,
            active: self.active.iter().filter_map(next).collect(),
            found: self.found,
        }
    }

    fn ends(&self, path: usize, taken: usize) -> bool {
        self.paths
            .get(path)
            .is_none_or(|path| path.steps.len() == taken)
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        if self.active.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        if !self
            .active
            .iter()
            .any(|&(path, taken)| self.ends(path, taken))
        {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        let offset = raw.as_ptr() as usize - self.start;
        let active = std::mem::take(&mut self.active);
        for (path, taken) in active {
            if self.ends(path, taken) {
                self.found.push(Found {
                    path,
                    range: offset..offset + raw.len(),
                });
            } else {
                self.active.push((path, taken));
            }
        }
        if self.active.is_empty() {
            return Ok(());
        }
        // Another path goes on within this value.
        let mut within = serde_json::Deserializer::from_str(raw);
        self.deserialize(&mut within).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(
                self.enter(|step| matches!(step, Step::Name(name) if *name == key)),
            )?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let walk = self.enter(|step| matches!(step, Step::Each) || *step == Step::Index(index));
            if elements.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    // Paths that end before they reach a value find nothing.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
