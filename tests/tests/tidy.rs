//! What holds for the text of the project as a whole: which crate may use which, what tests must not do, and that the
//! documents name things that exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Which of our crates each of them may use. Arrows reach through, never back; vfs and backends never see each other.
const EDGES: &[(&str, &[&str])] = &[
    ("parsecfs-crypto", &[]),
    ("parsecfs-core", &["parsecfs-crypto"]),
    ("parsecfs-backends", &["parsecfs-core", "parsecfs-crypto"]),
    ("parsecfs-vfs", &["parsecfs-core", "parsecfs-crypto"]),
    ("mountctl", &["parsecfs-vfs", "parsecfs-backends", "parsecfs-core", "parsecfs-crypto"]),
    ("parsecfs-tests", &["mountctl", "parsecfs-vfs", "parsecfs-backends", "parsecfs-core", "parsecfs-crypto"]),
    ("parsecfs-benches", &["mountctl", "parsecfs-vfs", "parsecfs-backends", "parsecfs-core", "parsecfs-crypto"]),
];

/// Runtimes, databases and kernels have no place in what must stay pure, not even three crates down.
const IMPURE: &[&str] = &["tokio", "rusqlite", "fuser", "reqwest", "async-std", "smol", "object_store", "notify"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_path_buf()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below with this extension, build output left out.
fn files(below: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).expect("a folder of the project") {
        let path = entry.expect("an entry").path();
        let hidden = path.file_name().is_some_and(|name| name == "target" || name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<PathBuf> {
    let mut found = files(&root().join("docs"), "md");
    found.extend([root().join("README.md"), root().join("ARCHITECTURE.md")]);
    found
}

#[test]
fn no_crate_uses_another_against_the_layering() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(ours, EDGES.iter().map(|(name, _)| *name).collect(), "every crate has a row in EDGES");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let (_, allowed) = EDGES.iter().find(|(row, _)| *row == name).expect("checked above");
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let bad = ours.contains(used) && !allowed.contains(&used);
            assert!(!bad, "{name} must not use {used}");
        }
    }
}

#[test]
fn core_and_crypto_have_no_runtime_database_or_kernel_below_them() {
    for name in ["parsecfs-core", "parsecfs-crypto"] {
        let tree = cargo(&["tree", "--package", name, "--edges", "normal", "--prefix", "none"]);
        for line in tree.lines() {
            let used = line.split_whitespace().next().unwrap_or_default();
            assert!(!IMPURE.contains(&used), "{name} must stay without {used}");
        }
    }
}

#[test]
fn no_test_is_ignored_or_sleeps() {
    let own = Path::new(file!()).file_name().expect("a file");
    for path in files(&root(), "rs") {
        if path.file_name() == Some(own) {
            continue;
        }
        let text = read(&path);
        assert!(!text.contains("#[ignore"), "{}: a test is ignored", path.display());
        let is_test = path.starts_with(root().join("tests/tests")) || path.ends_with("tests.rs");
        for call in ["thread::sleep", "time::sleep"] {
            assert!(!(is_test && text.contains(call)), "{}: wait for the fact, not for time", path.display());
        }
    }
}

/// Targets of `[text](target)` and code spans that look like a path of the project.
fn named_paths(text: &str) -> BTreeSet<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let spans =
        text.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |span: &&str| {
        let first = span.split('/').next().unwrap_or_default();
        let ours = ["crypto", "core", "backends", "vfs", "mountctl", "tests", "benches", "docs", ".ci", ".config"];
        span.contains('/') && ours.contains(&first) && !span.contains([' ', '<', '*', '{', '$'])
    };
    links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| link.split('#').next().unwrap_or(link))
        .chain(spans.filter(is_path))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_path_a_document_names_exists() {
    for document in documents() {
        let folder = document.parent().expect("a folder");
        for path in named_paths(&read(&document)) {
            let there = folder.join(&path).exists() || root().join(&path).exists();
            assert!(there, "{} names {path}", document.display());
        }
    }
}

#[test]
fn every_kind_of_error_has_its_row_in_semantics() {
    let semantics = read(&root().join("docs/SEMANTICS.md"));
    let source = read(&root().join("vfs/src/error.rs"));
    let body = source.split("pub enum ErrorKind {").nth(1).and_then(|rest| rest.split('}').next()).expect("the enum");
    let kinds = body.lines().map(str::trim).filter(|line| !line.starts_with("//")).filter_map(|l| l.strip_suffix(','));
    for kind in kinds {
        assert!(semantics.contains(&format!("| `{kind}` |")), "docs/SEMANTICS.md has no row for {kind}");
    }
}

/// A claim is a line that starts with its number, `[S12]`; the test that holds it quotes the number in a doc comment.
#[test]
fn every_numbered_claim_of_semantics_is_held_by_a_test() {
    let semantics = read(&root().join("docs/SEMANTICS.md"));
    let claims = semantics.lines().filter_map(|line| line.trim_start_matches("- ").strip_prefix("[S"));
    let claims: Vec<String> =
        claims.filter_map(|rest| rest.split(']').next()).map(|number| format!("[S{number}]")).collect();
    let distinct: BTreeSet<&String> = claims.iter().collect();
    assert_eq!(distinct.len(), claims.len(), "a number is given twice");
    let quoted: String = files(&root(), "rs")
        .iter()
        .map(|path| read(path))
        .flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .filter(|line| line.starts_with("///"))
        .collect();
    for claim in claims {
        assert!(quoted.contains(&claim), "no test quotes {claim} of docs/SEMANTICS.md");
    }
}
