//! How long pages take over many records.

use std::fs;
use std::time::Instant;

use super::*;
use crate::filter::PrincipalFilter;

/// 10,000,000 records that are made when they are read, with indexes in a directory.
struct Large {
    count: u64,
    indexes: tempfile::TempDir,
}

impl Source for Large {
    type Error = Infallible;

    fn first(&self) -> u64 {
        0
    }

    fn len(&self) -> u64 {
        self.count
    }

    fn index(&self, segment: u64) -> Option<Arc<Index>> {
        let bytes = fs::read(self.indexes.path().join(format!("{segment:016x}.idx"))).ok()?;
        Some(Arc::new(Index::open(segment, bytes).unwrap()))
    }

    fn read(
        &self,
        from: u64,
        _: Option<Position>,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        for index in from..self.count {
            if visit(index, &sample::usual(index).encode_to_vec()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Prints how long pages take: `cargo test --release -p fieldkeep-audit -- --ignored --nocapture pages_over`.
#[test]
#[ignore = "takes a minute and prints figures"]
fn pages_over_10_000_000_records() {
    let source = Large {
        count: 10_000_000,
        indexes: tempfile::tempdir().unwrap(),
    };
    let mut bytes = 0;
    let started = Instant::now();
    for segment in 0..source.count / SEGMENT {
        let index = index_of(segment, |index| sample::usual(index).encode_to_vec());
        bytes += index.len();
        fs::write(
            source.indexes.path().join(format!("{segment:016x}.idx")),
            index,
        )
        .unwrap();
    }
    println!(
        "{bytes} bytes of indexes, made with their records in {:?}",
        started.elapsed()
    );
    let text = |value: &str| Some(value.to_owned());
    let all = Filter::default;
    let id = sample::usual(1_000_000).request_id;
    let filters = [
        ("nothing asked", all()),
        (
            "a field used 3 times",
            Filter {
                field: text("patient.diagnosis"),
                ..all()
            },
        ),
        (
            "a field that nobody used",
            Filter {
                field: text("nobody.uses.it"),
                ..all()
            },
        ),
        (
            "a beginning of fields",
            Filter {
                field: text("patient.*"),
                ..all()
            },
        ),
        (
            "a request id",
            Filter {
                request_id: Some(id.as_ref().try_into().unwrap()),
                ..all()
            },
        ),
        (
            "one caller",
            Filter {
                principal: text("tenants/tenant-3/identities/app-7").map(PrincipalFilter::Exact),
                ..all()
            },
        ),
        (
            "one caller, who failed, and a key",
            Filter {
                principal: text("tenants/tenant-3/identities/app-7").map(PrincipalFilter::Exact),
                key: text("tenants/tenant-3/keys/key-4"),
                only_failed: true,
                ..all()
            },
        ),
        (
            "refusals in one old second",
            Filter {
                from_us: Some(sample::usual_time_us(500_000)),
                to_us: Some(sample::usual_time_us(550_000)),
                only_failed: true,
                ..all()
            },
        ),
    ];
    for (name, filter) in filters {
        let started = Instant::now();
        let page = list(&source, &filter, None, 100).unwrap();
        let elapsed = started.elapsed();
        println!(
            "{name}: {} records, {} read, {elapsed:?}; {}",
            page.records.len(),
            page.read,
            page.next
                .map_or("the end".into(), |next| format!("goes on at {next}")),
        );
        assert!(page.records.len() == 100 || page.next.is_none() || page.read >= MAX_READ);
        for (index, record) in &page.records {
            assert!(
                filter.accepts(&AuditRecord::decode(record.as_slice()).unwrap()),
                "{index}"
            );
        }
    }
}
