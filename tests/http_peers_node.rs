//! Node.js both ways (http, http2, undici), gRPC, and chromium. What is not there is skipped, and
//! that is said; with `NODE_LUA_PEERS=all`, as in `.ci/run`, it fails.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/http.rs"]
mod http;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/pki.rs"]
mod pki;
mod support;

use http::{script, serve};
use peers::{lacks_program, node, peer};
use pki::Pki;
use support::{Folder, PATIENCE, Server, node_lua, run_for};

/// What servers have beside the usual: trailers both ways, and an answer that never ends.
const MORE: &str = "
    routes['/sum'] = function(req, res)
        local text = req:text()
        res:trailer('x-sum', #text):trailer('x-sent', req.trailers and req.trailers['x-sent'] or '')
        return res:finish('got it')
    end
    routes['/endless'] = function(_, res)
        local piece, ok, code = ('x'):rep(65536)
        repeat ok, code = res:write(piece) until not ok
        print('gone', code)
    end";

#[test]
fn node_http_is_served() {
    const CLIENT: &str = r#"
        const http = require("http");
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
        const big = Buffer.alloc(3000000, "0123456789");
        function ask(path, { pieces = [], trailers, ...options } = {}) {
            return new Promise((resolve, reject) => {
                const all = { host: "127.0.0.1", port: process.argv[2], path, agent, ...options };
                const req = http.request(all, res => {
                    const parts = [];
                    res.on("data", part => parts.push(part));
                    res.on("end", () => resolve({
                        status: res.statusCode, text: Buffer.concat(parts), headers: res.headers,
                        trailers: res.trailers, reused: req.reusedSocket, continued }));
                    res.on("error", reject);
                });
                let continued = false;
                req.on("error", reject);
                const send = () => {
                    for (const piece of pieces) req.write(piece);
                    if (trailers) req.addTrailers(trailers);
                    req.end();
                };
                if (options.headers?.Expect) {
                    req.flushHeaders();
                    req.on("continue", () => { continued = true; send(); });
                } else send();
            });
        }
        (async () => {
            let got = await ask("/");
            console.log(got.status, got.text.toString(), got.reused);
            got = await ask("/");
            console.log(got.status, got.text.toString(), got.reused);
            got = await ask("/echo", { method: "POST", pieces: [big, "x", big] });
            console.log(got.headers["transfer-encoding"], got.text.length,
                got.text.equals(Buffer.concat([big, Buffer.from("x"), big])), got.reused);
            got = await ask("/echo", { method: "POST", pieces: ["abc"],
                headers: { "Content-Length": 3, Expect: "100-continue" } });
            console.log(got.text.toString(), got.continued);
            got = await ask("/sum", { method: "POST", pieces: ["abc", "de"],
                headers: { Trailer: "x-sent", TE: "trailers" }, trailers: { "x-sent": "yes" } });
            console.log(got.text.toString(), JSON.stringify(got.trailers));
            got = await ask("/", { method: "HEAD" });
            console.log(got.text.length, got.headers["content-length"]);
            const gone = http.get({ host: "127.0.0.1", port: process.argv[2], path: "/endless" },
                res => res.once("data", () => gone.destroy()));
            gone.on("error", () => {});
            gone.on("close", async () => {
                console.log((await ask("/")).text.toString());
                agent.destroy();
            });
        })();"#;
    let folder = Folder::new();
    let Some(mut client) = node(&folder, &[], CLIENT) else { return };
    let (mut server, port) = serve("", MORE);
    let done = run_for(client.arg(port.to_string()), PATIENCE).succeeded();
    assert_eq!(
        done.stdout,
        "200 hello false\n200 hello true\nchunked 6000001 true true\nabc true\n\
         got it {\"x-sum\":\"5\",\"x-sent\":\"yes\"}\n0 5\nhello\n"
    );
    assert_eq!(server.line(), "gone\t203");
}

#[test]
fn node_http2_is_served() {
    const CLIENT: &str = r#"
        const http2 = require("http2");
        const session = http2.connect(`http://127.0.0.1:${process.argv[2]}`,
            { maxSessionMemory: 1000 });
        session.on("error", error => console.log("session", error.message));
        function ask(headers, pieces = [], trailers) {
            return new Promise((resolve, reject) => {
                const stream = session.request(headers,
                    { endStream: !pieces.length, waitForTrailers: !!trailers });
                const got = { parts: [] };
                stream.on("response", headers => { got.status = headers[":status"]; });
                stream.on("trailers", trailers => { got.trailers = trailers; });
                stream.on("data", part => got.parts.push(part));
                stream.on("end", () => resolve({ ...got, text: Buffer.concat(got.parts) }));
                stream.on("error", reject);
                if (trailers) stream.on("wantTrailers", () => stream.sendTrailers(trailers));
                for (const piece of pieces) stream.write(piece);
                stream.end();
            });
        }
        (async () => {
            let got = await ask({ ":path": "/" });
            console.log(got.status, got.text.toString());
            // More than may be under way at a time.
            const bodies = Array.from({ length: 300 }, (_, n) => Buffer.alloc(1000 * n, n + 1));
            const all = await Promise.all(bodies.map(body =>
                ask({ ":path": "/echo", ":method": "POST" }, body.length ? [body] : [])));
            console.log(all.every((got, n) => got.status === 200 && got.text.equals(bodies[n])));
            got = await ask({ ":path": "/sum", ":method": "POST" }, ["abc", "de"],
                { "x-sent": "yes" });
            console.log(got.text.toString(), got.trailers["x-sum"], got.trailers["x-sent"]);
            got = await ask({ ":path": "/", ":method": "HEAD" });
            console.log(got.status, got.text.length);
            await new Promise(done => session.ping((error, time) => done(time)));
            const gone = session.request({ ":path": "/endless" });
            gone.once("data", () => gone.close(http2.constants.NGHTTP2_CANCEL));
            gone.on("close", async () => {
                console.log((await ask({ ":path": "/" })).text.toString());
                session.close();
            });
        })();"#;
    let folder = Folder::new();
    let Some(mut client) = node(&folder, &[], CLIENT) else { return };
    let (mut server, port) = serve("http2 = true", MORE);
    let done = run_for(client.arg(port.to_string()), PATIENCE).succeeded();
    assert_eq!(done.stdout, "200 hello\ntrue\ngot it 5 yes\n200 0\nhello\n");
    assert_eq!(server.line(), "gone\t203");
}

#[test]
fn undici_is_served() {
    const CLIENT: &str = r#"
        const { Client, Agent, fetch } = require("undici");
        const [, , port, secure] = process.argv;
        const text = async res => Buffer.concat(await Array.fromAsync?.(res.body) ??
            await (async () => { const all = []; for await (const x of res.body) all.push(x);
                return all; })()).toString();
        (async () => {
            // Several on one connection, without waiting.
            const client = new Client(`http://127.0.0.1:${port}`, { pipelining: 10 });
            const all = await Promise.all(Array.from({ length: 50 }, async (_, n) => {
                const res = await client.request({ path: "/echo", method: "PUT", body: `n${n}` });
                return res.body.text();
            }));
            console.log(all.every((text, n) => text === `n${n}`));
            await client.close();
            const agent = secure && new Agent({ allowH2: true,
                connect: { ca: require("fs").readFileSync("ca.pem") } });
            async function* pieces() { for (let n = 0; n < 500; n++) yield Buffer.alloc(5000, n); }
            const urls = [`http://127.0.0.1:${port}/echo`];
            if (secure) urls.push(`https://localhost:${secure}/echo`);
            for (const url of urls) {
                const dispatcher = url.startsWith("https") ? agent : undefined;
                const res = await fetch(url,
                    { method: "POST", body: pieces(), duplex: "half", dispatcher });
                let count = 0, isSame = true;
                for await (const part of res.body) {
                    for (const byte of part) isSame &&= byte === (Math.floor(count++ / 5000) & 255);
                }
                console.log(res.status, count, isSame);
            }
            if (agent) await agent.close();
        })();"#;
    let pki = Pki::new();
    let Some(mut client) = node(&pki.folder, &["undici"], CLIENT) else { return };
    let (_server, port) = serve("", "");
    client.arg(port.to_string()).current_dir(pki.path(""));
    let mut expected = "true\n200 2500000 true\n".to_owned();
    let _secure = cfg!(feature = "tls").then(|| {
        let mut server =
            Server::spawn(&mut pki.node_lua(&script("tls = config, http2 = true", TLS)));
        client.arg(server.port().to_string());
        expected += "200 2500000 true\n";
        server
    });
    let done = run_for(&mut client, PATIENCE).succeeded();
    assert_eq!(done.stdout, expected);
}

/// Settings of TLS in a folder of [`Pki`].
const TLS: &str = "local config = context.check(tls.server{
    cert = 'server.pem', key = 'server.key', alpn = { 'h2', 'http/1.1' } })";

/// Calls of all kinds, of bytes that nobody has to describe.
#[test]
fn grpc_is_served() {
    const CLIENT: &str = r#"
        const grpc = require("@grpc/grpc-js");
        const same = bytes => bytes;
        const method = (name, requestStream, responseStream) => ({ path: `/test.Echo/${name}`,
            requestStream, responseStream, requestSerialize: same, requestDeserialize: same,
            responseSerialize: same, responseDeserialize: same });
        const Echo = grpc.makeGenericClientConstructor({
            unary: method("Unary", false, false), split: method("Split", false, true),
            join: method("Join", true, false), echo: method("Echo", true, true),
            fail: method("Fail", false, false), late: method("Late", false, true),
            never: method("Never", false, true) }, "test.Echo");
        const client = new Echo(`127.0.0.1:${process.argv[2]}`, grpc.credentials.createInsecure(),
            { "grpc.max_receive_message_length": -1 });
        const unary = (name, text, ...more) => new Promise((resolve, reject) =>
            client[name](Buffer.from(text), ...more, (error, value) =>
                error ? reject(error) : resolve(value.toString())));
        const drain = call => new Promise(resolve => {
            const parts = [];
            call.on("data", part => parts.push(part.toString()));
            call.on("error", error => resolve(`${parts.join(" ")} ${error.code} ${error.details}`));
            call.on("end", () => resolve(parts.join(" ")));
        });
        (async () => {
            console.log("unary", await unary("unary", "hello"));
            const large = "x".repeat(3000000);
            console.log("large", await unary("unary", large) === large);
            const many = Array.from({ length: 200 }, (_, n) => unary("unary", `n${n}`));
            console.log("many", (await Promise.all(many)).every((text, n) => text === `n${n}`));
            console.log("split", await drain(client.split(Buffer.from("one two three"))));
            console.log("join", await new Promise((resolve, reject) => {
                const call = client.join((error, value) =>
                    error ? reject(error) : resolve(value.toString()));
                for (const word of ["a", "b", "c"]) call.write(Buffer.from(word));
                call.end();
            }));
            // Each is sent when the one before has come back.
            const call = client.echo();
            let count = 0;
            call.write(Buffer.from("0"));
            call.on("data", data => {
                if (+data.toString() !== count) console.log("differs");
                if (++count < 20) call.write(Buffer.from(String(count)));
                else call.end();
            });
            await new Promise(resolve => call.on("status", status => {
                console.log("echo", count, status.code, status.metadata.get("x-behind")[0]);
                resolve();
            }));
            await unary("fail", "x").catch(error => console.log("fail", error.code, error.details));
            console.log("late", await drain(client.late(Buffer.from("x"))));
            const deadline = client.never(Buffer.from("x"), { deadline: Date.now() + 200 });
            console.log("never", (await drain(deadline)).slice(0, 7));
            const metadata = new grpc.Metadata();
            metadata.set("x-text", "here");
            metadata.set("x-bytes-bin", Buffer.from([0, 255]));
            console.log("metadata", await unary("unary", "?", metadata));
            client.close();
        })();"#;
    const SERVER: &str = r#"
        local function frame(text)
            return struct_pack(#text) .. text
        end
        local function reader(req)
            local rest = ""
            return function()
                while true do
                    if #rest >= 5 then
                        local a, b, c, d = rest:byte(2, 5)
                        local size = ((a * 256 + b) * 256 + c) * 256 + d
                        if #rest >= 5 + size then
                            local text = rest:sub(6, 5 + size)
                            rest = rest:sub(6 + size)
                            return text
                        end
                    end
                    local ok, data = req:read()
                    if not ok then return end
                    rest = rest .. data:tostring()
                end
            end
        end
        local function method(name, body)
            routes["/test.Echo/" .. name] = function(req, res)
                res:header("content-type", "application/grpc")
                local status, text = body(reader(req), function(text)
                    return res:write(frame(text))
                end, req, res)
                res:trailer("grpc-status", status or 0)
                if text then res:trailer("grpc-message", text) end
            end
        end
        method("Unary", function(read, write, req)
            local text = read()
            if text == "?" then text = req.headers["x-text"] .. req.headers["x-bytes-bin"] end
            write(text)
        end)
        method("Split", function(read, write)
            for word in read():gmatch("%S+") do write(word) end
        end)
        method("Join", function(read, write)
            local words = {}
            for word in read do words[#words + 1] = word end
            write(table.concat(words, "+"))
        end)
        method("Echo", function(read, write, _, res)
            for text in read do write(text) end
            res:trailer("x-behind", "the end")
        end)
        method("Late", function(_, write) write("some") return 13, "no more" end)
        method("Never", function(read, write)
            local ok, code
            repeat timer.sleep(0.01) ok, code = write("x") until not ok
            print("gone", code)
        end)
        routes["/test.Echo/Fail"] = function()
            return 200, { ["content-type"] = "application/grpc", ["grpc-status"] = 5,
                ["grpc-message"] = "not%20here" }
        end"#;
    let folder = Folder::new();
    let Some(mut client) = node(&folder, &["@grpc/grpc-js"], CLIENT) else { return };
    let pack = "local function struct_pack(n)
        return string.char(0, math.floor(n / 2 ^ 24), math.floor(n / 65536) % 256,
            math.floor(n / 256) % 256, n % 256)
    end";
    let (mut server, port) = serve("http2 = true", &format!("{pack}{SERVER}"));
    let done = run_for(client.arg(port.to_string()), PATIENCE).succeeded();
    assert_eq!(
        done.stdout,
        "unary hello\nlarge true\nmany true\nsplit one two three\njoin a+b+c\n\
         echo 20 0 the end\nfail 5 not here\nlate some 13 no more\nnever x x x x\n\
         metadata hereAP8=\n"
    );
    assert_eq!(server.line(), "gone\t203");
}

#[test]
fn node_serves() {
    const SERVER: &str = r#"
        const http = require("http"), http2 = require("http2"), fs = require("fs");
        const big = Buffer.alloc(1 << 20, "0123456789abcdef");
        async function answer(req, res) {
            const { pathname: path } = new URL(req.url, "http://x");
            if (path === "/") return res.end("hello " + req.httpVersion);
            if (path === "/echo") return req.pipe(res);
            if (path === "/close") res.setHeader("connection", "close");
            if (path === "/close") return res.end("bye");
            if (path === "/moved") res.writeHead(302, { location: "/" });
            if (path === "/moved") return res.end("there");
            if (path === "/trailers") {
                req.resume();
                req.on("end", () => {
                    res.setHeader("trailer", "x-got");
                    res.write("sum");
                    res.addTrailers({ "x-got": req.trailers["x-sent"] ?? "nothing" });
                    res.end();
                });
                return;
            }
            if (path === "/big") {
                for (let n = 0; n < 30; n++) {
                    if (!res.write(big)) await new Promise(done => res.once("drain", done));
                }
                return res.end();
            }
            if (path === "/cut") {
                // Once that is on its way.
                const session = res.stream?.session;
                const cut = () => (session ?? res.socket).destroy();
                return res.write("half", () => setTimeout(cut, 20));
            }
            if (path === "/refuse") { res.writeHead(403); return res.end("no"); }
            res.statusCode = 404;
            res.end("no " + path);
        }
        const plain = http.createServer(answer);
        plain.on("checkContinue", (req, res) => { res.writeContinue(); answer(req, res); });
        plain.listen(0, "127.0.0.1", () => {
            if (process.argv[2] !== "tls") return console.log(plain.address().port + " 0");
            const key = fs.readFileSync("server.key"), cert = fs.readFileSync("server.pem");
            const secure = http2.createSecureServer({ key, cert, allowHTTP1: true }, answer);
            secure.listen(0, "127.0.0.1", () =>
                console.log(plain.address().port + " " + secure.address().port));
        });"#;
    const CLIENT: &str = r#"
        local base, options = ...
        local function with(more)
            local all = { timeout = 50 }
            for name, value in pairs(options) do all[name] = value end
            for name, value in pairs(more or {}) do all[name] = value end
            return all
        end
        local function ask(path, more)
            more = with(more)
            more.url = base .. path
            return context.check(http.request(more))
        end
        local res = ask("/")
        print(res.status, res:text(), res.version)
        res = ask("/moved")
        print(res.status, res:text(), res.url == base .. "/")
        print(ask("/none").status, ask("/close"):text(), ask("/close"):text())
        local n = 0
        res = ask("/echo", { method = "PUT", body = function()
            n = n + 1
            if n <= 200 then return ("x"):rep(10000) .. n end
        end })
        local text = res:text()
        print(#text, text:sub(-3))
        res = ask("/echo", { body = ("y"):rep(2000000) })
        print(#res:text())
        res = ask("/trailers", { body = "abc", trailers = { ["x-sent"] = "yes" },
            headers = { te = "trailers" } })
        print(res:text(), res.trailers["x-got"])
        res = ask("/trailers", { body = "abc", trailers = function() return { ["x-sent"] = 7 } end,
            headers = { te = "trailers", trailer = "x-sent" } })
        print(res:text(), res.trailers["x-got"])
        n = 0
        for chunk in ask("/big").chunks do n = n + #chunk end
        print(n)
        local head = ask("/", { method = "HEAD" })
        print(head.status, head:text())
        res = ask("/cut")
        print(res:read(), select(2, res:text()))
        res = ask("/big")
        print(res:close())
        print(ask("/").status)
        local left = 50
        for i = 1, 50 do
            context.run(function()
                local one = ask("/echo", { body = "n" .. i }):text()
                if one ~= "n" .. i then print("differs", one) end
                left = left - 1
                if left == 0 then print("all") os.exit(0) end
            end)
        end"#;
    let pki = Pki::new();
    let Some(mut command) = node(&pki.folder, &[], SERVER) else { return };
    let mode = if cfg!(feature = "tls") { "tls" } else { "plain" };
    let mut server = Server::spawn(command.arg(mode).current_dir(pki.path("")));
    let ports = server.line();
    let (plain, secure) = ports.split_once(' ').unwrap();
    let tls =
        |alpn: &str| format!("{{ tls = context.check(tls.client{{ ca = 'ca.pem', {alpn} }}) }}");
    let mut runs = vec![(format!("http://127.0.0.1:{plain}"), "{}".to_owned(), "1.1")];
    if cfg!(feature = "tls") {
        let url = format!("https://localhost:{secure}");
        runs.push((url.clone(), tls("alpn = { 'h2', 'http/1.1' }"), "2"));
        runs.push((url, tls("alpn = { 'http/1.1' }"), "1.1"));
    }
    for (base, options, version) in runs {
        let code = CLIENT.replace("...", &format!("'{base}', {options}"));
        let mut client = node_lua();
        client.current_dir(pki.path("")).args(["-e", &code]);
        let done = run_for(&mut client, 2 * PATIENCE).succeeded();
        let said = if version == "2" { "2.0" } else { version };
        let expected = format!(
            "200\thello {said}\t{version}\n200\thello {said}\ttrue\n404\tbye\tbye\n\
             2000492\t200\n2000000\nsum\tyes\nsum\t7\n31457280\n200\t\n\
             true\t11\ta body has not come whole: software caused connection abort\n\
             true\n200\nall\n"
        );
        assert_eq!(done.stdout, expected, "{version}: {done}");
    }
}

#[test]
fn chromium_loads_a_page_and_streams_both_ways() {
    if lacks_program("chromium") {
        return;
    }
    let page = r#"<!doctype html><title>x</title><script>
        (async () => {
            const said = [location.protocol];
            said.push(await (await fetch("/")).text());
            const reader = (await fetch("/count")).body.getReader();
            let count = 0;
            for (;;) {
                const { done, value } = await reader.read();
                if (done) break;
                count += value.length;
            }
            said.push(count);
            const post = body => fetch("/echo", { method: "POST", body, duplex: "half" });
            said.push((await (await post("x".repeat(1e6))).text()).length);
            if (location.protocol === "https:") {
                let left = 100;
                const body = new ReadableStream({ pull(to) {
                    if (left-- > 0) to.enqueue(new Uint8Array(10000)); else to.close();
                } });
                said.push((await (await post(body)).arrayBuffer()).byteLength);
            }
            const all = await Promise.all(Array.from({ length: 60 }, (_, n) =>
                fetch("/echo", { method: "POST", body: "n" + n }).then(res => res.text())));
            said.push(all.every((text, n) => text === "n" + n));
            said.push(performance.getEntriesByType("navigation")[0].nextHopProtocol);
            await fetch("/said?" + said.join("_"));
        })().catch(error => fetch("/said?" + encodeURIComponent(error)));
        </script>"#;
    let code = format!(
        "routes['/page'] = function()
             return 200, {{ ['content-type'] = 'text/html' }}, [==[{page}]==]
         end
         routes['/count'] = function()
             local n = 0
             return 200, nil, function()
                 n = n + 1
                 if n <= 50 then return ('x'):rep(n * 1000) end
             end
         end
         routes['/said'] = function(req) print(req.query) return 204 end"
    );
    let pki = Pki::new();
    let mut runs = vec![("http", "", String::new(), "http:_hello_1275000_1000000_true_http/1.1")];
    if cfg!(feature = "tls") {
        let said = "https:_hello_1275000_1000000_1000000_true_h2";
        runs.push(("https", "tls = config, http2 = true", TLS.to_owned(), said));
    }
    for (scheme, options, before, said) in runs {
        let script = script(options, &format!("{before} {code}"));
        let mut server = Server::spawn(&mut pki.node_lua(&script));
        let port = server.port();
        let mut browser = peer("chromium");
        browser.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--ignore-certificate-errors",
        ]);
        browser.arg(format!("--user-data-dir={}", pki.path("profile").display()));
        let url = format!("{scheme}://localhost:{port}/page");
        let _browser = Server::spawn(browser.arg("--remote-debugging-port=0").arg(url));
        assert_eq!(server.line(), said);
    }
}
