//! A network: a range of addresses that callers may come from.

use std::{fmt, net::IpAddr, str::FromStr};

/// A network in CIDR notation: an address whose bits beyond the prefix are zero. One address alone is a network too.
///
/// IPv4 addresses that are mapped into IPv6 (`::ffff:192.0.2.1`) count as the IPv4 addresses that they are, since what a
/// dual-stack listener sees is not what the operator wrote. So no IPv6 network holds an IPv4 caller, `::/0` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It has not the form.
    #[error("not a network: write `192.0.2.0/24`, `2001:db8::/32`, or one address")]
    Form,
    /// Bits beyond the prefix are set, so that either the address or the prefix is not what was meant.
    #[error("the address has bits beyond the prefix: write the network's first address")]
    HostBits,
    /// It would never match, since such callers count as IPv4.
    #[error("write a mapped address as the IPv4 address that it is: `192.0.2.0/24`")]
    Mapped,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        if address.to_canonical() != address {
            return Err(NetworkError::Mapped);
        }
        let widest = width(address);
        let prefix = match prefix {
            None => widest,
            Some(digits) if is_number(digits) => digits.parse().map_err(|_| NetworkError::Form)?,
            Some(_) => return Err(NetworkError::Form),
        };
        if prefix > widest {
            return Err(NetworkError::Form);
        }
        if bits(address) & !mask(widest, prefix) != 0 {
            return Err(NetworkError::HostBits);
        }
        Ok(Network { address, prefix })
    }
}

impl Network {
    /// Whether `address` is of this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let widest = width(self.address);
        width(address) == widest && bits(address) & mask(widest, self.prefix) == bits(self.address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Digits without a sign or a leading zero, so that a network has one text form.
fn is_number(text: &str) -> bool {
    text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()))
}

/// Bits of an address of this family.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first `prefix` of `widest` bits set.
fn mask(widest: u8, prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(widest));
    let host_bits = u32::from(widest.saturating_sub(prefix));
    all & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        for (of, within, beyond) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            assert!(network(of).contains(address(within)), "{within} of {of}");
            assert!(!network(of).contains(address(beyond)), "{beyond} of {of}");
        }
    }

    #[test]
    fn a_mapped_caller_is_an_ipv4_caller() {
        let mapped = address("::ffff:192.0.2.1");
        assert!(network("192.0.2.0/24").contains(mapped));
        assert!(!network("::/0").contains(mapped));
    }

    #[test]
    fn each_malformation_has_its_error() {
        for text in [
            "",
            "/",
            "192.0.2.0/",
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/+8",
            "192.0.2.0/08",
            "192.0.2/24",
            "192.0.2.0/24/24",
            " 192.0.2.0/24",
            "192.0.2.0/256",
            "example.com",
            "192.0.2.0/-1",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Form), "{text:?}");
        }
        for text in ["192.0.2.1/24", "0.0.0.1/0", "2001:db8::1/32"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::HostBits));
        }
        assert_eq!(
            "::ffff:192.0.2.0/120".parse::<Network>(),
            Err(NetworkError::Mapped)
        );
    }

    proptest! {
        #[test]
        fn the_prefix_alone_decides(bits: u32, other: u32, prefix in 0u8..=32) {
            let first = u32::try_from(u64::from(u32::MAX) << (32 - prefix) & u64::from(u32::MAX)).unwrap();
            let of = network(&format!("{}/{prefix}", std::net::Ipv4Addr::from_bits(bits & first)));
            let caller = IpAddr::V4(std::net::Ipv4Addr::from_bits(other));
            prop_assert_eq!(of.contains(caller), bits & first == other & first);
            prop_assert_eq!(network(&of.to_string()), of);
        }
    }
}
