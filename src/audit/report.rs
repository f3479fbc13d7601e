//! The signature of a report that was made of the log's own records.

use fieldkeep_audit::report::Range;
use fieldkeep_tlog::report::{ReportError, ReportForm, ReportSignature, ReportStatement};
use ring::digest::{SHA256, digest};

use super::AuditLog;
use super::checkpoint::Signed;

impl AuditLog {
    /// Signs `report`, which this process has just made of all the log's records of `range` with indexes from `first` on and below the
    /// size of `checkpoint`.
    /// Whatever somebody else says of the log must not get here: the log's key vouches for it.
    ///
    /// # Errors
    /// The checkpoint is not this log's, or the range is beyond what a signature can name.
    pub(crate) fn sign_report(
        &self,
        report: &[u8],
        form: ReportForm,
        range: Range,
        first: u64,
        checkpoint: Signed,
    ) -> Result<ReportSignature, ReportError> {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, report).as_ref());
        let statement = ReportStatement {
            log: self.log,
            form,
            sha256,
            from_us: range.begin_us(),
            to_us: range.end_us(),
            first,
            head: checkpoint.head,
        };
        ReportSignature::make(&statement, checkpoint.note, &self.signing)
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_journal::Options;

    use super::*;
    use crate::audit::checkpoint::newest;

    #[test]
    fn the_signature_of_a_report_is_never_read_as_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let audit = AuditLog::open_with(dir.path(), Options::default()).unwrap();
        let key = audit.verifier_key().clone();
        let checkpoint = audit.checkpoint();
        let range = Range::new(1, 2).unwrap();
        let signature = audit
            .sign_report(b"a report", ReportForm::Text, range, 0, checkpoint.clone())
            .unwrap();
        let file = signature.to_string();
        let note = file
            .strip_suffix(&format!("\n{}", checkpoint.note))
            .unwrap();
        assert!(newest(checkpoint.note.as_bytes(), &key).is_some());
        // What a start looks for in the file of checkpoints.
        assert_eq!(newest(note.as_bytes(), &key), None);

        let digest =
            |report: &[u8]| -> [u8; 32] { digest(&SHA256, report).as_ref().try_into().unwrap() };
        let keys = [key];
        let signed = signature.verify(digest(b"a report"), &keys).unwrap();
        assert_eq!(
            (signed.from_us, signed.to_us, signed.head),
            (1, 2, checkpoint.head)
        );
        assert!(matches!(
            signature.verify(digest(b"b report"), &keys),
            Err(ReportError::OtherReport { .. })
        ));
    }
}
