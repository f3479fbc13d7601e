//! Finds values within one line of JSON and replaces them where they stand: not a byte of the rest changes.
//!
//! `serde_json` does the parsing, so that a line is checked as a whole; this only follows the paths and notes where in the
//! text their values are. A member that an object has twice is found twice: neither may be passed over.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
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
        // As text first: to read a number that leads nowhere could fail, since JSON has larger ones than a computer.
        let raw = <&RawValue>::deserialize(deserializer)?.get();
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
        if self.active.is_empty() || !raw.starts_with(['{', '[']) {
            return Ok(());
        }
        let mut within = serde_json::Deserializer::from_str(raw);
        within.deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn paths(texts: &[&str]) -> Vec<Path> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn texts<'l>(line: &'l str, wanted: &[&str]) -> Vec<(usize, &'l str)> {
        find(line, &paths(wanted))
            .unwrap()
            .into_iter()
            .map(|found| (found.path, &line[found.range]))
            .collect()
    }

    #[test]
    fn values_are_found_as_they_stand() {
        let line =
            " {\"a\" : {\"b\":[ {\"c\":\"x\\u0041\"}, 1.50 ]},\"n\":1e400, \"a.b\":null}\r\n";
        assert_eq!(
            texts(
                line,
                &[
                    "a.b[0].c",
                    "a.b[1]",
                    "n",
                    "[\"a.b\"]",
                    "a.b[2]",
                    "n.x",
                    "a[0]"
                ]
            ),
            [(0, "\"x\\u0041\""), (1, "1.50"), (2, "1e400"), (3, "null")]
        );
        assert_eq!(
            texts("[{\"x\":1},{},{\"x\":[]},3]", &["[*].x"]),
            [(0, "1"), (0, "[]")]
        );
    }

    #[test]
    fn a_value_and_one_within_it_are_both_found() {
        let line = "{\"a\":{\"b\":\"x\"}}";
        assert_eq!(
            texts(line, &["a.b", "a"]),
            [(1, "{\"b\":\"x\"}"), (0, "\"x\"")]
        );
    }

    #[test]
    fn a_member_that_is_there_twice_is_found_twice() {
        let line = "{\"email\":\"one\",\"\\u0065mail\":\"two\"}";
        assert_eq!(texts(line, &["email"]), [(0, "\"one\""), (0, "\"two\"")]);
    }

    #[test]
    fn what_is_no_json_is_an_error_wherever_it_is() {
        for line in [
            "",
            "{",
            "{\"a\":1,}",
            "{\"a\":1} x",
            "{\"b\":tru,\"a\":1}",
            "{\"a\":'x'}",
            "\u{feff}{}",
        ] {
            assert!(find(line, &paths(&["a"])).is_err(), "{line}");
        }
        assert!(find(&"[".repeat(200_000), &paths(&["a", "[0][0][0]"])).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\\u{e9}\n ]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab.\"]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => "[ab.\"]{0,2}".prop_map(Step::Name),
            1 => (0usize..3).prop_map(Step::Index),
            1 => Just(Step::Each),
        ]
    }

    /// The same search over a parsed value.
    fn oracle<'v>(value: &'v Value, steps: &[Step]) -> Vec<&'v Value> {
        let Some((step, rest)) = steps.split_first() else {
            return vec![value];
        };
        let next: Vec<&Value> = match step {
            Step::Name(name) => value.get(name).into_iter().collect(),
            Step::Index(index) => value.get(index).into_iter().collect(),
            Step::Each => value.as_array().into_iter().flatten().collect(),
        };
        next.into_iter()
            .flat_map(|value| oracle(value, rest))
            .collect()
    }

    /// Every value at `steps` replaced.
    fn replace(value: &mut Value, steps: &[Step], with: &Value) {
        let Some((step, rest)) = steps.split_first() else {
            value.clone_from(with);
            return;
        };
        match (step, value) {
            (Step::Name(name), Value::Object(members)) => {
                members
                    .get_mut(name)
                    .into_iter()
                    .for_each(|v| replace(v, rest, with));
            }
            (Step::Index(index), Value::Array(elements)) => {
                elements
                    .get_mut(*index)
                    .into_iter()
                    .for_each(|v| replace(v, rest, with));
            }
            (Step::Each, Value::Array(elements)) => {
                elements.iter_mut().for_each(|v| replace(v, rest, with));
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn finding_agrees_with_a_search_of_the_parsed_value(
            value in json(), pretty: bool, steps in prop::collection::vec(step(), 1..4),
        ) {
            let line = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => value.to_string(),
            };
            let path = Path { steps };
            let found = find(&line, std::slice::from_ref(&path)).unwrap();
            let seen: Vec<Value> = found.iter()
                .map(|found| serde_json::from_str(&line[found.range.clone()]).unwrap()).collect();
            prop_assert_eq!(seen.iter().collect::<Vec<_>>(), oracle(&value, &path.steps));

            let mut same = Vec::new();
            let places = found.iter().map(|found| (found.range.clone(), line[found.range.clone()].as_bytes()));
            splice(line.as_bytes(), places, &mut same);
            prop_assert_eq!(&same, line.as_bytes());

            let mut other = Vec::new();
            splice(line.as_bytes(), found.iter().map(|found| (found.range.clone(), &b"\"fk1:x\""[..])), &mut other);
            let mut expected = value;
            replace(&mut expected, &path.steps, &Value::from("fk1:x"));
            prop_assert_eq!(serde_json::from_slice::<Value>(&other).unwrap(), expected);
        }
    }
}
