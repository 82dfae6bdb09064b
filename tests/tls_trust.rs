//! Whom TLS trusts, and what is said of whom it does not.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/pki.rs"]
mod pki;
mod support;

use pki::Pki;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use support::run;

#[test]
fn refusals_say_which_certificate_and_why() {
    let pki = Pki::new();
    pki.add("old", "old.example", &["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 2, 3);
        params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    });
    pki.add("young", "young.example", &["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2901, 2, 3);
        params.not_after = rcgen::date_time_ymd(2902, 3, 4);
    });
    let script = r#"
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        local function try(name, options)
          local server = context.check(tls.server{ cert = name .. ".pem", key = name .. ".key" })
          context.run(function() select(2, listener:accept()):start_tls(server) end)
          local sock = context.check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
          print(select(2, sock:start_tls(context.check(tls.client(options)), "localhost")))
          sock:close()
        end
        try("old", { ca = "ca.pem" })
        try("young", { ca = "ca.pem" })
        try("server", {})
        try("server", { verify = false })
        try("old", { verify = false })
        os.exit(0)"#;
    let done = run(&mut pki.node_lua(script)).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    for (line, words) in lines.iter().zip([
        &["221", "\"CN=old.example\"", "to 2002-03-04 00:00:00 UTC", "it has expired"][..],
        &["221", "\"CN=young.example\"", "from 2901-02-03", "it is not valid yet"],
        &["221", "\"CN=localhost\"", "issued by \"CN=Test CA\"", "its issuer is not trusted"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert!(lines[3].starts_with("tcp socket") && lines[4].starts_with("tcp socket"), "{done}");
    assert_eq!(done.stderr.matches("not verified").count(), 1, "{done}");
}

/// `openssl req -x509` makes certificates so: they have signed themselves, and say that they are of
/// an authority. Who trusts one takes it from who shows it, under its name and in its time.
#[test]
fn a_certificate_that_is_trusted_itself_may_be_shown() {
    let pki = Pki::new();
    let add = |file: &str, ca: IsCa, name: &str, until: i32| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = ca;
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        pki.folder.write(&format!("{file}.pem"), params.self_signed(&key).unwrap().pem());
        pki.folder.write(&format!("{file}.key"), key.serialize_pem());
    };
    let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
    add("self", authority(), "localhost", 2901);
    add("plain", IsCa::NoCa, "localhost", 2901);
    add("other", authority(), "other.example", 2901);
    add("old", authority(), "localhost", 2002);
    let script = r#"
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        local function identity(name) return name .. ".pem", name .. ".key" end
        local function try(name, ca, shown, client_ca)
          local cert, key = identity(name)
          local server = context.check(tls.server{ cert = cert, key = key, client_ca = client_ca })
          local finished
          context.run(function()
            local _, sock = listener:accept()
            local ok, code, text = sock:start_tls(server)
            if not ok then print("server", code, text) end
            if ok then sock:write("well") end
            finished = sock
          end)
          local sock = context.check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
          local options = { ca = ca }
          if shown then options.cert, options.key = identity(shown) end
          local ok, code, text = sock:start_tls(context.check(tls.client(options)), "localhost")
          if ok then print("client", sock:read()) else print("client", code, text) end
          while not finished do timer.sleep(0.001) end
          sock:close()
          finished:close()
        end
        try("self", "self.pem")
        try("plain", "plain.pem")
        try("other", "other.pem")
        try("old", "old.pem")
        try("self", "other.pem")
        try("self", "self.pem", "other", "other.pem")
        try("self", "self.pem", "old", "old.pem")
        try("self", "self.pem", "self", "other.pem")
        os.exit(0)"#;
    let done = run(&mut pki.node_lua(script)).succeeded();
    let lines: Vec<&str> =
        done.stdout.lines().filter(|line| *line != "client\tfalse\t221").collect();
    let refuses = "server\t221\tthe client refuses our certificate";
    let of_authority = "it is one of an authority (CA:TRUE), which is not trusted itself";
    let expected: [&[&str]; 11] = [
        &["client\ttrue\twell"],
        &["client\ttrue\twell"],
        &["client\t221", "it is for other.example, not for 'localhost'"],
        &[refuses],
        &["client\t221", "it has expired"],
        &[refuses],
        &["client\t221", of_authority],
        &[refuses],
        &["client\ttrue\twell"],
        &["server\t221", "of the client refused: it has expired"],
        &["server\t221", "of the client refused", of_authority],
    ];
    assert_eq!(lines.len(), expected.len(), "{done}");
    for words in expected {
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        assert!(lines.iter().any(fits), "{words:?}: {done}");
    }
}
