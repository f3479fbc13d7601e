//! Lists that come in pages.

use std::{fmt, future::Future, pin::Pin};

use crate::{Client, Error};

/// A page's items and the token of the next page, empty on the last.
pub(crate) type Page<T> = (Vec<T>, String);
type Fetched<T> = Pin<Box<dyn Future<Output = Result<Page<T>, Error>> + Send>>;
type Fetch<T> = Box<dyn Fn(Client, u32, String) -> Fetched<T> + Send + Sync>;

/// A list that is fetched page by page.
///
/// ```no_run
/// # async fn example(client: fieldkeep_client::Client) -> Result<(), fieldkeep_client::Error> {
/// let mut pages = client.keys().list("default");
/// while let Some(keys) = pages.next_page().await? {
///     for key in keys {
///         println!("{} version {}", key.name, key.primary_version);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pages<T> {
    client: Client,
    fetch: Fetch<T>,
    page_size: u32,
    // `None` after the last page.
    token: Option<String>,
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("page_size", &self.page_size)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl<T> Pages<T> {
    pub(crate) fn new<F, R>(client: &Client, fetch: F) -> Self
    where
        F: Fn(Client, u32, String) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Page<T>, Error>> + Send + 'static,
    {
        Self {
            client: client.clone(),
            fetch: Box::new(move |client, size, token| Box::pin(fetch(client, size, token))),
            page_size: 0,
            token: Some(String::new()),
        }
    }

    /// The most items a page, at most 1,000; 0, as at first: the service's default of 100.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let mut pages = client.keys().list("default").page_size(1_000);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn page_size(mut self, items: u32) -> Self {
        self.page_size = items;
        self
    }

    /// The next page, or `None` after the last. A page that failed can be asked for again.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let mut pages = client.keys().list("default");
    /// assert_eq!(pages.next_page().await?.map(|keys| keys.len()), Some(1));
    /// assert!(pages.next_page().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let (items, next) =
            (self.fetch)(self.client.clone(), self.page_size, token.clone()).await?;
        if !next.is_empty() && next == *token {
            return Err(Error::Reply {
                what: "a page names itself as the next one",
            });
        }
        self.token = (!next.is_empty()).then_some(next);
        Ok(Some(items))
    }

    /// The rest of the list in one vector: only for lists that are known to fit in memory.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let keys = client.keys().list("default").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn collect(mut self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while let Some(items) = self.next_page().await? {
            all.extend(items);
        }
        Ok(all)
    }
}
