//! Faults on request, for tests of what an application does about them.

use std::{
    any::Any,
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fieldkeep_proto::v1;
use tonic::Code;

use super::refusal::Refusal;
use crate::{Client, ConnectError, Error, ErrorKind, reason};

/// What is to go wrong, for [`Client::with_faults`].
///
/// Faults count calls as the application makes them: one of an application's calls, of a batch's calls or of a stream's messages
/// has one fault at most, and the client's own retries do not hide it. The same faults in the same order of calls give the same
/// outcomes, in each run.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fieldkeep_client::Error> {
/// use fieldkeep_client::{ErrorKind, Faults, Fieldkeep};
///
/// let client = Fieldkeep::in_memory().key("pii").client().await?;
/// let client = client.with_faults(Faults::new().fail_next(ErrorKind::Unavailable));
/// let email = client.field("pii", "customer.email");
/// assert_eq!(email.encrypt(b"x").await.unwrap_err().kind(), ErrorKind::Unavailable);
/// email.encrypt(b"x").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    next: VecDeque<Fault>,
    every: Vec<(u64, ErrorKind)>,
    some: Vec<(u8, ErrorKind)>,
    delay: Duration,
    opaque: BTreeSet<String>,
    random: u64,
    calls: u64,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It fails without being made.
    Fail(ErrorKind),
    /// It is made, and its reply does not come.
    LoseReply,
}

/// The faults of a client and its clones.
#[derive(Clone)]
pub(crate) struct Injected(Arc<Mutex<Faults>>);

impl Client {
    /// The same client with faults. Its clones share them; the client that this was called on has none of them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// use fieldkeep_client::{ErrorKind, Faults, Fieldkeep};
    ///
    /// let sound = Fieldkeep::in_memory().key("pii").client().await?;
    /// let faulty = sound.with_faults(Faults::new().fail_every(1, ErrorKind::ResourceExhausted));
    /// faulty.field("pii", "f").encrypt(b"x").await.unwrap_err();
    /// sound.field("pii", "f").encrypt(b"x").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Client {
        self.injecting(Injected(Arc::new(Mutex::new(faults))))
    }
}

impl Faults {
    /// No faults yet.
    ///
    /// ```
    /// let none = fieldkeep_client::Faults::new();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next call fails with an error of this kind; called again, the one after that.
    ///
    /// ```
    /// use fieldkeep_client::{ErrorKind, Faults};
    /// let twice = Faults::new().fail_next(ErrorKind::Connect).fail_next(ErrorKind::DeadlineExceeded);
    /// ```
    #[must_use]
    pub fn fail_next(mut self, kind: ErrorKind) -> Self {
        self.next.push_back(Fault::Fail(kind));
        self
    }

    /// The next call is carried out, but its reply is lost: the application cannot know its outcome. May be mixed with
    /// [`fail_next`](Self::fail_next).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// use fieldkeep_client::{Error, ErrorKind, Faults, Fieldkeep};
    ///
    /// let sound = Fieldkeep::in_memory().client().await?;
    /// let faulty = sound.with_faults(Faults::new().lose_next_reply());
    /// let error = faulty.keys().create("pii").await.unwrap_err();
    /// assert!(matches!(error, Error::ConnectionLost { .. }));
    /// assert_eq!(sound.keys().create("pii").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lose_next_reply(mut self) -> Self {
        self.next.push_back(Fault::LoseReply);
        self
    }

    /// Each `n`th call fails with an error of this kind; 0: none.
    ///
    /// ```
    /// use fieldkeep_client::{ErrorKind, Faults};
    /// let every_tenth = Faults::new().fail_every(10, ErrorKind::Unavailable);
    /// ```
    #[must_use]
    pub fn fail_every(mut self, n: u32, kind: ErrorKind) -> Self {
        self.every.push((n.into(), kind));
        self
    }

    /// So many calls of 100 fail with an error of this kind, as the [`seed`](Self::seed) has it.
    ///
    /// ```
    /// use fieldkeep_client::{ErrorKind, Faults};
    /// let flaky = Faults::new().seed(7).fail_some(5, ErrorKind::Unavailable);
    /// ```
    #[must_use]
    pub fn fail_some(mut self, percent: u8, kind: ErrorKind) -> Self {
        self.some.push((percent, kind));
        self
    }

    /// Which calls [`fail_some`](Self::fail_some) chooses: the same ones for the same seed.
    ///
    /// ```
    /// let faults = fieldkeep_client::Faults::new().seed(7);
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = seed;
        self
    }

    /// Each call begins so much later, which counts for its deadline.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// use std::time::Duration;
    /// use fieldkeep_client::{ErrorKind, Faults, Fieldkeep};
    ///
    /// let client = Fieldkeep::in_memory().key("pii").client().await?;
    /// let slow = client.with_faults(Faults::new().delay(Duration::from_secs(3600)));
    /// let call = slow.field("pii", "f").timeout(Duration::from_millis(1));
    /// assert_eq!(call.encrypt(b"x").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Values of this field do not decrypt or re-encrypt, alone or in a batch or stream, where their neighbours still do: as
    /// after damage to them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// use fieldkeep_client::{Faults, Fieldkeep};
    ///
    /// let client = Fieldkeep::in_memory().key("pii").client().await?;
    /// let client = client.with_faults(Faults::new().decrypt_fails_for("customer.email"));
    /// let email = client.field("pii", "customer.email");
    /// let stored = email.encrypt(b"ada@example.org").await?;
    /// assert!(email.decrypt(&stored).await.unwrap_err().is_decryption_failed());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn decrypt_fails_for(mut self, field: impl Into<String>) -> Self {
        self.opaque.insert(field.into());
        self
    }

    /// What goes wrong with the next call.
    fn draw(&mut self) -> Option<Fault> {
        self.calls += 1;
        // A number for each call, whether or not it is needed, so that one fault does not move the others.
        let drawn = self.draw_percent();
        if let Some(fault) = self.next.pop_front() {
            return Some(fault);
        }
        let every = self
            .every
            .iter()
            .find(|(n, _)| *n > 0 && self.calls.is_multiple_of(*n));
        let mut below = 0u16;
        let some = self.some.iter().find(|(percent, _)| {
            below += u16::from(*percent);
            drawn < below
        });
        every
            .map(|(_, kind)| *kind)
            .or(some.map(|(_, kind)| *kind))
            .map(Fault::Fail)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): even enough to choose calls, and nothing secret hangs on it.
    fn draw_percent(&mut self) -> u16 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % 100) as u16
    }
}

impl Injected {
    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong with the next call, and how much later it begins.
    pub(crate) fn draw(&self) -> (Option<Fault>, Duration) {
        let mut faults = self.lock();
        (faults.draw(), faults.delay)
    }

    /// Replaces ciphertexts that are not to open by what does not.
    pub(crate) fn alter(&self, message: &mut dyn Any) {
        let faults = self.lock();
        if faults.opaque.is_empty() {
            return;
        }
        let spoil = |field: &str, default: &str, ciphertext: &mut Bytes| {
            let field = if field.is_empty() { default } else { field };
            if faults.opaque.contains(field) {
                *ciphertext = Bytes::new();
            }
        };
        if let Some(one) = message.downcast_mut::<v1::DecryptRequest>() {
            spoil(&one.field, "", &mut one.ciphertext);
        } else if let Some(one) = message.downcast_mut::<v1::ReEncryptRequest>() {
            spoil(&one.field, "", &mut one.ciphertext);
        } else if let Some(batch) = message.downcast_mut::<v1::BatchDecryptRequest>() {
            for item in &mut batch.items {
                spoil(&item.field, &batch.field, &mut item.ciphertext);
            }
        } else if let Some(batch) = message.downcast_mut::<v1::BatchReEncryptRequest>() {
            for item in &mut batch.items {
                spoil(&item.field, &batch.field, &mut item.ciphertext);
            }
        }
    }
}

impl Fault {
    /// The error that the application sees; `timeout` is the call's.
    pub(crate) fn error(self, address: &str, timeout: Duration) -> Error {
        let address = address.into();
        let Self::Fail(kind) = self else {
            return Error::ConnectionLost {
                address,
                detail: "the test lost the reply".into(),
            };
        };
        let (code, reason) = match kind {
            ErrorKind::Connect => {
                return Error::Connect {
                    address,
                    source: ConnectError::TimedOut,
                };
            }
            ErrorKind::DeadlineExceeded => {
                return Error::DeadlineExceeded {
                    timeout,
                    last: None,
                };
            }
            ErrorKind::DecryptionFailed => return Refusal::opaque().into_error(),
            ErrorKind::Refused => (Code::PermissionDenied, reason::PERMISSION_DENIED),
            ErrorKind::NotFound => (Code::NotFound, reason::KEY_NOT_FOUND),
            ErrorKind::AlreadyExists => (Code::AlreadyExists, reason::ALREADY_EXISTS),
            ErrorKind::InvalidArgument => (Code::InvalidArgument, reason::INVALID_REQUEST),
            ErrorKind::FailedPrecondition => (Code::FailedPrecondition, reason::KEY_DISABLED),
            ErrorKind::Conflict => (Code::Aborted, reason::CONFLICT),
            ErrorKind::ResourceExhausted => (Code::ResourceExhausted, reason::NO_SPACE),
            ErrorKind::Unavailable => (Code::Unavailable, reason::STORE_UNAVAILABLE),
            // No call fails for the client's settings, which were read before.
            ErrorKind::Internal | ErrorKind::Config => (Code::Internal, reason::INTERNAL),
        };
        Refusal::new(code, reason, format!("the test asked for {reason}")).into_error()
    }
}
