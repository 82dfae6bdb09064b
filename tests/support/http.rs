//! Servers of HTTP, and clients that are nothing but sockets.

#![allow(dead_code, reason = "every test crate uses some of the helpers")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use super::support::{Folder, PATIENCE, Server, connect};

/// What all servers have.
const ROUTES: &str = "
    local routes = {}
    routes['/'] = function() return 200, { ['content-type'] = 'text/plain' }, 'hello' end
    routes['/echo'] = function(req, res)
        for chunk in req.chunks do res:write(chunk) end
    end
    routes['/text'] = function(req) return 200, nil, tostring(req:text()) end
    routes['/read'] = function(req)
        print('reading')
        local ok, data
        repeat ok, data = req:read() until not ok
        print('read ' .. data)
    end
";

/// A server with these routes and options, in which `code` may add others; and its port.
pub(crate) fn serve(options: &str, code: &str) -> (Server, u16) {
    let mut server = Server::start(["-e", &script(options, code)]);
    let port = server.port();
    (server, port)
}

/// The same in a context that may take so many bytes of memory; its script is in the folder.
pub(crate) fn serve_within(memory: u64, options: &str, code: &str) -> (Server, u16, Folder) {
    let folder = Folder::new();
    let child = folder.write("child.lua", script(options, code));
    let main = format!("context.create({{ file = '{}', memory = {memory} }})", child.display());
    let mut server = Server::start(["-e", &main]);
    let port = server.port();
    (server, port, folder)
}

/// The script of such a server.
pub(crate) fn script(options: &str, code: &str) -> String {
    format!(
        "{ROUTES} {code}
         local ok, server
         ok, server = http.serve('127.0.0.1', 0, {{ {options} }}, function(req, res)
             local route = routes[req.path]
             if not route then return 404, nil, 'no ' .. req.path end
             return route(req, res, server)
         end)
         print(server:port())"
    )
}

/// All that comes until the server closes, without dates.
pub(crate) fn rest(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    // A reset ends it too.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// What comes until the server closes, or until it ends so.
pub(crate) fn until(stream: &mut TcpStream, end: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) && matches!(stream.read(&mut byte), Ok(1)) {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes; what comes until the server closes.
pub(crate) fn ask(port: u16, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(port);
    stream.write_all(request.as_ref()).unwrap();
    rest(stream)
}

/// Gets a path on a connection of its own.
pub(crate) fn get(port: u16, path: &str) -> String {
    ask(port, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

/// The statuses of answers, and `cut` if the last, in chunks, is not whole.
pub(crate) fn statuses(text: &str) -> String {
    let found = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    let mut all = found.collect::<Vec<_>>().join(" ");
    if text.contains("chunked") && !text.contains("\r\n0\r\n") {
        all += " cut";
    }
    all
}

/// What curl prints.
pub(crate) fn curl(port: u16, path: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "60"])
        .args(arguments)
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .unwrap();
    [output.stdout, output.stderr].concat()
}
