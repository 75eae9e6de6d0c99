//! The mail that carries a code, and the server that takes it.

use super::address::Address;
use crate::config::{EmailConfig, EmailTls};
use crate::https;
use crate::key_file;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use postern_proto::now::Wall;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long one command of SMTP may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a whole mail may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a mail says.
pub(super) struct Mail {
    pub(super) to: Address,
    pub(super) code: Zeroizing<String>,
    /// The device that asks.
    pub(super) device: String,
    /// The gateway's name.
    pub(super) gateway: String,
    /// Tells this mail from others.
    pub(super) reference: String,
    /// When the code is over.
    pub(super) until: Wall,
}

/// Hands a mail to the server.
///
/// # Errors
/// In words, without the code and the password.
pub(super) async fn send(config: &EmailConfig, mail: &Mail) -> Result<(), String> {
    let message = message(config, mail)?;
    let transport = transport(config)?;
    match tokio::time::timeout(TIMEOUT, transport.send(message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(https::chain(&error)),
        Err(_) => Err(format!(
            "the server did not take the mail within {TIMEOUT:?}"
        )),
    }
}

/// What would stop every mail: a file that cannot be read.
///
/// # Errors
/// In words.
pub(super) fn check(config: &EmailConfig) -> Result<(), String> {
    transport(config).map(|_| ())
}

fn transport(config: &EmailConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let host = config.host.as_str();
    let tls = match config.tls {
        EmailTls::None => Tls::None,
        EmailTls::StartTls => Tls::Required(trust(host, config.ca_file.as_deref())?),
        EmailTls::Tls => Tls::Wrapper(trust(host, config.ca_file.as_deref())?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(config.port)
        .timeout(Some(COMMAND_TIMEOUT))
        .hello_name(ClientId::Domain(domain(config).to_owned()))
        .tls(tls);
    if let Some((name, file)) = &config.credentials {
        let password = key_file::one_line(file).map_err(|error| error.to_string())?;
        builder = builder.credentials(Credentials::new(name.clone(), password.to_string()));
    }
    Ok(builder.build())
}

fn domain(config: &EmailConfig) -> &str {
    config.from.as_str().split('@').nth(1).unwrap_or_default()
}

fn trust(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = ca_file {
        let wrong = |problem: String| format!("{}: {problem}", path.display());
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(certificate);
    }
    builder.build().map_err(|error| https::chain(&error))
}

fn message(config: &EmailConfig, mail: &Mail) -> Result<Message, String> {
    let mailbox = |name: Option<&str>, address: &Address| {
        let address = address.as_str().parse();
        let address = address.map_err(|_| "the address is none for a mail".to_owned())?;
        Ok::<_, String>(Mailbox::new(name.map(str::to_owned), address))
    };
    let domain = domain(config);
    // RFC 3834: no answering machine replies.
    let automatic = HeaderValue::new(
        HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated".to_owned(),
    );
    Message::builder()
        .from(mailbox(Some("Postern"), &config.from)?)
        .to(mailbox(None, &mail.to)?)
        .subject("Your code to log in")
        .message_id(Some(format!("<{}@{domain}>", mail.reference)))
        .raw_header(automatic)
        .header(ContentType::TEXT_PLAIN)
        .body(text(mail))
        .map_err(|error| https::chain(&error))
}

fn text(mail: &Mail) -> String {
    let until = mail.until.rfc3339();
    let until = until.get(..16).unwrap_or_default().replace('T', " ");
    format!(
        "The device \"{}\" asks to log in to the gateway \"{}\" as {}.\n\
         \n\
         If that is you, type this code there:\n\
         \n    {}\n\n\
         It works once, on that device only, until {until} UTC.\n\
         \n\
         If it is not you, tell it to nobody, whoever asks: without it nobody gets in. Let your\n\
         admin know; the attempt is in the log.\n",
        plain(&mail.device),
        plain(&mail.gateway),
        mail.to,
        mail.code.as_str(),
    )
}

/// Names have no such characters; a mail does not depend on it.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-@".contains(*c))
        .take(63)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::address::Pattern;

    #[test]
    fn the_mail_says_who_asks_until_when_and_what_to_do() {
        let config = EmailConfig {
            host: "127.0.0.1".into(),
            port: 25,
            tls: EmailTls::None,
            credentials: None,
            ca_file: None,
            from: Address::parse("postern@example.com").expect("address"),
            allow: vec![Pattern::Domain("example.com".into())],
        };
        let mail = Mail {
            to: Address::parse("o'brien@example.com").expect("address"),
            code: Zeroizing::new("1234-5678".into()),
            device: "laptop\r\nBcc: eve@example.org\r\n\r\n.".into(),
            gateway: "gw-1".into(),
            reference: "abc".into(),
            until: Wall(1_795_323_643_000_000_000),
        };
        let message = message(&config, &mail).expect("a mail");
        let text = String::from_utf8(message.formatted()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(!head.contains("Bcc") && !head.contains("1234"), "{head}");
        assert!(head.contains("To: o'brien@example.com"), "{head}");
        assert!(head.contains("Auto-Submitted: auto-generated"), "{head}");
        for said in [
            "laptop",
            "gw-1",
            "1234-5678",
            "until 2026-11-22 05:00 UTC",
            "not you",
        ] {
            assert!(body.contains(said), "{said} in {body}");
        }
        assert!(!body.contains("\r\nBcc"), "{body}");
        assert_eq!(message.envelope().to().len(), 1);
    }
}
