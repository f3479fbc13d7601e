//! Many keys due at the same moment: what that costs the calls that go on meanwhile, and how jitter spreads a schedule.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fieldkeep_client::Client;
use fieldkeep_harness::Home;
use fieldkeep_proto::v1::KeyRotation;
use time::OffsetDateTime;
use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    load::{self, Measured},
    rows, servers,
    system::{CONNECTIONS, IN_FLIGHT},
};

/// Calls of the preparation that are in flight at once.
const PREPARING: usize = 64;
/// The period of the keys whose schedule is drawn, days.
const PERIOD_DAYS: i64 = 90;
/// The longest that all rotations may take.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Makes `count` keys due at one moment, measures before, during and after. Writes the plot to `plot`, if it is given.
pub(crate) fn run(count: usize, length: Duration, plot: Option<&str>) -> String {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let home = Home::make();
    let server = home.serve();
    let (admin, identities) = (home.admin(), home.path().join("identities"));
    let app = server.issue(&admin, "default", "app", "data", &identities);
    server.run(&admin, &["key", "create", "pii"]);
    let _inside = runtime.enter();
    let clients = servers::connect(&home, server.data, &app, CONNECTIONS);
    let admin = server.admin_client(&admin);
    let pid = server.pid();
    let text = runtime.block_on(async {
        let spread = schedule(&admin, count).await;
        if let Some(file) = plot {
            std::fs::write(file, svg(&spread)).expect("the plot can be written");
        }
        let (due, at) = soon(count, length);
        each_key(&admin, count, move |admin, name| {
            let due = due.clone();
            async move {
                let policy = KeyRotation {
                    cron: due,
                    jitter: Some(prost_types::Duration::default()),
                    ..KeyRotation::default()
                };
                admin
                    .keys()
                    .set_rotation(&name, Some(policy))
                    .await
                    .expect("set");
            }
        })
        .await;
        let before = measure(&clients, length, pid).await;
        assert!(
            SystemTime::now() < at,
            "the preparation took too long; fewer keys, or a faster machine"
        );
        tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await;
        let started = Instant::now();
        let mut during: Vec<Measured> = Vec::new();
        let took = loop {
            during.push(measure(&clients, length, pid).await);
            if rotated(&admin).await == count {
                break started.elapsed();
            }
            assert!(started.elapsed() < PATIENCE, "not all keys were rotated");
        };
        // The last measurement had the end of the rotations and what came after them.
        if during.len() > 1 {
            during.pop();
        }
        let after = measure(&clients, length, pid).await;
        table(count, length, took, &before, &during, &after)
    });
    server.stop();
    text
}

async fn measure(clients: &[Client], length: Duration, pid: u32) -> Measured {
    load::run(
        clients,
        IN_FLIGHT,
        length,
        pid,
        |client, number| async move {
            rows::encrypt(&client, number).await;
        },
    )
    .await
}

fn name(number: usize) -> String {
    format!("due-{number}")
}

/// Does something with every key, many at once.
async fn each_key<F, C, T>(admin: &Client, count: usize, act: C) -> Vec<T>
where
    C: Fn(Client, String) -> F + Clone + Send + 'static,
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let mut tasks = JoinSet::new();
    for worker in 0..PREPARING {
        let (admin, act) = (admin.clone(), act.clone());
        tasks.spawn(async move {
            let mut results = Vec::new();
            for number in (worker..count).step_by(PREPARING) {
                results.push(act(admin.clone(), name(number)).await);
            }
            results
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Makes the keys with a period, and gives the days from now on after which each is due.
async fn schedule(admin: &Client, count: usize) -> Vec<f64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs_f64();
    let due = each_key(admin, count, |admin, name| async move {
        let policy = KeyRotation {
            period: Some(prost_types::Duration {
                seconds: PERIOD_DAYS * 86_400,
                nanos: 0,
            }),
            ..KeyRotation::default()
        };
        admin
            .keys()
            .create_with(&name, Some(policy))
            .await
            .expect("created");
        let key = admin.keys().show(&name).await.expect("shown");
        key.next_rotation
            .and_then(|next| next.time)
            .expect("a time")
            .seconds
    })
    .await;
    due.into_iter()
        .map(|at| (at as f64 - now) / 86_400.0)
        .collect()
}

/// A minute that leaves time to set every key and to measure, as a cron expression and as a time.
fn soon(count: usize, length: Duration) -> (String, SystemTime) {
    let preparation = Duration::from_secs(30 + count as u64 / 500) + 2 * length;
    let earliest = SystemTime::now() + preparation;
    let seconds = earliest
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let minute = seconds.div_ceil(60) * 60;
    let at = OffsetDateTime::from_unix_timestamp(minute as i64).expect("a time");
    let cron = format!(
        "{} {} {} {} *",
        at.minute(),
        at.hour(),
        at.day(),
        u8::from(at.month())
    );
    (cron, UNIX_EPOCH + Duration::from_secs(minute))
}

/// How many of the keys have their second version.
async fn rotated(admin: &Client) -> usize {
    let keys = admin
        .keys()
        .list("")
        .page_size(1000)
        .collect()
        .await
        .expect("listed");
    let due = keys.iter().filter(|key| key.name.contains("/keys/due-"));
    let versions: Vec<u32> = due.map(|key| key.primary_version).collect();
    assert!(
        versions.iter().all(|version| *version <= 2),
        "a key was rotated twice"
    );
    versions.iter().filter(|version| **version == 2).count()
}

fn table(
    count: usize,
    length: Duration,
    took: Duration,
    before: &Measured,
    during: &[Measured],
    after: &Measured,
) -> String {
    let mut text = format!(
        "{count} keys due at one moment by cron, without jitter, under {CONNECTIONS} connections x {IN_FLIGHT} unary Encrypts; measurements of {} s. \
         All were rotated, each once, {:.0} s after they were due ({:.0}/s).\n\n\
         | | calls/s | p50 us | p99 us | p99.9 us | server CPU us a call |\n|---|---|---|---|---|---|\n",
        length.as_secs(),
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
    );
    let mut row = |name: &str, m: &Measured| {
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {} | {} | {} | {:.1} |",
            m.rate,
            m.percentile_us(50.0),
            m.percentile_us(99.0),
            m.percentile_us(99.9),
            m.cpu_us
        );
    };
    row("before", before);
    for (number, measured) in during.iter().enumerate() {
        row(&format!("while they rotate, {}", number + 1), measured);
    }
    row("after", after);
    let mut p99: Vec<u32> = during.iter().map(|m| m.percentile_us(99.0)).collect();
    p99.sort_unstable();
    let without = f64::from(before.percentile_us(99.0) + after.percentile_us(99.0)) / 2.0;
    let _ = writeln!(
        text,
        "\np99 while keys rotate (median of {}) / p99 without (mean of before and after): **{:.2}**",
        p99.len(),
        f64::from(p99[p99.len() / 2]) / without
    );
    text
}

/// A histogram of the days on which keys are due, beside the one day without jitter.
fn svg(due_days: &[f64]) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 220.0;
    const LEFT: f64 = 48.0;
    const BOTTOM: f64 = 36.0;
    const TOP: f64 = 28.0;
    // The default jitter is a day at most.
    let (first, last) = (-28.0, 2.0);
    let mut hours: BTreeMap<i64, usize> = BTreeMap::new();
    for day in due_days {
        let hour = (day - PERIOD_DAYS as f64) * 24.0;
        *hours.entry(hour.floor() as i64).or_default() += 1;
    }
    let most = hours.values().copied().max().unwrap_or(1) as f64;
    let x = |hour: f64| LEFT + (hour - first) / (last - first) * (WIDTH - LEFT - 16.0);
    let y = |count: f64| HEIGHT - BOTTOM - count / most * (HEIGHT - BOTTOM - TOP);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"16\">{} keys made in one minute, period {PERIOD_DAYS} days: when each rotates (keys an hour)</text>\n",
        due_days.len()
    );
    for (hour, count) in &hours {
        let (from, to) = (x(*hour as f64), x((*hour + 1) as f64));
        let top = y(*count as f64);
        let _ = writeln!(
            text,
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#3b6ea5\"/>",
            from + 0.5,
            to - from - 1.0,
            HEIGHT - BOTTOM - top
        );
    }
    let end = x(0.0);
    let base = HEIGHT - BOTTOM;
    let _ = writeln!(
        text,
        "<line x1=\"{end:.1}\" y1=\"{TOP}\" x2=\"{end:.1}\" y2=\"{base}\" stroke=\"#b03a2e\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\" fill=\"#b03a2e\">without jitter: all here</text>\n\
         <line x1=\"{LEFT}\" y1=\"{base}\" x2=\"{}\" y2=\"{base}\" stroke=\"#333\"/>\n\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{most:.0}</text>\n\
         <text x=\"{}\" y=\"{base}\" text-anchor=\"end\">0</text>",
        end - 4.0,
        TOP + 10.0,
        WIDTH - 16.0,
        LEFT - 4.0,
        TOP + 4.0,
        LEFT - 4.0,
    );
    for hour in (-24..=0).step_by(6) {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{hour} h</text>",
            x(f64::from(hour)),
            base + 16.0
        );
    }
    text.push_str("</svg>\n");
    text
}
