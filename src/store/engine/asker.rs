//! Floor 1. The asker that the present task works for: account, address, right, and the charge of its writes.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::standing::Right;
use crate::domain::access::Actor;
use crate::domain::address::AddressPrefix;

/// Who asks for what is being done.
#[derive(Debug, Clone)]
pub struct Asker {
    pub who: Actor,
    /// Where the request comes from; nothing for the machine itself.
    pub from: Option<IpAddr>,
    /// By which it writes, asked again in the transaction of each write.
    pub right: Right,
    /// What is counted for it until its writes are done.
    pub charge: Charge,
}

tokio::task_local! {
    static ASKER: Asker;
}

/// Whatever `work` writes is done for `asker`. Tasks that it spawns are not.
pub fn asked_by<F: Future>(asker: Asker, work: F) -> impl Future<Output = F::Output> {
    ASKER.scope(asker, work)
}

/// For whom the present task works, if that is known.
pub(crate) fn present_asker() -> Option<Asker> {
    ASKER.try_with(Clone::clone).ok()
}

/// Where the request comes from that the present task works for, if it is one.
pub(in crate::store) fn present_address() -> Option<IpAddr> {
    ASKER.try_with(|asker| asker.from).ok().flatten()
}

/// For what the node and the operator of the machine do themselves: an address that no client has.
const MACHINE: AddressPrefix = AddressPrefix::V6(u64::MAX);

/// The client that the present task works for.
pub(in crate::store) fn present_client() -> AddressPrefix {
    present_address().map_or(MACHINE, AddressPrefix::of)
}

/// What is counted for a write, and has to stay counted until the writer has done it, also if the client has gone.
#[derive(Clone, Default)]
pub struct Charge(Option<Arc<dyn Any + Send + Sync>>);

impl Charge {
    pub fn of(counted: Arc<impl Any + Send + Sync>) -> Charge {
        Charge(Some(counted))
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Charge" } else { "no Charge" })
    }
}
