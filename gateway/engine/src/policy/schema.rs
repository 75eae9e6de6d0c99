//! The shape of a policy file as JSON Schema, for editors that complete and check while one types.
//! The types mirror the file and nothing reads them: `read` decides, and says more.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The JSON Schema (2020-12) of a policy file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    without_null(&mut schema);
    schema
}

/// A field that may be left out is not one that may be empty.
fn without_null(schema: &mut Value) {
    let is_null = |one: &Value| one == "null" || one["type"] == "null";
    match schema {
        Value::Object(map) => {
            for field in ["type", "anyOf"] {
                let Some(Value::Array(any)) = map.get_mut(field) else {
                    continue;
                };
                any.retain(|one| !is_null(one));
                let [one] = &mut any[..] else { continue };
                let one = one.take();
                map.remove(field);
                match one {
                    Value::Object(inner) => map.extend(inner),
                    word @ (Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::String(_)
                    | Value::Array(_)) => map.extend([(field.to_owned(), word)]),
                }
            }
            map.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Who may reach what. What no rule allows is denied.
#[derive(JsonSchema)]
#[schemars(title = "Postern policy", deny_unknown_fields)]
#[expect(dead_code)]
struct File {
    /// For editors; it means nothing here.
    #[schemars(rename = "$schema")]
    schema: Option<String>,
    /// The version of the language.
    version: Version,
    /// Names for places.
    targets: Option<BTreeMap<String, Destination>>,
    /// Names for checks of a device.
    posture: Option<BTreeMap<String, Check>>,
    /// From top to bottom, the first that applies decides.
    #[schemars(length(min = 1))]
    rules: Vec<Rule>,
    /// Who may ask for more, for a while. Without it, or empty: nobody.
    grants: Option<Grants>,
    /// What must come out. A policy whose tests fail is not taken.
    #[schemars(length(min = 1))]
    tests: Option<Vec<Test>>,
}

/// Addresses, names or both, and ports.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = [{"required": ["addresses"]}, {"required": ["names"]}]))]
#[expect(dead_code)]
struct Destination {
    /// IPv4 and IPv6 addresses and prefixes.
    #[schemars(length(min = 1))]
    addresses: Option<Vec<Address>>,
    /// Host names. The gateway asks for what they mean, again and again.
    #[schemars(length(min = 1))]
    names: Option<Vec<HostName>>,
    /// `22/tcp`, `8000-8010/tcp`, `53/udp`, or `icmp`.
    #[schemars(length(min = 1))]
    ports: Vec<Port>,
}

/// One thing that a device must show.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1, "maxProperties" = 2,
    "dependentRequired" = {"os_version": ["os"], "sha256": ["file"]}))]
#[expect(dead_code)]
struct Check {
    /// The `ID` of os-release(5).
    os: Option<Word>,
    /// Compared with its `VERSION_ID`.
    os_version: Option<Comparison>,
    /// The kernel's release.
    kernel: Option<Comparison>,
    /// The version of `postern`.
    client_version: Option<Comparison>,
    /// The file system that holds `/` is on an encrypted disk.
    disk_encryption: Option<On>,
    /// A firewall filters what comes in.
    firewall: Option<On>,
    /// A process of this name runs.
    #[schemars(length(max = 15))]
    process: Option<String>,
    /// This file is there.
    #[schemars(regex(pattern = "^/"))]
    file: Option<String>,
    /// And it has this content.
    #[schemars(regex(pattern = "^[0-9A-Fa-f]{64}$"))]
    sha256: Option<String>,
    /// An admin set it.
    attribute: Option<Attribute>,
}

/// What an admin said of a device.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code)]
struct Attribute {
    name: Word,
    value: Word,
}

/// Whoever it is for may reach what it names, or may not.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code)]
struct Rule {
    /// What the rule is for. Records, metrics and refusals carry it.
    name: Word,
    action: Action,
    /// `shadow`: judged and recorded, and never in force. Left out: `enforce`.
    mode: Option<Mode>,
    from: From,
    to: To,
    when: Option<When>,
    /// The same as `until` in `when`.
    until: Option<Moment>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code)]
enum Action {
    Allow,
    Deny,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code)]
enum Mode {
    Enforce,
    Shadow,
}

/// Who: the word `anyone`, or a map whose keys must all hold.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code)]
enum From {
    Anyone(Anyone),
    These(Box<Who>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code)]
enum Anyone {
    Anyone,
}

/// Keys are joined by *and*, the names of a list by *or*.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1, "not" = {"required": ["users", "machines"]}))]
#[expect(dead_code)]
struct Who {
    /// The device belongs to one of these users.
    users: Option<Words>,
    /// It has one of these groups.
    groups: Option<Words>,
    /// It is one of these devices.
    devices: Option<Words>,
    /// It has one of these labels.
    #[schemars(length(min = 1))]
    labels: Option<Vec<Label>>,
    /// It has no user; `any`, or one of these names.
    machines: Option<Machines>,
    /// Its login is by one of these issuers.
    issuers: Option<Words>,
    /// Its login was proved in one of these ways (RFC 8176).
    amr: Option<Words>,
    /// Its login is of one of these context classes.
    acr: Option<Words>,
    /// Where it is on the Internet.
    #[schemars(length(min = 1))]
    outer: Option<Vec<Address>>,
    /// All of these checks hold.
    posture: Option<Words>,
    /// Its login is younger.
    session_age: Option<Duration>,
}

/// `any`, or names of devices.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code)]
enum Machines {
    Any(AnyMachine),
    Named(Words),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code)]
enum AnyMachine {
    Any,
}

/// Where: names of targets, places, or the word `anything`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code)]
enum To {
    Anything(Anything),
    Place(Destination),
    These(#[schemars(length(min = 1))] Vec<TargetOrPlace>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code)]
enum Anything {
    Anything,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code)]
enum TargetOrPlace {
    Target(Word),
    Place(Destination),
}

/// What the clock on the wall in `zone` must show.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
#[expect(dead_code)]
struct When {
    /// `mon`, or `mon-fri`.
    #[schemars(length(min = 1))]
    days: Option<Vec<Day>>,
    /// `"07:00-20:00"`, or several. One over midnight belongs to the day on which it begins.
    hours: Option<Hours>,
    /// A name of the IANA database, such as `Europe/Berlin`. Left out: `UTC`.
    zone: Option<Word>,
    /// The first day, or a day and a time.
    from: Option<Moment>,
    /// The last day, or a day and a time.
    until: Option<Moment>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code)]
enum Hours {
    One(Span),
    Several(#[schemars(length(min = 1))] Vec<Span>),
}

/// None at all is as good as no `grants`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code)]
enum Grants {
    None(Nothing),
    Some(#[schemars(length(max = 256))] Vec<Grant>),
}

/// What may be asked for with `postern request`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code)]
struct Grant {
    /// What it is for. Distinct from the names of rules.
    name: Word,
    /// Who may ask; it must hold as long as the grant lives.
    from: From,
    to: To,
    /// The longest that a grant may live.
    max: Duration,
    /// Users who may approve from their laptops. Without it, only admins at the gateway may.
    approvers: Option<From>,
    /// May be used without approval. Left out: `false`.
    break_glass: Option<bool>,
}

/// Who asks for what, and what must come out.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code)]
struct Test {
    user: Option<Word>,
    groups: Option<Words>,
    device: Option<Word>,
    #[schemars(length(min = 1))]
    labels: Option<Vec<Label>>,
    /// The device has no user.
    machine: Option<bool>,
    /// Of the login.
    issuer: Option<Word>,
    /// Of the login.
    amr: Option<Words>,
    /// Of the login.
    acr: Option<Word>,
    /// Where the device is on the Internet.
    outer: Option<Host>,
    /// The checks that hold; the others fail.
    posture: Option<Words>,
    /// How long ago the login was. Left out, it was just now if the test says more of it.
    session_age: Option<Duration>,
    /// When: `2026-12-01 09:00 Europe/Berlin`.
    at: Option<At>,
    /// A live grant for `to` that rests on this entry of `grants`.
    grant: Option<Word>,
    /// `192.0.2.10:22/tcp`, `[2001:db8::10]:22/tcp` or `192.0.2.10/icmp`.
    to: Word,
    expect: Action,
    /// The rule that must decide; `default` where none does.
    rule: Option<Word>,
}

#[derive(JsonSchema)]
#[expect(dead_code)]
struct Words(#[schemars(length(min = 1))] Vec<Word>);

/// A kind of text, by its pattern.
macro_rules! text {
    ($($name:ident $schema:tt;)*) => {$(
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

text! {
    Version {"enum": [1, "1"]};
    // Not `type`, which would be taken for a field that may be left out.
    Nothing {"enum": [null]};
    // YAML takes some words for numbers; the policy takes them as they are written.
    Word {"type": ["string", "number"], "minLength": 1, "maxLength": 256};
    // YAML 1.1 takes `on` for a boolean.
    On {"enum": ["on", true]};
    Address {"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"};
    Host {"type": "string", "pattern": "^[0-9a-fA-F:.]+$"};
    HostName {"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\\.?$", "maxLength": 254};
    Port {"type": "string", "pattern": "^([0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)|icmp)$"};
    Label {"type": "string", "pattern": "^[^=]+=.+$", "maxLength": 256};
    Duration {"type": "string", "pattern": "^0*[1-9][0-9]* *(d|h|m|s|ms)$"};
    Comparison {"type": "string", "pattern": "^(>=|>|<=|<|=) *[0-9]+(\\.[0-9]+)*$"};
    Day {"type": "string", "pattern": "^(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?$"};
    At {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2} ([01][0-9]|2[0-3]):[0-5][0-9]( [A-Za-z].*)?$"};
    Span {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"};
    Moment {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}( ([01][0-9]|2[0-3]):[0-5][0-9])?$"};
}
