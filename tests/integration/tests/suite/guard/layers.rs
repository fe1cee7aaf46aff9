//! Modules form layers: shared vocabulary below, its users above, and no way back.
//!
//! A module is a file; modules inside a file belong to it. Whatever code names of another file, in an
//! import or in a path, is an edge to the file that defines it, whichever re-exports it was reached
//! through: an item of the parent is as much an edge as an item of a child, and an import of a module is
//! one to its file. `mod child;` is none, and neither is a re-export that its own file makes no use of:
//! it names a place, and users lead past it. Tests do not count.
//!
//! Methods are not followed. A file may add methods to a type from below, and callers of them see only
//! the type.

mod cycle_search;
mod module_index;
mod name_resolution;
mod tokens;

use std::collections::BTreeMap;

use super::{files, root};
use cycle_search::{Edges, cycle};
use name_resolution::edges;

/// Files of one package below its `src`, by path there.
type Sources = BTreeMap<String, String>;

/// The fuzz targets include files of other packages.
const UNLAYERED: [&str; 1] = ["tests/fuzz"];
/// Files that a package begins with.
const ROOTS: [&str; 2] = ["lib.rs", "main.rs"];

/// Every package with its sources, by folder.
fn packages() -> BTreeMap<String, Sources> {
    let root = root();
    let mut packages: BTreeMap<String, Sources> = BTreeMap::new();
    for path in files() {
        let relative = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let is_source = relative.ends_with(".rs");
        if let (true, Some((package, file))) = (is_source, relative.split_once("/src/"))
            && !UNLAYERED.contains(&package)
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let sources = packages.entry(package.to_owned()).or_default();
            sources.insert(file.to_owned(), text);
        }
    }
    packages
}

/// A cycle as a line: each file with what it names of the next.
fn line(cycle: &[String], edges: &Edges) -> String {
    let steps = cycle.iter().zip(cycle.iter().cycle().skip(1));
    let steps = steps.map(|(from, to)| {
        let names: Vec<_> = edges[from][to].iter().map(String::as_str).collect();
        format!("{from} names {} of {to}", names.join(", "))
    });
    steps.collect::<Vec<_>>().join("; ")
}

#[test]
fn modules_form_layers() {
    let packages = packages();
    assert!(packages.contains_key("libs/proto"), "{:?}", packages.keys());
    let mut found = Vec::new();
    for (package, sources) in &packages {
        let roots = ROOTS.iter().filter(|root| sources.contains_key(**root));
        for edges in roots.map(|root| edges(sources, root)) {
            found.extend(cycle(&edges).map(|cycle| format!("{package}: {}", line(&cycle, &edges))));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// The shortest cycle of a package of these files; empty when there is none.
fn found(files: &[(&str, &str)]) -> String {
    let files = files.iter();
    let sources = files.map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
    let edges = edges(&sources.collect(), "lib.rs");
    cycle(&edges).map_or_else(String::new, |cycle| line(&cycle, &edges))
}

#[test]
fn parent_and_child_that_name_each_other_are_a_cycle() {
    let child = ("a/b.rs", "use super::A; pub struct B(A);");
    for parent in [
        "mod b; use b::B; pub struct A; fn f(_: B) {}",
        "mod b; pub struct A; fn f() { b::B::new() }",
        "mod b; pub use b::B; pub struct A; fn f(_: B) {}",
        "mod b; pub struct A; mod inside { use super::b::B; }",
        "mod b; use b as c; pub struct A; fn f() -> c::B { c::B(A) }",
    ] {
        let found = found(&[("lib.rs", "mod a;"), ("a.rs", parent), child]);
        assert!(
            found.contains("a/b.rs names A of a.rs"),
            "{parent}: {found}"
        );
    }
    for parent in [
        "mod b; pub struct A;",
        "mod b; pub use b::B; pub struct A; impl A { fn b(&self) { self.b.B } }",
        "mod b; pub struct A; // b::B\nconst C: &str = \"b::B\"; const D: char = '\"'; /* b::B */",
        "mod b; pub struct A; #[cfg(test)] mod tests { use super::b::B; }",
        "mod b; pub struct A; #[cfg(test)] use b::B;\nfn f<'b>(_: &'b A) { r#\"b::B\"#; }",
    ] {
        let found = found(&[("lib.rs", "mod a;"), ("a.rs", parent), child]);
        assert_eq!(found, "", "{parent}");
    }
}

#[test]
fn re_exports_lead_to_the_file_that_defines_an_item() {
    let lib = ("lib.rs", "pub mod a; pub mod d; pub use a::B;");
    let a = (
        "a.rs",
        "mod b; mod c; pub use b::B; pub use c::*; pub(crate) use other::E;",
    );
    let b = (
        "a/b.rs",
        "use crate::d::{self, D as Other}; pub struct B(Other);",
    );
    let c = (
        "a/c.rs",
        "use super::E; pub fn c(_: super::B) -> crate::B {}",
    );
    assert_eq!(found(&[lib, a, b, c, ("d.rs", "pub struct D;")]), "");
    let back = "d.rs names B of a/b.rs";
    for d in [
        "use crate::B; pub struct D(B);",
        "use crate::a; pub struct D; fn d() { a::B::new() }",
        "pub struct D; fn d() -> Vec<crate::a::B> {}",
        "use crate::a::*; use crate::{a::{B as Back}}; pub struct D;",
    ] {
        let found = found(&[lib, a, b, c, ("d.rs", d)]);
        assert!(found.contains(back), "{d}: {found}");
    }
}

#[test]
fn what_a_macro_defines_is_of_its_file() {
    let found = found(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "make! { Name } use crate::b::B;"),
        ("b.rs", "pub struct B(crate::a::Name);"),
    ]);
    assert_eq!(found, "a.rs names B of b.rs; b.rs names Name of a.rs");
}
