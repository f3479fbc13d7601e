//! Goes on from what an interrupted re-encryption wrote.
//!
//! Its rows take the place of the input's, as long as each is the input's row but for the ciphertexts in the chosen columns.
//! From the first that is not, from the last one, which may be cut off, or from an error on, the input's own rows count. Nobody has to
//! remember how far the run came, and rows from it are looked at again like any others: what became behind since is brought up.

use std::io::BufRead;

use super::layout::{Found, Layout};
use super::row::Row;
use super::rows::Rows;
use super::transform::parse_ciphertext;

/// What an interrupted run wrote, row by row.
pub(super) struct Resume {
    rows: Option<Rows<Box<dyn BufRead + Send>>>,
}

impl Resume {
    /// Nothing, or the rows after the header.
    pub(super) fn new(rows: Option<Rows<Box<dyn BufRead + Send>>>) -> Resume {
        Resume { rows }
    }

    /// The row that stands for `row` now, and whether it comes from the interrupted run.
    pub(super) fn instead_of(&mut self, row: Row, layout: &Layout) -> (Row, bool) {
        let Some(rows) = &mut self.rows else {
            return (row, false);
        };
        match rows.next_row() {
            Ok(Some(written)) if is_reencryption(layout, &row, &written) => (written, true),
            _ => {
                self.rows = None;
                (row, false)
            }
        }
    }
}

/// Whether `written` can be what became of `row`.
fn is_reencryption(layout: &Layout, row: &Row, written: &Row) -> bool {
    if !written.raw().ends_with(b"\n") {
        return false;
    }
    if row.raw() == written.raw() {
        return true;
    }
    if row.is_blank() || written.is_blank() {
        return false;
    }
    let (Ok(before), Ok(after)) = (layout.find(row), layout.find(written)) else {
        return false;
    };
    let values = before.values.iter().zip(&after.values);
    let is_renewed = |before: &[u8], after: &[u8]| {
        before == after
            || (before.len() == after.len()
                && parse_ciphertext(before).is_some()
                && parse_ciphertext(after).is_some())
    };
    before.values.len() == after.values.len()
        && values
            .into_iter()
            .all(|(before, after)| is_renewed(&before.value, &after.value))
        && without_values(row, &before) == without_values(written, &after)
}

/// The row with its chosen values taken out.
fn without_values(row: &Row, found: &Found) -> Vec<u8> {
    let mut rest = Vec::with_capacity(row.raw().len());
    let nothing: &[u8] = b"";
    row.write_with(
        found.values.iter().map(|value| (&value.place, nothing)),
        &mut rest,
    );
    rest
}
