//! TLS for a listener: a certificate chain and a key in PEM files, exchanged while running.
//!
//! rustls with ring, and no second provider: two would make the choice depend on build features.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{self, ServerConfig};

/// Why TLS could not be set up. A running listener keeps what it had.
#[derive(Debug)]
pub enum TlsError {
    /// The certificate chain cannot be read.
    Chain(PathBuf, rustls_pki_types::pem::Error),
    /// The file holds no certificate.
    NoCertificate(PathBuf),
    /// The private key cannot be read.
    Key(PathBuf, rustls_pki_types::pem::Error),
    /// Chain and key do not go together, or are of a kind that is not supported.
    Unusable(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Chain(path, cause) => {
                write!(out, "certificate chain {}: {cause}", path.display())
            }
            TlsError::NoCertificate(path) => {
                write!(out, "certificate chain {}: no certificate in it", path.display())
            }
            TlsError::Key(path, cause) => write!(out, "private key {}: {cause}", path.display()),
            TlsError::Unusable(cause) => write!(out, "certificate and key: {cause}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The certificate a listener shows, with the files it came from.
pub struct Tls {
    chain: PathBuf,
    key: PathBuf,
    acceptor: ArcSwap<TlsAcceptor>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tls").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the PEM files.
    pub fn load(chain: &Path, key: &Path) -> Result<Tls, TlsError> {
        let acceptor = read(chain, key)?;
        Ok(Tls {
            chain: chain.to_path_buf(),
            key: key.to_path_buf(),
            acceptor: ArcSwap::from_pointee(acceptor),
        })
    }

    /// Reads the files again; on an error connections keep getting the old certificate.
    /// Connections that are open keep theirs.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.acceptor.store(Arc::new(read(&self.chain, &self.key)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::clone(&self.acceptor.load())
    }
}

fn read(chain: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let in_chain = |cause| TlsError::Chain(chain.to_path_buf(), cause);
    let certificates: Vec<_> = CertificateDer::pem_file_iter(chain)
        .map_err(in_chain)?
        .collect::<Result<_, _>>()
        .map_err(in_chain)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(chain.to_path_buf()));
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|cause| TlsError::Key(key.to_path_buf(), cause))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
