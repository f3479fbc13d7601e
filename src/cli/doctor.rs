//! `fieldkeep doctor`: what is wrong, and what to do about it.

mod bearer;
mod certificates;
mod client;
mod files;
mod health;
mod machine;
mod ports;

use std::fmt::Display;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::connection::ConnectionArgs;
use super::failure::{Exit, Failure};
use super::init::unix_now;
use super::output::{Format, count_of, is_styled, one_line, print_json, print_line};
use crate::config::Config;

/// Check files, permissions, certificates, clock, disk, ports and the connection, and say what to do
///
/// With --config it checks what a service needs on this machine, whether it runs or not. With connection settings it checks
/// those and connects. Changes nothing and prints no secret. Run it as the user who runs the service. Exit code 1 if a
/// check fails; warnings alone do not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep doctor                                can I connect?
  fieldkeep doctor --config fk/fieldkeep.toml     can the service run here?")]
pub(crate) struct DoctorArgs {
    /// The configuration of a service on this machine
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Warn,
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            State::Ok => "32",
            State::Warn => "33",
            State::Fail => "31",
        }
    }
}

/// One check and what came of it.
#[derive(Debug)]
struct Finding {
    state: State,
    check: &'static str,
    detail: String,
    remedy: Option<String>,
}

/// What was found, in order.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, detail: impl Display) {
        self.add(State::Ok, check, detail, None);
    }

    fn warn(&mut self, check: &'static str, detail: impl Display, remedy: impl Display) {
        self.add(State::Warn, check, detail, Some(remedy.to_string()));
    }

    fn fail(&mut self, check: &'static str, detail: impl Display, remedy: impl Display) {
        self.add(State::Fail, check, detail, Some(remedy.to_string()));
    }

    fn add(
        &mut self,
        state: State,
        check: &'static str,
        detail: impl Display,
        remedy: Option<String>,
    ) {
        self.0.push(Finding {
            state,
            check,
            detail: detail.to_string(),
            remedy,
        });
    }

    fn print(&self, format: Format) -> Result<(), Failure> {
        if format == Format::Json {
            let object = |finding: &Finding| {
                json!({
                    "state": finding.state.as_str(),
                    "check": finding.check,
                    "detail": finding.detail,
                    "remedy": finding.remedy,
                })
            };
            return print_json(&Value::Array(self.0.iter().map(object).collect()));
        }
        for finding in &self.0 {
            let state = match is_styled() {
                true => format!(
                    "\x1b[{}m{:<4}\x1b[0m",
                    finding.state.colour(),
                    finding.state.as_str()
                ),
                false => format!("{:<4}", finding.state.as_str()),
            };
            print_line(format_args!(
                "{state}  {:<20}  {}",
                finding.check,
                one_line(&finding.detail)
            ))?;
            if let Some(remedy) = &finding.remedy {
                print_line(format_args!("{:28}remedy: {}", "", one_line(remedy)))?;
            }
        }
        Ok(())
    }

    fn outcome(&self) -> Result<(), Failure> {
        match self
            .0
            .iter()
            .filter(|finding| finding.state == State::Fail)
            .count()
        {
            0 => Ok(()),
            failed => {
                let failed = count_of(failed as u64, "check");
                Err(Failure::new(Exit::Failed, format_args!("{failed} failed")))
            }
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(
    args: &DoctorArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
    let mut findings = Findings::default();
    machine::clock(&mut findings, now);
    if let Some(path) = &args.config {
        match Config::load(path) {
            Ok(config) => {
                findings.ok("configuration", path.display());
                service(&mut findings, &config, now).await;
            }
            Err(error) => {
                let failure = Failure::new(Exit::Failed, &error).caused_by(&error);
                findings.fail(
                    "configuration",
                    failure.in_one_line(),
                    "correct the file, or name another with --config",
                );
            }
        }
    }
    if args.config.is_none() || connection.names_identity() {
        client::check(&mut findings, connection, now).await;
    }
    findings.print(format)?;
    findings.outcome()
}

async fn service(findings: &mut Findings, config: &Config, now: i64) {
    files::service(findings, config);
    certificates::server(findings, config, now);
    let warning_percent = config.audit.disk_warning_percent;
    machine::disk(findings, "disk", &config.data_dir, warning_percent);
    for mirror in [&config.store.mirror_dir, &config.audit.mirror_dir]
        .into_iter()
        .flatten()
    {
        machine::disk(findings, "mirror disk", mirror, warning_percent);
    }
    machine::limits(findings, config);
    ports::check(findings, config).await;
}
