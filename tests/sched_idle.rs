//! A process with nothing to do does nothing: no thread of it runs, not even for an instant.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use support::{Folder, Server};

/// How long nothing must happen. The one sleep in these tests: time itself is what is tested.
const WATCHED: Duration = Duration::from_secs(3);

/// Settling may take this many times [`WATCHED`]: a loaded machine finishes late, never restarts.
const ATTEMPTS: usize = 5;

/// Context switches of all threads of a process since each began.
fn switches(process: u32) -> u64 {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        // One that has just ended is missing from the sum, which is another then.
        let status = task.and_then(|task| fs::read_to_string(task.path().join("status")));
        let Ok(status) = status else { continue };
        for line in status.lines().filter(|line| line.contains("voluntary_ctxt_switches")) {
            sum += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

#[test]
fn an_idle_process_makes_no_context_switch() {
    let folder = Folder::new();
    folder.write(
        "idle.lua",
        "context.send((...), 'up')
         timer.timeout(3600, print)
         context.recv(0, function() end)",
    );
    let main = folder.write(
        "main.lua",
        "local here = arg[0]:match('^(.*)/')
         local ok, listener = tcp.listen('127.0.0.1', 0)
         local socks = {}
         listener:accept(function(_, sock)
           socks[#socks + 1] = sock
           sock:read(function() end)
         end)
         for i = 1, 10 do
           local ok, sock = tcp.connect('127.0.0.1', tcp.local_port(listener))
           socks[#socks + 1] = sock
           sock:read(function() end)
           sock:monitor(function() end)
           sock:write('hello')
         end
         for i = 1, 10 do
           context.create({ file = here .. '/idle.lua', worker = i > 6 and i % 2 or nil },
             context.self())
         end
         for i = 1, 10 do context.recv(0) end
         local _, port = udp.open('127.0.0.1', 0)
         local _, peer = udp.open()
         peer:connect('127.0.0.1', port:local_port())
         peer:write('hello')
         port:read()
         port:read(function() end)
         peer:read(function() end)
         timer.timeout(3600, print)
         while #socks < 20 do timer.sleep(0.001) end
         print('idle')",
    );
    let mut server = Server::start([main]);
    assert_eq!(server.line(), "idle");
    let mut counts = vec![switches(server.id())];
    while counts.len() <= ATTEMPTS {
        thread::sleep(WATCHED);
        counts.push(switches(server.id()));
        if counts[counts.len() - 1] == counts[counts.len() - 2] {
            return;
        }
    }
    panic!("it keeps running: {counts:?} context switches, seen every {WATCHED:?}");
}
