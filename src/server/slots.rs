//! Places for handshakes under way: so many in all, and of these no more than a quarter for one address, so that whoever
//! connects and stays silent does not lock out everybody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The places for what clients can begin: handshakes that may be under way, connections that may be open.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    taken: Arc<Mutex<Taken>>,
    most: usize,
    most_an_address: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place; it is free when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    taken: Arc<Mutex<Taken>>,
    address: IpAddr,
}

impl Slots {
    /// At most `most` at once, and `most_an_address` for each address.
    pub(super) fn new(most: usize, most_an_address: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
            most_an_address,
        }
    }

    /// At most `most` at once, and a quarter of that for each address.
    pub(super) fn quartered(most: usize) -> Self {
        Self::new(most, most.div_ceil(4))
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .all
    }

    /// A slot for a connection from `address`, if there is one.
    pub(super) fn take(&self, address: IpAddr) -> Option<Slot> {
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most {
            return None;
        }
        let of_address = taken.by_address.entry(address).or_default();
        if *of_address >= self.most_an_address {
            return None;
        }
        *of_address += 1;
        taken.all += 1;
        Some(Slot {
            taken: Arc::clone(&self.taken),
            address,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: in IPv6 a /64, since its owner has all addresses in it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots, address: &str) -> Option<Slot> {
        slots.take(address.parse().unwrap())
    }

    #[test]
    fn one_address_has_a_quarter_and_the_others_the_rest() {
        let slots = Slots::quartered(8);
        let first = take(&slots, "192.0.2.1").unwrap();
        let _second = take(&slots, "::ffff:192.0.2.1").unwrap();
        assert!(take(&slots, "192.0.2.1").is_none());
        let _others: Vec<Slot> = (2..8)
            .map(|n| take(&slots, &format!("192.0.2.{n}")).unwrap())
            .collect();
        assert!(take(&slots, "192.0.2.9").is_none());
        drop(first);
        assert!(take(&slots, "192.0.2.1").is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let slots = Slots::quartered(4);
        let _one = take(&slots, "2001:db8::1").unwrap();
        assert!(take(&slots, "2001:db8::ffff:1").is_none());
        assert!(take(&slots, "2001:db8:0:1::1").is_some());
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_is_gone() {
        let slots = Slots::quartered(1);
        drop(take(&slots, "192.0.2.1").unwrap());
        assert!(slots.taken.lock().unwrap().by_address.is_empty());
        drop(take(&slots, "192.0.2.2").unwrap());
        assert!(take(&Slots::quartered(0), "192.0.2.1").is_none());
    }
}
