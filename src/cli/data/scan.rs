//! `fieldkeep data scan`: what columns hold, from what ciphertexts say of themselves.

use std::collections::{BTreeMap, HashMap};

use fieldkeep_client::Client;
use fieldkeep_crypto::ciphertext::{Ciphertext, Handle};
use serde_json::{Value as Json, json};
use tonic::Code;

use super::super::connection::ConnectionArgs;
use super::super::failure::{Exit, Failure};
use super::super::output::{Format, count_of, print_json, print_line, table, thousands};
use super::super::progress::byte_progress;
use super::args::ScanArgs;
use super::columns::ColumnChoice;
use super::input::open;
use super::layout::Layout;
use super::pipeline::{open_rows, unreadable};
use super::row::Shape;
use super::transform::parse_ciphertext;

/// More kinds of values than a file of this service has; a bound on memory.
const MAX_KINDS: usize = 100_000;
/// More keys than are worth listing for their names.
const MAX_KEYS: usize = 100_000;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A ciphertext of this key and version.
    Encrypted(Handle, u32),
    /// Begins like a ciphertext and is none.
    Malformed,
    /// Anything else.
    Plaintext,
    /// Nothing, or null.
    Empty,
}

/// What was counted.
#[derive(Debug, Default)]
struct Counted {
    rows: u64,
    columns: Vec<String>,
    /// Values by the place of their column, and kind.
    values: BTreeMap<(usize, Kind), u64>,
}

/// Runs the verb.
pub(super) async fn run(
    args: ScanArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    // Values are looked at whatever their type.
    let shape = args.input.shape(None, true);
    let input = open(args.input.input.as_deref())?;
    let bar = byte_progress("scanning", input.bytes.unwrap_or_default());
    let reader = Box::new(bar.wrap_read(input.reader));
    let counting = tokio::task::spawn_blocking(move || count(shape, reader, &args.columns));
    let counted = counting.await;
    bar.finish_and_clear();
    let counted = counted
        .map_err(|error| Failure::new(Exit::Failed, "the scan did not end").caused_by(&error))??;
    let keys = match connection.client() {
        Ok(client) if counted.has_ciphertexts() => keys(&client).await,
        _ => HashMap::new(),
    };
    print(format, &counted, &keys)
}

/// Reads everything and counts it.
fn count(
    shape: Shape,
    input: Box<dyn std::io::Read + Send>,
    names: &[String],
) -> Result<Counted, Failure> {
    let (mut rows, _, header) =
        open_rows(shape, input).map_err(|error| unreadable(shape, &error))?;
    let names = match (names, &header) {
        ([], Some(header)) => (0..header.len())
            .map(|index| String::from_utf8_lossy(&header.value(index)).into_owned())
            .collect(),
        ([], None) if shape != Shape::Csv => {
            return Err(Failure::new(Exit::Usage, "JSON lines have no header to take columns from")
                .help("name the values to look at, as in --column customer.email --column 'items[*].card'"));
        }
        (names, _) => names.to_vec(),
    };
    let choices: Vec<ColumnChoice> = names
        .iter()
        .map(|column| ColumnChoice {
            column: column.clone(),
            key: None,
            field: String::new(),
        })
        .collect();
    let layout = Layout::new(shape, header.as_ref(), &choices, &[])?;
    let mut counted = Counted {
        columns: layout
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect(),
        ..Counted::default()
    };
    let places: HashMap<&str, usize> = counted
        .columns
        .iter()
        .enumerate()
        .map(|(place, name)| (name.as_str(), place))
        .collect();
    while let Some(row) = rows.next_row().map_err(|error| unreadable(shape, &error))? {
        if row.is_blank() {
            continue;
        }
        counted.rows += 1;
        for value in layout.find(&row)?.values {
            let Some(place) = places.get(value.column.name.as_str()) else {
                continue;
            };
            *counted
                .values
                .entry((*place, kind(&value.value)))
                .or_default() += 1;
        }
        if counted.values.len() > MAX_KINDS {
            let what = format!(
                "the columns name more than {} keys and versions",
                thousands(MAX_KINDS as u64)
            );
            return Err(
                Failure::new(Exit::Invalid, what).help("was this file written by Fieldkeep?")
            );
        }
    }
    Ok(counted)
}

fn kind(value: &[u8]) -> Kind {
    if value.is_empty() {
        return Kind::Empty;
    }
    if !value.starts_with(b"fk1:") {
        return Kind::Plaintext;
    }
    let ciphertext = parse_ciphertext(value);
    let parsed = ciphertext.as_deref().map(Ciphertext::parse);
    match parsed {
        Some(Ok(parsed)) => Kind::Encrypted(parsed.handle(), parsed.version()),
        _ => Kind::Malformed,
    }
}

/// Names and primary versions of the keys that the caller may list; none if it may not.
async fn keys(client: &Client) -> HashMap<Vec<u8>, (String, u32)> {
    let mut known = HashMap::new();
    let mut pages = client.keys().list("").page_size(1_000);
    loop {
        match pages.next_page().await {
            Ok(Some(page)) if known.len() < MAX_KEYS => known.extend(
                page.into_iter()
                    .map(|key| (key.handle.to_vec(), (key.name, key.primary_version))),
            ),
            Ok(_) => return known,
            Err(error) => {
                let why = if error.code() == Some(Code::Unimplemented) {
                    String::from("an admin, on the admin listener, sees names")
                } else {
                    format!("their names cannot be listed: {error}")
                };
                eprintln!("note: keys are shown by handle; {why}");
                return known;
            }
        }
    }
}

impl Counted {
    fn has_ciphertexts(&self) -> bool {
        let mut kinds = self.values.keys();
        kinds.any(|(_, kind)| matches!(kind, Kind::Encrypted(..)))
    }
}

fn print(
    format: Format,
    counted: &Counted,
    keys: &HashMap<Vec<u8>, (String, u32)>,
) -> Result<(), Failure> {
    let values: Vec<Json> = counted
        .values
        .iter()
        .map(|((place, kind), count)| describe(counted.columns.get(*place), *kind, *count, keys))
        .collect();
    if format == Format::Json {
        return print_json(&json!({ "rows": counted.rows, "values": values }));
    }
    if !values.is_empty() {
        let text = |value: &Json, member: &str| match value.get(member) {
            Some(Json::String(text)) => text.clone(),
            Some(Json::Number(number)) if member == "values" => {
                thousands(number.as_u64().unwrap_or_default())
            }
            Some(Json::Number(number)) => number.to_string(),
            Some(Json::Bool(true)) => String::from("current"),
            Some(Json::Bool(false)) => String::from("behind"),
            _ => String::from("-"),
        };
        let members = ["column", "state", "key", "version", "current", "values"];
        let rows = values
            .iter()
            .map(|value| members.iter().map(|member| text(value, member)).collect())
            .collect();
        let header = ["column", "state", "key", "version", "", "values"];
        print_line(table(Some(&header), rows))?;
    }
    print_line(count_of(counted.rows, "row"))
}

fn describe(
    column: Option<&String>,
    kind: Kind,
    count: u64,
    keys: &HashMap<Vec<u8>, (String, u32)>,
) -> Json {
    let state = match kind {
        Kind::Encrypted(..) => "encrypted",
        Kind::Malformed => "malformed",
        Kind::Plaintext => "plaintext",
        Kind::Empty => "empty",
    };
    let mut value = json!({ "column": column, "state": state, "values": count });
    if let (Kind::Encrypted(handle, version), Some(members)) = (kind, value.as_object_mut()) {
        let known = keys.get(handle.as_bytes().as_slice());
        let key = known.map_or_else(|| format!("handle {handle}"), |(name, _)| name.clone());
        members.insert(String::from("key"), key.into());
        members.insert(String::from("handle"), handle.to_string().into());
        members.insert(String::from("version"), version.into());
        let current = known.map(|(_, primary)| *primary == version);
        members.insert(String::from("current"), current.into());
    }
    value
}
