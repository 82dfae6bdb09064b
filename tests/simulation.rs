//! `--simulate`: runs that follow from a seed. The same seed gives the same run; the simulated
//! network does what the real one does; and a program that checks itself finds nothing wrong,
//! whatever goes wrong around it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::expect::{compare, promise};
use support::{Done, Folder, PATIENCE, node_lua, repository, run, run_for};

const MIX: &str = "tests/simulation/mix.lua";

/// Words of a command line.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn simulate(line: &str) -> Done {
    run(node_lua().arg("--simulate").args(words(line)))
}

/// Runs seeds, with more time than one test has otherwise.
#[track_caller]
fn assert_all_succeed(line: &str) {
    let done = run_for(node_lua().arg("--simulate").args(words(line)), 5 * PATIENCE);
    assert!(done.stderr.contains(" seeds, 0 failed"), "{line}: {done}");
    done.succeeded();
}

#[test]
fn a_seed_replays_output_and_trace() {
    let folder = Folder::new();
    let run_in = |seed: &str, name: &str| {
        // Neither the environment nor the folder has a say.
        let mut command = node_lua();
        command.current_dir(folder.path("")).env("SOME_NAME", name.repeat(100));
        let script = repository(MIX);
        let line =
            format!("--simulate {seed} --faults 0.7 --cuts 0.3 --trace {} kill", script.display());
        run(command.env("RUST_LOG", "node_lua=trace").args(words(&line)))
    };
    for seed in ["1", "2", "3", "77", "4711"] {
        let (one, two) = (run_in(seed, "a"), run_in(seed, "b"));
        assert_eq!(one.stderr, two.stderr, "seed {seed}");
        assert_eq!(one.stdout, two.stdout, "seed {seed}");
        assert!(one.stderr.contains(": trace "), "{one}");
        one.succeeded();
    }
    assert_ne!(run_in("5", "a").stderr, run_in("6", "a").stderr);
}

/// What only shows when a turn is cut in the right place, and another context runs meanwhile.
#[test]
fn a_fault_that_only_a_cut_reveals_is_found() {
    let simulate = |seed: &str, cuts: &str, more: &[&str]| {
        let mut command = node_lua();
        command.current_dir(repository("tests/simulation")).args(more);
        run(command.args(["--simulate", seed, "--cuts", cuts, "leader.lua"]))
    };
    simulate("1..60", "0", &[]).succeeded();
    let found = simulate("1..60", "1", &[]);
    assert_eq!(found.code(), Some(1), "{found}");
    let last = found.stderr.lines().last().unwrap();
    let (_, failed) = last.split_once("failed: ").unwrap();
    let seed = failed.split(' ').next().unwrap();
    let [one, again] = [(); 2].map(|()| simulate(seed, "1", &["--trace"]));
    assert_eq!(one.code(), Some(1), "{one}");
    assert!(one.stderr.contains("leader.lua:12: another context answers"), "{one}");
    assert_eq!((&one.stderr, &one.stdout), (&again.stderr, &again.stdout));
}

/// What a program finds does not depend on where its turns are cut.
#[test]
fn cut_turns_go_on_where_they_were() {
    let code = "local t, seen = {}, {}
        local co = coroutine.wrap(function(...)
          local n = select('#', ...)
          while true do n = n + select('#', coroutine.yield(n)) end
        end)
        for i = 1, 300 do
          t[i] = co(i, nil) + #tostring(i):rep(3)
          local ok, why = pcall(error, i, 0)
          assert(not ok and why == i)
          seen[i] = select('#', coroutine.wrap(function() coroutine.yield() end)())
        end
        table.sort(t, function(a, b) return a > b end)
        print(table.concat(t, ','), table.concat(seen))
        io.stderr:write(context.stat().slices, '\\n')";
    let run_with = |seed: &str, cuts: &str| {
        run(node_lua().args(["--simulate", seed, "--cuts", cuts, "-e", code])).succeeded()
    };
    let whole = run_with("1", "0");
    assert_eq!(whole.stderr, "1\n");
    for seed in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let cut = run_with(seed, "1");
        assert_eq!(cut.stdout, whole.stdout, "seed {seed}");
        assert!(cut.stderr.trim().parse::<u32>().unwrap() > 1, "{cut}");
    }
}

#[test]
fn the_order_of_keys_and_all_chance_follow_from_the_seed() {
    let code = "local keys = { [print] = 1, [{}] = 2, [{}] = 3, [coroutine.create(print)] = 4 }
        for i = 1, 50 do keys['key' .. math.random(1e6)] = i end
        for key, value in pairs(keys) do io.write(tostring(key), ' ', value, ' ') end
        print(os.time(), os.clock(), os.date('!%c'))
        error({ print })";
    let all = |seed: &str| run(node_lua().args(["--simulate", seed, "-e", code]));
    let (one, again, other) = (all("1"), all("1"), all("2"));
    assert_eq!((one.stdout.as_str(), &one.stderr), (again.stdout.as_str(), &again.stderr));
    assert_ne!(one.stdout, other.stdout);
}

#[test]
fn time_is_virtual() {
    let code = "local start = os.time()
        local late
        timer.timeout(86400 * 365, function() late = os.time() - start end)
        timer.sleep(86400 * 366)
        print(late, os.time() - start)";
    let done = run(node_lua().args(["--simulate", "1", "-e", code])).succeeded();
    assert_eq!(done.stdout, "31536000\t31622400\n");
}

#[test]
fn waiting_for_ever_is_found_out() {
    let code = "context.name('lonely') context.recv(0)";
    let done = run(node_lua().args(["--simulate", "1", "-e", code]));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("nothing can happen any more"), "{done}");
    assert!(done.stderr.contains("(lonely)"), "{done}");
    // Servers wait for ever by profession.
    run(node_lua().args(["--simulate", "1", "--until", "10", "-e", code])).succeeded();
}

#[test]
fn seeds_that_fail_are_named_and_replayed() {
    let folder = Folder::new();
    let script = folder.write("odd.lua", "print(...) if math.random(2) == 1 then error('odd') end");
    let script = script.to_str().unwrap();
    let done = simulate(&format!("1..10 --faults 0.25 {script} an argument"));
    assert_eq!(done.code(), Some(1), "{done}");
    let last = done.stderr.lines().last().unwrap();
    let (_, failed) = last.split_once("failed: ").unwrap();
    let mut count = 0;
    for seed in 1..=10 {
        let line = format!("--simulate {seed} --faults 0.25 {script} an argument");
        let replayed = run(node_lua().args(words(&line)));
        let is_odd = failed.split(' ').any(|other| other == seed.to_string());
        assert_eq!(replayed.code(), Some(i32::from(is_odd)), "{line}: {replayed}");
        assert_eq!(replayed.stdout, "an\targument\n");
        if is_odd {
            count += 1;
            assert!(replayed.stderr.contains("odd.lua:1: odd"), "{replayed}");
            let replay = format!("replay: node-lua {line}");
            assert!(done.stderr.contains(&replay), "{done}");
        }
    }
    assert!(last.starts_with(&format!("node-lua: 10 seeds, {count} failed")), "{done}");
    assert!((1..10).contains(&count), "{done}");
}

#[test]
fn a_run_that_does_not_end_is_given_up() {
    let code = "while true do end";
    let done = run(node_lua().args(["--simulate", "1..2", "--patience", "0.5", "-e", code]));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(
        done.stderr.contains("2 failed: 1 2") && done.stderr.contains("not over yet"),
        "{done}"
    );
}

#[test]
fn the_simulated_network_does_what_the_real_one_does() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let script = "tests/simulation/network.lua";
    let done = run(node_lua().arg(script).arg(&path)).succeeded();
    assert_eq!(done.stdout, "as expected\n");
    drop(std::fs::remove_file(&path));
    assert_all_succeed(&format!("1..20 {script} {} full", path.display()));
}

#[test]
fn a_closed_connection_is_written_out_while_its_peer_writes() {
    let script = "tests/simulation/close.lua";
    // As much as no system buffers.
    let done = run(node_lua().args([script, "20000"])).succeeded();
    assert_eq!(done.stdout, "20000 of 20000 frames, then end of file\n");
    for seed in 1..=3 {
        let done = simulate(&format!("{seed} {script} 2000")).succeeded();
        assert_eq!(done.stdout, "2000 of 2000 frames, then end of file\n", "seed {seed}");
    }
}

#[test]
fn a_closed_connection_is_written_out_as_long_as_its_peer_takes_something() {
    let written = |arguments: &str, seed: u32| {
        simulate(&format!("{seed} tests/simulation/slow.lua {arguments}")).succeeded().stdout
    };
    for seed in 1..=3 {
        let all = "written: success\nread: 2000000 end of file\n";
        for arguments in ["2000000 20000 1 0", "2000000 20000 0 100"] {
            assert_eq!(written(arguments, seed), all, "{arguments}, seed {seed}");
        }
        // Nothing for half a minute; something all the time, but for more than ten minutes.
        for arguments in ["2000000 1000000 40 0", "40000000 20000 1 0"] {
            let found = written(arguments, seed);
            assert!(found.starts_with("written: connection timed out\n"), "{arguments}: {found}");
            assert!(found.ends_with("000 connection reset by peer\n"), "{arguments}: {found}");
        }
    }
}

#[test]
fn lua_tests_pass_in_simulations() {
    for name in ["buffer", "context", "coroutine", "errors", "frames", "packet", "protocols", "tcp"]
    {
        for seed in 1..=2 {
            simulate(&format!("{seed} tests/lua/{name}_test.lua")).succeeded();
        }
    }
}

#[test]
fn examples_keep_their_promises_in_simulations() {
    let promised = |name: &str| {
        let path = repository(&format!("examples/{name}.lua"));
        promise(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    for seed in 1..=3 {
        let has_json = cfg!(all(feature = "json", feature = "msgpack"));
        for name in [
            "hello",
            "json",
            "packet",
            "postgres",
            "rpc_pool",
            "supervisor",
            "timers",
            "topics",
            "unix_socket",
        ] {
            if name == "json" && !has_json {
                continue;
            }
            let done = simulate(&format!("{seed} examples/{name}.lua"));
            if let Err(why) = compare(&promised(name), &done.stdout) {
                panic!("{name}, seed {seed}: {why}{done}");
            }
            done.succeeded();
        }
        let pairs =
            ["chat_server chat_client", "echo_server echo_client", "gate gate_client"].into_iter();
        for pair in pairs.chain(["rpc_server rpc_client"]) {
            let (server, client) = pair.split_once(' ').unwrap();
            let scripts = format!("examples/{server}.lua examples/{client}.lua");
            let done = simulate(&format!("{seed} --until 60 tests/simulation/pair.lua {scripts}"));
            // The server, which waits on, says one line, with another port in it; then the client.
            let (_, rest) = done.stdout.split_once('\n').unwrap();
            if let Err(why) = compare(&promised(client), rest) {
                panic!("{pair}, seed {seed}: {why}{done}");
            }
            done.succeeded();
        }
    }
}

#[test]
fn a_program_that_checks_itself_finds_nothing_wrong() {
    assert_all_succeed(&format!("1..100 {MIX} calm"));
    assert_all_succeed(&format!("101..200 {MIX} calm kill"));
    assert_all_succeed(&format!("201..300 --faults 0.1 {MIX} kill"));
    assert_all_succeed(&format!("301..400 --faults 0.5 {MIX} kill"));
    assert_all_succeed(&format!("401..500 --faults 1 {MIX}"));
    assert_all_succeed(&format!("501..600 --faults 0.3 --cuts 0.5 {MIX} kill"));
}

/// Two to five minutes of both cores of a small machine; `.ci/run` runs it.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_seeds_find_nothing_wrong() {
    let limit = Duration::from_secs(3600);
    for line in [
        format!("10001..11000 {MIX} calm"),
        format!("11001..13000 {MIX} calm kill"),
        format!("13001..15000 --faults 0.1 {MIX} kill"),
        format!("15001..18000 --faults 0.5 {MIX} kill"),
        format!("18001..20000 --faults 1 {MIX} kill"),
        format!("20001..22000 --faults 0.5 --cuts 0.8 {MIX} kill"),
    ] {
        let done = run_for(node_lua().arg("--simulate").args(words(&line)), limit);
        assert!(done.stderr.contains(" seeds, 0 failed"), "{line}: {done}");
        done.succeeded();
    }
}

/// Several processes in one: each query ends in an answer that is right, or in a failure in time,
/// whatever happens to connections and processes.
#[cfg(feature = "cluster")]
#[test]
fn in_a_cluster_no_query_is_left_waiting() {
    const SCRIPT: &str = "tests/simulation/cluster.lua";
    let calm = simulate(&format!("1 --nodes 3 {SCRIPT}")).succeeded();
    // What fails has been asked to.
    let figures: Vec<_> = calm.stdout.split_whitespace().collect();
    assert!(figures[1] == "0" && figures[3] == "0", "all are there: {calm}");
    assert_all_succeed(&format!("1..50 --nodes 3 {SCRIPT}"));
    assert_all_succeed(&format!("1..500 --nodes 3 --faults 0.7 {SCRIPT}"));
    assert_all_succeed(&format!("501..1000 --nodes 4 --faults 1 --cuts 0.3 {SCRIPT}"));
    let mut failures = [0; 3];
    for seed in 1..10 {
        let line = format!("{seed} --nodes 3 --faults 0.7 --trace {SCRIPT}");
        let [one, two] = [(); 2].map(|()| simulate(&line).succeeded());
        assert_eq!((&one.stdout, &one.stderr), (&two.stdout, &two.stderr), "seed {seed}");
        let figures = one.stdout.split_whitespace().skip(1).map(|word| word.parse::<u32>());
        failures.iter_mut().zip(figures).for_each(|(all, one)| *all += one.unwrap());
    }
    // Nobody has the name, the process is lost, the cluster is away: all of it has happened.
    assert!(failures.iter().all(|&count| count > 0), "{failures:?}");
}

/// A fault that was planted: what is lost on the way is not missed. Some seeds find it, and each of
/// those finds it again.
#[cfg(all(feature = "cluster", debug_assertions))]
#[test]
fn in_a_cluster_losses_that_nobody_notices_are_found() {
    let simulate = |seeds: &str| {
        let line = format!("{seeds} --nodes 3 --faults 0.7 tests/simulation/cluster.lua");
        let mut command = node_lua();
        command.env("NODE_LUA_FAILPOINT", "gap all").arg("--simulate").args(words(&line));
        run_for(&mut command, 5 * PATIENCE)
    };
    let done = simulate("1..400");
    assert_ne!(done.code(), Some(0), "{done}");
    let last = done.stderr.lines().last().unwrap().to_owned();
    let (_, found) = last.split_once(" failed: ").unwrap();
    for seed in found.split_whitespace().take(2) {
        let again = simulate(seed);
        assert_ne!(again.code(), Some(0), "seed {seed}: {again}");
        // A query waited too long, or until its time was over, which is no failure that may be.
        let whys = ["told too late", "attempt to perform arithmetic on"];
        assert!(whys.iter().any(|why| again.stdout.contains(why)), "seed {seed}: {again}");
    }
}

/// Datagrams: without faults as the system has them; with faults they are lost, doubled and
/// overtaken, the same in each run of a seed.
#[test]
fn datagrams_are_lost_doubled_and_overtaken_as_the_seed_has_it() {
    const SCRIPT: &str = "tests/simulation/datagrams.lua";
    assert_eq!(run(node_lua().arg(SCRIPT)).succeeded().stdout, "as expected\n");
    assert_all_succeed(&format!("1..40 {SCRIPT}"));
    assert_all_succeed(&format!("1..40 --cuts 0.5 {SCRIPT}"));
    assert_all_succeed(&format!("1..40 --faults 0.5 {SCRIPT} lossy"));
    let figures = |seed: u32| {
        let line = format!("{seed} --faults 1 --trace {SCRIPT} lossy");
        let [one, two] = [(); 2].map(|()| simulate(&line).succeeded());
        assert_eq!((&one.stdout, &one.stderr), (&two.stdout, &two.stderr), "seed {seed}");
        let line = one.stdout.lines().last().unwrap().to_owned();
        line.split('\t').skip(1).map(|word| word.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let all: Vec<_> = (1..6).map(figures).collect();
    for what in 0..3 {
        assert!(all.iter().any(|figures| figures[what] > 0), "{all:?}");
    }
    assert!(all.iter().any(|figures| figures != &all[0]), "{all:?}");
}
