//! `fieldkeep access test`: what a user expects of the rights, as a file.

use std::collections::BTreeMap;
use std::path::Path;

use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{identity_name, key_name};
use crate::cli::failure::{Exit, Failure, file_failure};
use crate::cli::output::{Format, print_line, print_list};

/// The most expectations of one file.
const MAX_EXPECTATIONS: usize = 10_000;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    expect: Vec<Expectation>,
}

/// One decision that is expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// The identity: a name, or `tenants/{tenant}/identities/{name}`.
    who: String,
    /// Its tenant, and that of the key.
    #[serde(default = "default_tenant")]
    tenant: String,
    action: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    field: String,
    #[serde(default)]
    context: BTreeMap<String, String>,
    /// The address that the call would come from.
    #[serde(default)]
    address: String,
    /// How it would be authenticated.
    #[serde(default)]
    method: String,
    #[serde(default)]
    second_factor: bool,
    result: Outcome,
}

fn default_tenant() -> String {
    String::from("default")
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Allow,
    /// Allowed, but through the mask alone.
    Masked,
    Deny,
}

impl Outcome {
    fn of(explained: &v1::ExplainAccessResponse) -> Outcome {
        match (explained.allowed, explained.masked) {
            (true, false) => Outcome::Allow,
            (true, true) => Outcome::Masked,
            (false, _) => Outcome::Deny,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Masked => "masked",
            Outcome::Deny => "deny",
        }
    }
}

fn parse(text: &str) -> Result<Vec<Expectation>, Failure> {
    let file: File = toml::from_str(text).map_err(|error| {
        Failure::new(Exit::Invalid, "the expectations cannot be read").caused_by(&error)
    })?;
    match file.expect.len() {
        0 => Err(Failure::new(Exit::Invalid, "the file expects nothing")
            .help("see `fieldkeep access test --help` for an example")),
        1..=MAX_EXPECTATIONS => Ok(file.expect),
        count => Err(Failure::new(
            Exit::Invalid,
            format_args!("the file has {count} expectations, at most {MAX_EXPECTATIONS} are taken"),
        )),
    }
}

/// Runs the verb.
pub(super) async fn run(path: &Path, client: &Client, format: Format) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| file_failure("read", path, &error))?;
    let expectations = parse(&text)?;
    let mut different = Vec::new();
    for (index, expected) in expectations.iter().enumerate() {
        let explained = client.explain_access(request(expected)).await;
        let explained = explained.map_err(|error| {
            let doing = format!("expectation {} cannot be asked for", index + 1);
            Failure::from(error).while_doing(doing)
        })?;
        if Outcome::of(&explained) != expected.result {
            different.push(difference(index + 1, expected, &explained));
        }
    }
    let columns = [
        "number", "who", "action", "key", "field", "expected", "found", "because",
    ];
    if different.is_empty() {
        let count = expectations.len();
        return match format {
            Format::Json => print_list(format, &columns, &[], ""),
            Format::Table => print_line(format_args!("{count} as expected")),
        };
    }
    print_list(format, &columns, &different, "")?;
    let (count, all) = (different.len(), expectations.len());
    Err(Failure::new(
        Exit::Failed,
        format_args!("{count} of {all} decisions are not as expected"),
    ))
}

fn request(expected: &Expectation) -> v1::ExplainAccessRequest {
    let pair = |(name, value): (&String, &String)| v1::ContextPair {
        name: name.clone(),
        value: value.clone(),
    };
    v1::ExplainAccessRequest {
        principal: identity_name(&expected.tenant, &expected.who),
        action: expected.action.clone(),
        key: key_name(&expected.tenant, &expected.key),
        field: expected.field.clone(),
        context: expected.context.iter().map(pair).collect(),
        tenant: String::new(),
        address: expected.address.clone(),
        method: expected.method.clone(),
        second_factor: expected.second_factor,
    }
}

fn difference(
    number: usize,
    expected: &Expectation,
    explained: &v1::ExplainAccessResponse,
) -> Value {
    let because = if explained.allowed {
        &explained.grant
    } else {
        &explained.rule
    };
    json!({
        "number": number,
        "who": identity_name(&expected.tenant, &expected.who),
        "action": expected.action,
        "key": expected.key,
        "field": expected.field,
        "expected": expected.result.as_str(),
        "found": Outcome::of(explained).as_str(),
        "because": because,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_expectations_is_read_strictly() {
        let good = "[[expect]]\nwho = \"alice\"\naction = \"decrypt\"\ncontext = { id = \"42\" }\nresult = \"deny\"\n";
        let read = parse(good).unwrap();
        assert_eq!(
            (read[0].tenant.as_str(), read[0].result),
            ("default", Outcome::Deny)
        );
        assert_eq!(
            request(&read[0]).principal,
            "tenants/default/identities/alice"
        );
        for bad in [
            "",
            "expect = 1",
            "[[expect]]\nwho = \"alice\"\n",
            &good.replace("deny", "maybe"),
            &good.replace("who", "whom"),
            &format!("{good}more = true"),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
