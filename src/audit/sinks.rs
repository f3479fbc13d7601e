//! Where checkpoints are sent, so that a log that is cut off later shows: whoever has a checkpoint knows how long it was.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A command that runs longer is killed.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the end of the service waits for the last one.
const LAST: Duration = Duration::from_secs(5);

/// Where checkpoints are sent, besides the file in the trail's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointSinks {
    /// A file that each checkpoint is appended to, with an empty line behind it.
    pub file: Option<PathBuf>,
    /// A program and its arguments. It gets the newest checkpoint on its standard input, one run after the other, at most about
    /// once a second.
    pub command: Vec<String>,
}

/// How often each sink failed since the start.
#[derive(Debug, Default)]
pub(super) struct SinkFailures {
    pub(super) file: AtomicU64,
    /// Runs that ended with a failure, took too long, or did not begin.
    pub(super) command: AtomicU64,
}

/// The sinks of one log, at work.
pub(super) struct Sinks {
    to: CheckpointSinks,
    failures: Arc<SinkFailures>,
    running: Option<(Child, Instant)>,
    /// The size that the command was told last.
    sent: u64,
}

impl Sinks {
    pub(super) fn new(to: CheckpointSinks, failures: Arc<SinkFailures>) -> Sinks {
        Sinks {
            to,
            failures,
            running: None,
            sent: 0,
        }
    }

    /// Appends a checkpoint to the file.
    pub(super) fn append(&self, note: &str) {
        if let Some(path) = &self.to.file
            && let Err(error) = append(path, note)
        {
            self.failures.file.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, path = %path.display(), "a checkpoint was not appended to its file");
        }
    }

    /// Starts the command with the newest checkpoint if it is news and no run is under way; looks after the run otherwise. Does not
    /// wait.
    pub(super) fn run(&mut self, note: &str, size: u64) {
        let [program, arguments @ ..] = self.to.command.as_slice() else {
            return;
        };
        if let Some((child, since)) = &mut self.running {
            let succeeded = match child.try_wait() {
                Ok(None) if since.elapsed() < LONGEST => return,
                Ok(None) => {
                    tracing::error!(
                        program,
                        "the command for checkpoints took too long and was killed"
                    );
                    end(child);
                    false
                }
                Ok(Some(status)) => {
                    if !status.success() {
                        tracing::error!(program, %status, "the command for checkpoints failed");
                    }
                    status.success()
                }
                Err(error) => {
                    tracing::error!(program, %error, "the command for checkpoints is lost");
                    false
                }
            };
            self.count(succeeded);
            self.running = None;
        }
        if size <= self.sent {
            return;
        }
        match start(program, arguments, note) {
            Ok(child) => {
                self.running = Some((child, Instant::now()));
                self.sent = size;
            }
            Err(error) => {
                tracing::error!(program, %error, "the command for checkpoints does not start");
                self.count(false);
            }
        }
    }

    fn count(&self, succeeded: bool) {
        self.failures
            .command
            .fetch_add(u64::from(!succeeded), Ordering::Relaxed);
    }

    /// Sends the last checkpoint, and waits for its command for a moment.
    pub(super) fn finish(&mut self, note: &str, size: u64) {
        let since = Instant::now();
        while since.elapsed() < LAST {
            self.run(note, size);
            if self.running.is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // One that has ended meanwhile is not killed; either way it is waited for.
    let _ = child.kill();
    let _ = child.wait();
}

fn append(path: &Path, note: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(format!("{note}\n").as_bytes())
}

fn start(program: &str, arguments: &[String], note: &str) -> io::Result<Child> {
    let mut child = Command::new(program)
        .args(arguments)
        // The service's own environment may hold its passphrase.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A note is shorter than a pipe, so this does not wait. A command that does not read tells more by its status.
        let _ = stdin.write_all(note.as_bytes());
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOTE: &str = "a note\n";

    fn sinks(to: CheckpointSinks) -> (Sinks, Arc<SinkFailures>) {
        let failures = Arc::default();
        (Sinks::new(to, Arc::clone(&failures)), failures)
    }

    fn counted(failures: &SinkFailures) -> (u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&failures.file), of(&failures.command))
    }

    #[test]
    fn a_file_gets_each_checkpoint_and_one_that_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        let to = |path: &Path| CheckpointSinks {
            file: Some(path.to_owned()),
            ..CheckpointSinks::default()
        };
        let (working, failures) = sinks(to(&path));
        working.append(NOTE);
        working.append(NOTE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a note\n\na note\n\n");
        assert_eq!(counted(&failures), (0, 0));
        let (failing, failures) = sinks(to(&path.join("below a file")));
        failing.append(NOTE);
        failing.append(NOTE);
        assert_eq!(counted(&failures), (2, 0));
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_is_counted() {
        for (command, failed) in [("true", 0), ("false", 1), ("/no/such/command", 1)] {
            let (mut sinks, failures) = sinks(CheckpointSinks {
                command: vec![command.to_owned()],
                ..CheckpointSinks::default()
            });
            sinks.finish(NOTE, 7);
            assert_eq!(counted(&failures), (0, failed), "{command}");
        }
    }
}
