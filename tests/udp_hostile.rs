//! Datagram sockets in the hands of scripts and peers that mean no good: every size, address, port
//! and option is taken or refused with a word, what is held counts, and who is destroyed in the
//! middle harms nobody.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, repository, run};

/// Calls, and what they come to: what they return, or the text of the error without the place.
const CALLS: &str = "
    local _, a = udp.open('127.0.0.1', 0)
    local _, b = udp.open('127.0.0.1', 0)
    local port = b:local_port()
    local function try(label, f, ...)
      local found = { pcall(f, ...) }
      for i = 1, #found do found[i] = tostring(found[i]):gsub('^.-:%d+: ', '') end
      print(label .. ': ' .. (found[2] and table.concat(found, ' ', 2) or 'nothing'))
    end
    local function send(...) return a:write(...) end
    for _, n in ipairs { 0, 1, 65507, 65508, 65536, 2 ^ 24 } do
      try('size ' .. n, send, ('x'):rep(n), '127.0.0.1', port, true)
    end
    local lengths = {}
    for i = 1, 3 do lengths[i] = select(2, b:read(10)):length() end
    print('got: ' .. table.concat(lengths, ' '))
    for _, address in ipairs { '', ('a'):rep(300), '127.0.0.1 ', '127.0.0.1\\0', '[127.0.0.1]',
        '127.0.0.1:53', '127.0.0.1%lo', '::1%', '255.255.255.255', '::1', 'fe80::1', 'a..b' } do
      try(('to %q'):format(address):sub(1, 24), send, 'x', address, port, true)
    end
    for _, wrong in ipairs { -1, 65536, 1.5, 0 / 0, 1 / 0, 'x' } do
      try('port ' .. tostring(wrong), send, 'x', '127.0.0.1', wrong)
    end
    for _, wrong in ipairs { 0, 256, -1, 1.5, 0 / 0, 'x' } do
      try('ttl ' .. tostring(wrong), a.set_ttl, a, wrong)
    end
    try('broadcast', a.set_broadcast, a, 1)
    for _, wrong in ipairs { '1.2.3.4', '', 'ff02::1', '224.0\\0', 5 } do
      try(('group %q'):format(wrong), a.join, a, wrong)
    end
    for _, wrong in ipairs { -1, 1.5, 2 ^ 31, 0 / 0, 'no such one', 'lo\\0', ('x'):rep(1000) } do
      try(('interface %q'):format(tostring(wrong)):sub(1, 28), a.join, a, '239.1.2.3', wrong)
    end
    try('leave', a.leave, a, '239.9.9.9')
    for _, address in ipairs { '1.2.3.4', '[::1]', 'x y' } do
      try('open ' .. address, udp.open, address, 0)
    end
    try('in use', udp.open, '127.0.0.1', port)
    for _, wrong in ipairs { -1, 2 ^ 53, 2 ^ 60, 0 / 0, 1.5 } do
      try('by number ' .. tostring(wrong), udp.write, wrong, 'x', '127.0.0.1', port)
      try('owner ' .. tostring(wrong), udp.fd_src, wrong)
    end
    local released = buffer.new('abc')
    released:release()
    try('released', send, released, '127.0.0.1', port, true)
    print('got: ' .. select(2, b:read(10)):length())
    a:close()
    try('closed', send, 'x', '127.0.0.1', port)
    os.exit(0)";

const COME_TO: &str = r#"size 0: true 0
size 1: true 0
size 65507: true 0
size 65508: false 21
size 65536: false 21
size 16777216: false 21
got: 0 1 65507
to "": false 2
to "127.0.0.1 ": false 2
to "127.0.0.1\0": false 2
to "[127.0.0.1]": false 2
to "127.0.0.1:53": false 2
to "127.0.0.1%lo": false 2
to "::1%": false 2
to "255.255.255.255": false 3
to "::1": false 7
to "fe80::1": false 7
to "a..b": false 2
port -1: bad argument #4 to 'write' (port from 0 to 65535 expected, got number -1)
port 65536: bad argument #4 to 'write' (port from 0 to 65535 expected, got number 65536)
port 1.5: bad argument #4 to 'write' (port from 0 to 65535 expected, got number 1.5)
port nan: bad argument #4 to 'write' (port from 0 to 65535 expected, got number nan)
port inf: bad argument #4 to 'write' (port from 0 to 65535 expected, got number inf)
port x: bad argument #4 to 'write' (port from 0 to 65535 expected, got string "x")
ttl 0: bad argument #2 to 'set_ttl' (integer from 1 to 255 expected, got number 0)
ttl 256: bad argument #2 to 'set_ttl' (integer from 1 to 255 expected, got number 256)
ttl -1: bad argument #2 to 'set_ttl' (integer from 1 to 255 expected, got number -1)
ttl 1.5: bad argument #2 to 'set_ttl' (integer from 1 to 255 expected, got number 1.5)
ttl nan: bad argument #2 to 'set_ttl' (integer from 1 to 255 expected, got number nan)
ttl x: bad argument #2 to 'set_ttl' (integer from 1 to 255 expected, got string "x")
broadcast: bad argument #2 to 'set_broadcast' (true or false expected, got number 1)
group "1.2.3.4": bad argument #2 to 'join' (multicast address expected, got string "1.2.3.4")
group "": bad argument #2 to 'join' (multicast address expected, got string "")
group "ff02::1": false 7
group "224.0\0": bad argument #2 to 'join' (multicast address expected, got string "224.0\0")
group "5": bad argument #2 to 'join' (multicast address expected, got number 5)
leave: false 6
open 1.2.3.4: false 6
open [::1]: false 2
open x y: false 2
in use: false 5
by number -1: false 203
by number 9.007199254741e+15: false 203
owner 9.007199254741e+15: nothing
by number 1.1529215046068e+18: false 203
owner 1.1529215046068e+18: nothing
by number nan: bad argument #1 to 'write' (number that udp.fd has returned expected, got number nan)
by number 1.5: bad argument #1 to 'write' (number that udp.fd has returned expected, got number 1.5)
released: true 0
got: 0
closed: udp socket has been closed: 'write' needs an open one (udp.is_closed tells)
"#;

#[test]
fn what_cannot_be_is_refused_with_a_word() {
    let done = run(node_lua().args(["-e", CALLS])).succeeded();
    let printed: Vec<&str> = done.stdout.lines().collect();
    for line in COME_TO.lines() {
        assert!(printed.contains(&line), "{line} is missing: {done}");
    }
    let wrong = |line: &&&str| line.starts_with("interface") && !line.contains("expected, got");
    for line in printed.iter().filter(wrong) {
        assert!(line.ends_with("false 6") || line.ends_with("false 55"), "{line}: {done}");
    }
}

/// The limit of the context under test, in MiB, and what may come on top of twice that.
const LIMIT: u64 = 16;
const SLACK: u64 = 16;

/// What scripts hold of datagrams, and in what way.
const HELD: &[(&str, &str)] = &[
    (
        "received",
        "local keep, port = {}, a:local_port()
         a:read(function(_, data) keep[#keep + 1] = data end)
         for i = 1, 6000 do
           b:write(('x'):rep(i % 3 == 0 and 60000 or 3000 + i % 3000), '127.0.0.1', port)
           if i % 16 == 0 then timer.sleep(0) end
         end
         context.destroy()",
    ),
    (
        "without bytes",
        "local keep, port = {}, a:local_port()
         a:read(function(_, data) keep[#keep + 1] = data end)
         for i = 1, 1e5 do
           b:write('', '127.0.0.1', port)
           if i % 30 == 0 then timer.sleep(0) end
         end
         context.destroy()",
    ),
    (
        "looked up",
        "for i = 1, 2000 do
           a:write(('x'):rep(60000) .. i, 'localhost', 9)
           a:write(buffer.new(('y'):rep(60000)), 'no.such.name.' .. i, 9)
         end",
    ),
    ("staged", "local s = ('x'):rep(65000) for _ = 1, 5000 do a:write(s, '127.0.0.1', 9) end"),
    (
        "staged views",
        "for _ = 1, 300 do
           local large = buffer.new(('x'):rep(2 ^ 20))
           a:write(large:slice(0, 60000), '127.0.0.1', 9)
           a:write(large:slice(0, 10), '127.0.0.1', 9)
         end",
    ),
    ("told", "for _ = 1, 3e5 do a:write('x', '127.0.0.1', 9, function() end) end"),
    (
        "by number",
        "local keep = {}
         for i = 1, 300 do
           local ok, socket = udp.open('127.0.0.1', 0)
           if not ok then break end
           keep[i] = socket
           socket:set_wshared(true) socket:join('239.1.2.3') socket:read(function() end)
         end
         for i = 1, 30 do
           for j = 1, #keep do
             udp.write(keep[j]:fd(), ('x'):rep(2000), '127.0.0.1', keep[i]:local_port())
           end
           timer.sleep(0)
         end
         context.destroy()",
    ),
    (
        "destroyed",
        "a:read(function() context.destroy() end)
         for i = 1, 1000 do
           local tell = i % 2 == 0 and function() end or nil
           a:write(('x'):rep(60000), '127.0.0.1', a:local_port(), tell)
         end
         timer.sleep(10)",
    ),
];

#[test]
fn what_is_held_of_datagrams_counts() {
    for (name, script) in HELD {
        let folder = Folder::new();
        let before =
            "local _, a = udp.open('127.0.0.1', 0) local _, b = udp.open('127.0.0.1', 0)\n";
        let case = folder.write("case.lua", [before, *script].concat());
        let mut command = node_lua();
        command.arg(repository("fuzz/holdings.lua")).arg(case).arg(LIMIT.to_string());
        let done = run(command.env("RUST_LOG", "off")).succeeded();
        let growth = done.stdout.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        let growth: u64 = growth.unwrap_or_else(|| panic!("{name}: {done}"));
        assert!(growth <= 2 * LIMIT + SLACK, "{name}: {done}");
        assert!(!done.stdout.contains("error"), "{name} is wrong itself: {done}");
    }
}

/// Who may not use the network gets nowhere, by a number that it was given either; others go on
/// when contexts end while datagrams are on their way.
#[test]
fn contexts_that_are_confined_or_end_in_the_middle_harm_nobody() {
    let folder = Folder::new();
    let confined = folder.write(
        "confined.lua",
        "local fd, port = ...
         local function show(ok, code) return tostring(ok) .. ' ' .. tostring(code) end
         local told = {
           show(udp.open('127.0.0.1', 0)), show(udp.open6('::1', 0)), show(udp.open()),
           show(udp.write(fd, 'x', '127.0.0.1', port)), show(udp.write(fd, '')),
           tostring(pcall(udp.fd_src, fd)),
         }
         udp.open('127.0.0.1', 0, function(ok, code)
           told[#told + 1] = show(ok, code)
           context.send(context.parent(), table.concat(told, ', '))
         end)",
    );
    let busy = folder.write(
        "busy.lua",
        "local port = ...
         local _, own = udp.open('127.0.0.1', 0)
         own:read(function(_, data, address, from) own:write(data, address, from) end)
         context.send(context.parent(), 'ready')
         while true do
           for i = 1, 40 do
             own:write(('x'):rep(i * 1000), '127.0.0.1', port, i % 3 == 0 and function() end or nil)
             own:write('', '127.0.0.1', own:local_port())
           end
           timer.sleep(0)
         end",
    );
    let script = format!(
        "local confined, busy = {confined:?}, {busy:?}
         local _, socket = udp.open('127.0.0.1', 0)
         socket:set_wshared(true)
         local port = socket:local_port()
         context.create({{ file = confined, deny = {{ 'network' }} }}, socket:fd(), port)
         print((select(2, context.recv(0))))
         socket:read(function(_, data, address, from) socket:write(data, address, from) end)
         for _ = 1, 60 do
           local handle = context.create(busy, port)
           context.recv(handle)
           timer.sleep(0)
           context.destroy(handle)
           context.wait(handle)
         end
         local _, other = udp.open('127.0.0.1', 0)
         repeat
           other:write('still here', '127.0.0.1', port)
           local ok, data = other:read(0.5)
         until ok and tostring(data) == 'still here'
         print('good')
         os.exit(0)"
    );
    let done = run(node_lua().args(["-e", &script])).succeeded();
    let refused = ["false 50"; 5].join(", ");
    assert_eq!(done.stdout, format!("{refused}, false, false 50\ngood\n"), "{done}");
}

/// Nobody is told what has become of a plain write once it is looked for: it is counted.
#[test]
fn datagrams_to_names_that_are_not_found_are_counted() {
    let folder = Folder::new();
    let script = "
        local _, sock = udp.open()
        sock:set_wshared(true)
        sock:write('x', 'nowhere', 9)
        udp.write(sock:fd(), 'x', 'nowhere', 9)
        print(sock:write('x', 'nowhere', 9, true))
        timer.sleep(10)
        print(sock:stat().failed, sock:stat().sent)";
    let script = folder.write("main.lua", script);
    // Of names there is none but `localhost`.
    let done = run(node_lua().args(["--simulate", "1"]).arg(script));
    assert_eq!(done.stdout, "false\t2\n3\t0\n", "{done}");
}
