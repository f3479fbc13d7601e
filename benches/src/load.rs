//! The load: a number of connections, each with a number of calls in flight, for a fixed time.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::process;

/// What one measurement saw.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Calls a second.
    pub(crate) rate: f64,
    /// Server CPU microseconds a call.
    pub(crate) cpu_us: f64,
    /// The load generator's own, which depends on how the server's replies come: one by one or many in a write.
    pub(crate) own_cpu_us: f64,
    /// Latencies of all calls in microseconds, sorted.
    pub(crate) latencies_us: Vec<u32>,
}

impl Measured {
    /// A percentile of the latency in microseconds.
    pub(crate) fn percentile_us(&self, percent: f64) -> u32 {
        let last = self.latencies_us.len() - 1;
        self.latencies_us[(last as f64 * percent / 100.0) as usize]
    }
}

/// Calls `call` from `clients.len() * in_flight` tasks for `length`, after a short warm-up.
pub(crate) async fn run<T, F, C>(
    clients: &[T],
    in_flight: usize,
    length: Duration,
    pid: u32,
    call: C,
) -> Measured
where
    T: Clone + Send + 'static,
    C: Fn(T, u64) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let warm_until = Instant::now() + length / 10;
    drive(clients, in_flight, warm_until, call.clone()).await;
    let own = std::process::id();
    let (cpu_before, own_before) = (process::cpu(pid), process::cpu(own));
    let started = Instant::now();
    let mut latencies_us = drive(clients, in_flight, started + length, call).await;
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = process::cpu(pid) - cpu_before;
    let own_cpu = process::cpu(own) - own_before;
    latencies_us.sort_unstable();
    let calls = latencies_us.len() as f64;
    Measured {
        rate: calls / elapsed,
        cpu_us: cpu.as_secs_f64() * 1e6 / calls,
        own_cpu_us: own_cpu.as_secs_f64() * 1e6 / calls,
        latencies_us,
    }
}

async fn drive<T, F, C>(clients: &[T], in_flight: usize, until: Instant, call: C) -> Vec<u32>
where
    T: Clone + Send + 'static,
    C: Fn(T, u64) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut tasks = JoinSet::new();
    for (connection, client) in clients.iter().enumerate() {
        for slot in 0..in_flight {
            let (client, call) = (client.clone(), call.clone());
            tasks.spawn(async move {
                let mut latencies_us = Vec::new();
                let mut number = ((connection * in_flight + slot) as u64) << 32;
                loop {
                    let started = Instant::now();
                    if started >= until {
                        return latencies_us;
                    }
                    call(client.clone(), number).await;
                    number += 1;
                    latencies_us.push(started.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
                }
            });
        }
    }
    tasks.join_all().await.into_iter().flatten().collect()
}
