//! The section `flow_log`.

use super::super::flow_log::{
    FileConfig, FlowLogConfig, Hints, LokiConfig, LokiFormat, OtlpConfig, Privacy, Sync, Treatment,
};
use super::super::raw::{Field, RawFlowLog, RawLoki, RawOtlp, RawPrivacy};
use super::super::{Problem, units};
use super::push::{RawPush, push};
use super::{choice, file, line_of, number, parsed, say, within};
use serde_saphyr::Spanned;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// A power cut takes no more than this.
const LONGEST_SYNC: Duration = Duration::from_secs(60);
const SEGMENT_SIZES: RangeInclusive<u64> = 128 << 10..=4 << 30;

pub(super) fn flow_log(
    p: &mut Vec<Problem>,
    raw: RawFlowLog,
    folder: &Path,
    data_dir: &Path,
) -> FlowLogConfig {
    let default = FlowLogConfig::at(match raw.dir {
        Some(dir) => file(p, "flow_log.dir", Some(dir), folder, "flows"),
        None => data_dir.join("flows"),
    });
    let segment_size = bytes(
        p,
        "flow_log.segment_size",
        raw.segment_size,
        default.segment_size,
        "64MiB",
        SEGMENT_SIZES,
    );
    let keep_line = raw.keep_size.as_ref().map_or(0, line_of);
    let keep_size = parsed(
        p,
        "flow_log.keep_size",
        raw.keep_size,
        default.keep_size,
        "10GiB",
        units::size,
    );
    if keep_size < segment_size.saturating_mul(2) {
        let problem = "holds less than two segments of flow_log.segment_size".into();
        let help = "write more, such as 10GiB, or a smaller segment_size";
        say(p, keep_line, "flow_log.keep_size", problem, help);
    }
    FlowLogConfig {
        sync: sync(p, raw.sync, default.sync),
        segment_size,
        keep_size,
        keep_age: parsed(
            p,
            "flow_log.keep_age",
            raw.keep_age,
            default.keep_age,
            "90d",
            units::duration,
        ),
        privacy: privacy(p, raw.privacy.unwrap_or_default()),
        stdout: raw.stdout.unwrap_or(false),
        file: rotated(
            p,
            folder,
            &default.dir,
            raw.file,
            (raw.max_size, raw.max_age, raw.max_files),
        ),
        loki: raw.loki.and_then(|raw| loki(p, raw, folder)),
        otlp: raw.otlp.and_then(|raw| otlp(p, raw, folder)),
        dir: default.dir,
    }
}

fn sync(p: &mut Vec<Problem>, raw: Field<String>, default: Sync) -> Sync {
    let Some(raw) = raw else { return default };
    if raw.value == "always" {
        return Sync::Always;
    }
    match units::duration(&raw.value) {
        Ok(pause) if !pause.is_zero() && pause <= LONGEST_SYNC => return Sync::Every(pause),
        Ok(_) | Err(_) => {}
    }
    let problem = format!("'{}' is no pause of 1ms to 60s", raw.value);
    let help = "write for example 250ms, or always";
    say(p, line_of(&raw), "flow_log.sync", problem, help);
    default
}

fn privacy(p: &mut Vec<Problem>, raw: RawPrivacy) -> Privacy {
    const TREATMENTS: [(&str, Treatment); 3] = [
        ("keep", Treatment::Keep),
        ("hash", Treatment::Hash),
        ("drop", Treatment::Drop),
    ];
    const HINTS: [(&str, Hints); 2] = [("keep", Hints::Keep), ("drop", Hints::Drop)];
    Privacy {
        user: choice(p, "flow_log.privacy.user", raw.user, &TREATMENTS),
        device: choice(p, "flow_log.privacy.device", raw.device, &TREATMENTS),
        outer_address: choice(
            p,
            "flow_log.privacy.outer_address",
            raw.outer_address,
            &TREATMENTS,
        ),
        hints: choice(p, "flow_log.privacy.hints", raw.hints, &HINTS),
    }
}

fn rotated(
    p: &mut Vec<Problem>,
    folder: &Path,
    dir: &Path,
    path: Field<String>,
    (max_size, max_age, max_files): (Field<String>, Field<String>, Field<i64>),
) -> Option<FileConfig> {
    let Some(raw) = path.filter(|path| path.value != "none") else {
        let bounds = [
            ("flow_log.max_size", max_size.as_ref().map(line_of)),
            ("flow_log.max_age", max_age.as_ref().map(line_of)),
            ("flow_log.max_files", max_files.as_ref().map(line_of)),
        ];
        for (field, line) in bounds {
            let Some(line) = line else { continue };
            let help = "write `file: PATH` beside it; keep_size and keep_age bound the spool";
            say(
                p,
                line,
                field,
                "bounds a file, and there is none".into(),
                help,
            );
        }
        return None;
    };
    let line = line_of(&raw);
    let path = file(p, "flow_log.file", Some(raw), folder, "flows.jsonl");
    if path.starts_with(dir) {
        let problem = format!("{} is in the spool's folder", path.display());
        let help = "write a path outside flow_log.dir, such as data/flows.jsonl";
        say(p, line, "flow_log.file", problem, help);
    }
    let default = FileConfig::at(path);
    Some(FileConfig {
        max_size: parsed(
            p,
            "flow_log.max_size",
            max_size,
            default.max_size,
            "64MiB",
            units::size,
        ),
        max_age: parsed(
            p,
            "flow_log.max_age",
            max_age,
            default.max_age,
            "24h",
            units::duration,
        ),
        max_files: number(
            p,
            "flow_log.max_files",
            max_files,
            default.max_files,
            1..=10_000,
        ),
        path: default.path,
    })
}

fn loki(p: &mut Vec<Problem>, raw: Spanned<RawLoki>, folder: &Path) -> Option<LokiConfig> {
    let line = line_of(&raw);
    let raw = raw.value;
    let push = push(
        p,
        RawPush {
            name: "flow_log.loki",
            line,
            path: "/loki/api/v1/push",
            example: "https://loki.example.com:3100",
            url: raw.url,
            username: raw.username,
            password: raw.password,
            password_file: raw.password_file,
            bearer_token: raw.bearer_token,
            bearer_token_file: raw.bearer_token_file,
            headers: false,
            insecure: raw.insecure.unwrap_or(false),
            ca_file: raw.ca_file,
            timeout: raw.timeout,
            batch_bytes: raw.batch_bytes,
            batch_age: raw.batch_age,
        },
        folder,
    );
    let tenant = tenant(p, raw.tenant);
    let formats = [
        ("protobuf", LokiFormat::Protobuf),
        ("json", LokiFormat::Json),
    ];
    let format = choice(p, "flow_log.loki.format", raw.format, &formats);
    push.map(|push| LokiConfig {
        push,
        tenant,
        format,
    })
}

fn otlp(p: &mut Vec<Problem>, raw: Spanned<RawOtlp>, folder: &Path) -> Option<OtlpConfig> {
    let line = line_of(&raw);
    let raw = raw.value;
    let headers_file = raw
        .headers_file
        .map(|path| file(p, "flow_log.otlp.headers_file", Some(path), folder, ""));
    let push = push(
        p,
        RawPush {
            name: "flow_log.otlp",
            line,
            path: "/v1/logs",
            example: "https://collector.example.com:4318",
            url: raw.url,
            username: None,
            password: None,
            password_file: None,
            bearer_token: raw.bearer_token,
            bearer_token_file: raw.bearer_token_file,
            headers: headers_file.is_some(),
            insecure: raw.insecure.unwrap_or(false),
            ca_file: raw.ca_file,
            timeout: raw.timeout,
            batch_bytes: raw.batch_bytes,
            batch_age: raw.batch_age,
        },
        folder,
    );
    push.map(|push| OtlpConfig { push, headers_file })
}

/// Loki's own rule: letters, digits and `!-_.*'()`, at most 150, neither `.` nor `..`.
fn tenant(p: &mut Vec<Problem>, raw: Field<String>) -> Option<String> {
    let raw = raw?;
    let fits = (1..=150).contains(&raw.value.len())
        && raw
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b))
        && !matches!(raw.value.as_str(), "." | "..");
    if !fits {
        let problem = format!("'{}' is no tenant", raw.value.escape_debug());
        let help = "write 1 to 150 of A-Z a-z 0-9 ! - _ . * ' ( ) such as team-a";
        say(p, line_of(&raw), "flow_log.loki.tenant", problem, help);
    }
    Some(raw.value)
}

/// A size within a range.
pub(super) fn bytes(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: u64,
    example: &str,
    range: RangeInclusive<u64>,
) -> u64 {
    within(p, field, raw, default, example, units::size, |value| {
        let (least, most) = (range.start() >> 10, range.end() >> 20);
        (!range.contains(&value)).then(|| format!("is outside {least}KiB to {most}MiB"))
    })
}
