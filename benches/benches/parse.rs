//! Reading what browsers send, and signing what sales gets. Guards the collector's share of a hit
//! beside HTTP itself.

use std::fmt::Write as _;
use std::hint::black_box;

use benches::path;
use collector::cookie::{CookieKeys, VisitorCookie};
use collector::ingest::beacon::{self, BeaconLimits};
use collector::ingest::pixel;
use collector::webhook::sign::Secrets;
use criterion::{Criterion, Throughput, criterion_group};
use engine::id::Key;
use engine::time::Timestamp;

const QUERY: &str = "s=demo&u=https%3A%2F%2Fwww.site.example%2Fcolumn%2Fdx&r=https%3A%2F%2Fsearch.\
                     example%2F&i=00000000000012ab&n=0000000000aa12ab&t=%E6%96%99%E9%87%91";
const NOW: Timestamp = Timestamp(1_796_050_800_000);
const LIMITS: BeaconLimits = BeaconLimits { hits_max: 500, hit_bytes_max: 65_536, depth_max: 32 };

/// A page view as the script sends it.
pub fn hit_text(number: u64) -> String {
    let path = path(number, 0);
    format!(
        "{{\"s\":\"demo\",\"e\":\"page_view\",\"t\":\"A page\",\
         \"u\":\"https://www.site.example{path}?utm_source=mail\",\
         \"r\":\"https://search.example/\",\"i\":\"{number:016x}\",\
         \"n\":\"{number:015x}a\",\"at\":1796050800000,\"st\":1796050800010,\
         \"p\":{{\"plan\":\"b\",\"size\":3}}}}"
    )
}

fn batch(hits: u64) -> String {
    let mut body = String::from("[");
    for number in 0..hits {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(body, "{comma}{}", hit_text(number));
    }
    body.push(']');
    body
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    assert!(pixel::parse(QUERY).is_ok());
    group.bench_function("pixel", |bencher| {
        bencher.iter(|| black_box(pixel::parse(black_box(QUERY))));
    });
    for (name, hits, body) in [("beacon", 1, hit_text(1)), ("batch_of_100", 100, batch(100))] {
        let read = beacon::parse(body.as_bytes(), &LIMITS).map(|read| read.into_iter().flatten());
        assert_eq!(read.map(Iterator::count).ok(), Some(hits as usize));
        group.throughput(Throughput::Elements(hits));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(beacon::parse(black_box(body.as_bytes()), &LIMITS)));
        });
    }
    group.finish();
}

fn cookies(criterion: &mut Criterion) {
    let keys =
        CookieKeys { id: 1, mac: Key(*b"the key of macs."), seal: Key(*b"the key of seals") };
    let cookie = VisitorCookie::issue(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, None, NOW);
    let header = format!("_ga=GA1.1.123456789.1796050800; mikomi={}; lang=ja", cookie.sign(&keys));
    let read = |header: &str| VisitorCookie::find(header.as_bytes(), "mikomi", &keys, NOW);
    assert!(read(&header).is_some());
    let mut group = criterion.benchmark_group("cookie");
    group.bench_function("read", |bencher| {
        bencher.iter(|| black_box(read(black_box(&header))));
    });
    group.bench_function("sign", |bencher| {
        bencher.iter(|| black_box(black_box(cookie).sign(&keys)));
    });
    group.finish();
}

fn signing(criterion: &mut Criterion) {
    let secrets = Secrets::parse(["whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="]);
    let secrets = secrets.expect("the secret is well formed");
    // As long as the message of a hot lead.
    let body = vec![b'x'; 4_096];
    criterion.bench_function("webhook/sign_4_kib", |bencher| {
        bencher.iter(|| black_box(secrets.sign("msg_0123456789abcdef", NOW.0 / 1_000, &body)));
    });
}

criterion_group!(group, parse, cookies, signing);
