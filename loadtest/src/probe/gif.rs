//! A server that answers every request with a GIF and does nothing else, on hyper and one thread:
//! what HTTP alone costs whoever is built on it.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::Failure;

/// One transparent pixel.
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\
                     \x01\0\x01\0\0\x02\x02D\x01\0;";

/// Listens until standard input ends.
pub fn run(listen: SocketAddr) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        let _ = ended.send(());
    });
    let answered = Rc::new(Cell::new(0_u64));
    let counted = Rc::clone(&answered);
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(listen).await?;
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let counted = Rc::clone(&counted);
                let service = service_fn(move |_| {
                    counted.set(counted.get() + 1);
                    std::future::ready(Ok::<_, Infallible>(answer()))
                });
                // A connection that breaks is its client's.
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                spawn_local(async move { drop(serving.await) });
            }
        });
        drop(end.await);
        io::Result::Ok(())
    })?;
    Ok(json!({ "answered": answered.get() }))
}

fn answer() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(GIF)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
