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

#[test]
fn words_before_the_host_may_have_any_characters_or_be_a_token() {
    let Some(nats) = Nats::with("authorization { user: 'a:b', password: 'p@ss/w%rd' }") else {
        return;
    };
    assert_joins(&["--cluster", &format!("nats://a%3Ab:p%40ss%2Fw%25rd@127.0.0.1:{}", nats.port)]);
    let Some(nats) = Nats::with("authorization { token: 't0k/en' }") else { return };
    assert_joins(&["--cluster", &format!("nats://t0k%2Fen@127.0.0.1:{}", nats.port)]);
    let wrong = format!("nats://token@127.0.0.1:{}", nats.port);
    assert_refused(&["--cluster", &wrong], "authorization violation");
}

#[test]
fn an_nkey_is_a_file_that_is_read_at_each_connection() {
    let [user, other] = [(); 2].map(|()| KeyPair::new_user());
    let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
    let Some(mut nats) = Nats::with(&config) else { return };
    let folder = Folder::new();
    let seed = |name: &str, key: &KeyPair| {
        folder.write(name, format!("{}\n", key.seed().unwrap())).display().to_string()
    };
    let (good, bad) = (seed("good.nk", &user), seed("bad.nk", &other));
    let url = nats.url();
    assert_joins(&["--cluster", &url, "--cluster-creds", &good]);
    assert_refused(&["--cluster", &url, "--cluster-creds", &bad], "authorization violation");
    // The server gets another key, and the file is replaced while the process runs.
    let mut server = Server::spawn(&mut command(
        &["--cluster", &url, "--cluster-creds", &good],
        "print(context.query('nobody', 1))
         repeat timer.sleep(0.01) until select(2, context.query('nobody', 1)) == 231
         print('away')
         repeat timer.sleep(0.01) until select(2, context.query('nobody', 1)) == 205
         print('back')",
    ));
    assert_eq!(server.line(), "false\t205");
    nats.kill();
    assert_eq!(server.line(), "away");
    seed("good.nk", &other);
    nats.config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", other.public_key());
    nats.restart();
    assert_eq!(server.line(), "back");
}

#[test]
fn a_server_may_ask_for_a_certificate() {
    let pki = Pki::new();
    let path = |name: &str| pki.path(name).display().to_string();
    let config = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, timeout: 10 }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let Some(nats) = Nats::with(&config) else { return };
    let url = format!("tls://localhost:{}", nats.port);
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let base = ["--cluster", &url, "--cluster-ca", &ca];
    let with = |more: &[&str]| [&base, more].concat().into_iter().map(str::to_owned).collect();
    let joins = |more: &[&str]| {
        let options: Vec<String> = with(more);
        assert_joins(&options.iter().map(String::as_str).collect::<Vec<_>>());
    };
    joins(&["--cluster-cert", &cert, "--cluster-key", &key]);
    // Both in one file.
    let both = [&cert, &key].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let both = pki.folder.write("both.pem", both).display().to_string();
    joins(&["--cluster-cert", &both]);
    assert_refused(&base, "certificate");
    let other = Pki::new();
    let [cert_of, key_of] =
        ["client.pem", "client.key"].map(|name| other.path(name).display().to_string());
    let options: Vec<String> = with(&["--cluster-cert", &cert_of, "--cluster-key", &key_of]);
    assert_refused(&options.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let done = run(&mut command(
        &["--cluster", &url, "--cluster-cert", &cert, "--cluster-key", &key_of],
        "print(1)",
    ));
    assert!(done.stderr.contains("client.key: ") && done.stdout.is_empty(), "{done}");
}

#[test]
fn who_may_not_use_the_subjects_is_told() {
    let config = "authorization { users: [
        { user: none, password: x, permissions: { publish: 'other.>', subscribe: 'other.>' } }
        { user: deaf, password: x, permissions: { subscribe: 'node-lua.topic.>' } }
        { user: some, password: x, permissions: { publish: {
            deny: ['node-lua.topic.secret'] } } } ] }";
    let Some(nats) = Nats::with(config) else { return };
    let url = |user: &str| format!("nats://{user}:x@127.0.0.1:{}", nats.port);
    assert_refused(&["--cluster", &url("none")], "permissions violation");
    assert_refused(&["--cluster", &url("deaf")], "permissions violation");
    assert_joins(&["--cluster", &url("some")]);
    // What is published where one may not is lost, and the log says so.
    let code = "for _ = 1, 5 do print(context.publish('secret', 1)) timer.sleep(0.02) end
        print(context.query('nobody', 1))
        timer.sleep(0.2)";
    let done = run(&mut command(&["--cluster", &url("some")], code)).succeeded();
    assert!(done.stdout.ends_with("true\t0\nfalse\t205\n"), "{done}");
    assert_eq!(done.stderr.matches("Permissions Violation").count(), 1, "{done}");
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
