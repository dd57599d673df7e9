//! Whose turn it is to answer, in a real kernel: one thread beside the program, or several.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use parsecfs_tests::{cli::CliHome, survival::until};

/// The fields that `/proc` has in this file for the thread beside the program, once it is there: a thread gives itself its
/// name when it begins.
fn of_thread(home: &CliHome, file: &str) -> Option<Vec<String>> {
    let tasks = Path::new("/proc").join(home.agent_pid().expect("an agent runs").to_string()).join("task");
    let mut tasks =
        fs::read_dir(tasks).expect("a process lists its threads").map(|task| task.expect("it reads").path());
    let is_it =
        |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "parsecfs-beside\n");
    let fields = fs::read_to_string(tasks.find(is_it)?.join(file)).expect("it reads");
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// How often it got a processor.
fn times_run(home: &CliHome) -> u64 {
    of_thread(home, "schedstat").and_then(|fields| fields[2].parse().ok()).expect("it is there")
}

fn work(dir: &Path, rounds: u32) {
    for round in 0..rounds {
        let (a, b) = (dir.join(format!("a{round}")), dir.join(format!("b{round}")));
        fs::write(&a, round.to_string()).expect("it is written");
        fs::rename(&a, &b).expect("it moves");
        assert_eq!(fs::read_to_string(&b).expect("it reads"), round.to_string());
        fs::remove_file(&b).expect("it goes");
    }
}

#[test]
fn a_program_that_asks_one_thing_after_the_other_is_answered_from_beside() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        eprintln!("SKIP: with one processor all is beside the program");
        return;
    }
    // SCHED_IDLE, the 41st field.
    until("the thread has its policy", || of_thread(&home, "stat").is_some_and(|fields| fields[40] == "5"));
    let before = times_run(&home);
    until("the thread beside the program answers", || {
        work(Path::new(&dir), 50);
        times_run(&home) > before + 500
    });
}

#[test]
fn where_others_want_every_processor_requests_are_answered_all_the_same() {
    let Some((_home, dir)) = CliHome::mounted() else { return };
    let enough = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..2 * processors {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let workers: Vec<_> = (0..2)
            .map(|number| {
                let folder = Path::new(&dir).join(format!("worker{number}"));
                fs::create_dir(&folder).expect("a folder is made");
                scope.spawn(move || work(&folder, 300))
            })
            .collect();
        let outcomes: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        enough.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
}
