//! Runs every vector of the documents that `core` reads.

use parsecfs_tests::vectors as v;
use std::{fs, path::PathBuf};
#[test]
fn vectors_core() {
    let dir = PathBuf::from(std::env::var("PARSECFS_VECTORS").unwrap_or("/work/shared/parsec/vectors".into()))
        .join("formats");
    let mut bad = 0;
    let mut n = 0;
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for f in files {
        let d: serde_json::Value = serde_json::from_slice(&fs::read(&f).unwrap()).unwrap();
        let kind = d["kind"].as_str().unwrap();
        if kind == "organization snapshot" {
            if let Err(e) = v::snapshot::run(&d) {
                println!("snapshot {e:#}");
                bad += 1;
            }
            n += 1;
            continue;
        }
        let Some(cases) = d["cases"].as_array() else { continue };
        for c in cases {
            let r = match kind {
                "entry name" | "organization id" | "device label" | "email" | "human handle" | "datetime" => {
                    v::scalar::run(kind, c)
                }
                "frame" => v::scalar::frame(c),
                k if k.ends_with("_certificate") => v::certificate::run(k, c),
                "certificate chain" => v::trust::run(c),
                k if k.contains("manifest") => v::manifest::run(k, c),
                "block" => v::manifest::block(c),
                "device file" => v::device::file(c),
                "invite payload" => v::device::invite(c),
                "shamir" => v::shamir::secret(c),
                "shamir share data" => v::shamir::share(c),
                "url" => v::url::run(c),
                "keys bundle" => v::keys_bundle::run(c),
                "realm name / canary" => v::keys_bundle::name_or_canary(c),
                _ => continue,
            };
            n += 1;
            if let Err(e) = r {
                bad += 1;
                println!("{} {}: {e:#}", f.file_name().unwrap().to_string_lossy(), c["name"]);
            }
        }
    }
    println!("{n} cases");
    assert_eq!(bad, 0);
}
