//! Places in a JSON value: `a.b[0].c`, `items[*].email`, `["a.b"].c`.

use std::str::FromStr;

/// The most steps of a path: `serde_json` reads no deeper.
const MAX_STEPS: usize = 100;

/// One step into a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A member of an object: `name`, `["any name"]`.
    Name(String),
    /// An element of an array, counted from 0: `[3]`.
    Index(usize),
    /// Each element of an array: `[*]`.
    Each,
}

/// Steps from the whole value inwards, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The steps, from the outside.
    pub(super) steps: Vec<Step>,
}

/// Why text is not a path.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// Nothing, or nothing between two dots.
    #[error("a name is empty; write a member as `a.b`, and one with an empty name as `a[\"\"]`")]
    EmptyName,
    /// A bracket that is not `[0]`, `[*]` or `["name"]`.
    #[error("a bracket holds an index, `*` or a name in quotes: `[0]`, `[*]`, `[\"a.b\"]`")]
    Bracket,
    /// A bracket or quote within a name.
    #[error("a name with brackets or quotes is written as `[\"name\"]`")]
    Name,
    /// Something other than `.`, `[` or the end after a bracket.
    #[error("after a bracket comes `.`, another bracket or the end")]
    AfterBracket,
    /// Too many steps.
    #[error("a path has 100 steps at most")]
    TooLong,
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            if steps.len() >= MAX_STEPS {
                return Err(PathError::TooLong);
            }
            rest = match rest.strip_prefix('[') {
                Some(inside) => {
                    let (step, rest) = bracket(inside)?;
                    steps.push(step);
                    rest
                }
                None => {
                    let end = rest.find(['.', '[']).unwrap_or(rest.len());
                    let (name, rest) = rest.split_at(end);
                    if name.is_empty() {
                        return Err(PathError::EmptyName);
                    }
                    if name.contains([']', '"']) {
                        return Err(PathError::Name);
                    }
                    steps.push(Step::Name(name.to_owned()));
                    rest
                }
            };
            match rest.chars().next() {
                None => return Ok(Path { steps }),
                Some('[') => {}
                Some('.') => {
                    rest = rest.get(1..).unwrap_or_default();
                    if rest.starts_with('[') {
                        return Err(PathError::EmptyName);
                    }
                }
                Some(_) => return Err(PathError::AfterBracket),
            }
        }
    }
}

/// What is in a bracket, and what follows it.
fn bracket(inside: &str) -> Result<(Step, &str), PathError> {
    if inside.starts_with('"') {
        let mut names = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let Some(Ok(name)) = names.next() else {
            return Err(PathError::Bracket);
        };
        let rest = inside.get(names.byte_offset()..).unwrap_or_default();
        let rest = rest.strip_prefix(']').ok_or(PathError::Bracket)?;
        return Ok((Step::Name(name), rest));
    }
    let (index, rest) = inside.split_once(']').ok_or(PathError::Bracket)?;
    let step = match index {
        "*" => Step::Each,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Step::Index(digits.parse().map_err(|_| PathError::Bracket)?)
        }
        _ => return Err(PathError::Bracket),
    };
    Ok((step, rest))
}

impl Path {
    /// Whether there can be a value that both name, or one within a value that the other names.
    pub(super) fn overlaps(&self, other: &Path) -> bool {
        self.steps.iter().zip(&other.steps).all(|pair| match pair {
            (Step::Name(one), Step::Name(other)) => one == other,
            (Step::Index(one), Step::Index(other)) => one == other,
            (Step::Each, Step::Index(_) | Step::Each) | (Step::Index(_), Step::Each) => true,
            (Step::Name(_), _) | (_, Step::Name(_)) => false,
        })
    }

    /// Whether it can name more than one value.
    pub(super) fn has_each(&self) -> bool {
        self.steps.contains(&Step::Each)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Step {
        Step::Name(text.into())
    }

    #[test]
    fn steps_are_names_indexes_and_each() {
        let steps = |text: &str| text.parse::<Path>().unwrap().steps;
        assert_eq!(steps("email"), [name("email")]);
        assert_eq!(
            steps("a.b[0].c"),
            [name("a"), name("b"), Step::Index(0), name("c")]
        );
        assert_eq!(
            steps("items[*].email"),
            [name("items"), Step::Each, name("email")]
        );
        assert_eq!(steps("[2][*]"), [Step::Index(2), Step::Each]);
        assert_eq!(
            steps("[\"a.b]\"][\"\"].Käse 1"),
            [name("a.b]"), name(""), name("Käse 1")]
        );
    }

    #[test]
    fn malformed_paths_are_refused() {
        use PathError::{AfterBracket, Bracket, EmptyName, Name};
        for (text, error) in [
            ("", EmptyName),
            ("a.", EmptyName),
            (".a", EmptyName),
            ("a..b", EmptyName),
            ("a.[0]", EmptyName),
            ("a]", Name),
            ("a\"b", Name),
            ("a[", Bracket),
            ("a[]b]", Bracket),
            ("a[-1]", Bracket),
            ("a[x]", Bracket),
            ("a[99999999999999999999]", Bracket),
            ("a[\"b]", Bracket),
            ("a[\"b\" ]", Bracket),
            ("a[0]b", AfterBracket),
        ] {
            assert_eq!(text.parse::<Path>().unwrap_err(), error, "{text}");
        }
        assert_eq!(
            "[0]".repeat(101).parse::<Path>().unwrap_err(),
            PathError::TooLong
        );
    }

    #[test]
    fn paths_overlap_where_they_can_meet() {
        let overlap = |one: &str, other: &str| {
            let (one, other): (Path, Path) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("a", "a") && overlap("a.b", "a") && overlap("a[*].b", "a[3]"));
        assert!(overlap("a[*]", "a[*]") && !overlap("a", "b") && !overlap("a[0]", "a[1]"));
        assert!(!overlap("a.b", "a[0]") && !overlap("a[*].b", "a[0].c"));
    }

    proptest! {
        #[test]
        fn any_steps_can_be_written(steps in prop::collection::vec(prop_oneof![
            any::<String>().prop_map(Step::Name), any::<usize>().prop_map(Step::Index), Just(Step::Each)], 1..6))
        {
            let text: String = steps.iter().map(|step| match step {
                Step::Name(name) => format!("[{}]", serde_json::to_string(name).unwrap()),
                Step::Index(index) => format!("[{index}]"),
                Step::Each => String::from("[*]"),
            }).collect();
            prop_assert_eq!(text.parse::<Path>().unwrap().steps, steps);
        }

        #[test]
        fn any_text_is_a_path_or_an_error(text in "[a.\\[\\]*0\"\\\\]{0,12}") {
            let _ = text.parse::<Path>();
        }
    }
}
