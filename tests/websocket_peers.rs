//! WebSocket with other programs: npm's `ws` both ways, chromium with the page of the example, and
//! kosoku, which has the cases of the Autobahn test suite. One that is not there is skipped, and
//! that is said; with `NODE_LUA_PEERS=all`, as in `.ci/run`, it fails.

#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::process::Command;

use peers::{lacks, lacks_program, tool};
use support::{Folder, PATIENCE, Server, free_port, node_lua, repository, run, run_for};

/// A script for Node.js that has `ws`.
fn node(folder: &Folder, script: &str, args: &[&str]) -> Option<Command> {
    let script = format!("const WebSocket = require(\"ws\");\n{script}");
    let mut command = peers::node(folder, &["ws"], &script)?;
    command.args(args);
    Some(command)
}

/// Echoes messages, and says how each conversation has ended.
const ECHO: &str = r#"
    local listener = context.check(tcp.listen("127.0.0.1", 0))
    print(tcp.local_port(listener))
    listener:accept(function(_, sock)
      local ok, ws = websocket.accept(sock, { deflate = true, protocols = { "echo" } })
      if not ok then return end
      while true do
        local good, data, kind = ws:recv()
        if not good then return print("ended", data, kind) end
        ws:send(data, kind)
      end
    end)"#;

#[test]
fn npm_ws_is_served() {
    const CLIENT: &str = r#"
        const [port, deflate] = process.argv.slice(2);
        const options = { perMessageDeflate: deflate === "true" };
        const ws = new WebSocket(`ws://127.0.0.1:${port}/`, ["other", "echo"], options);
        const sent = ["hello", "", "ä€😀", Buffer.from([0, 255]), "x".repeat(70000),
            Buffer.alloc(1000000, 7)];
        let next = 0;
        ws.on("open", () => {
            console.log(ws.protocol, ws.extensions.split(";")[0]);
            for (const one of sent) ws.send(one);
            ws.send("in ", { fin: false });
            ws.ping("still there?");
            ws.send("two parts", { fin: true });
        });
        ws.on("pong", data => console.log("pong", data.toString()));
        ws.on("message", (data, isBinary) => {
            if (next < sent.length) {
                const expected = sent[next++];
                const same = data.equals(Buffer.from(expected));
                if (!same || isBinary === (typeof expected === "string")) console.log("differs");
                return;
            }
            console.log(data.toString());
            ws.close(3456, "enough");
        });
        ws.on("close", (code, reason) => console.log("closed", code, reason.toString()));
        ws.on("error", error => console.log("error", error.message));"#;
    let folder = Folder::new();
    let mut server = Server::start(["-e", ECHO]);
    let port = server.port().to_string();
    for (deflate, extension) in [("false", ""), ("true", "permessage-deflate")] {
        let Some(mut client) = node(&folder, CLIENT, &[&port, deflate]) else { return };
        let done = run(&mut client).succeeded();
        let expected = format!("echo {extension}\npong still there?\nin two parts\nclosed 3456 \n");
        assert_eq!(done.stdout, expected);
        assert_eq!(server.line(), "ended\t3456\tenough");
    }
}

#[test]
fn npm_ws_serves() {
    const SERVER: &str = r#"
        const deflate = { serverNoContextTakeover: true, clientNoContextTakeover: true };
        const server = new WebSocket.Server({
            port: 0, host: "127.0.0.1", perMessageDeflate: deflate,
            handleProtocols: offered => offered.has("chat") && "chat",
            verifyClient: ({ req }, done) => done(req.url !== "/no", 403, "Not you"),
        });
        server.on("listening", () => console.log(server.address().port));
        server.on("connection", ws => {
            ws.on("pong", data => ws.send("pong " + data));
            ws.on("message", (data, isBinary) => {
                const text = data.toString();
                if (text === "ping me") return ws.ping("hi");
                if (text === "close me") return ws.close(4001, "as you wish");
                if (text === "drop me") return ws.terminate();
                ws.send(data, { binary: isBinary });
            });
            ws.on("close", (code, reason) => console.log("closed", code, reason.toString()));
        });"#;
    const CLIENT: &str = r#"
        local url = "ws://127.0.0.1:PORT"
        print(select(2, websocket.connect(url .. "/no")))
        for _, deflate in ipairs({ false, true }) do
          local options = { protocols = { "x", "chat" }, deflate = deflate, timeout = 50 }
          local function connect() return context.check(websocket.connect(url, options)) end
          local ws = connect()
          for _, size in ipairs({ 0, 5, 125, 126, 65536, 1000000 }) do
            for _, kind in ipairs({ "text", "binary" }) do
              local body = ("x"):rep(size)
              ws:send(body, kind)
              local ok, data, got = ws:recv(50)
              if not ok or data:tostring() ~= body or got ~= kind then print(size, ok, data) end
            end
          end
          ws:send("ping me")
          print(ws:protocol(), select(2, ws:recv(50)))
          ws:send("close me")
          print(ws:recv(50))
          ws = connect()
          ws:send("drop me")
          print(ws:recv(50))
          ws = connect()
          ws:close(3000, "bye")
        end"#;
    let folder = Folder::new();
    let Some(mut command) = node(&folder, SERVER, &[]) else { return };
    let mut server = Server::spawn(&mut command);
    let port = server.port().to_string();
    let done = run(node_lua().args(["-e", &CLIENT.replace("PORT", &port)])).succeeded();
    let round = "chat\tpong hi\ttext\nfalse\t4001\tas you wish\nfalse\t1\tnil\n";
    let refused = "223\tthe server answers 403 Forbidden\t403\n";
    assert_eq!(done.stdout, format!("{refused}{round}{round}"));
    // A connection's end may be seen after that of the next one.
    let mut ends: Vec<_> = (0..6).map(|_| server.line()).collect();
    ends.sort();
    ends.dedup();
    assert_eq!(ends, ["closed 1006 ", "closed 3000 bye", "closed 4001 "]);
}

/// The cases that do not measure speed, and how many they are.
const CASES: &[&str] = &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
const CASES_PASS: &str = "247 cases passed";

/// kosoku with these cases, which writes what it finds into a folder.
fn kosoku(folder: &Folder, mode: &str, cases: impl IntoIterator<Item = String>) -> Option<Command> {
    let kosoku = tool("peers/bin/kosoku");
    if !kosoku.exists() && lacks("kosoku") {
        return None;
    }
    // What it says may be on standard error.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(&kosoku);
    command.env("PYTHONUNBUFFERED", "1").current_dir(folder.path(""));
    command.args(["-p", "4", "-o", "reports", "-m", mode]);
    for case in cases {
        command.args(["-i", &case]);
    }
    Some(command)
}

#[test]
fn the_cases_of_autobahn_pass() {
    let folder = Folder::new();
    let mut server = Server::start(["-e", ECHO]);
    let address = format!("127.0.0.1:{}", server.port());
    // Of deflate, three of each way to agree on it: all 216 take minutes.
    let groups = (1..6).map(|group| format!("12.{group}"));
    let groups = groups.chain((1..8).map(|group| format!("13.{group}")));
    let deflated = groups.flat_map(|group| (1..4).map(move |size| format!("{group}.{size}")));
    let plain: Vec<String> = CASES.iter().map(|&case| case.to_owned()).collect();
    for (cases, passed) in [(plain, CASES_PASS), (deflated.collect(), "36 cases passed")] {
        let Some(mut command) = kosoku(&folder, "fuzzingclient", cases) else { return };
        let done = run_for(command.arg(&address), 5 * PATIENCE).succeeded();
        assert!(done.stdout.contains(passed), "{done}");
    }
}

/// The same with a client of ours, which sends back what comes.
#[test]
fn the_cases_of_autobahn_pass_the_other_way_round() {
    let folder = Folder::new();
    let address = format!("127.0.0.1:{}", free_port());
    let cases = CASES.iter().map(|&case| case.to_owned());
    let Some(mut command) = kosoku(&folder, "fuzzingserver", cases) else { return };
    let mut server = Server::spawn(command.arg(&address));
    assert!(server.line().contains("listening"));
    let client = r#"
        local function visit(address, path, is_case)
          local options = { deflate = true, max_message = 2 ^ 26 }
          local ws, last = context.check(websocket.connect("ws://" .. address .. path, options))
          while true do
            local ok, data, kind = ws:recv()
            if not ok then return last end
            last = data:tostring()
            if is_case then ws:send(data, kind) end
          end
        end
        local address = "ADDRESS"
        for number = 1, tonumber(visit(address, "/getCaseCount")) do
          visit(address, "/runCase?case=" .. number .. "&agent=node-lua", true)
        end
        visit(address, "/updateReports?agent=node-lua")"#;
    let client = client.replace("ADDRESS", &address);
    run_for(node_lua().args(["-e", &client]), 5 * PATIENCE).succeeded();
    loop {
        let line = server.line();
        if line.contains("cases") && !line.contains("wrote") {
            assert_eq!(line, CASES_PASS);
            break;
        }
    }
}

#[cfg(feature = "http")]
#[test]
fn chromium_chats() {
    if lacks_program("chromium") {
        return;
    }
    let folder = Folder::new();
    let port = free_port();
    let mut server = Server::start([
        repository("examples/chat_ws_server.lua").to_str().unwrap(),
        &port.to_string(),
    ]);
    server.line();
    let page = format!("http://127.0.0.1:{port}/?name=Ada&say=hello%20all");
    // The browser's clock runs ahead while nothing is under way that it knows of; seldom it is
    // through with its time before the answer has come.
    let looks = (0..5).map(|_| {
        let mut browser = Command::new("chromium");
        browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
        browser.arg(format!("--user-data-dir={}", folder.path("profile").display()));
        browser.args(["--virtual-time-budget=60000", &page]);
        run_for(&mut browser, 2 * PATIENCE).succeeded()
    });
    let seen: Vec<_> =
        looks.take_while(|done| !done.stdout.contains("<p>Ada: hello all</p>")).collect();
    assert!(seen.len() < 5, "{}", seen[0]);
}
