//! A large CSV file through `fieldkeep data encrypt`: rows a second, and whether the memory of both sides stays flat.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use fieldkeep_harness::{Home, Server};

use crate::process;

/// The columns that are encrypted.
const COLUMNS: [&str; 6] = ["email", "phone", "ssn", "card", "iban", "notes"];
const HEADER: &str = "id,name,email,phone,ssn,card,iban,notes,plan\n";
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// Resident memory of client and service at one time, KiB.
type Sample = [u64; 2];

/// Writes a file of about `bytes`, encrypts it and returns the table. The output's extension, `csv`, `csv.gz` or `csv.zst`, decides
/// on its compression.
pub(crate) fn run(bytes: u64, extension: &str, parallel: u64) -> String {
    let home = Home::make();
    let server = home.serve();
    let admin = home.admin();
    let identities = home.path().join("identities");
    let app = server.issue(&admin, "default", "app", "data", &identities);
    server.run(&admin, &["key", "create", "pii"]);
    let (input, output) = (
        home.path().join("customers.csv"),
        home.path().join(format!("sealed.{extension}")),
    );
    let rows = write_file(&input, bytes);
    let written = size(&input);

    let columns = COLUMNS.map(|column| format!("{column}=pii:customer.{column}"));
    let mut command = server.command(
        &app,
        ["data", "encrypt", "--context", "id", "--format", "json"],
    );
    command
        .arg("--input")
        .arg(&input)
        .arg("--output")
        .arg(&output);
    command.arg("--parallel").arg(parallel.to_string());
    for column in &columns {
        command.args(["--column", column]);
    }
    command.env("FIELDKEEP_ADDR", server.data.to_string());
    let cpu_before = process::cpu(server.pid());
    let started = Instant::now();
    let mut client = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("`fieldkeep data` starts");
    let samples = sample(&mut client, &server);
    let elapsed = started.elapsed().as_secs_f64();
    let ended = client.wait_with_output().expect("the command ends");
    assert!(ended.status.success(), "`data encrypt` failed");
    let summary = String::from_utf8_lossy(&ended.stdout);
    assert!(summary.contains(&format!("\"rows\": {rows},")), "{summary}");
    let cpu = (process::cpu(server.pid()) - cpu_before).as_secs_f64();
    let values = rows * COLUMNS.len() as u64;
    let text = format!(
        "{rows} rows, {} MB, {} columns encrypted, {values} values, one context column; {parallel} batches under way; output {} MB (`.{extension}`).\n\n\
         {:.0} rows/s, {:.0} values/s, {:.1} MB/s of input, {elapsed:.1} s; server CPU {:.2} us a value.\n\n{}",
        written / 1_000_000,
        COLUMNS.len(),
        size(&output) / 1_000_000,
        rows as f64 / elapsed,
        values as f64 / elapsed,
        written as f64 / 1e6 / elapsed,
        cpu * 1e6 / values as f64,
        memory_table(&samples),
    );
    server.stop();
    text
}

/// Rows with ids of their own and values of usual lengths, until `bytes` are reached. Returns their number.
fn write_file(path: &Path, bytes: u64) -> u64 {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a new file"));
    file.write_all(HEADER.as_bytes())
        .expect("space on the disk");
    let (mut written, mut id) = (HEADER.len() as u64, 0u64);
    let mut row = String::new();
    while written < bytes {
        row.clear();
        let (low, high) = (id % 10_000, id / 10_000 % 10_000);
        writeln!(
            row,
            "{id},Christopher Smith,christopher.smith.{id}@example.com,+44 20 7946 {low:04},{:03}-{:02}-{low:04},\
             4111 1111 {high:04} {low:04},GB29NWBK6016{high:04}{low:04}19,\"called on day {low}, wants a call back\",basic",
            id % 900,
            id % 99,
        )
        .expect("a string grows");
        file.write_all(row.as_bytes()).expect("space on the disk");
        written += row.len() as u64;
        id += 1;
    }
    file.flush().expect("space on the disk");
    id
}

/// Looks at both sides until the client ends.
fn sample(client: &mut Child, server: &Server) -> Vec<Sample> {
    let mut samples = Vec::new();
    while client.try_wait().expect("a child").is_none() {
        // Between the two looks the client may have ended.
        if let Some(resident) = process::resident_kib(client.id()) {
            samples.push([resident, process::memory_kib(server.pid()).0]);
        }
        thread::sleep(SAMPLE_EVERY);
    }
    samples
}

fn memory_table(samples: &[Sample]) -> String {
    // The first tenth is the start-up: caches and buffers are filled.
    let steady = samples.get(samples.len() / 10..).unwrap_or(samples);
    let (first, second) = steady.split_at(steady.len() / 2);
    let mut text = format!(
        "Resident memory, MiB, {} samples, without the first tenth:\n\n\
         | side | first half, mean (most) | second half, mean (most) | growth of the mean |\n|---|---|---|---|\n",
        steady.len()
    );
    for (name, side) in [("`data encrypt`", 0), ("service", 1)] {
        let figures = |half: &[Sample]| {
            let all = half.iter().map(|sample| sample[side] as f64 / 1024.0);
            let most = all.clone().fold(0.0, f64::max);
            (all.sum::<f64>() / half.len().max(1) as f64, most)
        };
        let ((a, a_most), (b, b_most)) = (figures(first), figures(second));
        let _ = writeln!(
            text,
            "| {name} | {a:.1} ({a_most:.1}) | {b:.1} ({b_most:.1}) | {:+.1} |",
            b - a
        );
    }
    text
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("the file is there").len()
}
