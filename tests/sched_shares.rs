//! Who gets a worker, and when: loops share them, and hold nobody up.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use support::{Folder, PATIENCE, Server, connect, node_lua, run};

/// An echo server beside so many loops; tells its port.
const ECHO_MAIN: &str = "
    local file, count, begun = ...
    local handles = {}
    for i = 1, count do handles[i] = context.create(file) end
    local ok, listener = tcp.listen('127.0.0.1', 0)
    listener:accept(function(_, sock)
      sock:set_nodelay(true)
      sock:read(function(ok, data)
        if ok then sock:write(data) else sock:close() end
      end)
    end)
    print(tcp.local_port(listener))
";

/// Goes on with telling when so many of the loops have begun.
const BEGUN: &str = "
    local n
    repeat
      timer.sleep(0.01)
      n = 0
      for i = 1, #handles do n = n + math.min(1, context.stat(handles[i]).turns) end
    until n >= tonumber(begun)
    print('begun')
";

/// The promise of `docs/RELIABILITY.md`, that loops delay an answer by no more than 50 ms, on a
/// machine that is busy with other things too: what a server without loops beside it shows at the
/// same time is what the machine costs, and the promise is ten times what is common there.
#[test]
fn an_echo_server_beside_64_loops_answers() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "while true do end");
    let main = folder.write("main.lua", ECHO_MAIN);
    let start = |count: &str| Server::start([main.as_os_str(), file.as_os_str(), count.as_ref()]);
    let mut servers = [start("0"), start("64")];
    let mut clients = servers.each_mut().map(|server| connect(server.port()));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..500 {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            let began = Instant::now();
            probe(client);
            times.push(began.elapsed());
        }
        // Probes are spread over time: what comes at once meets a server that is awake.
        std::thread::sleep(Duration::from_millis(2));
    }
    let [calm, beside] = times.map(|mut times| {
        times.sort_unstable();
        [0.5, 0.98].map(|share| times[(times.len() as f64 * share) as usize])
    });
    let common = [Duration::from_micros(200), Duration::from_millis(5)];
    for ((calm, beside), common) in calm.into_iter().zip(beside).zip(common) {
        assert!(beside <= 10 * calm.max(common), "{beside:?} beside loops, {calm:?} without");
    }
    let began = Instant::now();
    for server in servers {
        server.signal("TERM");
        assert_eq!(server.finish(PATIENCE).code(), Some(143));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "loops are ended, not abandoned");
}

/// One byte there and back.
fn probe(client: &mut std::net::TcpStream) {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

/// Loops are cut, and take no threads: any number of them holds nobody up.
#[test]
fn more_loops_than_threads_hold_nobody_up() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "while true do end");
    let main = folder.write("main.lua", format!("{ECHO_MAIN}{BEGUN}"));
    let args = [main.as_os_str(), file.as_os_str(), "300".as_ref(), "250".as_ref()];
    let mut server = Server::start(args);
    let mut client = connect(server.port());
    probe(&mut client);
    assert_eq!(server.line(), "begun");
    for _ in 0..500 {
        probe(&mut client);
    }
    // One that is given up since its turn was not cut in time is replaced, not multiplied.
    let threads = threads(server.id()).len();
    assert!(threads < 100, "{threads} threads");
    server.signal("TERM");
    assert_eq!(server.finish(PATIENCE).code(), Some(143));
}

/// What the system tells of each thread of a process, from its state on: see proc(5).
#[cfg(target_os = "linux")]
fn threads(process: u32) -> Vec<Vec<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let fields = |stat: String| {
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(String::from).collect()
    };
    stats.map(fields).collect()
}

/// Threads of a process that run, or would if there were a core for them.
#[cfg(target_os = "linux")]
fn running_threads(process: u32) -> usize {
    threads(process).iter().filter(|fields| fields[0] == "R").count()
}

/// What cannot be cut takes a thread each, which lets others go first: one at once, a crowd too.
#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_cut_lets_others_go_first() {
    let folder = Folder::new();
    let stuck = "table.sort({ 3, 2, 1 }, function() while true do end end)";
    let file = folder.write("stuck.lua", stuck);
    let main = folder.write("main.lua", ECHO_MAIN);
    for count in ["1", "20"] {
        let args = ["--workers", "2"].map(AsRef::as_ref).into_iter();
        let files = [main.as_os_str(), file.as_os_str(), count.as_ref()];
        let mut server = Server::start(args.chain(files));
        let mut client = connect(server.port());
        let deadline = Instant::now() + PATIENCE;
        let nice = |fields: &Vec<String>| fields[16] == "19";
        while threads(server.id()).into_iter().filter(nice).count()
            != count.parse::<usize>().unwrap()
        {
            probe(&mut client);
            assert!(Instant::now() < deadline, "{:?}", threads(server.id()));
        }
        server.signal("TERM");
        assert_eq!(server.finish(PATIENCE).code(), Some(143));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn of_many_loops_few_run_at_a_time() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "while true do end");
    let main = folder.write("main.lua", format!("{ECHO_MAIN}{BEGUN}"));
    let args = ["--workers".as_ref(), "2".as_ref(), main.as_os_str(), file.as_os_str()];
    let mut server = Server::start(args.into_iter().chain(["12".as_ref(), "12".as_ref()]));
    let mut client = connect(server.port());
    assert_eq!(server.line(), "begun");
    let deadline = Instant::now() + PATIENCE;
    // The two workers, and for a moment who helps them.
    while running_threads(server.id()) > 4 {
        probe(&mut client);
        assert!(Instant::now() < deadline, "{} threads run", running_threads(server.id()));
    }
    server.signal("TERM");
    assert_eq!(server.finish(PATIENCE).code(), Some(143));
}

/// Those that were cut go on in turn, with the hook that they had.
#[test]
fn loops_take_turns() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "while true do end");
    let hooked = folder.write(
        "hooked.lua",
        "local main, n = context.parent(), 0
         debug.sethook(function()
           n = n + 1
           if n % 1000 == 0 then context.send(main, n) end
         end, '', 1000)
         while true do end",
    );
    let main = folder.write(
        "main.lua",
        "local file, hooked = ...
         local handles = { context.create(hooked) }
         for i = 2, 7 do handles[i] = context.create(file) end
         local counts = 0
         context.recv(handles[1], function() counts = counts + 1 end)
         for _, seconds in ipairs { 0.1, 0.3 } do
           for i = 1, 7 do
             while context.stat(handles[i]).cpu < seconds do timer.sleep(0.005) end
           end
           counts = 0
           while counts == 0 do timer.sleep(0.005) end
         end
         context.recv(handles[1], nil)
         for i = 1, 7 do context.destroy(handles[i]) context.wait(handles[i]) end
         print('all went on')",
    );
    let done = run(node_lua().args(["--workers", "2"]).args([main, file, hooked]));
    assert_eq!(done.succeeded().stdout, "all went on\n");
}

/// Beside contexts that never rest, whose workers' own queues are never empty.
#[test]
fn what_others_wake_is_not_kept_waiting_by_who_never_rests() {
    let folder = Folder::new();
    folder.write(
        "echo.lua",
        "context.recv(0, function(_, _, from, s) context.reply(from, s, 1) end)",
    );
    folder.write("ask.lua", "local echo = ... while true do context.query(echo, 1) end");
    folder.write("loop.lua", "while true do end");
    // Most of its turns are short, some are cut.
    let sleeper = "for i = 1, 200 do
        timer.sleep(0.0001)
        if i % 10 == 0 then for _ = 1, 2e6 do end end
    end";
    folder.write("sleeper.lua", sleeper);
    let main = folder.write(
        "main.lua",
        "local here = arg[0]:match('^.*/')
        local asked = {}
        for i = 1, 64 do
            local echo = context.create(here .. 'echo.lua')
            asked[i] = context.create(here .. 'ask.lua', echo)
            if i % 16 == 0 then context.create(here .. 'loop.lua') end
        end
        local function turns()
            local sum = 0
            for _, handle in ipairs(asked) do sum = sum + context.stat(handle).turns end
            return sum
        end
        local before = turns()
        context.wait(context.create(here .. 'sleeper.lua'))
        print(math.floor((turns() - before) / 200))
        context.exit()",
    );
    let done = run(node_lua().args(["--workers", "2"]).arg(main));
    let turns: u64 = done.stdout.trim().parse().expect(&done.stderr);
    assert!(!done.stderr.contains("WARN"), "{}", done.stderr);
    // A look at the common queue comes after some hundreds of turns; those of timers take longer.
    assert!(turns < 20_000, "{turns} turns of the others between two of its own");
}

/// Beside a crowd slices are short, so that first turns are cut early: they do not end behind all
/// that began before. Slices count, not time, for the machine may be busy.
#[test]
fn who_comes_behind_a_crowd_of_loops_runs_soon() {
    let folder = Folder::new();
    folder.write("loop.lua", "while true do end");
    folder.write(
        "short.lua",
        "local began = os.clock()
         while os.clock() - began < 0.003 do end
         context.send(context.parent(), 'done')",
    );
    let main = folder.write(
        "main.lua",
        "local here, loops = arg[0]:match('^.*/'), {}
         for i = 1, 600 do
           loops[i] = context.create(here .. 'loop.lua')
           if i % 8 == 0 then timer.sleep(0) end
         end
         local function slices()
           local sum = 0
           for _, handle in ipairs(loops) do sum = sum + context.stat(handle).slices end
           return sum
         end
         local all = {}
         for i = 1, 5 do
           local before = slices()
           assert(context.recv(context.create(here .. 'short.lua'), 60))
           all[i] = slices() - before
         end
         table.sort(all)
         print(all[3])
         context.exit(0)",
    );
    let done = run(node_lua().args(["--workers", "2"]).arg(main)).succeeded();
    let slices: u32 = done.stdout.trim().parse().unwrap();
    assert!(slices < 300, "600 loops had {slices} slices first");
}
