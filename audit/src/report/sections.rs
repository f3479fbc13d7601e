//! The sections of a report as tables of text, which the terminal and the page show each in its own way.

use super::model::{Act, Listed, Overdue, Refusal, Report, Row, Top, Use};
use super::names::{bucket_unit, thousands};
use super::section::{Cell, Column, Line, Section, number, text, time};
use super::table::Tally;

/// How many rows are shown at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of a table of sums; what is not shown goes into its last row.
    pub(super) sums: usize,
    /// Of a list.
    pub(super) listed: usize,
}

/// All sections but the activity over time, which each form draws.
pub(super) fn sections(report: &Report, limits: Limits) -> Vec<Section> {
    vec![
        totals(report),
        principals(report, limits.sums),
        decrypts(report, limits.sums),
        other_data_calls(report, limits.sums),
        refusals(report, limits.sums),
        acts(
            "Grants, groups and masks changed",
            "Every change of who may do what, in the order of the log.",
            &report.grants,
            limits.listed,
        ),
        acts(
            "Other administrative acts",
            "Keys, tenants, certificates, API keys, issuers, limits, and what failed. Times are UTC.",
            &report.acts,
            limits.listed,
        ),
        overdue(&report.overdue, limits.listed),
    ]
}

fn totals(report: &Report) -> Section {
    let totals = &report.totals;
    let rows = [
        ("decrypt", &totals.decrypt),
        ("encrypt", &totals.encrypt),
        ("re-encrypt", &totals.re_encrypt),
        ("index", &totals.index),
    ]
    .map(|(name, sum)| Line {
        cells: std::iter::once(Cell::from(name.to_owned()))
            .chain(use_cells(sum))
            .collect(),
        more: String::new(),
    });
    let count = |number: u64| thousands(number);
    Section {
        title: "Totals",
        note: format!(
            "{} calls: {} answered, {} failed, {} refused. {} of them read settings or the trail, {} were administrative acts.",
            count(totals.calls),
            count(totals.answered),
            count(totals.failed),
            count(totals.refused),
            count(totals.reads),
            count(totals.acts),
        ),
        columns: std::iter::once(text("action")).chain(USE_COLUMNS).collect(),
        rows: rows.into(),
        foot: String::new(),
    }
}

/// The columns of [`use_cells`].
const USE_COLUMNS: [Column; 6] = [
    number("calls"),
    number("values"),
    number("failed"),
    number("masked"),
    number("refused"),
    number("errors"),
];

fn use_cells(sum: &Use) -> [Cell; 6] {
    [
        sum.calls,
        sum.items,
        sum.items_failed,
        sum.items_masked,
        sum.calls_refused,
        sum.calls_failed,
    ]
    .map(Cell::from)
}

/// The rows of a table of sums, at most `most`, and one for all others.
fn lines<K, V: Tally + Clone>(
    top: &Top<K, V>,
    most: usize,
    names: usize,
    cells: impl Fn(&Row<K, V>) -> Vec<Cell>,
    sums: impl Fn(&V) -> Vec<Cell>,
) -> (Vec<Line>, String) {
    let shown = top.rows.iter().take(most);
    let mut rows: Vec<Line> = shown
        .map(|row| {
            let mut line = cells(row);
            line.extend(sums(&row.value));
            Line {
                cells: line,
                more: String::new(),
            }
        })
        .collect();
    let mut others = top.others.clone();
    for row in top.rows.iter().skip(most) {
        others.get_or_insert_default().merge(row.value.clone());
    }
    if let Some(others) = others {
        let blank = || Cell::from(String::new());
        let mut cells = vec![Cell::from(String::from("(others)"))];
        cells.extend(std::iter::repeat_with(blank).take(names.saturating_sub(1)));
        cells.extend(sums(&others));
        rows.push(Line {
            cells,
            more: String::new(),
        });
    }
    let foot = if top.rows.iter().take(most).any(|row| row.at_least) {
        format!(
            "A name with a + has at least as many: some may be among the others, since at most {} rows are kept.",
            thousands(top.most_rows as u64)
        )
    } else {
        String::new()
    };
    (rows, foot)
}

/// The name of a row's principal, with a plus if the row has "at least" its numbers.
fn principal(name: &str, at_least: bool) -> Cell {
    let mut cell = Cell::name(name);
    if at_least {
        cell.text.push_str(" +");
    }
    cell
}

fn principals(report: &Report, most: usize) -> Section {
    let (rows, foot) = lines(
        &report.principals,
        most,
        1,
        |row| vec![principal(&row.key.principal, row.at_least)],
        |sum| {
            let numbers = [
                sum.calls,
                sum.decrypted,
                sum.encrypted,
                sum.re_encrypted,
                sum.refused,
                sum.acts,
            ];
            numbers.map(Cell::from).into()
        },
    );
    Section {
        title: "Who did what",
        note: "Decrypted, encrypted and re-encrypted count values; the rest counts calls.".into(),
        columns: vec![
            text("principal"),
            number("calls"),
            number("decrypted"),
            number("encrypted"),
            number("re-encrypted"),
            number("refused"),
            number("acts"),
        ],
        rows,
        foot,
    }
}

fn decrypts(report: &Report, most: usize) -> Section {
    let (rows, foot) = lines(
        &report.decrypts,
        most,
        3,
        |row| {
            vec![
                principal(&row.key.principal, row.at_least),
                Cell::name(&row.key.key),
                Cell::name(&row.key.field),
            ]
        },
        |sum| use_cells(sum).into(),
    );
    Section {
        title: "Who decrypted what",
        note: "Values are those of calls that were answered; failed and masked ones are among them. Refused and errors count calls. \
               What belongs to several keys or fields of one call, and cannot be told apart, is under (several)."
            .into(),
        columns: [text("principal"), text("key"), text("field")]
            .into_iter()
            .chain(USE_COLUMNS)
            .collect(),
        rows,
        foot,
    }
}

fn other_data_calls(report: &Report, most: usize) -> Section {
    let (rows, foot) = lines(
        &report.other_data_calls,
        most,
        3,
        |row| {
            vec![
                principal(&row.key.principal, row.at_least),
                row.key.action.to_owned().into(),
                Cell::name(&row.key.key),
            ]
        },
        |sum| {
            let numbers = [
                sum.calls,
                sum.items,
                sum.items_failed,
                sum.calls_refused,
                sum.calls_failed,
            ];
            numbers.map(Cell::from).into()
        },
    );
    Section {
        title: "Who encrypted and re-encrypted",
        note: "A re-encryption counts with the key that it opened and with the one that it sealed with.".into(),
        columns: vec![
            text("principal"),
            text("action"),
            text("key"),
            number("calls"),
            number("values"),
            number("failed"),
            number("refused"),
            number("errors"),
        ],
        rows,
        foot,
    }
}

fn refusals(report: &Report, most: usize) -> Section {
    let (rows, foot) = lines(
        &report.refusals,
        most,
        3,
        |row| {
            vec![
                principal(&row.key.principal, row.at_least),
                row.key.action.clone().into(),
                row.key.rule.clone().into(),
            ]
        },
        |sum: &Refusal| {
            vec![
                sum.calls.into(),
                sum.items.into(),
                Cell::minute(sum.first),
                Cell::minute(sum.last),
            ]
        },
    );
    Section {
        title: "Refusals",
        note: "Values are those that were refused in batches of which others were answered.".into(),
        columns: vec![
            text("principal"),
            text("action"),
            text("rule"),
            number("calls"),
            number("values"),
            time("first"),
            time("last"),
        ],
        rows,
        foot,
    }
}

fn acts(title: &'static str, note: &str, list: &Listed<Act>, most: usize) -> Section {
    let rows = list.rows.iter().take(most).map(|act| Line {
        cells: vec![
            act.time.into(),
            Cell::name(&act.principal),
            act.operation.clone().into(),
            Cell::name(&act.resource),
            act.result.to_owned().into(),
        ],
        more: [act.detail.as_str(), act.reason.as_str()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
    });
    Section {
        title,
        note: note.to_owned(),
        columns: vec![
            time("time"),
            text("principal"),
            text("operation"),
            text("resource"),
            text("result"),
        ],
        rows: rows.collect(),
        foot: match left_out(list, most) {
            0 => String::new(),
            more => format!(
                "{} more: the JSON form lists {} at most, a shorter range has fewer.",
                thousands(more),
                thousands(list.most_rows as u64)
            ),
        },
    }
}

/// How many of a list are not among the `most` that are shown.
fn left_out<T>(list: &Listed<T>, most: usize) -> u64 {
    let hidden = list.rows.len().saturating_sub(most) as u64;
    list.left_out.saturating_add(hidden)
}

fn overdue(list: &Listed<Overdue>, most: usize) -> Section {
    let rows = list.rows.iter().take(most).map(|key| Line {
        cells: vec![
            Cell::name(&key.key),
            key.due.into(),
            key.reason.clone().into(),
        ],
        more: String::new(),
    });
    Section {
        title: "Keys overdue for rotation",
        note: "Keys whose rotation was due by the end of the range and had not happened when the report was made.".into(),
        columns: vec![text("key"), time("due"), text("reason")],
        rows: rows.collect(),
        foot: match left_out(list, most) {
            0 => String::new(),
            more => format!(
                "{} more, which were due later: the JSON form lists {} at most.",
                thousands(more),
                thousands(list.most_rows as u64)
            ),
        },
    }
}

/// What is said of the records that a report rests on.
pub(super) fn basis_text(report: &Report) -> String {
    let basis = &report.basis;
    match (basis.first_index, basis.last_index) {
        (Some(first), Some(last)) => format!(
            "{} records of the range, from index {first} to {last}, of the log {}",
            thousands(basis.records),
            basis.log_id
        ),
        _ => format!("no records of the range in the log {}", basis.log_id),
    }
}

/// What is said of the range of time.
pub(super) fn range_text(report: &Report) -> String {
    format!(
        "{} to {} UTC",
        report.range.from.for_people(),
        report.range.to.for_people()
    )
}

/// The title of the activity over time.
pub(super) fn activity_title(report: &Report, what: &str) -> String {
    format!("{what} per {}", bucket_unit(report.activity.bucket_s))
}
