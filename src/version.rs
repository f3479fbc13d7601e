//! What this build is.

/// Whether calls on the values of fields leave records in the audit trail. They do in every build but one, with which the benchmark
/// of what the trail costs compares: the program `fieldkeep-without-audit` of the feature `bench-without-audit`. Nothing that is
/// set or sent can turn the trail off.
///
/// It is asked by plain `if`s, so that both ways compile in every build.
pub const AUDITED: bool = cfg!(not(feature = "bench-without-audit"));

/// The version; of a build that does not audit it says so.
pub const VERSION: &str = if AUDITED {
    env!("CARGO_PKG_VERSION")
} else {
    concat!(env!("CARGO_PKG_VERSION"), "+without-audit")
};

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const FEATURE: &str = "bench-without-audit";

    #[test]
    fn a_build_of_tests_audits() {
        assert_eq!(VERSION, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn nothing_turns_the_feature_on_unasked() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |folder: &str| fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = read("").parse().unwrap();
        let features = manifest["features"].as_table().unwrap();
        assert!(features.contains_key(FEATURE));
        for (name, turned_on) in features {
            let turned_on = turned_on.as_array().unwrap();
            let named = turned_on
                .iter()
                .any(|other| other.as_str() == Some(FEATURE));
            assert!(!named, "the feature `{name}` turns it on");
        }
        for member in manifest["workspace"]["members"].as_array().unwrap() {
            let member = member.as_str().unwrap();
            assert!(!read(member).contains(FEATURE), "`{member}` turns it on");
        }
    }
}
