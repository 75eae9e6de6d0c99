//! docs/control-api.yaml and the program say the same.

use super::*;
use postern_proto::device_api::{self, *};
use postern_proto::facts::{Facts, Watched};
use postern_proto::profile::ProfileGateway;
use std::collections::BTreeSet;

fn file() -> Value {
    let text = include_str!("../../../../docs/control-api.yaml");
    serde_saphyr::from_str(text).expect("YAML")
}

#[test]
fn the_file_names_every_path_and_method_and_no_other() {
    let file = file();
    let described: BTreeSet<(String, String)> = file["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("an item").keys();
            methods.map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<(String, String)> = PATHS
        .iter()
        .flat_map(|(path, methods)| {
            let each = methods.split(", ");
            each.map(|method| ((*path).to_owned(), method.to_owned()))
        })
        .collect();
    assert_eq!(described, served);
}

#[tokio::test]
async fn the_router_serves_every_path_that_is_listed() {
    let mut world = World::start().await;
    world.router = router_without_limits(world.control.clone());
    for (path, methods) in PATHS {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let (status, ..) = world.ask(BO, method, path, None).await;
            let listed = methods.split(", ").any(|one| one == method);
            assert_eq!(status != 405, listed, "{method} {path}");
            assert_ne!(status, 404, "{method} {path}");
        }
    }
}

#[test]
fn every_refusal_is_described_with_its_status() {
    let file = file();
    let listed = &file["components"]["schemas"]["ApiError"]["properties"]["code"]["enum"];
    let listed: BTreeSet<String> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|code| code.as_str().expect("text").to_owned())
        .collect();
    let codes = [
        ErrorCode::BadRequest,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::BadMethod,
        ErrorCode::TooLarge,
        ErrorCode::TooMany,
        ErrorCode::Unavailable,
        ErrorCode::InvitationUsed,
        ErrorCode::InvitationExpired,
        ErrorCode::InvitationRevoked,
        ErrorCode::Taken,
        ErrorCode::LoginRefused,
        ErrorCode::WrongCode,
        ErrorCode::LoginPending,
        ErrorCode::LoginExpired,
        ErrorCode::GrantRefused,
        ErrorCode::GrantDecided,
    ];
    let ours: BTreeSet<String> = codes.iter().map(|code| counts::code_name(*code)).collect();
    assert_eq!(listed, ours);
    let text = include_str!("../../../../docs/control-api.yaml");
    for code in codes {
        let status = DeviceProblem::new(code, "", "").status().as_u16();
        let named = format!("`{}`", counts::code_name(code));
        let whose = file["components"]["responses"]
            .as_object()
            .expect("responses")
            .iter()
            .find(|(_, answer)| {
                answer["description"]
                    .as_str()
                    .is_some_and(|d| d.contains(&named))
            })
            .unwrap_or_else(|| panic!("{named} is under no response"))
            .0;
        let used = format!("\"{status}\": {{ $ref: \"#/components/responses/{whose}\" }}");
        assert!(text.contains(&used), "{named}: {used}");
    }
}

#[test]
fn the_words_are_those_of_the_schemas() {
    let file = file();
    for (schema, value) in examples() {
        let schema = &file["components"]["schemas"][schema];
        fits(&file, schema, &value, &mut Vec::new());
    }
}

/// One of each, with every optional field.
fn examples() -> Vec<(&'static str, Value)> {
    let config = ClientConfig {
        version: "0f".into(),
        mtu: 1420,
        include: vec!["192.0.2.0/24".parse().expect("net")],
        endpoints: vec!["vpn.example.com:51820".parse().expect("endpoint")],
        keepalive: Some(25),
        report_every: 60,
        watched: Watched {
            processes: ["sshd".to_owned()].into(),
            files: ["/etc/ca.pem".to_owned()].into(),
        },
        rotate_after: Some(86_400),
        warn_before: 600,
    };
    let check = CheckView {
        name: "walled".into(),
        holds: true,
        expected: "firewall on".into(),
        received: "on".into(),
    };
    let facts = Facts {
        os: Some("debian".into()),
        os_version: Some("12".into()),
        kernel: Some("6.1".into()),
        client_version: Some("0.1.0".into()),
        hostname: Some("laptop".into()),
        serial: Some("x".into()),
        disk_encryption: Some(true),
        firewall: Some(false),
        processes: [("sshd".to_owned(), true)].into(),
        files: [("/etc/ca.pem".to_owned(), Some("0".repeat(64)))].into(),
    };
    let status = DeviceStatus {
        name: "ana-laptop".into(),
        user: Some("ana".into()),
        groups: vec!["sre".into()],
        state: device_api::State::Active,
        session: Some(SessionView {
            id: "x".into(),
            method: "oidc".into(),
            issuer: Some("https://idp.example.com".into()),
            since: 1,
            until: Some(2),
        }),
        posture: vec![check.clone()],
        preshared_key: true,
        key_since: 1,
        grants: vec![LiveGrant {
            id: "222222222222".into(),
            target: "nodes".into(),
            reason: "INC-42".into(),
            break_glass: true,
            until: 9,
        }],
    };
    let provider = Some("corp".to_owned());
    let starts = [
        LoginStart::Browser {
            provider: provider.clone(),
            port: 1,
        },
        LoginStart::DeviceCode { provider },
        LoginStart::Email {
            address: "ana@example.com".into(),
        },
    ];
    let gateway = ProfileGateway {
        public_key: key(1),
        endpoints: config.endpoints.clone(),
        tunnel_addresses: vec!["100.96.0.1".parse().expect("address")],
    };
    let mut all = vec![
        ("Hello", json!(Hello { api: 1 })),
        (
            "JoinRequest",
            json!(JoinRequest {
                public_key: key(1),
                kem_key: Some("A".repeat(1579) + "="),
                name: Some("x".into()),
                facts: facts.clone(),
            }),
        ),
        (
            "JoinAnswer",
            json!(JoinAnswer {
                name: "x".into(),
                addresses: vec!["100.96.0.2".parse().expect("address")],
                gateway,
                config: config.clone(),
                state: device_api::State::WaitsForApproval,
                kem_ciphertext: Some("A".repeat(1451) + "="),
            }),
        ),
        ("ClientConfig", json!(config)),
        ("DeviceStatus", json!(status)),
        ("CheckView", json!(check)),
        (
            "LoginMethod",
            json!(LoginMethod {
                name: "corp".into(),
                kind: "oidc".into(),
                device_code: true,
            }),
        ),
        (
            "LoginStarted",
            json!(LoginStarted {
                id: "x".into(),
                url: Some("https://idp.example.com".into()),
                user_code: Some("x".into()),
                interval: Some(5),
                expires_in: 600,
            }),
        ),
        (
            "LoginFinish",
            json!(LoginFinish {
                id: "x".into(),
                code: Some("x".into()),
                state: Some("x".into()),
                iss: Some("x".into()),
            }),
        ),
        ("PostureReport", json!(PostureReport { facts })),
        (
            "ConfirmRequest",
            json!(ConfirmRequest { token: "x".into() }),
        ),
        (
            "ConfirmAnswer",
            json!(ConfirmAnswer {
                policy: "0".repeat(64)
            }),
        ),
        (
            "WhyRequest",
            json!(WhyRequest {
                to: "192.0.2.1:1/tcp".into()
            }),
        ),
        (
            "WhyAnswer",
            json!(WhyAnswer {
                allow: false,
                text: "x".into(),
                rule: "default".into(),
                target: Some("nodes".into()),
                held: Some("x".into()),
                nearest_rule: Some("ssh".into()),
                failed: vec!["x".into()],
                posture: vec![check.clone()],
                session: status.session.clone(),
                outer: Some([198, 51, 100, 7].into()),
                grants: status.grants.clone(),
                ask: Some("x".into()),
                until: Some(1),
            }),
        ),
        (
            "RotateRequest",
            json!(RotateRequest {
                public_key: key(1),
                kem_key: None,
            }),
        ),
        (
            "RotateAnswer",
            json!(RotateAnswer {
                kem_ciphertext: Some("A".repeat(1451) + "=")
            }),
        ),
        (
            "RequestGrant",
            json!(RequestGrant {
                id: "222222222222".into(),
                target: "nodes".into(),
                seconds: 60,
                reason: "INC-42".into(),
                break_glass: true,
            }),
        ),
        (
            "DecideGrant",
            json!(DecideGrant {
                reason: Some("INC-42".into())
            }),
        ),
        (
            "Grants",
            json!(Grants {
                own: vec![grant()],
                to_decide: vec![grant()],
                left_out: 1,
            }),
        ),
        (
            "ApiError",
            json!(ApiError {
                code: ErrorCode::Taken,
                error: "x".into(),
                help: "x".into(),
            }),
        ),
    ];
    all.extend(starts.map(|start| ("LoginStart", json!(start))));
    all
}

fn grant() -> GrantView {
    GrantView {
        id: "222222222222".into(),
        state: GrantState::Revoked,
        device: "ana-laptop".into(),
        user: Some("ana".into()),
        target: "nodes".into(),
        seconds: 60,
        reason: "INC-42".into(),
        break_glass: false,
        entry: "nodes in an emergency".into(),
        asked: 1,
        decide_by: 2,
        decided: Some(3),
        decided_by: Some("bob".into()),
        word: Some("be quick".into()),
        since: Some(4),
        until: Some(5),
        ended: Some(6),
        ended_by: Some("bob".into()),
    }
}

/// Names, kinds and what must be there. Patterns and numbers are for the fuzzer.
fn fits(file: &Value, schema: &Value, value: &Value, path: &mut Vec<String>) {
    let at = path.join(".");
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        return fits(file, &file["components"]["schemas"][name], value, path);
    }
    let choices = schema["anyOf"].as_array();
    if let Some(first) = choices.and_then(|choices| choices.first()) {
        return fits(file, first, value, path);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let flow = |one: &&Value| one["properties"]["flow"]["const"] == value["flow"];
        let chosen = choices
            .iter()
            .find(flow)
            .unwrap_or_else(|| panic!("{at}: no choice"));
        return fits(file, chosen, value, path);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let said = &schema["type"];
    let listed = said
        .as_array()
        .is_some_and(|all| all.contains(&json!(kind)));
    let free = said.is_null() && (!schema["enum"].is_null() || !schema["const"].is_null());
    assert!(free || listed || said == kind, "{at}: {kind} is not {said}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    if let Value::Array(items) = value {
        for item in items {
            path.push("[]".into());
            fits(file, &schema["items"], item, path);
            path.pop();
        }
    }
    let Value::Object(members) = value else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(
            value.get(required.as_str().expect("text")).is_some(),
            "{at}: {required}"
        );
    }
    for (name, member) in members {
        let named = &schema["properties"][name];
        let other = &schema["additionalProperties"];
        let schema = if named.is_null() && other.is_object() {
            other
        } else {
            named
        };
        assert!(!schema.is_null(), "{at}.{name} is not described");
        path.push(name.clone());
        fits(file, schema, member, path);
        path.pop();
    }
    let optional = schema["properties"].as_object().into_iter().flatten();
    for (name, _) in optional.filter(|(name, _)| name.as_str() != "kem_key") {
        assert!(
            members.contains_key(name),
            "{at}.{name} is described and not there"
        );
    }
}
