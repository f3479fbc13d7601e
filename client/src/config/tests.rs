use std::ffi::OsString;

use super::*;

fn config_error(outcome: Result<Client, Error>) -> ConfigError {
    match outcome.unwrap_err() {
        Error::Config(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_variable_that_is_missing_or_empty_is_named() {
    let names = [
        "FIELDKEEP_ADDR",
        "FIELDKEEP_CA",
        "FIELDKEEP_CERT",
        "FIELDKEEP_KEY",
    ];
    for missing in names {
        for value in [None, Some(OsString::new())] {
            let error = ClientBuilder::from_variables(|name| {
                if name == missing {
                    value.clone()
                } else {
                    names.contains(&name).then(|| "x".into())
                }
            })
            .unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("the environment variable `{missing}` is not set")),
                "{text}"
            );
        }
    }
    ClientBuilder::from_variables(|name| names.contains(&name).then(|| "x".into())).unwrap();
}

#[test]
fn a_token_or_an_api_key_of_the_environment_takes_the_place_of_a_certificate() {
    let builder = |set: &[&'static str]| {
        ClientBuilder::from_variables(|name| set.contains(&name).then(|| "x".into()))
    };
    let service = ["FIELDKEEP_ADDR", "FIELDKEEP_CA"];
    for name in [
        "FIELDKEEP_TOKEN_FILE",
        "FIELDKEEP_API_KEY",
        "FIELDKEEP_API_KEY_FILE",
    ] {
        let alone = builder(&[&service[..], &[name]].concat()).unwrap();
        assert!(alone.bearer.is_some() && alone.identity.is_none());
        // A certificate beside it has to be whole.
        let half = builder(&[&service[..], &[name, "FIELDKEEP_CERT"]].concat());
        assert!(half.unwrap_err().to_string().contains("`FIELDKEEP_KEY`"));
        let both = [&service[..], &[name, "FIELDKEEP_CERT", "FIELDKEEP_KEY"]].concat();
        let both = builder(&both).unwrap();
        assert!(both.bearer.is_some() && both.identity.is_some());
    }
    let two = builder(&[
        "FIELDKEEP_ADDR",
        "FIELDKEEP_CA",
        "FIELDKEEP_TOKEN_FILE",
        "FIELDKEEP_API_KEY",
    ]);
    assert_eq!(
        two.unwrap_err().to_string(),
        "the environment variables `FIELDKEEP_TOKEN_FILE` and `FIELDKEEP_API_KEY` are both set; leave one of them out"
    );
}

#[test]
fn a_builder_shows_no_token() {
    let builder = Client::builder().token("secret").ca_pem("secret");
    assert!(!format!("{builder:?}").contains("secret"));
}

#[test]
fn address_variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let error =
        ClientBuilder::from_variables(|_| Some(OsString::from_vec(vec![0xff]))).unwrap_err();
    assert!(matches!(
        error,
        ConfigError::VariableNotText {
            name: "FIELDKEEP_ADDR"
        }
    ));
}

#[test]
fn addresses_are_read() {
    for (text, host, port, authority) in [
        (
            "https://127.0.0.1:7421",
            "127.0.0.1",
            7421,
            "127.0.0.1:7421",
        ),
        (
            "https://keys.example.org/",
            "keys.example.org",
            7420,
            "keys.example.org:7420",
        ),
        ("localhost:1", "localhost", 1, "localhost:1"),
        ("localhost", "localhost", 7420, "localhost:7420"),
        ("[::1]:7420", "::1", 7420, "[::1]:7420"),
        ("https://[::1]", "::1", 7420, "[::1]:7420"),
    ] {
        let address = parse_address(text).unwrap();
        assert_eq!(
            (address.host.as_str(), address.port),
            (host, port),
            "{text}"
        );
        assert_eq!(address.authority, authority);
    }
}

#[test]
fn other_addresses_are_refused() {
    for text in [
        "",
        ":7420",
        "http://127.0.0.1:7420",
        "https://",
        "https://host/path",
        "https://host:7420/path",
        "https://host?query",
        "https://user@host",
        "host:0",
        "host:65536",
        "host:port",
        "host:",
        "::1:7420",
        "a b",
        "https://https://host",
    ] {
        let Err(error) = parse_address(text) else {
            panic!("`{text}` passed");
        };
        assert!(
            error
                .to_string()
                .starts_with(&format!("`{text}` is not the address")),
            "{text}: {error}"
        );
    }
}

#[tokio::test]
async fn settings_that_are_missing_are_named() {
    let error = config_error(Client::builder().build());
    assert_eq!(
        error.to_string(),
        "the client has no address; call `address`"
    );
    let error = config_error(Client::builder().address("a").build());
    assert_eq!(
        error.to_string(),
        "the client has no CA certificate; call `ca_file`"
    );
    let error = config_error(Client::builder().address("a").ca_pem("").build());
    assert_eq!(
        error.to_string(),
        "the client has no identity; call `identity_files`"
    );
}

#[test]
fn a_client_without_a_runtime_is_an_error_and_no_panic() {
    let key = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let builder = Client::builder()
        .address("a")
        .ca_pem(key.cert.pem())
        .identity_pem(key.cert.pem(), key.signing_key.serialize_pem());
    assert!(matches!(
        config_error(builder.build()),
        ConfigError::NoRuntime
    ));
}
