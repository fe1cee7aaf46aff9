//! The modules of a package: what each defines, imports and names.

use std::collections::{BTreeMap, BTreeSet};

use super::Sources;
use super::tokens::{behind, is_word, tokens};

/// Keywords in front of the name of an item.
const ITEMS: [&str; 9] = [
    "fn",
    "struct",
    "enum",
    "trait",
    "type",
    "const",
    "static",
    "union",
    "macro_rules",
];

/// Place of a module in a [`Package`].
pub(super) type Place = usize;

/// The modules of a package, its root first.
#[derive(Default)]
pub(super) struct Package {
    pub(super) modules: Vec<Module>,
}

/// One module, a whole file or a part of one.
#[derive(Default)]
pub(super) struct Module {
    pub(super) file: String,
    pub(super) parent: Place,
    pub(super) children: BTreeMap<String, Place>,
    pub(super) defined: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths in code, of two words or more.
    pub(super) paths: Vec<Vec<String>>,
    /// Words in code that may be names of items.
    pub(super) named: BTreeSet<String>,
}

/// What one leaf of a `use` brings in.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The name it has here, `*` for all there are.
    pub(super) name: String,
    pub(super) is_public: bool,
}

impl Package {
    /// Reads the modules below a root file.
    pub(super) fn read(sources: &Sources, root: &str) -> Self {
        let mut package = Self::default();
        package.add(root, 0);
        package.read_file(sources, 0, "");
        package
    }

    fn add(&mut self, file: &str, parent: Place) -> Place {
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    /// `folder` is where files of its children are, with a slash behind it.
    fn read_file(&mut self, sources: &Sources, place: Place, folder: &str) {
        let text = &sources[&self.modules[place].file];
        self.read_tokens(sources, place, (folder, &tokens(text)));
    }

    fn read_tokens(&mut self, sources: &Sources, place: Place, (folder, tokens): (&str, &[&str])) {
        let mut at = 0;
        let mut depth = 0;
        let mut is_public = false;
        while let Some(token) = tokens.get(at).copied() {
            let next = tokens.get(at + 1).copied().unwrap_or_default();
            match token {
                "pub" if is_restricted(&tokens[at + 1..]) => {
                    (is_public, at) = (true, behind(tokens, at + 1));
                }
                "pub" => (is_public, at) = (true, at + 1),
                "use" => {
                    let mut leaves = Vec::new();
                    at = leaves_of(tokens, at + 1, &[], &mut leaves);
                    let imports = leaves.into_iter().map(|(path, name)| Import {
                        path,
                        name,
                        is_public,
                    });
                    self.modules[place].imports.extend(imports);
                    is_public = false;
                }
                "mod" if is_word(next) => {
                    at = self.read_child(sources, place, (folder, tokens), at);
                    is_public = false;
                }
                _ => {
                    is_public = false;
                    depth += step(token);
                    if depth == 0 {
                        self.define(place, &tokens[at..]);
                    }
                    self.note(place, tokens, at);
                    at += 1;
                }
            }
        }
    }

    /// Reads the module that `mod` at `at` declares; gives the index behind it.
    fn read_child(
        &mut self,
        sources: &Sources,
        place: Place,
        (folder, tokens): (&str, &[&str]),
        at: usize,
    ) -> usize {
        let name = tokens[at + 1];
        let inside = format!("{folder}{name}/");
        if tokens.get(at + 2) == Some(&"{") {
            let end = behind(tokens, at + 2);
            let file = self.modules[place].file.clone();
            let child = self.add(&file, place);
            self.modules[place].children.insert(name.to_owned(), child);
            self.read_tokens(sources, child, (&inside, &tokens[at + 3..end - 1]));
            return end;
        }
        let files = [format!("{folder}{name}.rs"), format!("{inside}mod.rs")];
        let file = files.iter().find(|file| sources.contains_key(*file));
        let file = file.unwrap_or_else(|| panic!("no file of module {name} in {folder:?}"));
        let child = self.add(file, place);
        self.modules[place].children.insert(name.to_owned(), child);
        self.read_file(sources, child, &inside);
        at + 2
    }

    /// Notes the item that begins here, if one does.
    fn define(&mut self, place: Place, tokens: &[&str]) {
        let Some((keyword, rest)) = tokens.split_first() else {
            return;
        };
        let mut rest = rest.iter().filter(|token| !matches!(**token, "!" | "mut"));
        if let (true, Some(name)) = (ITEMS.contains(keyword), rest.next())
            && is_word(name)
            && !ITEMS.contains(name)
        {
            self.modules[place].defined.insert((*name).to_owned());
        }
    }

    /// Notes the path or the name that begins here, if one does.
    fn note(&mut self, place: Place, tokens: &[&str], at: usize) {
        let before = at.checked_sub(1).map_or("", |before| tokens[before]);
        if !is_word(tokens[at]) || matches!(before, "::" | "." | "fn") {
            return;
        }
        let mut path = vec![tokens[at].to_owned()];
        let mut rest = &tokens[at + 1..];
        while let ["::", word, behind @ ..] = rest
            && is_word(word)
        {
            path.push((*word).to_owned());
            rest = behind;
        }
        let module = &mut self.modules[place];
        // What a colon follows is a field or an argument.
        if rest.first() != Some(&":") {
            module.named.insert(path[0].clone());
        }
        if path.len() > 1 {
            module.paths.push(path);
        }
    }
}

/// True for what follows on a `pub` that is not for everybody.
fn is_restricted(tokens: &[&str]) -> bool {
    matches!(tokens, ["(", "crate" | "self" | "super" | "in", ..])
}

/// How a token changes the depth of brackets.
fn step(token: &str) -> i32 {
    match token {
        "(" | "[" | "{" => 1,
        ")" | "]" | "}" => -1,
        _ => 0,
    }
}

/// Paths and names that a `use` tree brings in; gives the index behind it.
fn leaves_of(
    tokens: &[&str],
    mut at: usize,
    before: &[String],
    leaves: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at).copied() {
        let next = tokens.get(at + 1).copied().unwrap_or_default();
        match token {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = leaves_of(tokens, at, &path, leaves);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            "*" => {
                leaves.push((path, "*".to_owned()));
                return at + 1;
            }
            "::" => at += 1,
            word => {
                if word != "self" || path.is_empty() {
                    path.push(word.to_owned());
                }
                at += 1;
                if next == "::" {
                    continue;
                }
                let renamed = (next == "as")
                    .then(|| tokens.get(at + 1).copied())
                    .flatten();
                let name = renamed.or(path.last().map(String::as_str));
                let name = name.unwrap_or_default().to_owned();
                leaves.push((path, name));
                return at + if renamed.is_some() { 2 } else { 0 };
            }
        }
    }
    at
}
