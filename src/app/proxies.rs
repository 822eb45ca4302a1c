//! Floor 5. Requests that a proxy passes on: who the client is, and how it speaks to the proxy.
//!
//! Only proxies that the configuration names are believed. What anybody else says in these headers is removed here, so
//! that nothing further inside can take it for true.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::config::ProxyHeader;
use crate::http::FORWARDED_PROTO;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of proxies that are believed, and the header in which they say who the client is.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    trusted: Vec<IpNet>,
    header: ProxyHeader,
}

/// The client, and how many entries stand behind its own in the header that names it.
#[derive(Debug, Clone, Copy)]
struct Traced {
    client: IpAddr,
    from_end: usize,
}

impl Proxies {
    pub(super) fn new(trusted: Vec<IpNet>, header: ProxyHeader) -> Proxies {
        Proxies { trusted, header }
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// The client of a request that came from `peer`. Leaves in the headers only what is true.
    pub(super) fn client(&self, peer: IpAddr, headers: &mut HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            headers.remove(FORWARDED_FOR);
            headers.remove(header::FORWARDED);
            headers.remove(FORWARDED_PROTO);
            return peer;
        }
        // What the proxy does not set, it may pass on from the client.
        match self.header {
            ProxyHeader::Either => {}
            ProxyHeader::XForwardedFor => drop(headers.remove(header::FORWARDED)),
            ProxyHeader::Forwarded => {
                headers.remove(FORWARDED_FOR);
                headers.remove(FORWARDED_PROTO);
            }
        }
        let trace = |name: &HeaderName, hops: Vec<String>| {
            headers.contains_key(name).then(|| self.trace(peer, &hops))
        };
        let by_list = trace(&FORWARDED_FOR, values(headers, &FORWARDED_FOR));
        let by_standard = trace(&header::FORWARDED, forwarded(headers, "for"));
        let traced = match (by_list, by_standard) {
            // One of them is the client's own word, and nobody knows which.
            (Some(list), Some(standard)) if list.client != standard.client => None,
            (Some(traced), _) | (None, Some(traced)) => Some(traced),
            (None, None) => Some(Traced { client: peer, from_end: 0 }),
        };
        let scheme = traced.and_then(|traced| scheme(headers, traced.from_end));
        headers.remove(FORWARDED_PROTO);
        if let Some(scheme) =
            scheme.and_then(|scheme| HeaderValue::from_str(&scheme.to_ascii_lowercase()).ok())
        {
            headers.insert(FORWARDED_PROTO, scheme);
        }
        traced.map_or(peer, |traced| traced.client)
    }

    /// Each proxy adds who it was asked by at the end; the first who is no proxy of ours is the client, and what stands
    /// before, the client may have written.
    fn trace(&self, peer: IpAddr, hops: &[String]) -> Traced {
        let mut traced = Traced { client: peer, from_end: 0 };
        for (at, hop) in hops.iter().rev().enumerate() {
            // Who is hidden there was seen by a proxy of ours all the same.
            traced.from_end = at;
            let Some(address) = address(hop) else {
                break;
            };
            traced.client = address;
            if !self.trusts(address) {
                break;
            }
        }
        traced
    }
}

/// How the client speaks to the first proxy: what the proxy says that also says who the client is, so many entries
/// before the last. A single `X-Forwarded-Proto` is of all of them. Where both headers say it, they have to agree.
fn scheme(headers: &HeaderMap, from_end: usize) -> Option<String> {
    let of_client = |mut values: Vec<String>| {
        let at = values.len().checked_sub(from_end + 1)?;
        Some(values.swap_remove(at)).filter(|value| !value.is_empty())
    };
    let by_standard = of_client(forwarded(headers, "proto"));
    if !headers.contains_key(FORWARDED_PROTO) {
        // Where the other header says who the client is too, this one may be the client's.
        return by_standard.filter(|_| !headers.contains_key(FORWARDED_FOR));
    }
    let mut schemes = values(headers, &FORWARDED_PROTO);
    // A list that is shorter than the way does not say which proxies wrote it: the last is ours.
    let by_list = match schemes.len() > from_end {
        true => of_client(schemes),
        false => schemes.pop().filter(|scheme| !scheme.is_empty()),
    };
    by_list.filter(|list| by_standard.is_none_or(|standard| standard.eq_ignore_ascii_case(list)))
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
        seen_by(ProxyHeader::Either, trusted, peer, sent)
    }

    fn seen_by(
        header: ProxyHeader,
        trusted: &[&str],
        peer: &str,
        sent: &[(&'static str, &str)],
    ) -> (String, Option<String>) {
        let nets = trusted
            .iter()
            .map(|net| net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).expect("a net"));
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let client =
            Proxies::new(nets.collect(), header).client(peer.parse().expect("an address"), &mut headers);
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
            ("forwarded", "for=203.0.113.9;proto=https"),
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
        let alone = [("forwarded", "for=203.0.113.9;proto=HTTPS")];
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &alone).1.as_deref(), Some("https"));
        let several = [("x-forwarded-proto", "https, http")];
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &several).1.as_deref(), Some("http"));
    }

    /// Which of them the proxy has written only the configuration knows.
    #[test]
    fn two_headers_that_disagree_name_nobody() {
        const LIST: (&str, &str) = ("x-forwarded-for", "203.0.113.9");
        const PROTO: (&str, &str) = ("x-forwarded-proto", "https");
        const STANDARD: (&str, &str) = ("forwarded", "for=198.51.100.7;proto=http");
        const SAME: (&str, &str) = ("forwarded", "for=203.0.113.9;proto=https");
        use ProxyHeader::{Either, Forwarded, XForwardedFor};
        for (header, sent, client, scheme) in [
            (Either, &[LIST, PROTO, STANDARD][..], "127.0.0.1", None),
            (Either, &[LIST, STANDARD], "127.0.0.1", None),
            (Either, &[LIST, PROTO, ("forwarded", "for=_hidden")], "127.0.0.1", None),
            (Either, &[LIST, PROTO, ("forwarded", "proto=https")], "127.0.0.1", None),
            (Either, &[("x-forwarded-for", "unknown"), SAME], "127.0.0.1", None),
            (Either, &[LIST, PROTO, SAME], "203.0.113.9", Some("https")),
            (Either, &[LIST, SAME], "203.0.113.9", None),
            (Either, &[PROTO, STANDARD], "198.51.100.7", None),
            (Either, &[PROTO, ("forwarded", "for=198.51.100.7")], "198.51.100.7", Some("https")),
            (XForwardedFor, &[LIST, PROTO, STANDARD], "203.0.113.9", Some("https")),
            (XForwardedFor, &[LIST, STANDARD], "203.0.113.9", None),
            (XForwardedFor, &[STANDARD], "127.0.0.1", None),
            (Forwarded, &[LIST, PROTO, STANDARD], "198.51.100.7", Some("http")),
            (Forwarded, &[LIST, PROTO], "127.0.0.1", None),
        ] {
            let found = seen_by(header, &["127.0.0.1"], "127.0.0.1", sent);
            assert_eq!(found, (client.to_owned(), scheme.map(str::to_owned)), "{header:?} {sent:?}");
        }
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
