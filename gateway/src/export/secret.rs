//! Secrets for servers: in files of their own, closed to others, read when needed.

use crate::config::{Auth, OtlpConfig, PushConfig};
use crate::key_file;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue};
use std::io;
use std::path::Path;

/// The value of `Authorization`, if any.
///
/// # Errors
/// The file of the secret cannot be read, lets others in, or holds what a header cannot.
pub(super) fn authorization(auth: &Auth) -> io::Result<Option<HeaderValue>> {
    let (path, value) = match auth {
        Auth::None => return Ok(None),
        Auth::Basic {
            username,
            password_file,
        } => {
            let pair = format!("{username}:{}", key_file::one_line(password_file)?.as_str());
            (password_file, format!("Basic {}", STANDARD.encode(pair)))
        }
        Auth::Bearer { token_file } => (
            token_file,
            format!("Bearer {}", key_file::one_line(token_file)?.as_str()),
        ),
    };
    header(path, &value).map(Some)
}

/// The headers of a file: one `Name: value` a line, `#` for a comment.
///
/// # Errors
/// As [`authorization`]; or a line is no header.
pub(super) fn headers(path: &Path) -> io::Result<Vec<(HeaderName, HeaderValue)>> {
    let text = key_file::text(path)?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            // The line itself is a secret.
            let wrong = || named(path, &format!("line {} is not `Name: value`", at + 1));
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let name = name.trim().parse::<HeaderName>().map_err(|_| wrong())?;
            Ok((name, header(path, value.trim())?))
        })
        .collect()
}

/// Whether every secret and certificate that a server needs is there.
pub(super) fn check(push: &PushConfig, otlp: Option<&OtlpConfig>) -> io::Result<()> {
    authorization(&push.auth)?;
    if let Some(path) = otlp.and_then(|otlp| otlp.headers_file.as_ref()) {
        headers(path)?;
    }
    Ok(())
}

fn header(path: &Path, value: &str) -> io::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| named(path, "holds a character that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn named(path: &Path, problem: &str) -> io::Error {
    let problem = format!("{}: {problem}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file;
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_becomes_a_header_and_is_never_shown() {
        let folder = Scratch::new();
        let path = folder.path("secret");
        key_file::create(&path, "open sesame\n").expect("written");
        let basic = Auth::Basic {
            username: "Aladdin".into(),
            password_file: path.clone(),
        };
        let value = authorization(&basic).expect("good").expect("some");
        // The example of RFC 7617, section 2.
        assert_eq!(
            value.to_str().ok(),
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        assert_eq!(format!("{value:?}"), "Sensitive");
        let token_file = path.clone();
        let value = authorization(&Auth::Bearer { token_file }).expect("good");
        assert_eq!(
            value.expect("some").to_str().ok(),
            Some("Bearer open sesame")
        );
        assert_eq!(authorization(&Auth::None).expect("good"), None);
    }

    #[test]
    fn an_open_or_broken_file_is_refused_without_its_content() {
        let folder = Scratch::new();
        for (text, mode, problem) in [
            ("hunter2", 0o640, "chmod 600"),
            ("", 0o600, "one line"),
            ("hunter2\nhunter3\n", 0o600, "one line"),
            ("hunter2\u{7}", 0o600, "no header"),
        ] {
            let path = folder.path("secret");
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let error = authorization(&Auth::Bearer { token_file: path }).expect_err(text);
            let shown = error.to_string();
            assert!(
                shown.contains(problem) && !shown.contains("hunter"),
                "{shown}"
            );
        }
    }

    #[test]
    fn headers_come_from_a_file() {
        let folder = Scratch::new();
        let path = folder.path("headers");
        key_file::create(
            &path,
            "# for the collector\nX-Api-Key:  k:1 \n\nX-Team: a\n",
        )
        .expect("written");
        let found = headers(&path).expect("good");
        let found: Vec<_> = found
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        assert_eq!(found, [("x-api-key", "k:1"), ("x-team", "a")]);
        std::fs::write(&path, "X-Team: a\nhunter2\n").expect("written");
        let error = headers(&path).expect_err("no colon").to_string();
        assert!(
            error.contains("line 2") && !error.contains("hunter"),
            "{error}"
        );
    }
}
