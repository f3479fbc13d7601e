//! Plots as inline SVG: bars over time, and bars by name. All colours come from the page's style.

use std::fmt::Write as _;

use super::html::escape;
use super::names::thousands;

/// The size of a plot, in the units of its own coordinates.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 200.0;
/// Where the bars are.
const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 26.0;
/// How many times are named below the bars.
const LABELS: usize = 6;
/// The height of a bar with a name.
const ROW: f64 = 26.0;
/// The most characters of a name beside a bar.
const NAME: usize = 26;

/// Bars over time: a name and a value each, of the same length of time. `class` is the class of the bars.
pub(super) fn over_time(title: &str, class: &str, values: &[(String, u64)]) -> String {
    let most = values.iter().map(|(_, value)| *value).max().unwrap_or(0);
    if most == 0 {
        return String::from("<p class=\"none\">None in this range.</p>");
    }
    let top = round_up(most);
    let mut svg = open(title, HEIGHT);
    for (value, y) in [(0, BOTTOM), (top / 2, middle()), (top, TOP)] {
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            thousands(value)
        );
    }
    let step = (RIGHT - LEFT) / as_f64(values.len() as u64);
    let width = (step * 0.8).max(step - 3.0);
    for (index, (name, value)) in values.iter().enumerate() {
        let x = LEFT + step * as_f64(index as u64) + (step - width) / 2.0;
        if *value > 0 {
            // What is more than nothing can be seen.
            let height = ((BOTTOM - TOP) * as_f64(*value) / as_f64(top)).max(1.0);
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{:.2}\" width=\"{width:.2}\" height=\"{height:.2}\">\
                 <title>{}: {}</title></rect>",
                BOTTOM - height,
                escape(name),
                thousands(*value)
            );
        }
    }
    for index in labelled(values.len()) {
        let Some((name, _)) = values.get(index) else {
            continue;
        };
        let x = LEFT + step * (as_f64(index as u64) + 0.5);
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A bar for each name, the longest for the most.
pub(super) fn by_name(title: &str, class: &str, values: &[(String, u64)]) -> String {
    let most = values.iter().map(|(_, value)| *value).max().unwrap_or(0);
    if most == 0 {
        return String::from("<p class=\"none\">None in this range.</p>");
    }
    let (left, right) = (210.0, WIDTH - 100.0);
    let mut svg = open(title, ROW * as_f64(values.len() as u64) + 8.0);
    for (index, (name, value)) in values.iter().enumerate() {
        let y = 4.0 + ROW * as_f64(index as u64);
        let width = ((right - left) * as_f64(*value) / as_f64(most)).max(1.0);
        let mut text: String = name.chars().take(NAME).collect();
        if text.len() < name.len() {
            text.push('…');
        }
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\"><title>{}</title>{}</text>\
             <rect class=\"{class}\" x=\"{left}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{:.1}\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 10.0,
            y + ROW * 0.66,
            escape(name),
            escape(&text),
            y + 4.0,
            ROW - 8.0,
            left + width + 8.0,
            y + ROW * 0.66,
            thousands(*value)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>",
        escape(title)
    )
}

fn middle() -> f64 {
    f64::midpoint(TOP, BOTTOM)
}

/// The next of 2, 4, 10, 20, 40, 100 and so on, so that the scale and its middle are round.
fn round_up(value: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for factor in [2, 4, 10] {
            let round = power.saturating_mul(factor);
            if round >= value {
                return round;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// The places of at most [`LABELS`] of `count`, as far from the ends as half of what is between them.
fn labelled(count: usize) -> impl Iterator<Item = usize> {
    let labels = count.clamp(1, LABELS);
    (0..labels).map(move |label| (2 * label + 1) * count / (2 * labels))
}

/// A number as a length; the digits that are lost could not be seen.
#[allow(
    clippy::cast_precision_loss,
    reason = "a pixel is coarser than what is lost"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round() {
        for (value, round) in [
            (1, 2),
            (2, 2),
            (3, 4),
            (5, 10),
            (10, 10),
            (11, 20),
            (41, 100),
            (1_001, 2_000),
        ] {
            assert_eq!(round_up(value), round, "{value}");
        }
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn few_times_are_all_named_and_many_are_not() {
        let places = |count| labelled(count).collect::<Vec<_>>();
        assert_eq!(places(1), [0]);
        assert_eq!(places(3), [0, 1, 2]);
        assert_eq!(places(120), [10, 30, 50, 70, 90, 110]);
    }

    #[test]
    fn names_are_escaped_in_plots() {
        let values = [(String::from("<script>\"&'"), 3)];
        for svg in [over_time("a", "bar", &values), by_name("a", "bar", &values)] {
            assert!(!svg.contains("<script"), "{svg}");
        }
    }

    #[test]
    fn an_empty_plot_says_so() {
        assert!(over_time("a", "bar", &[("x".into(), 0)]).contains("None in this range"));
        assert!(by_name("a", "bar", &[]).contains("None in this range"));
    }
}
