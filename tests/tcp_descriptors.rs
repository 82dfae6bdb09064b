//! At the limit of descriptors: what nobody refers to is collected, and calls go on; what cannot be
//! accepted waits; nobody is starved by garbage, not even by that of another context.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Read;
use std::process::Command;

use support::{Done, Folder, Server, connect, run};

/// The binary with room for so many descriptors.
fn limited(limit: u32) -> Command {
    let mut command = Command::new("sh");
    let code = format!("ulimit -n {limit}; exec \"$@\"");
    command.args(["-c", &code, "sh", env!("CARGO_BIN_EXE_node-lua")]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_LOG");
    command
}

/// Runs a script with room for 64 descriptors.
fn run_limited(script: &str) -> Done {
    run(limited(64).args(["-e", script])).succeeded()
}

#[test]
fn garbage_makes_room_for_every_kind_of_call() {
    let script = "
        local path = os.tmpname()
        os.remove(path)
        local _, listener = tcp.listen('127.0.0.1', 0)
        local _, unix = tcp.listens(path)
        listener:accept(function() end)
        unix:accept(function() end)
        local port, done = tcp.local_port(listener), { 0, 0, 0, 0 }
        local told = {}
        local function count(kind, ok) if ok then done[kind] = done[kind] + 1 end end
        for i = 1, 100 do
          count(1, (tcp.connect('127.0.0.1', port, 30)))
          count(2, (tcp.connects(path, 30)))
          count(3, (tcp.listen('127.0.0.1', 0)))
          tcp.connect('127.0.0.1', port, function(...) told[#told + 1] = { ... } end)
          while #told < i do timer.sleep(0.001) end
          count(4, told[i][1])
          told[i] = true
        end
        print(table.concat(done, ' '))
        os.remove(path)
        listener:close()
        unix:close()";
    assert_eq!(run_limited(script).stdout, "100 100 100 100\n");
}

#[test]
fn half_read_sockets_and_waiting_writes_are_garbage_too() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0)
        listener:accept(function(_, sock)
          sock:set_rwopt({ read_head_bytes = 2 })
          sock:read(0.0005)
        end)
        local made = 0
        for i = 1, 150 do
          local ok, sock = tcp.connect('127.0.0.1', tcp.local_port(listener), 30)
          if ok then
            made = made + 1
            sock:write('\\5')
            sock:write(('x'):rep(1000))
          end
        end
        print(made)
        listener:close()";
    assert_eq!(run_limited(script).stdout, "150\n");
}

#[test]
fn who_holds_all_descriptors_gets_code_20_until_some_are_let_go() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0, 4096)
        local port, held = tcp.local_port(listener), {}
        local ok, sock
        repeat
          ok, sock = tcp.connect('127.0.0.1', port, 30)
          held[#held + 1] = ok and sock or nil
        until not ok
        print(#held > 20, sock, tcp.listen('127.0.0.1', 0))
        print(tcp.connect('127.0.0.1', port))
        held = nil
        print((tcp.connect('127.0.0.1', port)))
        print((tcp.listen('127.0.0.1', 0)))";
    assert_eq!(run_limited(script).stdout, "true\t20\tfalse\t20\nfalse\t20\ntrue\ntrue\n");
}

/// Each time there is one piece of garbage only.
#[test]
fn one_free_descriptor_is_enough() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0, 4096)
        local port, held = tcp.local_port(listener), {}
        while true do
          local ok, sock = tcp.connect('127.0.0.1', port, 30)
          if not ok then break end
          held[#held + 1] = sock
        end
        local made = 0
        held[1] = nil
        for i = 1, 30 do
          if tcp.connect('127.0.0.1', port, 30) then made = made + 1 end
        end
        print(made)";
    assert_eq!(run_limited(script).stdout, "30\n");
}

#[test]
fn garbage_of_another_context_makes_room() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "local port = ...
         if port then
           -- Leaves sockets behind, and idles.
           for i = 1, 40 do tcp.connect('127.0.0.1', port, 30) end
           context.send(context.parent(), 'done')
           return context.recv(0)
         end
         local _, listener = tcp.listen('127.0.0.1', 0, 4096)
         port = tcp.local_port(listener)
         local other = context.create(arg[0], port)
         context.recv(other)
         local held, made = {}, 0
         for i = 1, 30 do
           local ok, sock = tcp.connect('127.0.0.1', port, 30)
           if ok then
             made = made + 1
             held[made] = sock
           end
         end
         print(made)
         context.destroy(other)",
    );
    let done = run(limited(64).arg(script)).succeeded();
    assert_eq!(done.stdout, "30\n", "{done}");
}

/// Who creates contexts has the garbage; it is they who open their scripts.
#[test]
fn garbage_of_the_creator_makes_room_for_scripts() {
    let folder = Folder::new();
    for i in 1..=60 {
        folder.write(&format!("child{i}.lua"), "context.send(context.parent(), 'here')");
    }
    let script = folder.write(
        "main.lua",
        "local _, listener = tcp.listen('127.0.0.1', 0, 4096)
         local port, made = tcp.local_port(listener), { sockets = 0, files = 0, together = 0 }
         local garbage = {
           sockets = function() tcp.connect('127.0.0.1', port, 30) end,
           files = function() for _ = 1, 3 do io.open('/dev/null') end end,
         }
         local folder = arg[0]:match('.*/')
         for kind, make in pairs(garbage) do
           for i = 1, 60 do
             make()
             local child = context.create(folder .. 'child' .. i .. '.lua')
             if context.recv(child, 30) then made[kind] = made[kind] + 1 end
           end
         end
         local ended = 0
         for i = 1, 60 do
           garbage.sockets()
           local child = context.create(folder .. 'child' .. i .. '.lua')
           context.monitor(child, function(_, reason)
             ended = ended + 1
             if reason == 'normal' then made.together = made.together + 1 end
           end)
         end
         while ended < 60 do timer.sleep(0.01) end
         print(made.sockets, made.files, made.together)
         context.exit(0)",
    );
    let done = run(limited(64).arg(script)).succeeded();
    assert_eq!(done.stdout, "60\t60\t60\n", "{done}");
}

/// Certificates and files that are sent need one, too.
#[test]
fn garbage_makes_room_for_files_of_the_library() {
    let script = "
        local path = os.tmpname()
        local file = io.open(path, 'w')
        file:write(require('support.certificates').ca)
        file:close()
        local _, server = http.serve('127.0.0.1', 0, function(_, res) res:sendfile(path) end)
        local made = 0
        for i = 1, 20 do
          for _ = 1, 10 do io.open('/dev/null') end
          if tls.client({ ca = path }) then made = made + 1 end
          for _ = 1, 10 do io.open('/dev/null') end
          local _, res = http.get('http://127.0.0.1:' .. server:port())
          if res.status == 200 then made = made + 1 end
          res:text()
        end
        print(made)
        os.remove(path)
        server:close(0)";
    let mut command = limited(64);
    command.args(["-e", script]).env("LUA_PATH", "tests/lua/?.lua;;");
    assert_eq!(run(&mut command).succeeded().stdout, "40\n");
}

/// The system's authorities are read when they are first asked for: without a descriptor that is
/// not the fault of the system's certificates, and it goes better once there is one.
#[test]
fn without_descriptors_the_systems_certificates_are_read_later() {
    let script = "
        local held = {}
        repeat
          local file, _, code = io.open('/dev/null')
          held[#held + 1] = file
        until not file
        print(tls.client({}))
        print(http.get('https://127.0.0.1:1/', { proxy = false }))
        for _, file in ipairs(held) do file:close() end
        print((tls.client({})))
        held = nil
        for i = 1, 100 do io.open('/dev/null') end
        print((tls.client({})))";
    let folder = support::Folder::new();
    let pem = folder.write(
        "ca.pem",
        support::run(support::node_lua().args([
            "-e",
            "package.path = 'tests/lua/?.lua;' .. package.path
         io.write(require('support.certificates').ca)",
        ]))
        .succeeded()
        .stdout,
    );
    let mut command = limited(64);
    let done = run(command.args(["-e", script]).env("SSL_CERT_FILE", pem)).succeeded();
    let why = "false\t20\tca: the system's certificates cannot be read: too many open files\n";
    assert_eq!(done.stdout, format!("{why}{why}true\ntrue\n"), "{done}");
    assert!(!done.stderr.contains("CA root"), "{done}");
}

#[test]
fn connections_that_cannot_be_accepted_wait_until_they_can() {
    let script = "
        local held, first = {}, true
        local _, listener = tcp.listen('127.0.0.1', 0)
        listener:accept(function(_, sock)
          held[#held + 1] = sock
          sock:read(function(ok)
            if ok then sock:write('served') end
            sock:close()
          end)
        end)
        print(tcp.local_port(listener))";
    let mut server = Server::spawn(limited(40).args(["-e", script]));
    let port = server.port();
    let mut clients: Vec<_> = (0..80).map(|_| connect(port)).collect();
    for client in &mut clients {
        std::io::Write::write_all(client, b"x").unwrap();
    }
    // The first ones make room for the others as they are served.
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
    }
}

#[test]
fn sockets_that_nobody_refers_to_do_not_pile_up() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0)
        listener:accept(function() end)
        local port, most = tcp.local_port(listener), 0
        for i = 1, 6000 do
          assert(tcp.connect('127.0.0.1', port))
          if i % 50 == 0 then most = math.max(most, context.stat().sockets) end
        end
        print(most < 6000, most)
        listener:close()";
    support::with_many_files("sockets_that_nobody_refers_to_do_not_pile_up", || {
        let done = run(support::node_lua().args(["-e", script])).succeeded();
        assert!(done.stdout.starts_with("true\t"), "{done}");
    });
}

#[test]
fn files_and_children_find_room_too() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0)
        listener:accept(function() end)
        local port, name, done = tcp.local_port(listener), os.tmpname(), {}
        local function fill()
          -- Half of the descriptors are sockets, half are files; nobody refers to any of them.
          for i = 1, 40 do tcp.connect('127.0.0.1', port, 30) io.open(name) end
        end
        local function count(name, result) done[name] = (done[name] or 0) + (result and 1 or 0) end
        for i = 1, 10 do
          fill()
          count('open', io.open(name))
          fill()
          local pipe = io.popen('echo hello')
          count('popen', pipe and pipe:read('*a') == 'hello\\n')
          fill()
          local temporary = os.tmpname()
          count('tmpname', os.remove(temporary))
          fill()
          count('tmpfile', io.tmpfile())
          fill()
          count('loadfile', loadfile(name))
        end
        print(done.open, done.popen, done.tmpname, done.tmpfile, done.loadfile)
        os.remove(name)
        listener:close()";
    assert_eq!(run_limited(script).stdout, "10\t10\t10\t10\t10\n");
}

#[test]
fn files_that_are_held_are_too_many_until_they_are_let_go() {
    let script = "
        local held, why, number = {}
        for i = 1, 3 do
          local file
          repeat
            file, why, number = io.open('/dev/null')
            held[#held + 1] = file
          until not file
          io.write(tostring(#held > 30), ' ', number, ' ')
          held = {}
          io.write(tostring((io.open('/dev/null')) ~= nil), ' ')
        end";
    assert_eq!(run_limited(script).stdout, "true 24 true true 24 true true 24 true ");
}

/// A coroutine that fails has left its sockets behind: their peers need not wait for memory to run
/// low.
#[test]
fn what_a_failed_coroutine_held_is_closed_soon() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0)
        timer.timeout(3600, print)
        context.run(function()
          while true do
            local _, sock = listener:accept()
            sock:read()
            error('on purpose')
          end
        end)
        local _, client = tcp.connect('127.0.0.1', tcp.local_port(listener))
        client:write('x')
        print(client:read(30))
        context.destroy()";
    let done = run(support::node_lua().args(["-e", script]));
    assert_eq!(done.stdout, "false\t1\n", "{done}");
}
