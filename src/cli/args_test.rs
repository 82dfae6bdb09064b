//! The command line's grammar.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn run(arguments: &[&str]) -> Result<Command, UsageError> {
    parse(arguments.iter().map(OsString::from), || false)
}

#[test]
fn flags_after_the_script_are_the_scripts() {
    let Command::Run(run) = run(&["--workers", "3", "a.lua", "--help", "-e"]).unwrap() else {
        panic!("not a run");
    };
    assert_eq!(run.main, Main::File("a.lua".into()));
    assert_eq!(run.arguments, ["--help", "-e"]);
    assert_eq!(run.workers, Some(3));
}

#[test]
fn code_and_standard_input_are_scripts() {
    let Command::Run(code) = run(&["-e", "print(1)", "-e2", "x", "y"]).unwrap() else { panic!() };
    assert_eq!(code.steps, [Step::new(b'e', ["print(1)".into()]), Step::new(b'e', ["2".into()])]);
    assert_eq!((code.main, code.arguments.len()), (Main::File("x".into()), 1));
    assert_eq!(code.before, ["-e", "print(1)", "-e2"]);
    let Command::Run(stdin) = run(&["-", "x"]).unwrap() else { panic!() };
    assert_eq!((stdin.main, stdin.arguments.len()), (Main::Stdin, 1));
}

#[test]
fn seeds_and_what_belongs_to_them_describe_a_simulation() {
    let simulation = |arguments: &[&str]| match run(arguments).unwrap() {
        Command::Run(run) => run.simulation,
        _ => panic!("not a run"),
    };
    assert_eq!(simulation(&["a.lua", "--simulate", "1"]), None);
    let one = simulation(&["--simulate", "7", "a.lua"]).unwrap();
    assert_eq!((one.seeds, one.is_range, one.faults, one.cuts), (7..=7, false, 0.0, 0.0));
    let line = [
        "--simulate",
        "1..9",
        "--faults",
        "0.5",
        "--cuts",
        "1",
        "--until",
        "60",
        "--trace",
        "a.lua",
    ];
    let many = simulation(&line).unwrap();
    assert_eq!((many.seeds, many.is_range, many.faults, many.cuts), (1..=9, true, 0.5, 1.0));
    assert_eq!((many.until, many.patience), (Some(Duration::from_secs(60)), None));
    assert!(many.trace && !one.trace);
    for wrong in [
        &["--simulate", "x", "a.lua"][..],
        &["--simulate", "9..1", "a.lua"],
        &["--simulate", "1", "--faults", "1.5", "a.lua"],
        &["--simulate", "1", "--until", "-1", "a.lua"],
        &["--simulate", "1..2", "-"],
        &["--faults", "0.5", "a.lua"],
        &["--simulate", "1", "--cuts", "-1", "a.lua"],
        &["--cuts", "0.5", "a.lua"],
        &["--trace", "a.lua"],
    ] {
        assert!(run(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn wrong_values_are_named_with_the_limit() {
    for value in ["0", "1025", "many", "-1"] {
        let error = run(&["--workers", value, "a.lua"]).unwrap_err().to_string();
        assert!(error.contains(value) && error.contains("1..1024"), "{error}");
    }
    assert!(run(&["-i", "--simulate", "1"]).is_err());
    assert!(run(&["-i", "-b", "x"]).is_err());
    assert!(run(&["--grace", "-1", "x"]).unwrap_err().to_string().contains("--grace -1"));
    assert!(run(&["--no-such-flag"]).is_err());
}

#[test]
fn without_a_script_standard_input_is_one_or_is_asked_line_by_line() {
    let of = |arguments: &[&str], is_terminal| {
        let parsed = parse(arguments.iter().map(OsString::from), || is_terminal).unwrap();
        let Command::Run(run) = parsed else { panic!("not a run") };
        (run.main, run.is_interactive, run.tells_version)
    };
    assert_eq!(of(&[], false), (Main::Unnamed, false, false));
    assert_eq!(of(&[], true), (Main::Nothing, true, true));
    assert_eq!(of(&["-l", "x", "-joff", "-O3"], false), (Main::Unnamed, false, false));
    assert_eq!(of(&["-e", "x"], true), (Main::Nothing, false, false));
    assert_eq!(of(&["-v"], true), (Main::Nothing, false, true));
    assert_eq!(of(&["-i"], false), (Main::Nothing, true, true));
    assert_eq!(of(&["--", "-x"], false), (Main::File("-x".into()), false, false));
}

#[test]
fn options_of_luajit_are_taken_in_their_order() {
    let line = ["-lm", "-j", "dump=+rs", "-O", "-O-loop", "-E", "-i", "s"];
    let Command::Run(all) = run(&line).unwrap() else { panic!("not a run") };
    let steps = [
        Step::new(b'l', ["m".into()]),
        Step::new(b'j', ["dump=+rs".into()]),
        Step::new(b'O', ["".into()]),
        Step::new(b'O', ["-loop".into()]),
    ];
    assert_eq!((&all.steps[..], all.ignores_environment), (&steps[..], true));
    assert!(all.is_interactive && all.main == Main::File("s".into()));
    let Command::Run(list) = run(&["-bl", "x", "-e"]).unwrap() else { panic!("not a run") };
    assert_eq!(list.steps, [Step::new(b'b', ["-l", "x", "-e"].map(OsString::from))]);
}

#[test]
fn the_time_for_callbacks_of_signals_has_a_default_and_may_be_without_limit() {
    for (arguments, grace) in [
        (&["x"][..], Some(GRACE)),
        (&["--grace", "0.5", "x"], Some(Duration::from_millis(500))),
        (&["--grace=0", "x"], None),
    ] {
        let Command::Run(run) = run(arguments).unwrap() else { panic!("not a run") };
        assert_eq!((run.grace, run.exits_with_main), (grace, false));
    }
}
