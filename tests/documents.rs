//! The documents say what is true: their scripts print what stands beside them, and their tables of
//! functions, options and codes are complete.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use support::expect::compare;
use support::{Folder, PATIENCE, Server, files, node_lua, repository, run};

/// The fenced blocks of one language in a document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(repository(document)).unwrap();
    let open = format!("```{language}\n");
    text.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// What a script promises to print: the texts behind `-->`, one for each line.
fn promised(block: &str) -> String {
    block.lines().filter_map(|line| Some(words(line.split_once("-->")?.1) + "\n")).collect()
}

/// The same text with one space between words.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name of a script, in its first line, if it has one.
fn name(block: &str) -> Option<&str> {
    block.lines().next()?.strip_prefix("-- ").filter(|name| name.ends_with(".lua"))
}

/// Runs all scripts of a document that promise something, beside all that have names.
#[track_caller]
fn assert_keeps_promises(document: &str, folder: &Folder) -> usize {
    let blocks = blocks(document, "lua");
    for block in &blocks {
        if let Some(name) = name(block) {
            folder.write(name, block);
        }
    }
    let mut count = 0;
    for block in blocks.iter().filter(|block| block.contains("-->") && !block.contains(" 7000")) {
        let script = name(block).unwrap_or("unnamed.lua");
        folder.write(script, block);
        let done = run(node_lua().current_dir(folder.path("")).arg(script));
        let printed: String = done.stdout.lines().map(|line| words(line) + "\n").collect();
        if let Err(why) = compare(&promised(block), &printed) {
            panic!("{document}: {why}{block}{done}");
        }
        done.succeeded();
        count += 1;
    }
    count
}

/// The tour's scripts in a folder, each under the name in its first line.
fn guide() -> Folder {
    let folder = Folder::new();
    for block in blocks("docs/GUIDE.md", "lua") {
        folder.write(name(&block).unwrap(), &block);
    }
    folder
}

#[track_caller]
fn assert_prints(folder: &Folder, script: &str, args: &[&str], expected: &str) {
    let path = folder.path("");
    let done = run(node_lua().current_dir(path).arg(script).args(args)).succeeded();
    if let Err(why) = compare(expected, &done.stdout) {
        panic!("{script}: {why}{done}");
    }
}

#[test]
fn the_script_in_the_readme_has_ten_lines_and_prints_what_stands_below_it() {
    let script = &blocks("README.md", "lua")[0];
    assert!(script.lines().count() <= 10);
    let folder = Folder::new();
    folder.write("ping.lua", script);
    let console = &blocks("README.md", "console")[0];
    let (command, output) = console.split_once('\n').unwrap();
    assert!(command.ends_with("ping.lua"));
    assert_prints(&folder, "ping.lua", &[], output);
}

#[test]
fn the_one_liner_in_the_readme_talks_to_the_echo_server() {
    let one_liner = blocks("README.md", "sh").into_iter().find(|block| block.contains("/dev/tcp"));
    let one_liner = one_liner.unwrap();
    let mut server = Server::start(["examples/echo_server.lua", "0"]);
    let port = server.port();
    let one_liner = one_liner.replace("/7101", &format!("/{port}"));
    let done = run(std::process::Command::new("sh").args(["-c", &one_liner])).succeeded();
    assert_eq!(done.stdout, blocks("README.md", "text")[0], "{done}");
}

#[test]
fn scripts_of_the_tour_print_what_it_says() {
    let folder = guide();
    assert_prints(&folder, "hello.lua", &["a", "b"], "hello from context 1\ta\tb\n");
    assert_prints(&folder, "later.lua", &[], "the script goes on\none second later\n");
    assert_prints(&folder, "wait.lua", &[], "beside\t1\nbeside\t2\nmain\nbeside\t3\n");
    let jobs: String = [(1, 1), (2, 2), (1, 3), (2, 4)]
        .map(|(coroutine, job)| format!("coroutine {coroutine} did job {job}\n"))
        .concat();
    assert_prints(&folder, "jobs.lua", &[], &jobs);
    assert!(assert_keeps_promises("docs/GUIDE.md", &folder) >= 6);
}

#[test]
fn client_and_server_of_the_tour_talk_to_each_other() {
    let folder = guide();
    for name in ["server.lua", "client.lua"] {
        let source = fs::read_to_string(folder.path(name)).unwrap();
        assert!(source.contains("7000"));
        folder.write(name, source.replace("7000", "tonumber((...))"));
    }
    let server = fs::read_to_string(folder.path("server.lua")).unwrap();
    folder.write("server.lua", format!("{server}print(tcp.local_port(listener))\n"));
    let mut server = Server::start([folder.path("server.lua").as_os_str(), "0".as_ref()]);
    let port = server.port().to_string();
    assert_prints(&folder, "client.lua", &[&port], "got 5 bytes\n");
}

#[test]
fn the_server_of_the_tour_ends_with_the_requests_it_has_begun() {
    let folder = guide();
    let source = fs::read_to_string(folder.path("graceful.lua")).unwrap();
    assert!(source.contains("7001") && source.contains("timer.sleep(0.1)"));
    let client = "print(tcp.local_port(listener))
        local sock = context.check(tcp.connect('127.0.0.1', tcp.local_port(listener)))
        local idler = context.check(tcp.connect('127.0.0.1', tcp.local_port(listener)))
        sock:write('work')
        print(context.check(sock:read()), sock:read())
        print(idler:read())";
    // The work takes until the signal has come.
    let source = source.replace("7001", "0").replace("timer.sleep(0.1)", "WORK()");
    let work = "function WORK()
        print('working')
        while not SIGNALLED do timer.sleep(0.01) end
    end\n";
    let source = source.replace("stopping = true", "stopping, SIGNALLED = true, true");
    folder.write("graceful.lua", format!("{work}{source}{client}"));
    let mut server = Server::start([folder.path("graceful.lua")]);
    server.port();
    assert_eq!(server.line(), "working");
    server.signal("TERM");
    let done = server.finish(PATIENCE).succeeded();
    assert_eq!(done.stdout, "done: work\tfalse\t1\nfalse\t1\n", "{done}");
}

/// Whether a build may lack what a manual is about.
fn is_codec(document: &str) -> bool {
    ["json", "cjson", "msgpack"].iter().any(|name| document.ends_with(&format!("/{name}.md")))
}

#[test]
fn scripts_in_manuals_print_what_stands_beside_them_and_all_are_lua() {
    let mut count = 0;
    for path in [files("docs", "md"), files("docs/api", "md")].concat() {
        let document = format!("docs/{}", path.strip_prefix(repository("docs")).unwrap().display());
        let folder = Folder::new();
        let has_all = cfg!(all(feature = "json", feature = "msgpack"));
        if document != "docs/GUIDE.md" && (has_all || !is_codec(&document)) {
            count += assert_keeps_promises(&document, &folder);
        }
        for (index, block) in blocks(&document, "lua").iter().enumerate() {
            let script = format!("block-{index}.lua");
            folder.write(&script, block);
            let check = "assert(loadfile(arg[1]))";
            run(node_lua().current_dir(folder.path("")).args(["-e", check, "-", &script]))
                .succeeded();
        }
    }
    assert!(count >= 4, "{count} scripts promise something");
}

/// The words between backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The row of a document's table whose first cell is this.
fn row(document: &str, first: &str) -> String {
    let text = fs::read_to_string(repository(document)).unwrap();
    let start = format!("| {first} |");
    text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}")).into()
}

/// The modules that scripts find without a file: of all that lies in `lua/`, what `require` gives.
fn modules() -> BTreeSet<String> {
    let mut code = String::from("package.path, package.cpath = '', ''\n");
    let mut folders = vec![repository("lua")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(repository("lua")).unwrap().with_extension("");
            let name = inside.to_str().unwrap().replace('/', ".");
            if path.is_dir() {
                folders.push(path);
            }
            code += &format!("if pcall(require, '{name}') then print('{name}') end\n");
        }
    }
    code += "for name in pairs(package.loaded) do print(name) end";
    let found = |code: &str| -> BTreeSet<String> {
        let done = run(node_lua().args(["-e", code])).succeeded();
        done.stdout.lines().map(str::to_owned).collect()
    };
    let standard = "_G bit coroutine debug io jit jit.opt math os package string table";
    found(&code).into_iter().filter(|name| !standard.split(' ').any(|it| it == name)).collect()
}

#[test]
fn modules_are_globals_but_for_those_that_the_documents_say_are_not() {
    let code = |name: &str| format!("if not _G['{name}'] then print('{name}') end\n");
    let code: String = modules().iter().map(|name| code(name)).collect();
    let done = run(node_lua().args(["-e", &code])).succeeded();
    let required: BTreeSet<String> = done.stdout.lines().map(str::to_owned).collect();
    for (document, end) in [
        ("README.md", " are loaded with `require`"),
        ("docs/api/README.md", " are loaded by `require`"),
    ] {
        let text = fs::read_to_string(repository(document)).unwrap();
        let (before, _) = text.split_once(end).unwrap();
        let start = before.rfind([';', '\n']).unwrap();
        let mut told = quoted(&before[start..]);
        if !cfg!(feature = "json") {
            told.remove("cjson");
        }
        assert_eq!(told, required, "{document}");
    }
}

#[test]
fn every_module_of_the_api_has_its_manual() {
    let modules = modules();
    for known in ["context", "packet", "tcp"] {
        assert!(modules.contains(known), "{modules:?}");
    }
    let index = fs::read_to_string(repository("docs/api/README.md")).unwrap();
    for module in modules {
        assert!(repository(&format!("docs/api/{module}.md")).exists(), "docs/api/{module}.md");
        assert!(index.contains(&format!("({module}.md")), "docs/api/README.md: {module}.md");
    }
}

#[test]
fn all_functions_are_in_the_readme_and_in_their_manuals() {
    for module in modules() {
        let code = format!("for name in pairs(require '{module}') do print(name) end");
        let done = run(node_lua().args(["-e", &code])).succeeded();
        let functions: BTreeSet<String> = done.stdout.lines().map(str::to_owned).collect();
        let is_accessor = |name: &String| {
            let kinds = ["8", "16le", "16be", "32le", "32be", "64le", "64be", "varint", "zigzag"];
            let others = "byte commit index_of ptr put reserve reset skip text";
            kinds.iter().any(|kind| name.ends_with(kind)) || others.split(' ').any(|it| it == name)
        };
        let mut told = quoted(row("README.md", &format!("`{module}`")).split('|').nth(2).unwrap());
        told.remove("u16be");
        if !cfg!(feature = "tls") {
            told.retain(|name| !matches!(&**name, "start_tls" | "tls"));
        }
        let public = functions.iter().filter(|name| module != "buffer" || !is_accessor(name));
        assert_eq!(told, public.cloned().collect(), "README.md: {module}");
        let manual = fs::read_to_string(repository(&format!("docs/api/{module}.md"))).unwrap();
        for name in told {
            let calls =
                [format!("{module}.{name}("), format!(":{name}("), format!("{module}.{name} ")];
            assert!(calls.iter().any(|call| manual.contains(call)), "docs/api/{module}.md: {name}");
        }
    }
}

#[test]
fn all_options_and_codes_are_in_their_tables() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let usage = run(node_lua().arg("--help")).succeeded().stdout;
    for line in usage.lines().filter(|line| line.starts_with("  -")) {
        // `  -h, --help       print this text`: the option's names come first.
        let names = line.split_whitespace().take_while(|word| word.starts_with('-'));
        for name in names.map(|name| name.trim_end_matches([',', ']']).replace("[OPTIONS", "")) {
            assert!(readme.contains(&format!("`{name}")), "README.md: {name}");
        }
    }
    let code = "for code = 0, 999 do
        local text = context.strerror(code)
        if text ~= 'unknown error' then print(('| %d | %s |'):format(code, text)) end
    end";
    let codes = run(node_lua().args(["-e", code])).succeeded().stdout;
    let manual = fs::read_to_string(repository("docs/api/README.md")).unwrap();
    let rows = manual.lines().filter(|line| {
        line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let told: Vec<String> =
        rows.map(|row| row.split('|').take(3).collect::<Vec<_>>().join("|") + "|").collect();
    assert_eq!(told, codes.lines().collect::<Vec<_>>());
}

#[test]
fn tests_that_are_named_exist() {
    let mut sources = String::new();
    for path in [files("tests", "rs"), files("tests/soak", "rs")].concat() {
        sources += &fs::read_to_string(&path).unwrap();
    }
    let exists = |folder: &str, name: &str| repository(folder).join(name).exists();
    let table = fs::read_to_string(repository("docs/RELIABILITY.md")).unwrap();
    let (_, table) = table.split_once("| Guarantee | Test |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    for name in table.lines().filter_map(|row| row.split(" | ").nth(1)).flat_map(quoted) {
        let found = match name.rsplit_once('.') {
            Some((_, "rs")) => exists("tests", &name) || exists("src/sched", &name),
            Some((_, "lua")) => exists(".", &name),
            _ if name.contains('/') => exists("tests", &name),
            _ => sources.contains(&format!("fn {name}()")) || !name.contains('_'),
        };
        assert!(found, "docs/RELIABILITY.md: {name}");
    }
    let overview = fs::read_to_string(repository("tests/README.md")).unwrap();
    for name in quoted(overview.split("## Fuzzing").next().unwrap()) {
        let is_file = name.ends_with(".rs") && !name.contains('*');
        assert!(!is_file || exists("tests", &name) || exists(".", &name), "{name}");
    }
}

#[test]
fn all_figures_are_in_their_manuals() {
    let code = "local function show(manual, figures)
            for name in pairs(figures) do print(manual, name) end
        end
        local options = { memory = 2 ^ 24, turn_limit = 9, worker = 0, file = arg[1] }
        local handle = context.create(options)
        show('context', context.stat(handle))
        local listener = context.check(tcp.listen('127.0.0.1', 0))
        show('tcp', tcp.stat(listener))
        show('tcp', tcp.stat(context.check(tcp.connect('127.0.0.1', tcp.local_port(listener)))))
        context.destroy(handle)";
    let folder = Folder::new();
    let main = folder.write("main.lua", code);
    let waits = folder.write("waits.lua", "context.recv(0)");
    let done = run(node_lua().arg(main).arg(waits)).succeeded();
    let figures: Vec<(&str, &str)> =
        done.stdout.lines().map(|line| line.split_once('\t').unwrap()).collect();
    assert!(figures.len() > 20, "{done}");
    for (manual, name) in figures {
        let text = fs::read_to_string(repository(&format!("docs/api/{manual}.md"))).unwrap();
        assert!(text.contains(&format!("`{name}`")), "docs/api/{manual}.md: {name}");
    }
}
