//! A report for a terminal: plain text, at most 100 columns.

use std::io;

use super::model::{Bucket, Report};
use super::names::{bucket_name, thousands, visible};
use super::section::{Column, Kind, Line, Section};
use super::sections::{Limits, activity_title, basis_text, range_text, sections};

/// The longest line, characters.
const WIDTH: usize = 100;
/// The narrowest that a column of text becomes.
const MIN_TEXT: usize = 8;
/// The most lines of activity; with more buckets, neighbours are summed up.
const MAX_ACTIVITY: usize = 31;
/// The longest bar.
const BAR: usize = 32;
const LIMITS: Limits = Limits {
    sums: 25,
    listed: 200,
};

impl Report {
    /// Writes the report as plain text, in lines of at most 100 characters but for the checkpoint's, which stay whole. Other texts
    /// that do not fit are cut, with `…`; the JSON form has all of them.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn write_text(&self, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "FIELDKEEP AUDIT REPORT")?;
        writeln!(out, "{}", range_text(self))?;
        for line in wrapped(&basis_text(self), WIDTH) {
            writeln!(out, "{line}")?;
        }
        if !self.basis.checkpoint.is_empty() {
            writeln!(out, "\nIt rests on this checkpoint:\n")?;
            for line in self.basis.checkpoint.lines() {
                writeln!(out, "{}", visible(line))?;
            }
        }
        let mut sections = sections(self, LIMITS).into_iter();
        if let Some(totals) = sections.next() {
            write_section(out, &totals)?;
        }
        write_activity(out, self)?;
        sections.try_for_each(|section| write_section(out, &section))
    }
}

fn write_section(out: &mut impl io::Write, section: &Section) -> io::Result<()> {
    writeln!(out, "\n{}", section.title.to_uppercase())?;
    if section.rows.is_empty() {
        return writeln!(out, "none");
    }
    for line in wrapped(&section.note, WIDTH) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    write_table(out, &section.columns, &section.rows)?;
    for line in wrapped(&section.foot, WIDTH) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn write_table(out: &mut impl io::Write, columns: &[Column], lines: &[Line]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| line.cells.iter().map(|cell| visible(&cell.text)).collect())
        .collect();
    let widths = widths(columns, &rows);
    let names: Vec<String> = columns
        .iter()
        .map(|column| column.name.to_uppercase())
        .collect();
    write_row(out, columns, &widths, &names)?;
    for (line, row) in lines.iter().zip(&rows) {
        write_row(out, columns, &widths, row)?;
        for more in wrapped(&visible(&line.more), WIDTH - 4) {
            writeln!(out, "    {more}")?;
        }
    }
    Ok(())
}

/// The width of each column: as wide as its cells, but the widest columns of text give way until a line fits.
fn widths(columns: &[Column], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = columns
        .iter()
        .map(|column| column.name.chars().count())
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let gaps = 2 * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let texts = columns
            .iter()
            .zip(&mut widths)
            .filter(|(column, _)| column.kind == Kind::Text);
        match texts.map(|(_, width)| width).max() {
            Some(widest) if *widest > MIN_TEXT => *widest -= 1,
            _ => break,
        }
    }
    widths
}

fn write_row(
    out: &mut impl io::Write,
    columns: &[Column],
    widths: &[usize],
    row: &[String],
) -> io::Result<()> {
    let mut line = String::new();
    for ((column, width), cell) in columns.iter().zip(widths).zip(row) {
        if !line.is_empty() {
            line.push_str("  ");
        }
        let cell = cut(cell, *width);
        line.push_str(&match column.kind {
            Kind::Number => format!("{cell:>width$}"),
            Kind::Text | Kind::Time => format!("{cell:<width$}"),
        });
    }
    writeln!(out, "{}", line.trim_end())
}

/// The text, or its start and `…`, so that it has at most `width` characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The text in lines of at most `width` characters, broken at spaces where it has any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        length += word.len();
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn write_activity(out: &mut impl io::Write, report: &Report) -> io::Result<()> {
    let buckets = &report.activity.buckets;
    let together = buckets.len().div_ceil(MAX_ACTIVITY).max(1);
    let bucket_s = report.activity.bucket_s;
    writeln!(
        out,
        "\n{}",
        activity_title(report, "Values decrypted, calls refused").to_uppercase()
    )?;
    if together > 1 {
        writeln!(out, "Each line is {together} of them.")?;
    }
    let lines: Vec<(String, u64, u64)> = buckets
        .chunks(together)
        .filter_map(|chunk| {
            let sum = |of: fn(&Bucket) -> u64| {
                chunk
                    .iter()
                    .fold(0, |sum: u64, bucket| sum.saturating_add(of(bucket)))
            };
            let start = chunk.first()?.start;
            let name = bucket_name(start, bucket_s);
            Some((
                name,
                sum(|bucket| bucket.decrypted),
                sum(|bucket| bucket.refused),
            ))
        })
        .collect();
    let most = lines
        .iter()
        .map(|(_, decrypted, _)| *decrypted)
        .max()
        .unwrap_or(0);
    let width = lines.first().map_or(0, |(name, ..)| name.chars().count());
    writeln!(
        out,
        "\n{:<width$}  {:>14}  {:>10}",
        "FROM", "DECRYPTED", "REFUSED"
    )?;
    for (name, decrypted, refused) in lines {
        let line = format!(
            "{name}  {:>14}  {:>10}  {}",
            thousands(decrypted),
            thousands(refused),
            "#".repeat(bar(decrypted, most))
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// How long the bar of `value` is. What is more than nothing can be seen.
fn bar(value: u64, most: u64) -> usize {
    let length = (u128::from(value) * BAR as u128).div_ceil(u128::from(most.max(1)));
    usize::try_from(length).unwrap_or(BAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_and_cut() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(cut("abcdef", 4), "abc…");
    }

    #[test]
    fn bars_show_what_is_little() {
        assert_eq!(bar(0, 1_000_000), 0);
        assert_eq!(bar(1, 1_000_000), 1);
        assert_eq!(bar(1_000_000, 1_000_000), BAR);
        assert_eq!(bar(0, 0), 0);
    }

    #[test]
    fn columns_of_text_give_way() {
        let column = |kind| Column { name: "x", kind };
        let rows = [vec!["a".repeat(90), "b".repeat(30), "9".repeat(20)]];
        let widths = widths(
            &[column(Kind::Text), column(Kind::Text), column(Kind::Number)],
            &rows,
        );
        assert_eq!(widths.iter().sum::<usize>() + 4, WIDTH);
        assert_eq!(widths[2], 20);
    }
}
