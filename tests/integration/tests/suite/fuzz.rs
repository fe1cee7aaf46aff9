//! The seeds of the fuzz targets, and what fuzzing found: each still holds.

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn every_target_holds_for_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for file in std::fs::read_dir(seeds.join(name)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            target(&bytes);
            // Torn and damaged copies of it, too.
            for at in (0..bytes.len()).step_by(7) {
                target(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x15;
                target(&damaged);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
