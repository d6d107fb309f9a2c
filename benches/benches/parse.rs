//! Reading what browsers send, and signing what sales gets. Guards the collector's share of a hit
//! beside HTTP itself.

use std::fmt::Write as _;
use std::hint::black_box;

use collector::cookie::{CookieKeys, VisitorCookie};
use collector::ingest::beacon::{self, BeaconLimits};
use collector::ingest::pixel;
use collector::webhook::sign::Secrets;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::id::Key;
use engine::time::Timestamp;

const QUERY: &str = "s=demo&u=https%3A%2F%2Fwww.site.example%2Fcolumn%2Fdx&r=https%3A%2F%2Fsearch.\
                     example%2F&i=00000000000012ab&n=0000000000aa12ab&t=%E6%96%99%E9%87%91";
const NOW: Timestamp = Timestamp(1_796_050_800_000);

fn beacon_of(hits: usize) -> String {
    let mut body = String::from("[");
    for number in 0..hits {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(
            body,
            "{comma}{{\"s\":\"demo\",\"e\":\"page_view\",\"t\":\"A page\",\
             \"u\":\"https://www.site.example/column/dx?utm_source=mail\",\
             \"r\":\"https://search.example/\",\"i\":\"{number:016x}\",\
             \"n\":\"{number:015x}a\",\"at\":1796050800000,\"st\":1796050800010,\
             \"p\":{{\"plan\":\"b\",\"size\":3}}}}"
        );
    }
    body.push(']');
    body
}

fn parse(criterion: &mut Criterion) {
    criterion.bench_function("pixel_query", |bencher| {
        bencher.iter(|| black_box(pixel::parse(black_box(QUERY))));
    });
    let limits = BeaconLimits { hits_max: 500, hit_bytes_max: 65_536, depth_max: 32 };
    let mut group = criterion.benchmark_group("beacon");
    for hits in [1, 100] {
        let body = beacon_of(hits);
        group.throughput(Throughput::Elements(hits as u64));
        group.bench_function(format!("{hits}_hits"), |bencher| {
            bencher.iter(|| black_box(beacon::parse(black_box(body.as_bytes()), &limits)));
        });
    }
    group.finish();
}

fn cookies(criterion: &mut Criterion) {
    let keys =
        CookieKeys { id: 1, mac: Key(*b"the key of macs."), seal: Key(*b"the key of seals") };
    let cookie = VisitorCookie::issue(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, None, NOW);
    let header = format!("_ga=GA1.1.123456789.1796050800; mikomi={}; lang=ja", cookie.sign(&keys));
    criterion.bench_function("cookie_read", |bencher| {
        bencher.iter(|| {
            black_box(VisitorCookie::find(black_box(header.as_bytes()), "mikomi", &keys, NOW))
        });
    });
    criterion.bench_function("cookie_sign", |bencher| {
        bencher.iter(|| black_box(black_box(cookie).sign(&keys)));
    });
}

fn signing(criterion: &mut Criterion) {
    let secrets = Secrets::parse(["whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="]);
    let secrets = secrets.expect("the secret is well formed");
    let body = vec![b'x'; 4_096];
    criterion.bench_function("webhook_sign_4_kib", |bencher| {
        bencher.iter(|| black_box(secrets.sign("msg_0123456789abcdef", 1_796_050_800, &body)));
    });
}

criterion_group!(group, parse, cookies, signing);
criterion_main!(group);
