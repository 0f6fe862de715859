//! TLS for channels that speak it: whom to trust, who we are if the receiver asks, and connecting.
//!
//! Files are read for each message, so that new authorities and certificates count at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{SendError, secret};

/// The files that TLS goes by.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Who is trusted to say who the receiver is; none: whom the system trusts.
    pub(super) ca: Option<PathBuf>,
    /// Our certificate and its key, for receivers that ask.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// What they come to, or what is wrong with them.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for cert in certificates(path)? {
                    roots.add(cert).map_err(|error| wrong(path, error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err("this system has no authorities for TLS: give a ca_file".into());
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.expect("ring speaks all of them").with_root_certificates(roots);
        let Some((cert, key)) = &self.own else {
            return Ok(Arc::new(config.with_no_client_auth()));
        };
        let pem = secret(key)?;
        let secret = PrivateKeyDer::from_pem_slice(pem.as_bytes());
        let secret = secret.map_err(|error| wrong(key, error))?;
        let config = config.with_client_auth_cert(certificates(cert)?, secret);
        Ok(Arc::new(config.map_err(|error| wrong(key, error))?))
    }

    /// A connection to a receiver that has proven who it is. Nothing has been said to it.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        let config = self.config().map_err(SendError::Later)?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| SendError::Refused(format!("{host} is no name for TLS")))?;
        let failed = |error| SendError::io(format_args!("{host}:{port}"), &error);
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        TlsConnector::from(config).connect(name, stream).await.map_err(failed)
    }
}

/// The certificates in a file, of which there is one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certs = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let certs: Result<Vec<_>, _> = certs.collect();
    match certs.map_err(|error| wrong(path, error))? {
        certs if certs.is_empty() => Err(wrong(path, "no certificate is in it")),
        certs => Ok(certs),
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}
