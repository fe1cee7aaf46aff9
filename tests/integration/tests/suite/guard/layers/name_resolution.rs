//! Which file a name leads to.

use std::collections::BTreeSet;

use super::Sources;
use super::cycle_search::Edges;
use super::module_index::{Package, Place};

/// What a path leads to.
enum Found {
    Module(Place),
    /// An item that this module defines.
    Item(Place),
    /// Nothing of this package.
    Elsewhere,
}

/// Imports that are being followed: a name may be imported under itself.
type Followed = BTreeSet<(Place, String)>;

/// Everything that files of a package name of each other.
pub(super) fn edges(sources: &Sources, root: &str) -> Edges {
    let package = Package::read(sources, root);
    let mut edges = Edges::new();
    for (place, module) in package.modules.iter().enumerate() {
        let imports = module.imports.iter();
        let imports =
            imports.filter(|import| !import.is_public || module.named.contains(&import.name));
        let named = imports.map(|import| &import.path).chain(&module.paths);
        for path in named {
            let (found, words) = package.find(place, path, &Followed::new());
            let of = match found {
                Found::Module(of) | Found::Item(of) => &package.modules[of].file,
                Found::Elsewhere => continue,
            };
            if *of != module.file {
                let names = edges.entry(module.file.clone()).or_default();
                let names = names.entry(of.clone()).or_default();
                names.insert(path[words - 1].clone());
            }
        }
    }
    edges
}

impl Package {
    /// Follows a path that stands in a module; gives how many of its words lead to what was found.
    fn find(&self, place: Place, path: &[String], followed: &Followed) -> (Found, usize) {
        let mut at = place;
        for (index, word) in path.iter().enumerate() {
            let is_last = index + 1 == path.len();
            match word.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => at = self.modules[at].parent,
                name => match self.look_up((at, index == 0), name, is_last, followed) {
                    Found::Module(module) => at = module,
                    // What follows on an item is inside of it.
                    found @ (Found::Item(_) | Found::Elsewhere) => return (found, index + 1),
                },
            }
        }
        (Found::Module(at), path.len())
    }

    /// What a name means in a module; `is_first` when nothing stands before it.
    fn look_up(
        &self,
        (place, is_first): (Place, bool),
        name: &str,
        is_last: bool,
        followed: &Followed,
    ) -> Found {
        let module = &self.modules[place];
        let child = module.children.get(name);
        // A function may have the name of a module, which is meant where something follows.
        if let Some(child) = child.filter(|_| !is_last || !module.defined.contains(name)) {
            return Found::Module(*child);
        }
        if module.defined.contains(name) {
            return Found::Item(place);
        }
        let mut followed = followed.clone();
        if !followed.insert((place, name.to_owned())) {
            return Found::Elsewhere;
        }
        let mut imports = module.imports.iter();
        if let Some(import) = imports.find(|import| import.name == name) {
            return self.find(place, &import.path, &followed).0;
        }
        let all = module.imports.iter().filter(|import| import.name == "*");
        for import in all {
            if let Found::Module(of) = self.find(place, &import.path, &followed).0
                && let known @ (Found::Module(_) | Found::Item(_)) =
                    self.look_up((of, true), name, is_last, &followed)
            {
                return known;
            }
        }
        // A macro may have defined it.
        if is_first {
            Found::Elsewhere
        } else {
            Found::Item(place)
        }
    }
}
