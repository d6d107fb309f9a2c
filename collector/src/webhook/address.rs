//! Where a webhook may go: the target of an endpoint, parsed once, and the vetting of addresses.
//!
//! An endpoint's address is given by a person who may not be meant to reach what this machine can
//! reach. So the same parse serves the check and the dial, IP literals in any spelling are
//! addresses like any other, and one forbidden address behind a name refuses the whole name: a
//! resolver that mixes a public and a private answer is not to be trusted with either.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::super::net::Network;

/// The longest endpoint address, in bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// Stands in an address for the id of the message that is sent, so that a receiver can keep one
/// record a message, however often it comes.
pub const ALERT_ID: &str = "{alert_id}";
/// Ports a webhook may go to unless the endpoint's `allow_ports` names others.
pub const PORTS: [u16; 3] = [80, 443, 8443];

/// IPv4 networks that are not the public internet.
const FORBIDDEN_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// The only IPv6 space handed out for the public internet. Everything outside is refused: NAT64
/// (64:ff9b::/96 and :1::/48), discard (100::/64), 5f00::/16, unique local, link-local, site-local,
/// multicast, loopback, unspecified, v4-compatible.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// What inside that space is not the public internet: protocol assignments with Teredo and ORCHID,
/// documentation, 6to4 (which carries an IPv4 address), documentation again.
const FORBIDDEN_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What an endpoint may do that others may not. The default is the public internet over https.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Plain http as well.
    pub allow_http: bool,
    /// These ports as well as `PORTS`.
    pub allow_ports: Vec<u16>,
    /// These networks although they are not public.
    pub allow_private: Vec<Network>,
}

impl Permit {
    /// Whether an attempt may dial `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        is_public(address) || self.allow_private.iter().any(|network| network.contains(address))
    }
}

/// Why an endpoint's address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Longer than `URL_BYTES_MAX`.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a URL, or one without a host.
    Unreadable,
    /// Neither https nor http.
    Scheme,
    /// http, and the endpoint has no `allow_http`.
    PlainHttp,
    /// A name or a password in the address: it would be stored and shown.
    UserInfo,
    /// A `#fragment`, which is never sent.
    Fragment,
    /// A port that is neither in `PORTS` nor in `allow_ports`.
    Port(u16),
    /// The host is an IP address that is neither public nor in `allow_private`.
    Address(IpAddr),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::TooLong { bytes } => {
                write!(f, "an address has at most {URL_BYTES_MAX} bytes, this one {bytes}")
            }
            TargetError::Unreadable => write!(f, "not a URL with a host"),
            TargetError::Scheme => write!(f, "an endpoint is reached by https"),
            TargetError::PlainHttp => write!(f, "http needs allow_http = true"),
            TargetError::UserInfo => write!(f, "no user name or password in an address"),
            TargetError::Fragment => write!(f, "no #fragment in an address"),
            TargetError::Port(port) => write!(f, "port {port} needs allow_ports"),
            TargetError::Address(address) => write!(f, "{address} needs allow_private"),
        }
    }
}

impl std::error::Error for TargetError {}

/// The host of a target: what is resolved, and what the certificate must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHost {
    /// A DNS name in its ASCII form, without a trailing dot.
    Name(String),
    /// An address written out; no resolver is asked.
    Address(IpAddr),
}

/// Where an endpoint's messages go, parsed once and checked by its permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Over TLS.
    pub tls: bool,
    /// Whom to dial.
    pub host: TargetHost,
    /// The port to dial.
    pub port: u16,
    /// The value of `Host`.
    pub authority: String,
    /// The request target: path and query, with [`ALERT_ID`] where a message's id belongs.
    pub path: String,
    /// What this endpoint may do that others may not; asked again at every attempt.
    pub permit: Permit,
}

impl Target {
    /// Reads an endpoint's address. IP literals are vetted here and again at every attempt; names
    /// only at the attempt, since what a name means changes.
    pub fn parse(text: &str, permit: &Permit) -> Result<Target, TargetError> {
        if text.len() > URL_BYTES_MAX {
            return Err(TargetError::TooLong { bytes: text.len() });
        }
        let url = Url::parse(text).map_err(|_| TargetError::Unreadable)?;
        let tls = match url.scheme() {
            "https" => true,
            "http" if permit.allow_http => false,
            "http" => return Err(TargetError::PlainHttp),
            _ => return Err(TargetError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        let port = url.port_or_known_default().ok_or(TargetError::Unreadable)?;
        if !PORTS.contains(&port) && !permit.allow_ports.contains(&port) {
            return Err(TargetError::Port(port));
        }
        let (host, shown) = match url.host().ok_or(TargetError::Unreadable)? {
            Host::Domain(name) => {
                // The dot at the end changes neither the machine nor the certificate.
                let name = name.strip_suffix('.').unwrap_or(name);
                // A parser lets braces stand in a name; whoever is told is never up to a message.
                if name.is_empty() || name.contains(['{', '}']) {
                    return Err(TargetError::Unreadable);
                }
                (TargetHost::Name(name.to_owned()), name.to_owned())
            }
            Host::Ipv4(address) => (TargetHost::Address(address.into()), address.to_string()),
            Host::Ipv6(address) => (TargetHost::Address(address.into()), format!("[{address}]")),
        };
        if let TargetHost::Address(address) = host
            && !permit.allows(address)
        {
            return Err(TargetError::Address(address));
        }
        let authority = match url.port() {
            Some(port) => format!("{shown}:{port}"),
            None => shown,
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = path.replace("%7Balert_id%7D", ALERT_ID);
        Ok(Target { tls, host, port, authority, path, permit: permit.clone() })
    }
}

impl Target {
    /// The request target of one message. Its id is made of letters, digits, `_` and `-`.
    pub fn path_for(&self, id: &str) -> Cow<'_, str> {
        if self.path.contains(ALERT_ID) {
            Cow::Owned(self.path.replace(ALERT_ID, id))
        } else {
            Cow::Borrowed(&self.path)
        }
    }
}

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !FORBIDDEN_V4.iter().any(|(base, bits)| within_v4(*base, *bits, address))
        }
        IpAddr::V6(address) => {
            within_v6(PUBLIC_V6.0, PUBLIC_V6.1, address)
                && !FORBIDDEN_V6.iter().any(|(base, bits)| within_v6(*base, *bits, address))
        }
    }
}

fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

fn within_v4(base: Ipv4Addr, bits: u8, address: Ipv4Addr) -> bool {
    (base.to_bits() ^ address.to_bits()) & mask_v4(bits) == 0
}

fn within_v6(base: Ipv6Addr, bits: u8, address: Ipv6Addr) -> bool {
    (base.to_bits() ^ address.to_bits()) & mask_v6(bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: [&str; 62] = [
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.200",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::7f00:1",
        "::10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2001:db8:ffff:ffff::",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456:789a::1",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "1fff::1",
    ];

    const PUBLIC: [&str; 20] = [
        "1.0.0.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "2606:4700:4700::1111",
        "2001:200::1",
        "2a00:1450:4001:830::200e",
    ];

    fn public_only() -> Permit {
        Permit::default()
    }

    fn lenient() -> Permit {
        Permit { allow_http: true, allow_ports: vec![8081], allow_private: vec![] }
    }

    #[test]
    fn every_special_address_is_forbidden_and_its_neighbours_are_not() {
        for text in FORBIDDEN {
            assert!(!public_only().allows(text.parse().unwrap()), "{text} must be forbidden");
        }
        for text in PUBLIC {
            assert!(public_only().allows(text.parse().unwrap()), "{text} must be allowed");
        }
    }

    #[test]
    fn a_literal_host_in_any_spelling_is_an_address() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "127.0.0.1.",
            "127.1.",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:a9fe:a9fe]",
            "[0:0:0:0:0:ffff:10.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "0",
            "0.0.0.0",
            "169.254.169.254",
            "0xa9fea9fe",
        ] {
            let answer = Target::parse(&format!("https://{host}/x"), &public_only());
            assert!(matches!(answer, Err(TargetError::Address(_))), "{host}: {answer:?}");
        }
    }

    #[test]
    fn addresses_a_stranger_should_not_choose_are_refused_by_name() {
        for (text, error) in [
            ("http://example.com/", TargetError::PlainHttp),
            ("ftp://example.com/", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Scheme),
            ("gopher://example.com/", TargetError::Scheme),
            ("example.com", TargetError::Unreadable),
            ("https://", TargetError::Unreadable),
            ("https://./", TargetError::Unreadable),
            ("https://a b/", TargetError::Unreadable),
            ("https://[::1/", TargetError::Unreadable),
            ("https://999.1.1.1/", TargetError::Unreadable),
            ("https://user@example.com/", TargetError::UserInfo),
            ("https://:word@example.com/", TargetError::UserInfo),
            ("https://8.8.8.8@example.com/", TargetError::UserInfo),
            ("https://example.com/#x", TargetError::Fragment),
            ("https://example.com:22/", TargetError::Port(22)),
            ("https://example.com:6379/", TargetError::Port(6379)),
        ] {
            assert_eq!(Target::parse(text, &public_only()), Err(error), "{text}");
        }
        let long = format!("https://example.com/{}", "x".repeat(URL_BYTES_MAX));
        let bytes = long.len();
        assert_eq!(Target::parse(&long, &public_only()), Err(TargetError::TooLong { bytes }));
    }

    #[test]
    fn a_good_address_keeps_its_name_port_and_path() {
        let plain = Target::parse("https://Hooks.Example.com./a/b?c=d", &public_only()).unwrap();
        assert_eq!(plain.host, TargetHost::Name("hooks.example.com".into()));
        assert_eq!((plain.port, plain.tls), (443, true));
        assert_eq!(
            (plain.authority.as_str(), plain.path.as_str()),
            ("hooks.example.com", "/a/b?c=d")
        );
        let port = Target::parse("http://example.com:8081", &lenient()).unwrap();
        assert_eq!((port.authority.as_str(), port.path.as_str()), ("example.com:8081", "/"));
        assert!(!port.tls);
        let v6 = Target::parse("https://[2606:4700:4700::1111]:8443/", &public_only()).unwrap();
        assert_eq!(v6.authority, "[2606:4700:4700::1111]:8443");
        let idn = Target::parse("https://例え.example/", &public_only()).unwrap();
        assert_eq!(idn.host, TargetHost::Name("xn--r8jz45g.example".into()));
    }

    #[test]
    fn the_id_of_a_message_stands_where_the_address_says_and_never_in_the_host() {
        let of = |text: &str| {
            Target::parse(text, &public_only()).map(|it| it.path_for("msg_1").into_owned())
        };
        assert_eq!(of("https://a.example/x/{alert_id}?i={alert_id}").unwrap(), "/x/msg_1?i=msg_1");
        assert_eq!(of("https://a.example/x?y=1").unwrap(), "/x?y=1");
        assert_eq!(of("https://{alert_id}.example/"), Err(TargetError::Unreadable));
    }

    #[test]
    fn an_allowed_network_opens_itself_and_nothing_beside_it() {
        let permit = Permit {
            allow_private: vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Permit::default()
        };
        assert!(permit.allows("127.9.9.9".parse().unwrap()));
        assert!(permit.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(permit.allows("fd00::1".parse().unwrap()));
        for closed in ["10.0.0.1", "126.0.0.0", "::1", "fc00::1", "169.254.169.254"] {
            let address: IpAddr = closed.parse().unwrap();
            assert_eq!(permit.allows(address), is_public(address), "{closed}");
        }
        assert!(Target::parse("https://0x7f.1/", &permit).is_ok());
    }

    #[test]
    fn a_network_must_be_written_as_it_is_meant() {
        for bad in [
            "127.0.0.1",
            "127.0.0.1/8",
            "127.0.0.0/33",
            "::1/129",
            "fd00::1/8",
            "x/8",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::ffff:10.0.0.0/104",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("10.1.2.3".parse().unwrap()));
        let one: Network = "::1/128".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
    }
}
