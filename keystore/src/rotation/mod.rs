//! Rotation on a schedule: policies, and the planner that says what is due. Pure: no clock, no I/O, no randomness.

pub mod cron;
pub mod plan;
pub mod policy;

#[cfg(test)]
mod lives;
