//! The metrics that the manual, the dashboard and the alerts name are those that a running server shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use fieldkeep_harness::Home;
use serde_json::Value;

use crate::otlp::scrape;

/// A metric as the server shows it.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    kind: String,
    labels: BTreeSet<String>,
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn shown() -> BTreeMap<String, Shown> {
    let home = Home::make();
    let config = fs::read_to_string(home.config()).unwrap();
    let mirrors = home.path().parent().unwrap().display().to_string();
    let config = format!(
        "{config}\n[store]\nmirror_dir = \"{mirrors}/s\"\n[audit]\nmirror_dir = \"{mirrors}/a\"\n"
    );
    fs::write(home.config(), config).unwrap();
    let server = home.serve();
    let text = scrape(server.metrics);
    server.stop();
    let (_, text) = text.split_once("\r\n\r\n").unwrap();
    let mut metrics: BTreeMap<String, Shown> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
    }
    for (name, metric) in &mut metrics {
        let samples = text.lines().filter(|line| line.starts_with(name.as_str()));
        for (_, labels) in samples.filter_map(|line| line.split_once('{')) {
            let labels = labels.split_once('}').unwrap().0.split("\",");
            let names = labels.map(|label| label.split_once('=').unwrap().0.to_owned());
            metric.labels.extend(names.filter(|name| name != "le"));
        }
    }
    metrics
}

#[test]
fn the_manual_has_every_metric() {
    let manual = file("docs/operations.md");
    let documented: BTreeMap<String, Shown> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|row| row.starts_with("fieldkeep_") || row.starts_with("process_"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let labels = cells[2]
                .split(',')
                .map(|label| label.trim().trim_matches('`'));
            let metric = Shown {
                kind: cells[1].to_owned(),
                labels: labels
                    .filter(|l| !l.is_empty())
                    .map(str::to_owned)
                    .collect(),
            };
            (cells[0].trim_end_matches('`').to_owned(), metric)
        })
        .collect();
    assert_eq!(documented, shown());
}

/// Asserts that an expression names metrics that exist, with labels that they have.
fn check(expression: &str, shown: &BTreeMap<String, Shown>) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = 0;
    for (at, _) in expression.match_indices(['f', 'p', 'u']) {
        if expression[..at].ends_with(is_word) {
            continue;
        }
        let name = expression[at..].split(|c| !is_word(c)).next().unwrap();
        if name == "up" {
            found += 1;
        }
        if !name.starts_with("fieldkeep_") && !name.starts_with("process_") {
            continue;
        }
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| shown.get(name.strip_suffix(part)?))
            .filter(|metric| metric.kind == "histogram");
        let metric = shown.get(name).or(family);
        let metric = metric.unwrap_or_else(|| panic!("`{name}` of `{expression}` does not exist"));
        found += 1;
        let Some(selector) = expression[at + name.len()..].strip_prefix('{') else {
            continue;
        };
        for matcher in selector.split_once('}').unwrap().0.split("\",") {
            let label = matcher.split(['=', '!']).next().unwrap().trim();
            let known = metric.labels.contains(label) || ["job", "instance"].contains(&label);
            assert!(known, "`{name}` has no label `{label}`: `{expression}`");
        }
    }
    assert!(found > 0, "no metric in `{expression}`");
}

/// Every value of `expr`, however deep.
fn expressions<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| expressions(value, into)),
        Value::Object(entries) => {
            for (name, value) in entries {
                match value.as_str() {
                    Some(text) if name == "expr" => into.push(text),
                    _ => expressions(value, into),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
    let shown = shown();
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/fieldkeep.json")).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for expression in found {
        check(expression, &shown);
    }
    let alerts = file("deploy/prometheus/alerts.yml");
    let rules: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    let named = alerts.matches("- alert: ").count();
    assert!(
        named > 5 && rules.len() == named,
        "an `expr` on one line each"
    );
    for expression in rules {
        check(expression, &shown);
    }
}

/// The value of a metric of the data directory.
fn of_data(text: &str, name: &str) -> f64 {
    let sample = format!("{name}{{directory=\"data\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&sample));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_disk_beyond_the_threshold_is_warned_of_in_the_log_and_by_a_metric() {
    let home = Home::make();
    let config = fs::read_to_string(home.config()).unwrap();
    // As low as can be. Where the disk has less than that, nothing may be said.
    let config = format!("{config}\n[audit]\ndisk_warning_percent = 1\n");
    fs::write(home.config(), config).unwrap();
    let server = home.serve();
    let begin = Instant::now();
    let fills_up = loop {
        let text = scrape(server.metrics);
        let free = of_data(&text, "fieldkeep_disk_free_bytes");
        let used = of_data(&text, "fieldkeep_disk_used_bytes");
        let fills_up = used / (used + free) >= 0.01;
        if (of_data(&text, "fieldkeep_disk_warning") == 1.0) == fills_up {
            break fills_up;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{text}");
    };
    let log = server.stop();
    assert_eq!(log.contains("a disk fills up"), fills_up, "{log}");
}
