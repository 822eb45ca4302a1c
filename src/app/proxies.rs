//! Floor 5. Requests that a proxy passes on: who the client is, and how it speaks to the proxy.
//!
//! Only proxies that the configuration names are believed. What anybody else says in these headers is removed here, so
//! that nothing further inside can take it for true.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::http::FORWARDED_PROTO;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of proxies that are believed.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies(Vec<IpNet>);

impl Proxies {
    pub(super) fn new(trusted: Vec<IpNet>) -> Proxies {
        Proxies(trusted)
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// The client of a request that came from `peer`. Leaves in the headers only what is true.
    pub(super) fn client(&self, peer: IpAddr, headers: &mut HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            headers.remove(FORWARDED_FOR);
            headers.remove(header::FORWARDED);
            headers.remove(FORWARDED_PROTO);
            return peer;
        }
        let hops = hops(headers);
        // Each proxy adds who it was asked by at the end; the first who is no proxy of ours is the client, and what
        // stands before, the client may have written.
        let (mut client, mut from_end) = (peer, 0);
        for (at, hop) in hops.iter().rev().enumerate() {
            // Who is hidden there was seen by a proxy of ours all the same.
            from_end = at;
            let Some(address) = address(hop) else {
                break;
            };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        let scheme = scheme(headers, from_end);
        headers.remove(FORWARDED_PROTO);
        if let Some(scheme) =
            scheme.and_then(|scheme| HeaderValue::from_str(&scheme.to_ascii_lowercase()).ok())
        {
            headers.insert(FORWARDED_PROTO, scheme);
        }
        client
    }
}

/// How the client speaks to the first proxy: what the proxy says that also says who the client is, so many entries
/// before the last. A single `X-Forwarded-Proto` is of all of them.
fn scheme(headers: &HeaderMap, from_end: usize) -> Option<String> {
    let of_client = |mut values: Vec<String>| {
        let at = values.len().checked_sub(from_end + 1)?;
        Some(values.swap_remove(at)).filter(|value| !value.is_empty())
    };
    if headers.contains_key(FORWARDED_PROTO) {
        let mut schemes = values(headers, &FORWARDED_PROTO);
        // A list that is shorter than the way does not say which proxies wrote it: the last is ours.
        schemes = match schemes.len() > from_end {
            true => schemes,
            false => return schemes.pop().filter(|scheme| !scheme.is_empty()),
        };
        return of_client(schemes);
    }
    // Where the other header says who the client is, this one may be the client's.
    if headers.contains_key(FORWARDED_FOR) {
        return None;
    }
    of_client(forwarded(headers, "proto"))
}

/// Who was asked by whom, the proxy's own peer last. `X-Forwarded-For` counts where it is: a proxy that writes it may
/// pass on a `Forwarded` of the client's.
fn hops(headers: &HeaderMap) -> Vec<String> {
    let hops = values(headers, &FORWARDED_FOR);
    if headers.contains_key(FORWARDED_FOR) {
        return hops;
    }
    forwarded(headers, "for")
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(|value| value.trim().to_owned()).collect()
}

/// RFC 7239: `for=192.0.2.60;proto=https, for="[2001:db8::1]:4711"`. One value for each hop, empty where it is missing.
fn forwarded(headers: &HeaderMap, parameter: &str) -> Vec<String> {
    let of = |hop: String| {
        let pairs = hop
            .split(';')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
            .collect::<Vec<_>>();
        pairs
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(parameter))
            .map(|(_, value)| value)
            .unwrap_or_default()
    };
    values(headers, &header::FORWARDED).into_iter().map(of).collect()
}

/// An address, with or without a port.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client as text, and what is left as its scheme.
    fn seen(trusted: &[&str], peer: &str, sent: &[(&'static str, &str)]) -> (String, Option<String>) {
        let nets = trusted
            .iter()
            .map(|net| net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).expect("a net"));
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let client = Proxies::new(nets.collect()).client(peer.parse().expect("an address"), &mut headers);
        let scheme = headers.get(FORWARDED_PROTO).map(|scheme| scheme.to_str().expect("text").to_owned());
        (client.to_string(), scheme)
    }

    fn client(sent: &[(&'static str, &str)]) -> String {
        seen(&["127.0.0.1", "10.0.0.0/8", "::1"], "127.0.0.1", sent).0
    }

    #[test]
    fn only_named_proxies_are_believed() {
        let sent = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=203.0.113.9"),
        ];
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &sent), ("203.0.113.9".into(), Some("https".into())));
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.2", &sent), ("127.0.0.2".into(), None));
        assert_eq!(seen(&[], "127.0.0.1", &sent), ("127.0.0.1".into(), None));
        assert_eq!(seen(&["10.0.0.0/8"], "10.1.2.3", &sent).0, "203.0.113.9");
    }

    #[test]
    fn the_client_is_the_last_who_is_no_proxy() {
        for (forwarded_for, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
            ("1.2.3.4, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
            ("10.0.0.9", "10.0.0.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            // An unreadable entry ends the chain: the addresses before it cannot be trusted.
            ("203.0.113.9, unknown", "127.0.0.1"),
            ("203.0.113.9, unknown, 10.0.0.7", "10.0.0.7"),
            ("", "127.0.0.1"),
            (",", "127.0.0.1"),
        ] {
            assert_eq!(client(&[("x-forwarded-for", forwarded_for)]), expected, "{forwarded_for}");
        }
        assert_eq!(
            client(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "203.0.113.9")]),
            "203.0.113.9"
        );
    }

    #[test]
    fn the_standard_header_is_read_where_the_other_is_missing() {
        for (forwarded, expected) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=\"[2001:db8::1]:4711\";proto=https", "2001:db8::1"),
            ("for=1.2.3.4, for=203.0.113.9;by=10.0.0.1", "203.0.113.9"),
            ("for=203.0.113.9, proto=http", "127.0.0.1"),
            ("for=_hidden", "127.0.0.1"),
        ] {
            assert_eq!(client(&[("forwarded", forwarded)]), expected, "{forwarded}");
        }
        let both = [("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &both), ("203.0.113.9".into(), None));
        let alone = [("forwarded", "for=203.0.113.9;proto=HTTPS")];
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &alone).1.as_deref(), Some("https"));
        let several = [("x-forwarded-proto", "https, http")];
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &several).1.as_deref(), Some("http"));
    }

    #[test]
    fn the_scheme_is_that_of_the_clients_own_entry() {
        let scheme = |sent: &[(&'static str, &str)]| seen(&["127.0.0.1", "10.0.0.0/8"], "127.0.0.1", sent).1;
        for (forwarded, expected) in [
            ("for=1.1.1.1;proto=http, for=10.9.0.1;proto=https", Some("http")),
            ("for=1.1.1.1;proto=https, for=10.9.0.1;proto=http", Some("https")),
            ("for=1.1.1.1;proto=https, for=10.9.0.1", Some("https")),
            ("for=1.1.1.1, for=10.9.0.1;proto=https", None),
            // What stands before the client, the client wrote.
            ("for=9.9.9.9;proto=https, for=1.1.1.1;proto=http, for=10.9.0.1;proto=http", Some("http")),
            ("for=9.9.9.9;proto=https, for=_hidden;proto=http, for=10.9.0.1;proto=https", Some("http")),
            ("for=_hidden;proto=https", Some("https")),
            ("proto=https", Some("https")),
        ] {
            assert_eq!(scheme(&[("forwarded", forwarded)]).as_deref(), expected, "{forwarded}");
        }
        for (forwarded_for, proto, expected) in [
            ("1.1.1.1, 10.9.0.1", "https, http", "https"),
            ("1.1.1.1, 10.9.0.1", "http, https", "http"),
            ("1.1.1.1, 10.9.0.1", "https", "https"),
            ("9.9.9.9, 1.1.1.1", "https, http", "http"),
            ("1.1.1.1, 10.9.0.1, 10.9.0.2", "https, http", "http"),
            ("1.1.1.1", "https, http", "http"),
        ] {
            let sent = [("x-forwarded-for", forwarded_for), ("x-forwarded-proto", proto)];
            assert_eq!(scheme(&sent).as_deref(), Some(expected), "{forwarded_for} {proto}");
        }
    }
}
