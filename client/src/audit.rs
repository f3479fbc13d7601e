//! What auditors read: records of the audit trail, checkpoints, proofs and reports.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use fieldkeep_proto::v1;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Status, Streaming};

use crate::{Client, Error, Pages, codec::SharedCodec, pool::Lease};

/// No service makes a longer report, whose tables, lists and texts are all bounded, bytes.
const MAX_REPORT_BYTES: usize = 256 << 20;

/// The audit trail; made by [`Client::audit`].
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a>(&'a Client);

impl Client {
    /// The audit trail.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let newest = client.audit().list().page_size(10).next_page().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

impl Audit<'_> {
    /// Lists audit records, newest first.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let mut records = client.audit().list();
    /// while let Some(page) = records.next_page().await? {
    ///     println!("{} records", page.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self) -> Pages<v1::AuditEntry> {
        self.find(v1::AuditFilter::default())
    }

    /// Lists the audit records that `filter` lets through, newest first. A page can be empty and not be the last one.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::AuditFilter;
    ///
    /// let filter = AuditFilter {
    ///     action: "decrypt".into(),
    ///     field: "customer.email".into(),
    ///     ..AuditFilter::default()
    /// };
    /// let newest = client.audit().find(filter).next_page().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// With an `item`, those about one item, told by its encryption context, of a key whose `audit_items` is
    /// [`AuditItems::Hashes`](v1::AuditItems::Hashes).
    pub fn find(&self, filter: v1::AuditFilter) -> Pages<v1::AuditEntry> {
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListRecordsRequest {
                page_size,
                page_token,
                filter: Some(filter.clone()),
            };
            async move {
                let path = "/fieldkeep.v1.AuditService/ListRecords";
                let page: v1::ListRecordsResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.entries, page.next_page_token))
            }
        })
    }

    /// Reads records, oldest first, and if the request says so goes on with those that come.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::TailRecordsRequest;
    ///
    /// let request = TailRecordsRequest {
    ///     follow: true,
    ///     ..TailRecordsRequest::default()
    /// };
    /// let mut tail = client.audit().tail(request).await?;
    /// while let Some(step) = tail.next_step().await? {
    ///     println!("{} records, and then from {}", step.entries.len(), step.next_index);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The caller may not read the trail, or the service is not reached.
    pub async fn tail(&self, request: v1::TailRecordsRequest) -> Result<Tail, Error> {
        let path = PathAndQuery::from_static("/fieldkeep.v1.AuditService/TailRecords");
        let (steps, lease) = open_stream(self.0, path, request).await?;
        Ok(Tail {
            client: self.0.clone(),
            lease,
            steps,
        })
    }

    /// The newest checkpoint, a signed note, and the key that it is signed with.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// print!("{}", client.audit().checkpoint().await?.checkpoint);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The caller may not read the trail, or the service is not reached.
    pub async fn checkpoint(&self) -> Result<v1::GetCheckpointResponse, Error> {
        let request = v1::GetCheckpointRequest {};
        let path = "/fieldkeep.v1.AuditService/GetCheckpoint";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Proves that record `index` is in the log; with a `leaf_hash`, as a receipt has it, also that it is that record. The proof
    /// can be checked offline.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let proven = client.audit().prove(0, None).await?;
    /// std::fs::write("record-0.tlog-proof", proven.proof).expect("the file can be written");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no such record, the caller may not read the trail, or the service is not reached.
    pub async fn prove(
        &self,
        index: u64,
        leaf_hash: Option<[u8; 32]>,
    ) -> Result<v1::ProveRecordResponse, Error> {
        let request = v1::ProveRecordRequest {
            index,
            leaf_hash: leaf_hash.map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(&hash)),
        };
        let path = "/fieldkeep.v1.AuditService/ProveRecord";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Proves that the log of an earlier `checkpoint`, a signed note, is a beginning of the present one.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let earlier = client.audit().checkpoint().await?.checkpoint;
    /// let proven = client.audit().prove_consistency(&earlier).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The log does not begin with what the checkpoint was signed over, the caller may not read the trail, or the service is not
    /// reached.
    pub async fn prove_consistency(
        &self,
        checkpoint: &str,
    ) -> Result<v1::ProveConsistencyResponse, Error> {
        let request = v1::ProveConsistencyRequest {
            checkpoint: checkpoint.to_owned(),
        };
        let path = "/fieldkeep.v1.AuditService/ProveConsistency";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Has the service make a report of its own trail, and sign it. Keep the signature beside the report: `fieldkeep audit
    /// verify-report` checks both, offline.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::{MakeReportRequest, ReportForm};
    ///
    /// let november = MakeReportRequest {
    ///     start_time_us: 1_793_491_200_000_000,
    ///     end_time_us: 1_796_083_200_000_000,
    ///     form: ReportForm::Json.into(),
    /// };
    /// let made = client.audit().make_report(november).await?;
    /// std::fs::write("november.json", &made.report).expect("the file can be written");
    /// std::fs::write("november.json.sig", &made.signature).expect("the file can be written");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The range ends before it begins, the caller may not read the trail of all tenants or lost that right meanwhile, the service is
    /// not reached, or the report that came is not whole.
    pub async fn make_report(&self, request: v1::MakeReportRequest) -> Result<SignedReport, Error> {
        let path = PathAndQuery::from_static("/fieldkeep.v1.AuditService/MakeReport");
        let (mut parts, lease): (Streaming<v1::MakeReportResponse>, _) =
            open_stream(self.0, path, request).await?;
        let mut report = Vec::new();
        loop {
            let part = parts.message().await;
            let part = part.map_err(|status| self.0.explain_stream(status, &lease))?;
            let Some(part) = part else {
                return Err(Error::Reply {
                    what: "the report ended without its signature",
                });
            };
            if !part.signature.is_empty() {
                let signature = part.signature;
                return Ok(SignedReport { report, signature });
            }
            if report.len() + part.chunk.len() > MAX_REPORT_BYTES {
                return Err(Error::Reply {
                    what: "the report is longer than any report is",
                });
            }
            report.extend_from_slice(&part.chunk);
        }
    }
}

/// A report, and what proves which log signed it; made by [`Audit::make_report`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedReport {
    /// The report, UTF-8 in the form that was asked for.
    pub report: Vec<u8>,
    /// The signature with the checkpoint that the report rests on, as a file (docs/audit-format.md). Nothing of it is verified yet.
    pub signature: String,
}

/// Opens a stream of replies.
async fn open_stream<Q, R>(
    client: &Client,
    path: PathAndQuery,
    request: Q,
) -> Result<(Streaming<R>, Lease), Error>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let mut lease = client.lease().await;
    let request = client.stream_request(Arc::new(request)).await;
    let opened = async {
        lease
            .grpc
            .ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        lease
            .grpc
            .server_streaming(request, path, SharedCodec::new())
            .await
    };
    match opened.await {
        Ok(response) => Ok((response.into_inner(), lease)),
        Err(status) => Err(client.explain_stream(status, &lease)),
    }
}

/// Records in order, as the service sends them; made by [`Audit::tail`]. The service learns that it is dropped.
pub struct Tail {
    client: Client,
    lease: Lease,
    steps: Streaming<v1::TailRecordsResponse>,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").finish_non_exhaustive()
    }
}

impl Tail {
    /// The next records; `None` at the end. A step without records says that the service is still there.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let mut tail = client.audit().tail(Default::default()).await?;
    /// let first = tail.next_step().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The connection was lost, or the caller lost the right to read on: begin again at the last step's `next_index`.
    pub async fn next_step(&mut self) -> Result<Option<v1::TailRecordsResponse>, Error> {
        match self.steps.message().await {
            Ok(step) => Ok(step),
            Err(status) => Err(self.client.explain_stream(status, &self.lease)),
        }
    }
}
