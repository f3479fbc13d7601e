//! A report as one page: no script, nothing from elsewhere, readable in print, light and dark.

use std::io;

use super::model::{Bucket, Report};
use super::names::{bucket_name, short, thousands, visible};
use super::plot::{by_name, over_time};
use super::section::{Cell, Kind, Line, Section};
use super::sections::{Limits, activity_title, basis_text, range_text, sections};

const STYLE: &str = include_str!("style.css");
/// The most principals in the plot.
const PLOTTED: usize = 10;
const LIMITS: Limits = Limits {
    sums: 200,
    listed: 1_000,
};

impl Report {
    /// Writes the report as an HTML page that stands by itself.
    ///
    /// Every text is escaped, and the page's policy forbids scripts and everything from elsewhere, so that what a caller put into a
    /// name or a reason stays text.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn write_html(&self, out: &mut impl io::Write) -> io::Result<()> {
        let range = escape(&range_text(self));
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>Fieldkeep audit report, {range}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<h1>Audit report</h1>\n<p class=\"range\">{range}</p>\n<p class=\"note\">{}</p>\n",
            escape(&basis_text(self))
        )?;
        writeln!(out, "</header>\n<main>")?;
        self.write_cards(out)?;
        self.write_plots(out)?;
        for section in sections(self, LIMITS) {
            write_section(out, &section)?;
        }
        if !self.basis.checkpoint.is_empty() {
            write!(
                out,
                "<section>\n<h2>Checkpoint</h2>\n<p class=\"note\">The signed checkpoint of the log that this report rests on.</p>\n\
                 <pre>{}</pre>\n</section>\n",
                escape_lines(&self.basis.checkpoint)
            )?;
        }
        writeln!(
            out,
            "</main>\n<footer>Made by Fieldkeep from its audit trail. The JSON form has every number; times are UTC.</footer>\n</body>\n</html>"
        )
    }

    fn write_cards(&self, out: &mut impl io::Write) -> io::Result<()> {
        let totals = &self.totals;
        let cards = [
            ("values decrypted", totals.decrypt.done(), ""),
            ("of these masked", totals.decrypt.items_masked, ""),
            ("values encrypted", totals.encrypt.done(), ""),
            ("calls refused", totals.refused, "warn"),
            ("grants changed", self.grants.count(), ""),
            ("keys overdue", self.overdue.count(), "warn"),
        ];
        writeln!(out, "<ul class=\"cards\">")?;
        for (name, number, class) in cards {
            let class = if number > 0 { class } else { "" };
            writeln!(
                out,
                "<li class=\"{class}\"><strong>{}</strong> {name}</li>",
                thousands(number)
            )?;
        }
        writeln!(out, "</ul>")
    }

    fn write_plots(&self, out: &mut impl io::Write) -> io::Result<()> {
        let over = |of: fn(&Bucket) -> u64| -> Vec<(String, u64)> {
            let buckets = self.activity.buckets.iter();
            buckets
                .map(|bucket| {
                    (
                        bucket_name(bucket.start, self.activity.bucket_s),
                        of(bucket),
                    )
                })
                .collect()
        };
        let top: Vec<(String, u64)> = self
            .principals
            .rows
            .iter()
            .filter(|row| row.value.decrypted > 0)
            .take(PLOTTED)
            .map(|row| (short(&row.key.principal), row.value.decrypted))
            .collect();
        let decrypted = activity_title(self, "Values decrypted");
        let refused = activity_title(self, "Calls refused");
        let most = "Values decrypted, by principal";
        for (title, plot) in [
            (
                decrypted.as_str(),
                over_time(&decrypted, "bar", &over(|bucket| bucket.decrypted)),
            ),
            (most, by_name(most, "bar", &top)),
            (
                refused.as_str(),
                over_time(&refused, "bar refused", &over(|bucket| bucket.refused)),
            ),
        ] {
            writeln!(
                out,
                "<figure>\n<figcaption>{}</figcaption>\n{plot}\n</figure>",
                escape(title)
            )?;
        }
        Ok(())
    }
}

fn write_section(out: &mut impl io::Write, section: &Section) -> io::Result<()> {
    writeln!(out, "<section>\n<h2>{}</h2>", escape(section.title))?;
    if section.rows.is_empty() {
        return writeln!(out, "<p class=\"none\">None in this range.</p>\n</section>");
    }
    writeln!(out, "<p class=\"note\">{}</p>", escape(&section.note))?;
    write!(out, "<div class=\"wide\">\n<table>\n<thead><tr>")?;
    for column in &section.columns {
        let class = class_of(column.kind);
        write!(out, "<th scope=\"col\"{class}>{}</th>", escape(column.name))?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for line in &section.rows {
        write_line(out, section, line)?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")?;
    if !section.foot.is_empty() {
        writeln!(out, "<p class=\"note\">{}</p>", escape(&section.foot))?;
    }
    writeln!(out, "</section>")
}

fn write_line(out: &mut impl io::Write, section: &Section, line: &Line) -> io::Result<()> {
    let class = if line.more.is_empty() {
        ""
    } else {
        " class=\"has-more\""
    };
    write!(out, "<tr{class}>")?;
    for (column, Cell { text, full }) in section.columns.iter().zip(&line.cells) {
        let class = match (column.kind, text.as_str()) {
            (Kind::Number, "0") => " class=\"number zero\"",
            (kind, _) => class_of(kind),
        };
        let title = if full == text {
            String::new()
        } else {
            format!(" title=\"{}\"", escape(full))
        };
        write!(out, "<td{class}{title}>{}</td>", escape(text))?;
    }
    writeln!(out, "</tr>")?;
    if line.more.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<tr class=\"more\"><td colspan=\"{}\">{}</td></tr>",
        section.columns.len(),
        escape(&line.more)
    )
}

fn class_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "",
        Kind::Number => " class=\"number\"",
        Kind::Time => " class=\"time\"",
    }
}

/// Text for a page, in an element or in a quoted attribute: what means something to HTML is escaped, and what cannot be seen is
/// written out.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// As [`escape`], with the line ends left as they are.
fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_html_is_escaped() {
        assert_eq!(
            escape("<a href=\"x\" title='y'>&\u{202e}\n"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;\\u{202e}\\u{a}"
        );
        assert_eq!(escape_lines("<a>\nb\n"), "&lt;a&gt;\nb");
    }
}
