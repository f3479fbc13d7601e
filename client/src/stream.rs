//! Streams of fields: items go in, results come out in their order, over one bidirectional call.
//!
//! Two halves: [`Sending`] is the body of the request, which groups items into messages; [`Receiving`] takes the answers.
//! Between them stands [`Between`], the list of what was sent and not answered, of bounded length.

use std::{
    collections::VecDeque,
    fmt, iter,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    vec,
};

use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    stream::{self, Fuse},
    task::AtomicWaker,
};
use http::uri::PathAndQuery;
use tokio::sync::Semaphore;
use tonic::{CancellationHandle, Status, Streaming};

use crate::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, DecryptItem, Decrypted, EncryptItem,
    Encrypted, Error, ItemError, ReEncryptItem, ReEncrypted,
    codec::SharedCodec,
    message::{Added, Batch, Group, Limits, outputs},
    pool::Lease,
    receipts::Receipt,
};

/// What one message holds when items come fast. Small enough that the next one is read while this one is worked on.
const MESSAGE: Limits = Limits {
    items: 1000,
    request_bytes: 1024 * 1024,
};

/// The results of a stream, in the order of its items: a [`Stream`](futures_util::Stream) of [`Client::encrypt_stream`],
/// [`Client::decrypt_stream`] or [`Client::reencrypt_stream`].
///
/// Each is the item's own result, or the error that broke the stream, [`Error::Stream`], which is the last then. Dropping it
/// cancels the call.
pub struct Results<T>(stream::BoxStream<'static, ResultOrBroken<T>>);

type ResultOrBroken<T> = Result<Result<T, ItemError>, Error>;

impl<T> Results<T> {
    /// The next result; `None` after the last.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchEncrypt, EncryptItem};
    /// use futures_util::stream;
    ///
    /// let batch = BatchEncrypt { key: "pii".into(), field: "f".into(), ..BatchEncrypt::default() };
    /// let mut results = client.encrypt_stream(batch, stream::iter([EncryptItem::new("x")]));
    /// let first = results.next().await.transpose()?;
    /// assert!(first.is_some_and(|item| item.is_ok()));
    /// assert!(results.next().await.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Result<Result<T, ItemError>, Error>> {
        self.0.next().await
    }
}

impl<T> Stream for Results<T> {
    type Item = Result<Result<T, ItemError>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Results<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}

impl Client {
    /// Encrypts a stream of values of any length. `batch` gives the defaults, and items that come first, if it has any.
    ///
    /// Nothing happens until the results are asked for. Then items are taken as they come, grouped into messages (of up to
    /// 1,000 items and 1 MiB, or fewer when no item is ready) and answered in their order. At most
    /// [`parallel_batches`](crate::ClientBuilder::parallel_batches) messages are under way: whoever does not take results is sent
    /// no more, and `items` is not asked for more. Each message is a call of its own for the service, with its own deadline there,
    /// audit record and check of the caller's rights; the failure of an item or of a message is the result of its items, and the
    /// stream goes on.
    ///
    /// A stream that breaks ends with [`Error::Stream`], which says how many results had come. It is not begun again by itself,
    /// since the items are gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchEncrypt, EncryptItem};
    /// use futures_util::stream;
    ///
    /// let batch = BatchEncrypt {
    ///     key: "pii".into(),
    ///     field: "customer.email".into(),
    ///     ..BatchEncrypt::default()
    /// };
    /// // For example the rows of a cursor.
    /// let rows = (0..2_500).map(|id| EncryptItem::new("ada@example.org").context("id", id.to_string()));
    /// let mut results = client.encrypt_stream(batch, stream::iter(rows));
    /// let mut sealed = 0;
    /// while let Some(result) = results.next().await {
    ///     match result? {
    ///         Ok(_) => sealed += 1,
    ///         Err(error) => eprintln!("one row: {error}"),
    ///     }
    /// }
    /// assert_eq!(sealed, 2_500);
    /// # Ok(())
    /// # }
    /// ```
    pub fn encrypt_stream(
        &self,
        batch: BatchEncrypt,
        items: impl Stream<Item = EncryptItem> + Send + 'static,
    ) -> Results<Encrypted> {
        let (defaults, first) = batch.into_parts();
        self.stream(defaults, first, items)
    }

    /// Decrypts a stream of ciphertexts, as [`encrypt_stream`](Self::encrypt_stream).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchDecrypt, DecryptItem};
    /// use futures_util::stream;
    ///
    /// let stored = client.field("pii", "customer.email").encrypt(b"ada@example.org").await?;
    /// let batch = BatchDecrypt { field: "customer.email".into(), ..BatchDecrypt::default() };
    /// let mut results = client.decrypt_stream(batch, stream::iter([DecryptItem::new(stored)]));
    /// let value = results.next().await.transpose()?.and_then(Result::ok);
    /// assert_eq!(value.unwrap().plaintext, "ada@example.org");
    /// # Ok(())
    /// # }
    /// ```
    pub fn decrypt_stream(
        &self,
        batch: BatchDecrypt,
        items: impl Stream<Item = DecryptItem> + Send + 'static,
    ) -> Results<Decrypted> {
        let (defaults, first) = batch.into_parts();
        self.stream(defaults, first, items)
    }

    /// Re-encrypts a stream of ciphertexts, as [`encrypt_stream`](Self::encrypt_stream).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchReEncrypt, ReEncryptItem};
    /// use futures_util::stream;
    ///
    /// let stored = client.field("pii", "customer.email").encrypt(b"ada@example.org").await?;
    /// let batch = BatchReEncrypt { field: "customer.email".into(), ..BatchReEncrypt::default() };
    /// let mut results = client.reencrypt_stream(batch, stream::iter([ReEncryptItem::new(stored)]));
    /// let renewed = results.next().await.transpose()?.and_then(Result::ok);
    /// assert!(renewed.is_some_and(|item| !item.changed));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reencrypt_stream(
        &self,
        batch: BatchReEncrypt,
        items: impl Stream<Item = ReEncryptItem> + Send + 'static,
    ) -> Results<ReEncrypted> {
        let (defaults, first) = batch.into_parts();
        self.stream(defaults, first, items)
    }

    fn stream<B: Batch>(
        &self,
        defaults: B,
        first: Vec<B::Item>,
        items: impl Stream<Item = B::Item> + Send + 'static,
    ) -> Results<B::Output> {
        let between = Arc::new(Between::new(self.settings().parallel));
        let sending = Sending {
            #[cfg(feature = "testing")]
            client: self.clone(),
            defaults,
            items: stream::iter(first).chain(items).boxed().fuse(),
            next: None,
            too_long: None,
            between: Arc::clone(&between),
        };
        let receiving = Receiving {
            client: self.clone(),
            call: Call::Prepared(sending),
            between,
            ready: Vec::new().into_iter(),
            answered: 0,
        };
        Results(stream::unfold(receiving, Receiving::next).fuse().boxed())
    }
}

/// What both halves of a stream know.
struct Between {
    /// What was sent and not answered, in order, and whether everything was sent.
    list: Mutex<(VecDeque<Sent>, bool)>,
    /// How many more may be in the list.
    room: Semaphore,
    /// Wakes the receiving half, for what needs no answer of the service.
    waker: AtomicWaker,
}

enum Sent {
    /// A message with so many items.
    Message(usize),
    /// An item that no message can hold, and so was not sent.
    TooLong(Error),
}

impl Between {
    fn new(room: usize) -> Self {
        Self {
            list: Mutex::default(),
            room: Semaphore::new(room),
            waker: AtomicWaker::new(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Sent>, &mut bool) -> T) -> T {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let (sent, all) = &mut *list;
        act(sent, all)
    }

    fn pop_message(&self) -> Option<usize> {
        self.with(|sent, _| match sent.pop_front()? {
            Sent::Message(items) => Some(items),
            too_long @ Sent::TooLong(_) => {
                sent.push_front(too_long);
                None
            }
        })
    }

    fn pop_too_long(&self) -> Option<Error> {
        self.with(|sent, _| match sent.pop_front()? {
            Sent::TooLong(error) => Some(error),
            message @ Sent::Message(_) => {
                sent.push_front(message);
                None
            }
        })
    }
}

/// The half that groups items into messages, as the service makes room for them.
struct Sending<B: Batch> {
    #[cfg(feature = "testing")]
    client: Client,
    defaults: B,
    items: Fuse<stream::BoxStream<'static, B::Item>>,
    /// What did not fit into the message before.
    next: Option<B::WireItem>,
    /// Comes after the message before.
    too_long: Option<Error>,
    between: Arc<Between>,
}

impl<B: Batch> Sending<B> {
    /// The next message, with this half to go on with; `None` after the last item.
    async fn message(mut self) -> Option<(Arc<B>, Self)> {
        loop {
            // The semaphore is never closed.
            self.between.room.acquire().await.ok()?.forget();
            let mut group = Group::new(&self.defaults);
            if self.too_long.is_none() {
                self.fill(&mut group).await;
            }
            if !group.is_empty() {
                self.sent(Sent::Message(group.len()));
                let message = group.into_message(&self.defaults);
                #[cfg(feature = "testing")]
                let message = self.altered(message);
                return Some((Arc::new(message), self));
            }
            let Some(error) = self.too_long.take() else {
                self.between.with(|_, all| *all = true);
                return None;
            };
            self.sent(Sent::TooLong(error));
            self.between.waker.wake();
        }
    }

    #[cfg(feature = "testing")]
    fn altered(&self, mut message: B) -> B {
        self.client.alter(&mut message);
        message
    }

    fn sent(&self, sent: Sent) {
        self.between.with(|list, _| list.push_back(sent));
    }

    /// Waits for one item and takes those that are ready behind it, as far as they fit.
    async fn fill(&mut self, group: &mut Group<B>) {
        loop {
            let item = match self.next.take() {
                Some(item) => Some(item),
                None if group.is_empty() => self.items.next().await.map(B::item),
                None => {
                    // Outside of the runtime's budget, which makes streams that have items look as if they had none.
                    let ready = tokio::task::unconstrained(self.items.next()).now_or_never();
                    ready.flatten().map(B::item)
                }
            };
            let Some(item) = item else { return };
            match group.add(item, MESSAGE) {
                Added::Yes => {}
                Added::Full(item) => {
                    self.next = Some(item);
                    return;
                }
                Added::TooLong(error) => {
                    self.too_long = Some(error);
                    return;
                }
            }
        }
    }
}

/// The half that pairs answers with what was sent.
struct Receiving<B: Batch> {
    client: Client,
    call: Call<B>,
    between: Arc<Between>,
    /// Results that were not taken yet.
    ready: vec::IntoIter<Result<B::Output, ItemError>>,
    /// Results that were taken.
    answered: u64,
}

enum Call<B: Batch> {
    Prepared(Sending<B>),
    Running(Box<Running<B>>),
    Ended,
}

/// A call under way, which is cancelled when this is dropped.
struct Running<B: Batch> {
    answers: Streaming<B::StreamReply>,
    lease: Lease,
    cancel: Option<CancellationHandle>,
}

impl<B: Batch> Drop for Running<B> {
    fn drop(&mut self) {
        // Without effect on a call that has ended.
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
        }
    }
}

impl<B: Batch> Receiving<B> {
    async fn next(mut self) -> Option<(Result<Result<B::Output, ItemError>, Error>, Self)> {
        loop {
            if let Some(result) = self.ready.next() {
                self.answered += 1;
                return Some((Ok(result), self));
            }
            let error = match self.advance().await {
                Ok(true) => continue,
                Ok(false) => return None,
                Err(error) => error,
            };
            self.call = Call::Ended;
            let error = Error::Stream {
                answered: self.answered,
                source: Box::new(error),
            };
            return Some((Err(error), self));
        }
    }

    /// Goes one step on; returns whether there are more.
    async fn advance(&mut self) -> Result<bool, Error> {
        let mut running = match std::mem::replace(&mut self.call, Call::Ended) {
            Call::Prepared(sending) => Box::new(self.client.open(sending).await?),
            Call::Running(running) => running,
            Call::Ended => return Ok(false),
        };
        let between = Arc::clone(&self.between);
        let arrived = std::future::poll_fn(|cx| arrival(&between, &mut running.answers, cx)).await;
        let results = match arrived {
            Arrived::TooLong(error) => vec![Err(ItemError::from(&error))],
            Arrived::Answer(reply) => {
                let items = between.pop_message().ok_or(Error::Reply {
                    what: "there are more answers than messages",
                })?;
                #[cfg(feature = "testing")]
                self.client.fault_of_message().await?;
                if let Some(receipts) = self.client.receipts() {
                    let receipt = B::receipt(&reply).try_into().ok();
                    receipts.add(receipt.and_then(|bytes| Receipt::from_bytes(bytes).ok()));
                }
                match B::stream_results(reply) {
                    Ok(results) => outputs::<B>(items, results)?,
                    Err(error) => iter::repeat_n(error, items)
                        .map(|error| Err(error.into()))
                        .collect(),
                }
            }
            Arrived::Broken(status) => {
                return Err(self.client.explain_stream(status, &running.lease));
            }
            Arrived::End => {
                return match between.with(|sent, all| sent.is_empty() && *all) {
                    true => Ok(false),
                    false => Err(Error::Reply {
                        what: "the service ended the stream before everything was answered",
                    }),
                };
            }
        };
        between.room.add_permits(1);
        self.ready = results.into_iter();
        self.call = Call::Running(running);
        Ok(true)
    }
}

enum Arrived<R> {
    Answer(R),
    TooLong(Error),
    Broken(Status),
    End,
}

/// What comes next: an answer of the service, or an item that it was not asked about.
fn arrival<R>(
    between: &Between,
    answers: &mut Streaming<R>,
    cx: &mut Context<'_>,
) -> Poll<Arrived<R>> {
    between.waker.register(cx.waker());
    if let Some(error) = between.pop_too_long() {
        return Poll::Ready(Arrived::TooLong(error));
    }
    let answer = answers.poll_next_unpin(cx);
    // Whatever was put into the list by this poll comes before the end.
    if !matches!(answer, Poll::Ready(Some(_)))
        && let Some(error) = between.pop_too_long()
    {
        return Poll::Ready(Arrived::TooLong(error));
    }
    answer.map(|answer| match answer {
        Some(Ok(reply)) => Arrived::Answer(reply),
        Some(Err(status)) => Arrived::Broken(status),
        None => Arrived::End,
    })
}

impl Client {
    /// Fails if a test asks for it.
    #[cfg(feature = "testing")]
    async fn fault_of_message(&self) -> Result<(), Error> {
        let timeout = self.settings().batch_timeout;
        match self.next_fault(timeout).await?.0 {
            None => Ok(()),
            Some(fault) => Err(fault.error("the service", timeout)),
        }
    }

    async fn open<B: Batch>(&self, sending: Sending<B>) -> Result<Running<B>, Error> {
        let mut lease = self.lease().await;
        let messages = stream::unfold(sending, Sending::message);
        let mut request = self.stream_request(messages).await;
        let cancel = request.cancellation_handle();
        let path = PathAndQuery::from_static(B::STREAM_PATH);
        let opened = async {
            lease
                .grpc
                .ready()
                .await
                .map_err(|error| Status::from_error(error.into()))?;
            lease
                .grpc
                .streaming(request, path, SharedCodec::new())
                .await
        };
        match opened.await {
            Ok(response) => Ok(Running {
                answers: response.into_inner(),
                lease,
                cancel: Some(cancel),
            }),
            Err(status) => Err(self.explain_stream(status, &lease)),
        }
    }
}
