//! Floor 0. Whom limits and throttles count as one client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of an IPv6 address that its host chooses as it likes: a host has the whole /64 (RFC 4291, 2.5.1).
const HOST_BITS: u32 = 64;
/// Bits before those that a site gives to its networks.
const SUBNET_BITS: u32 = 16;

/// The part of an address that stands for one client, the same for every limit: an IPv4 address, or the /64 of an IPv6
/// address. An IPv4 address written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressPrefix {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
}

impl AddressPrefix {
    pub fn of(address: IpAddr) -> AddressPrefix {
        match address.to_canonical() {
            IpAddr::V4(address) => AddressPrefix::V4(address),
            IpAddr::V6(address) => AddressPrefix::V6((address.to_bits() >> HOST_BITS) as u64),
        }
    }
}

impl AddressPrefix {
    /// The prefix that is written so: as it is shown, or as an address.
    pub fn read(text: &str) -> Option<AddressPrefix> {
        let network = text.strip_suffix("/64").unwrap_or(text);
        network.parse().ok().map(AddressPrefix::of)
    }

    /// The same in bytes; no two prefixes have the same.
    pub fn octets(self) -> [u8; 9] {
        let (version, bits) = match self {
            AddressPrefix::V4(address) => (4, u64::from(address.to_bits())),
            AddressPrefix::V6(bits) => (6, bits),
        };
        let mut octets = [version; 9];
        octets[1..].copy_from_slice(&bits.to_be_bytes());
        octets
    }

    /// Who may well have many of these: an IPv4 address itself, or the /48 of an IPv6 address (RFC 6177 gives sites up to
    /// that).
    pub fn site(self) -> AddressPrefix {
        match self {
            AddressPrefix::V4(_) => self,
            AddressPrefix::V6(bits) => AddressPrefix::V6(bits >> SUBNET_BITS << SUBNET_BITS),
        }
    }

    /// The site, if it can have more of these than this one.
    pub fn site_of_many(self) -> Option<AddressPrefix> {
        matches!(self, AddressPrefix::V6(_)).then(|| self.site())
    }
}

impl fmt::Display for AddressPrefix {
    /// `192.0.2.1`, or `2001:db8::/64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressPrefix::V4(address) => address.fmt(f),
            AddressPrefix::V6(bits) => {
                write!(f, "{}/{HOST_BITS}", Ipv6Addr::from_bits(u128::from(*bits) << HOST_BITS))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_half_an_ipv6_address() {
        let of = |text: &str| AddressPrefix::of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"), "neighbours in IPv4 are others");
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8:0:1::1").site(), of("2001:db8:0:ffff::1").site());
        assert_ne!(of("2001:db8:0:1::1").site(), of("2001:db8:1:1::1").site());
        assert_ne!(of("192.0.2.1").site(), of("192.0.2.2").site());
        assert_eq!(of("192.0.2.1").site_of_many(), None);
        assert_eq!(of("2001:db8::1").site_of_many(), Some(of("2001:db8::1")));
        for (address, text) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(of(address).to_string(), text);
            assert_eq!(AddressPrefix::read(text), Some(of(address)));
        }
        let some =
            ["192.0.2.1", "192.0.2.2", "::1", "::c000:201", "0:0:c000:201::1", "2001:db8:0:1::1"].map(of);
        for (a, b) in some.iter().flat_map(|a| some.iter().map(move |b| (a, b))) {
            assert_eq!(a.octets() == b.octets(), a == b, "{a} {b}");
        }
    }
}
