//! Floor 4. How the server counts what a request holds.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::access::Actor;
use crate::http::error::Overloaded;

/// Counts what a request holds.
pub trait Arrivals: Send + Sync {
    /// Bytes of its body beside those that come over the line; an error where there is no room for so many more.
    fn arrived(&self, bytes: usize) -> Result<(), Overloaded>;

    /// It counts for this account from now on. Where the account has no room, waits for some; an error if there is none for
    /// long.
    fn known_as(&self, actor: &Actor) -> Option<BoxFuture<'static, Result<(), Overloaded>>>;

    /// Counts so many bytes of what comes next of its answer, before they are given to the connection; false, and nothing is
    /// counted, where there is no room for them.
    fn place(&self, bytes: usize) -> bool;

    /// The same, as soon as there is room; an error if there is none for long.
    fn wait_for_place(&self, bytes: usize) -> BoxFuture<'static, Result<(), Overloaded>>;

    /// Counts so many bytes of its answer that are made already, whether there is room or not.
    fn made(&self, bytes: usize);

    /// Counts so many bytes for as long as what is returned lives, first those that have a place.
    fn keep(&self, bytes: usize) -> Box<dyn Any + Send + Sync>;
}

/// The count of a request, among its extensions, put there by the server.
#[derive(Clone)]
pub struct Received(pub Arc<dyn Arrivals>);
