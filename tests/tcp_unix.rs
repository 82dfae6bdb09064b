//! What stands at the path of a unix socket: only a stale socket of the same user's is replaced,
//! and nothing is ever reached through a link.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Folder, Server, node_lua, run};

/// Listens on the path given, tells how that went, and answers whoever connects.
const SERVER: &str = "
    local ok, listener = tcp.listens(arg[1])
    print(ok, ok and 'listens' or listener)
    if not ok then return end
    listener:accept(function(_, sock) sock:write('served') sock:close() end)";

fn listen(path: &Path) -> (Server, String) {
    let mut server = Server::spawn(node_lua().args(["-e", SERVER, "-"]).arg(path));
    let line = server.line();
    (server, line)
}

fn is_served(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let mut text = String::new();
    stream.read_to_string(&mut text).is_ok() && text == "served"
}

#[test]
fn what_is_no_stale_socket_is_left_as_it_is() {
    let folder = Folder::new();
    let file = folder.write("file", "precious");
    let link = folder.path("link");
    symlink(&file, &link).unwrap();
    let dangling = folder.path("dangling");
    symlink(folder.path("nothing"), &dangling).unwrap();
    let stale = folder.path("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let to_stale = folder.path("to_stale");
    symlink(&stale, &to_stale).unwrap();
    let directory = folder.path("directory");
    fs::create_dir(&directory).unwrap();
    let fifo = folder.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = fs::symlink_metadata(&stale).unwrap().ino();
    for path in [&file, &link, &dangling, &to_stale, &directory, &fifo] {
        assert_eq!(listen(path).1, "false\t5", "{}", path.display());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fs::read_link(&link).unwrap(), file);
    assert!(!folder.path("nothing").exists());
    assert!(fs::symlink_metadata(&dangling).unwrap().file_type().is_symlink());
    assert_eq!(fs::symlink_metadata(&stale).unwrap().ino(), before);
    assert!(fs::symlink_metadata(&to_stale).unwrap().file_type().is_symlink());
    assert!(directory.is_dir());
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
}

#[test]
fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    let folder = Folder::new();
    let path = folder.path("server.sock");
    drop(UnixListener::bind(&path).unwrap());
    let (first, line) = listen(&path);
    assert_eq!(line, "true\tlistens");
    assert!(is_served(&path));
    let inode = fs::metadata(&path).unwrap().ino();
    for _ in 0..3 {
        assert_eq!(listen(&path).1, "false\t5");
    }
    // The one in use has not noticed, and the file is the same.
    assert!(is_served(&path));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    // Killed, it leaves the file behind: the next one takes its place.
    first.signal("KILL");
    drop(first);
    let (second, line) = listen(&path);
    assert_eq!(line, "true\tlistens");
    assert!(is_served(&path));
    // The file stays at the end: whatever stands there by then may be another's.
    second.signal("TERM");
    assert_eq!(second.finish(support::PATIENCE).code(), Some(143));
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert!(UnixStream::connect(&path).is_err());
}

/// Of many who find the same stale socket one gets the name: nobody listens where none gets to.
#[test]
fn of_many_who_replace_a_stale_socket_one_listens() {
    let script = "
        local role, path = ...
        if role == 'try' then
          while true do
            context.recv(context.parent())
            local ok, listener = tcp.listens(path)
            context.send(context.parent(), ok or listener)
            context.recv(context.parent())
            if ok then listener:close() end
            context.send(context.parent(), 'closed')
          end
        end
        path = role
        local all, results = {}, {}
        for i = 1, 6 do all[i] = context.create(arg[0], 'try', path) end
        local function each(value)
          for _, handle in ipairs(all) do context.send(handle, value) end
          for i, handle in ipairs(all) do
            local _, answer = context.recv(handle)
            if value == 'listen' then
              results[answer] = (results[answer] or 0) + 1
            end
          end
        end
        for _ = 1, 1500 do
          each 'listen'
          each 'close'
        end
        print(results[true], results[5])
        os.exit(0)";
    let folder = Folder::new();
    let script = folder.write("many.lua", script);
    let mut command = support::node_lua();
    command.args(["--workers", "4"]).arg(script).arg(folder.path("server.sock"));
    let done = support::run(&mut command).succeeded();
    assert_eq!(done.stdout, "1500\t7500\n", "{done}");
}

#[test]
fn a_stale_socket_of_another_user_is_left_alone() {
    let folder = Folder::new();
    let path = folder.path("theirs.sock");
    drop(UnixListener::bind(&path).unwrap());
    // Only root may give files away; for others there is nothing to be tested here.
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_err() {
        return;
    }
    assert_eq!(listen(&path).1, "false\t5");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 65_534);
}

#[test]
fn the_file_has_the_permissions_that_the_umask_leaves() {
    let folder = Folder::new();
    let path = folder.path("private.sock");
    let node_lua = node_lua();
    let mut command = Command::new("sh");
    command.stdin(Stdio::null()).args(["-c", "umask 077; exec \"$0\" \"$@\""]);
    command.arg(node_lua.get_program()).args(["-e", SERVER, "-"]).arg(&path);
    let mut server = Server::spawn(&mut command);
    assert_eq!(server.line(), "true\tlistens");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn paths_that_name_no_file_raise() {
    // A name that begins with a zero byte would be one that any user may connect to.
    let script = "for _, path in ipairs { '', '\\0name', '/tmp/a\\0b', ('x'):rep(108) } do
                    print((pcall(tcp.listens, path)), (pcall(tcp.connects, path)))
                  end
                  print(tcp.listens('/nowhere/at/all'))";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, format!("{}false\t34\n", "false\tfalse\n".repeat(4)), "{done}");
}

#[test]
fn a_half_closed_unix_stream_still_gets_its_answer() {
    let folder = Folder::new();
    let path = folder.path("echo.sock");
    let code = "local _, listener = tcp.listens(arg[1])
                listener:accept(function(_, sock)
                  sock:read(function(good, data)
                    if good then sock:write(data) else sock:close() end
                  end)
                end)
                print('ready')";
    let mut server = Server::spawn(node_lua().args(["-e", code, "-"]).arg(&path));
    assert_eq!(server.line(), "ready");
    let mut stream = UnixStream::connect(&path).unwrap();
    let bytes = vec![5; 100_000];
    stream.write_all(&bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == bytes);
}
