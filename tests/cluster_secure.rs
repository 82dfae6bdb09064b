//! Clusters behind TLS, passwords and signed credentials. Where there is no nats-server nothing is
//! checked.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/nats.rs"]
mod nats;
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nats::Nats;
use nkeys::KeyPair;
use pki::Pki;
use support::{Folder, Server, node_lua, run};

const ANSWERS: &str = "context.register('echo')
    context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)
    print('ready')";

const ASKS: &str = "local ok, value, text
    repeat timer.sleep(0.01) ok, value, text = context.query('echo', 'hello', 5) until value ~= 205
    print(ok, value, text)";

fn command(options: &[&str], code: &str) -> Command {
    let mut command = node_lua();
    command.args(options).args(["-e", code]);
    command
}

/// Two processes with these options answer each other.
#[track_caller]
fn assert_joins(options: &[&str]) {
    let mut server = Server::spawn(&mut command(options, ANSWERS));
    assert_eq!(server.line(), "ready");
    let done = run(&mut command(options, ASKS)).succeeded();
    assert_eq!(done.stdout, "true\thello\tnil\n", "{done}");
}

/// A process with these options is told why it is not let in.
#[track_caller]
fn assert_refused(options: &[&str], why: &str) {
    let done = run(&mut command(options, ASKS)).succeeded();
    assert!(done.stdout.starts_with("false\t231\tthe cluster is away"), "{done}");
    assert!(done.stdout.to_lowercase().contains(why), "{done}");
}

#[test]
fn a_server_with_tls_is_verified() {
    let pki = Pki::new();
    let [cert, key] = ["server.pem", "server.key"].map(|name| pki.path(name));
    let config = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, timeout: 10 }}",
        cert.display().to_string(),
        key.display().to_string()
    );
    let Some(nats) = Nats::with(&config) else { return };
    let ca = pki.path("ca.pem").display().to_string();
    let url = format!("tls://localhost:{}", nats.port);
    assert_joins(&["--cluster", &url, "--cluster-ca", &ca]);
    // It says that it needs TLS by itself.
    assert_joins(&["--cluster", &nats.url(), "--cluster-ca", &ca]);
    // Unknown to the system.
    assert_refused(&["--cluster", &url], "certificate");
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_asked_for() {
    let Some(nats) = Nats::start() else { return };
    let url = format!("tls://localhost:{}", nats.port);
    assert_refused(&["--cluster", &url], "does not answer with tls");
}

#[test]
fn names_and_passwords_are_part_of_the_address() {
    let Some(nats) = Nats::with("authorization { user: alice, password: secret }") else { return };
    assert_joins(&["--cluster", &format!("nats://alice:secret@127.0.0.1:{}", nats.port)]);
    assert_refused(&["--cluster", &nats.url()], "authorization violation");
    let wrong = format!("nats://alice:guess@127.0.0.1:{}", nats.port);
    assert_refused(&["--cluster", &wrong], "authorization violation");
}

/// A signed statement, as `nsc` makes it.
fn statement(signer: &KeyPair, subject: &KeyPair, nats: &str) -> String {
    let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
    let claims = format!(
        r#"{{"jti":"test","iat":1700000000,"iss":"{}","name":"test","sub":"{}","nats":{nats}}}"#,
        signer.public_key(),
        subject.public_key()
    );
    let head = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let text = format!("{head}.{}", encode(claims.as_bytes()));
    format!("{text}.{}", encode(&signer.sign(text.as_bytes()).unwrap()))
}

#[test]
fn credentials_are_a_file_or_come_from_the_environment() {
    let [operator, account, user, other] = [
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
        KeyPair::new_account(),
    ];
    let limits = r#""subs":-1,"data":-1,"payload":-1"#;
    let account_claims = format!(
        r#"{{"limits":{{{limits},"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}},
            "type":"account","version":2}}"#
    );
    let user_claims = format!(r#"{{{limits},"type":"user","version":2}}"#);
    let config = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}",
        statement(&operator, &operator, r#"{"type":"operator","version":2}"#),
        account.public_key(),
        statement(&operator, &account, &account_claims)
    );
    let Some(nats) = Nats::with(&config) else { return };
    let folder = Folder::new();
    let write = |name: &str, signer: &KeyPair| {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            statement(signer, &user, &user_claims),
            user.seed().unwrap()
        );
        folder.write(name, text).display().to_string()
    };
    let (good, bad) = (write("good.creds", &account), write("bad.creds", &other));
    let url = nats.url();
    assert_joins(&["--cluster", &url, "--cluster-creds", &good]);
    assert_refused(&["--cluster", &url, "--cluster-creds", &bad], "authorization violation");
    assert_refused(&["--cluster", &url], "authorization violation");
    let code = "print(#context.nodes(), select(2, context.query('nobody', 1)))";
    let mut command = command(&["--cluster", &url, "--node", "n"], code);
    let done = run(command.env("NODE_LUA_CLUSTER_CREDS", &good)).succeeded();
    assert_eq!(done.stdout, "1\t205\n", "{done}");
}
