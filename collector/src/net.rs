//! Addresses: networks in CIDR form, the client behind trusted proxies, and prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::HeaderMap;

/// Hops of a forwarding header that are looked at; a longer chain is nobody's real one.
const HOPS_MAX: usize = 32;

/// A network: an address and the number of leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    network: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Not an IPv4 or IPv6 address.
    Address(String),
    /// Not a number of bits from 0 to 32, or to 128.
    Bits(String),
    /// Bits beyond the prefix are set: it is not clear which network is meant.
    HostBits(Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Address(text) => write!(out, "{text:?} is not an IP address"),
            NetworkError::Bits(text) => write!(out, "{text:?} is not a prefix length"),
            NetworkError::HostBits(meant) => {
                write!(out, "bits beyond the prefix are set; write {meant}")
            }
        }
    }
}

impl std::error::Error for NetworkError {}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.network, self.bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `192.0.2.0/24` or `2001:db8::/32`. The number of bits must be there, and none of the
    /// address below them: it must be clear which network is meant.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let bits_missing = || NetworkError::Bits(String::new());
        let (address, bits) = text.split_once('/').ok_or_else(bits_missing)?;
        let no_address = || NetworkError::Address(address.to_string());
        let parsed: IpAddr = address.parse().map_err(|_| no_address())?;
        if parsed.to_canonical() != parsed {
            return Err(no_address());
        }
        let most = if parsed.is_ipv4() { 32 } else { 128 };
        let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
        let number = bits.parse().ok().filter(|number| digits && *number <= most);
        let number = number.ok_or_else(|| NetworkError::Bits(bits.to_string()))?;
        let meant = Network { network: cut(parsed, number), bits: number };
        if meant.network == parsed { Ok(meant) } else { Err(NetworkError::HostBits(meant)) }
    }
}

impl Network {
    /// Whether the address lies within. An IPv4 address in IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && cut(address, self.bits) == self.network
    }
}

/// Keeps the leading bits of an address.
fn cut(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

/// The address without the part that points at a person: so many bits of IPv4, or of IPv6.
pub fn address_prefix(address: IpAddr, (ipv4_bits, ipv6_bits): (u8, u8)) -> IpAddr {
    let address = address.to_canonical();
    cut(address, if address.is_ipv4() { ipv4_bits } else { ipv6_bits })
}

/// What limits count as one sender: an IPv4 address, or a /64 of IPv6, which one household has.
pub fn rate_prefix(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    cut(address, if address.is_ipv4() { 32 } else { 64 })
}

/// The header a proxy writes about its client. Only the one the proxy really writes may be
/// believed: the other it would pass on as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto`.
    #[default]
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

/// Whose word about the client's address is taken, and in which header.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    /// Their networks; empty trusts nobody.
    pub networks: Vec<Network>,
    /// The header they write.
    pub header: ForwardedHeader,
}

impl TrustedProxies {
    /// Whether the address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// Who the client is, as far as it can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The rightmost hop that is not a trusted proxy.
    pub address: IpAddr,
    /// Whether the nearest proxy was spoken to by TLS; `None` if none says so.
    pub secure: Option<bool>,
}

/// Finds the client: `peer` itself, unless it is a trusted proxy. Then the hops are read from the
/// right, where trusted hands wrote them; a hop that cannot be read ends the search at the last
/// one that could.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> Client {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return Client { address: peer, secure: None };
    }
    let mut client = Client { address: peer, secure: secure(headers, trusted.header) };
    for hop in elements(headers, trusted.header).take(HOPS_MAX) {
        let address = match trusted.header {
            ForwardedHeader::XForwardedFor => hop_address(hop),
            ForwardedHeader::Forwarded => parameter(hop, "for").and_then(hop_address),
        };
        let Some(address) = address else { break };
        client.address = address;
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// The hops, from the last written to the first.
fn elements(headers: &HeaderMap, header: ForwardedHeader) -> impl Iterator<Item = &str> {
    let name = match header {
        ForwardedHeader::XForwardedFor => "x-forwarded-for",
        ForwardedHeader::Forwarded => "forwarded",
    };
    list(headers, name)
}

fn list<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    // A line that is no text stays in its place, as an element that cannot be read.
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
    let lines: Vec<&str> = lines.collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

fn secure(headers: &HeaderMap, header: ForwardedHeader) -> Option<bool> {
    let scheme = match header {
        ForwardedHeader::XForwardedFor => list(headers, "x-forwarded-proto").next()?,
        ForwardedHeader::Forwarded => parameter(list(headers, "forwarded").next()?, "proto")?,
    };
    Some(scheme.eq_ignore_ascii_case("https"))
}

/// A parameter of one element of `Forwarded`: `for="[2001:db8::1]:47011";proto=https`.
fn parameter<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    let value = value.trim();
    Some(value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value))
}

/// An address, perhaps in brackets, perhaps with a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(peer: &str, header: ForwardedHeader, lines: &[(&'static str, &str)]) -> Client {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|it| it.parse().unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        client_address(ip(peer), &headers, &TrustedProxies { networks, header })
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("127.0.0.1/32", "127.0.0.1", true),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "2001:db8::1", true),
            ("::1/128", "::1", true),
        ];
        for (network, address, within) in cases {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(ip(address)), within, "{network} and {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        let parse = |text: &str| text.parse::<Network>().unwrap_err();
        assert_eq!(parse("example/8"), NetworkError::Address("example".to_string()));
        assert_eq!(parse("10.0.0.0"), NetworkError::Bits(String::new()));
        for bits in ["33", "-1", "+8", "", "8/8", "999"] {
            assert_eq!(parse(&format!("10.0.0.0/{bits}")), NetworkError::Bits(bits.to_string()));
        }
        assert_eq!(
            parse("10.1.0.0/8").to_string(),
            "bits beyond the prefix are set; write 10.0.0.0/8"
        );
    }

    #[test]
    fn a_client_that_is_no_proxy_cannot_name_another_address() {
        let forged = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https")];
        let found = client("203.0.113.5", ForwardedHeader::XForwardedFor, &forged);
        assert_eq!(found, Client { address: ip("203.0.113.5"), secure: None });
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        let cases: [(&[(&'static str, &str)], &str); 8] = [
            (&[("x-forwarded-for", "192.0.2.9")], "192.0.2.9"),
            (&[("x-forwarded-for", "1.1.1.1, 192.0.2.9, 10.2.2.2")], "192.0.2.9"),
            (&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.9")], "192.0.2.9"),
            (&[("x-forwarded-for", "10.3.3.3,10.2.2.2")], "10.3.3.3"),
            (&[("x-forwarded-for", "192.0.2.9, nonsense")], "10.1.1.1"),
            (&[("x-forwarded-for", "[2001:db8:9::1]:443, 2001:db8:1::7")], "2001:db8:9::1"),
            (&[("x-forwarded-for", "::ffff:192.0.2.9")], "192.0.2.9"),
            (&[("forwarded", "for=192.0.2.9")], "10.1.1.1"),
        ];
        for (lines, address) in cases {
            let found = client("10.1.1.1", ForwardedHeader::XForwardedFor, lines);
            assert_eq!(found.address, ip(address), "{lines:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_with_its_ports_quotes_and_scheme() {
        let line = "for=1.1.1.1, For=\"[2001:db8:9::1]:4711\";Proto=https;by=10.1.1.1";
        let found = client("10.1.1.1", ForwardedHeader::Forwarded, &[("forwarded", line)]);
        assert_eq!(found, Client { address: ip("2001:db8:9::1"), secure: Some(true) });
        let hidden = client("10.1.1.1", ForwardedHeader::Forwarded, &[("forwarded", "for=_x")]);
        assert_eq!(hidden, Client { address: ip("10.1.1.1"), secure: None });
    }

    #[test]
    fn the_scheme_is_the_nearest_proxys() {
        let with = |value: &str| {
            let lines = [("x-forwarded-proto", value)];
            client("10.1.1.1", ForwardedHeader::XForwardedFor, &lines).secure
        };
        assert_eq!(with("https"), Some(true));
        assert_eq!(with("https, http"), Some(false));
    }

    #[test]
    fn prefixes_keep_what_their_purpose_needs() {
        assert_eq!(address_prefix(ip("192.0.2.77"), (24, 48)), ip("192.0.2.0"));
        assert_eq!(address_prefix(ip("2001:db8:1:2:3::4"), (24, 48)), ip("2001:db8:1::"));
        assert_eq!(rate_prefix(ip("192.0.2.77")), ip("192.0.2.77"));
        assert_eq!(rate_prefix(ip("2001:db8:1:2:3::4")), ip("2001:db8:1:2::"));
        assert_eq!(rate_prefix(ip("::ffff:192.0.2.77")), ip("192.0.2.77"));
    }
}
