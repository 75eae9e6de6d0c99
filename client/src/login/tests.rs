#![expect(clippy::wildcard_enum_match_arm, reason = "a fake answers some calls")]
use super::*;
use postern_proto::device_api::{ApiError, State};
use std::cell::RefCell;
use std::io::Write as _;

fn method(name: &str, kind: &str, device_code: bool) -> LoginMethod {
    LoginMethod {
        name: name.to_owned(),
        kind: kind.to_owned(),
        device_code,
    }
}

fn status() -> DeviceStatus {
    DeviceStatus {
        name: "ana".to_owned(),
        user: Some("ana@example.com".to_owned()),
        groups: Vec::new(),
        state: State::Active,
        session: None,
        posture: Vec::new(),
        preshared_key: true,
        key_since: 0,
        grants: Vec::new(),
    }
}

fn refused(code: ErrorCode) -> CallError {
    CallError::Refused(ApiError {
        code,
        error: "no".to_owned(),
        help: "again".to_owned(),
    })
}

/// A gateway with these methods, that takes one code.
struct Fake {
    methods: Vec<LoginMethod>,
    started: LoginStarted,
    good: &'static str,
    calls: RefCell<Vec<Call>>,
}

impl Gateway for Fake {
    fn call(&self, call: Call) -> Result<Value, CallError> {
        self.calls.borrow_mut().push(call.clone());
        let value = match call {
            Call::LoginMethods => serde_json::to_value(&self.methods),
            Call::LogIn(_) => serde_json::to_value(&self.started),
            Call::FinishLogin(finish) if finish.code.as_deref() == Some(self.good) => {
                serde_json::to_value(status())
            }
            _ => return Err(refused(ErrorCode::WrongCode)),
        };
        Ok(value.expect("serialises"))
    }
}

/// Types these lines, the last first.
#[derive(Default)]
struct Someone {
    types: Vec<&'static str>,
    said: Vec<String>,
}

impl Person for Someone {
    fn say(&mut self, words: &str) {
        self.said.push(words.to_owned());
    }
    fn open(&mut self, _: &str) {}
    fn ask(&mut self, _: &str) -> Option<String> {
        self.types.pop().map(str::to_owned)
    }
}

fn started(url: Option<&str>) -> LoginStarted {
    LoginStarted {
        id: "l1".to_owned(),
        url: url.map(str::to_owned),
        user_code: None,
        interval: None,
        expires_in: 20,
    }
}

#[test]
fn the_only_provider_needs_no_name_and_several_are_listed() {
    let corp = method("corp", "oidc", true);
    let github = method("github", "oidc", false);
    let email = method("email", "email", false);
    let wish = |provider: Option<&str>, device_code, email: Option<&str>| Wish {
        provider: provider.map(str::to_owned),
        device_code,
        email: email.map(str::to_owned),
    };
    let one = [corp.clone()];
    let one = one.as_slice();
    let of =
        |methods: &[LoginMethod], wish: Wish| choose(methods, &wish).map_err(|e| e.to_string());
    assert_eq!(
        of(one, Wish::default()),
        Ok(Plan::Browser("corp".to_owned()))
    );
    assert_eq!(
        of(one, wish(None, true, None)),
        Ok(Plan::DeviceCode("corp".to_owned()))
    );
    let all = [corp, github, email];
    let error = of(&all, Wish::default()).expect_err("three");
    assert!(
        error.contains("--provider corp, --provider github, --email ADDRESS"),
        "{error}"
    );
    assert!(
        of(&all, wish(Some("github"), true, None))
            .expect_err("no code")
            .contains("--device-code")
    );
    assert!(
        of(&all, wish(Some("gitlab"), false, None))
            .expect_err("unknown")
            .contains("gitlab")
    );
    let to = Some("ana@example.com");
    assert_eq!(
        of(&all, wish(None, false, to)),
        Ok(Plan::Email("ana@example.com".to_owned()))
    );
    assert!(of(one, wish(None, false, to)).is_err());
    assert!(of(&[], Wish::default()).is_err());
}

#[test]
fn a_wrong_code_from_the_e_mail_may_be_corrected() {
    let gateway = Fake {
        methods: vec![method("email", "email", false)],
        started: started(None),
        good: "123456",
        calls: RefCell::default(),
    };
    let wish = Wish {
        email: Some("ana@example.com".to_owned()),
        ..Wish::default()
    };
    let mut ana = Someone {
        types: vec![" 123456\n", "111111"],
        ..Someone::default()
    };
    assert_eq!(
        log_in(&gateway, &wish, &mut ana).expect("logged in"),
        status()
    );
    assert!(
        !ana.said.iter().any(|said| said.contains("exist")),
        "{:?}",
        ana.said
    );

    let mut eve = Someone {
        types: vec!["4", "3", "2", "1"],
        ..Someone::default()
    };
    let error = log_in(&gateway, &wish, &mut eve).expect_err("three tries");
    assert!(matches!(error, LoginError::Call(_)), "{error}");
    assert_eq!(eve.types, ["4"], "no fourth");
    let error = log_in(&gateway, &wish, &mut Someone::default()).expect_err("nobody");
    assert!(matches!(error, LoginError::NoTerminal), "{error}");
}

/// A browser of its own thread: it knows the port from what the gateway was asked.
#[test]
fn the_browser_s_code_goes_to_the_gateway_with_its_state() {
    struct Browser<'a>(&'a Fake);
    impl Person for Browser<'_> {
        fn say(&mut self, _: &str) {}
        fn open(&mut self, url: &str) {
            assert!(url.contains("state=s1"));
            let port = self.0.calls.borrow().iter().find_map(|call| match call {
                Call::LogIn(LoginStart::Browser { port, .. }) => Some(*port),
                _ => None,
            });
            let address = ("127.0.0.1", port.expect("a port was announced"));
            let mut stream = std::net::TcpStream::connect(address).expect("listening");
            let request = "GET /callback?code=good&state=s1 HTTP/1.1\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("sent");
        }
        fn ask(&mut self, _: &str) -> Option<String> {
            None
        }
    }
    let gateway = Fake {
        methods: vec![method("corp", "oidc", true)],
        started: started(Some("https://idp.example.com/auth?state=s1&nonce=n")),
        good: "good",
        calls: RefCell::default(),
    };
    let logged_in = log_in(&gateway, &Wish::default(), &mut Browser(&gateway));
    assert_eq!(logged_in.expect("logged in"), status());
    let calls = gateway.calls.borrow();
    let Some(Call::FinishLogin(finish)) = calls.last() else {
        panic!("finished last");
    };
    assert_eq!(finish.state.as_deref(), Some("s1"));
}

#[test]
fn an_address_that_is_none_is_not_opened() {
    for bad in [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://x/\u{1b}[2J",
        "--help",
    ] {
        assert!(!is_web(bad), "{bad}");
    }
    assert!(is_web("https://idp.example.com/auth?x=%20"));
}
