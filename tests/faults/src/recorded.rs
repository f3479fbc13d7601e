//! What the audit trail has, read from its files as an auditor does, and whether it is what clients were told and what the store has.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use fieldkeep_client::Client;
use fieldkeep_journal::{DamageCause, Offline, OfflineError};
use fieldkeep_proto::v1::{AuditRecord, Phase};
use fieldkeep_tlog::hash::Hash;
use prost::Message as _;

use crate::calls::Ledger;

/// What the audit trail says of all operations.
#[derive(Default)]
pub(crate) struct Operations {
    /// How often each key was made.
    pub(crate) created: HashMap<String, u64>,
    /// The newest version that an outcome has of each key.
    pub(crate) versions: HashMap<String, u32>,
    /// Grants that were made, less those that were revoked.
    grants: i64,
    /// Intents less outcomes, by request and operation; those of which there are as many are not kept.
    open: HashMap<Vec<u8>, i64>,
    /// Keys of the outcomes that came since the last look.
    touched: HashSet<String>,
    /// Outcomes of operations that changed the store.
    count: u64,
}

impl Operations {
    pub(crate) fn note(&mut self, record: &AuditRecord) {
        let operation = [&record.request_id[..], &record.operation_id[..]].concat();
        let step = match record.phase() {
            Phase::Unspecified => return,
            Phase::Intent => 1,
            Phase::Outcome => -1,
        };
        let open = self.open.entry(operation.clone()).or_default();
        *open += step;
        if *open == 0 {
            self.open.remove(&operation);
        }
        let was_made = record.store_revision > 0
            && record.code == 0
            && !record.detail.ends_with("repeated=true");
        if record.phase() != Phase::Outcome || !was_made {
            return;
        }
        self.count += 1;
        match method(record) {
            "CreateGrant" => self.grants += 1,
            "RevokeGrant" => self.grants -= 1,
            _ => {}
        }
        for resource in &record.resources {
            if !resource.name.contains("/keys/") {
                continue;
            }
            let version = self.versions.entry(resource.name.clone()).or_default();
            *version = (*version).max(resource.version);
            self.touched.insert(resource.name.clone());
            if method(record) == "CreateKey" {
                *self.created.entry(resource.name.clone()).or_default() += 1;
            }
        }
    }

    /// How many operations changed the store.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How many intents have not exactly one outcome.
    pub(crate) fn without_one_outcome(&self) -> usize {
        self.open.len()
    }
}

fn method(record: &AuditRecord) -> &str {
    record.rpc.rsplit('/').next().unwrap_or_default()
}

/// A record that was read.
struct Found {
    leaf: Hash,
    record: AuditRecord,
}

/// A trail that is read step by step.
pub(crate) struct Recorded {
    dir: PathBuf,
    /// The segment to read on in, and how many records were read.
    segment: u64,
    records: u64,
    /// The ids of all calls.
    ids: HashSet<Vec<u8>>,
    pub(crate) operations: Operations,
    /// Grants that the store had before the first record that made one.
    grants_before: i64,
}

impl Recorded {
    /// The trail in a directory, from its first record on.
    pub(crate) fn of(dir: PathBuf) -> Self {
        Self {
            dir,
            segment: 0,
            records: 0,
            ids: HashSet::new(),
            operations: Operations::default(),
            grants_before: 0,
        }
    }

    /// How many records were read.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Reads what is there before anything is compared.
    pub(crate) async fn begin(&mut self, admin: &Client) {
        self.read_on();
        self.operations.touched.clear();
        self.grants_before = grants(admin).await - self.operations.grants;
    }

    /// Reads the whole commits that came since the last time, by index; with how many calls are in the trail twice.
    fn read_on(&mut self) -> (HashMap<u64, Found>, u64) {
        let mut frames =
            Offline::open_from(&self.dir, self.segment).expect("the trail can be read");
        let (mut read, mut commit, mut twice) = (HashMap::new(), Vec::new(), 0);
        loop {
            let frame = match frames.read_next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(OfflineError::Damaged {
                    cause: DamageCause::Torn,
                    ..
                }) => break,
                Err(error) => panic!("the trail is damaged: {error}"),
            };
            if frame.is_seal {
                if frame.sequence > self.records {
                    self.records = frame.sequence;
                    self.segment = frame.position.segment;
                }
                for (index, found) in commit.drain(..) {
                    let found: Found = found;
                    twice += u64::from(!self.note(&found.record));
                    read.insert(index, found);
                }
            } else if frame.sequence > self.records {
                let record = AuditRecord::decode(frame.payload).expect("an audit record");
                let leaf = Hash::of_leaf(frame.payload);
                commit.push((frame.sequence - 1, Found { leaf, record }));
            }
        }
        (read, twice)
    }

    /// Notes a record; false if its call is there already.
    fn note(&mut self, record: &AuditRecord) -> bool {
        self.operations.note(record);
        // Operations have two records, and long ones several parts; what is counted together is no call's.
        let is_one = record.phase() == Phase::Unspecified && record.part <= 1;
        if !is_one || record.summarised > 0 || record.request_id.len() != 16 {
            return true;
        }
        self.ids.insert(record.request_id.to_vec())
    }

    /// How much of what clients were told is not in the trail, exactly once and as they were told.
    pub(crate) fn missing(&mut self, ledger: &Ledger) -> u64 {
        let (read, twice) = self.read_on();
        let mut wrong = twice + ledger.without_receipt;
        if wrong > 0 {
            eprintln!(
                "{twice} calls are recorded twice, {} results came without a receipt",
                ledger.without_receipt
            );
        }
        let mut seen = HashSet::new();
        for told in &ledger.told {
            let receipt = &told.receipt;
            let found = read.get(&receipt.index);
            let right = found.is_some_and(|found| {
                found.leaf == receipt.leaf
                    && found.record.code == 0
                    && method(&found.record) == told.method
            });
            if !right || !receipt.durable || !seen.insert(receipt.index) {
                let record = found.map(|found| &found.record);
                eprintln!(
                    "{}: {receipt} is not what is recorded: {record:?}",
                    told.method
                );
                wrong += 1;
            }
        }
        let mut failed: HashMap<Vec<u8>, Vec<&str>> = HashMap::new();
        for found in read.values().filter(|found| found.record.code != 0) {
            let id = found.record.request_id.to_vec();
            failed.entry(id).or_default().push(method(&found.record));
        }
        for (id, called) in &ledger.failed {
            let recorded = bytes_of(id).and_then(|id| failed.get(&id));
            if recorded.is_none_or(|recorded| recorded != &[*called]) {
                eprintln!("{called}: the failed call {id} is recorded as {recorded:?}");
                wrong += 1;
            }
        }
        wrong
    }

    /// How much of the store is not as the trail says, or as clients were told. For use after a start and [`Recorded::missing`].
    pub(crate) async fn disagreements(&mut self, admin: &Client, ledger: &Ledger) -> u64 {
        let open = self.operations.without_one_outcome() as u64;
        if open > 0 {
            eprintln!("{open} operations have not exactly one outcome");
        }
        let mut wrong = open;
        for name in std::mem::take(&mut self.operations.touched) {
            let Some((_, key)) = name.split_once("/keys/") else {
                continue;
            };
            let stored = admin
                .keys()
                .show(key)
                .await
                .map_or(0, |key| key.primary_version);
            let told = ledger.versions.get(key).copied().unwrap_or_default();
            let recorded = self
                .operations
                .versions
                .get(&name)
                .copied()
                .unwrap_or_default();
            if stored != recorded || stored < told {
                eprintln!(
                    "`{key}`: version {recorded} is recorded, {told} was told, {stored} is there"
                );
                wrong += 1;
            }
        }
        for (key, told) in &ledger.versions {
            let name = format!("tenants/default/keys/{key}");
            if self.operations.created.get(&name) != Some(&1) {
                eprintln!("`{key}`, version {told}, was not recorded to be made once");
                wrong += 1;
            }
        }
        for (grant, stands) in &ledger.grants {
            let there = admin.grants().show(grant).await.is_ok();
            if there != *stands {
                eprintln!("grant `{grant}`: there: {there}, told: {stands}");
                wrong += 1;
            }
        }
        let (stored, recorded) = (grants(admin).await, self.operations.grants);
        if stored - self.grants_before != recorded {
            eprintln!(
                "{stored} grants, {} before, {recorded} recorded",
                self.grants_before
            );
            wrong += 1;
        }
        wrong
    }
}

async fn grants(admin: &Client) -> i64 {
    let mut pages = admin.grants().list("", "").page_size(1_000);
    let mut count = 0;
    while let Some(grants) = pages.next_page().await.expect("grants can be listed") {
        count += grants.len() as i64;
    }
    count
}

/// The bytes of an id that is written in hexadecimal digits.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
        .collect()
}
