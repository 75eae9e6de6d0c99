//! Logs: to stderr, filtered by an environment variable, as text or JSON lines.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, ParseError};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The variable does not hold a filter.
    #[error(
        "{variable}={value:?} is not a log filter: {source}; write for example {variable}=info,postern=debug"
    )]
    Filter {
        /// The name of the variable.
        variable: String,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody set up logging before.
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging for the whole process. `variable` names the environment variable that holds the
/// filter; without it, `info`.
///
/// # Errors
/// When the variable holds no filter, or on a second call.
pub fn init(variable: &str, format: LogFormat) -> Result<(), TelemetryError> {
    init_at(variable, "info", format)
}

/// The same with another filter for when the variable is not set, such as a configured level.
///
/// # Errors
/// When the filter in force is none, or on a second call.
pub fn init_at(variable: &str, default: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let asked = std::env::var(variable).unwrap_or_default();
    let value = if asked.trim().is_empty() {
        default.to_owned()
    } else {
        asked
    };
    let filter = filter(&value).map_err(|source| TelemetryError::Filter {
        variable: variable.to_owned(),
        value: value.clone(),
        source,
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

/// boringtun stays silent whatever is asked: it logs per packet, with addresses and key material
/// in its debug output.
fn filter(value: &str) -> Result<EnvFilter, ParseError> {
    let silent: Directive = "boringtun=off".parse()?;
    let wanted = if value.trim().is_empty() {
        "info"
    } else {
        value
    };
    Ok(EnvFilter::builder().parse(wanted)?.add_directive(silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boringtun_is_silent_even_when_asked_to_speak() {
        for asked in ["", "trace", "boringtun=trace,info"] {
            let shown = filter(asked).unwrap().to_string();
            assert!(shown.contains("boringtun=off"), "{asked:?} gives {shown}");
            assert!(
                !shown.contains("boringtun=trace"),
                "{asked:?} gives {shown}"
            );
        }
        assert!(filter("").unwrap().to_string().contains("info"));
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(filter("postern=loudly").is_err());
    }
}
