//! How this gateway reaches a web server: certificates, time limits, no proxy. Who follows a
//! redirect does so himself; nobody here does.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// TCP, with TLS where the address says so.
pub(crate) type Connector = HttpsConnector<HttpConnector>;

/// Where `secure`, no address without TLS can be reached. `timeout` is for the connection alone.
///
/// # Errors
/// The certificates cannot be had.
pub(crate) fn connector(
    secure: bool,
    ca_file: Option<&Path>,
    timeout: Duration,
) -> io::Result<Connector> {
    let roots = match ca_file {
        Some(path) => certificates(path)?,
        None if secure => system_certificates()?,
        None => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(timeout));
    http.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
    let builder = if secure {
        builder.https_only()
    } else {
        builder.https_or_http()
    };
    Ok(builder.enable_http1().wrap_connector(http))
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn certificates(path: &Path) -> io::Result<RootCertStore> {
    let wrong = |problem: String| {
        let problem = format!("{}: {problem}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, problem)
    };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate in PEM".into()));
    }
    Ok(roots)
}

fn system_certificates() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let help = "install ca-certificates, or set ca_file";
        return Err(io::Error::other(format!(
            "this system has no certificates to trust: {help}"
        )));
    }
    Ok(roots)
}
