//! Text tables without borders, with columns separated by two spaces so that `cut` can split them.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle, presets};

/// A table with these column titles; a title that starts with `>` is of numbers.
pub fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(style())
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    let last = titles.len().saturating_sub(1);
    for (index, title) in titles.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, if index == last { 0 } else { 2 }));
            if title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

fn style() -> TableStyle {
    presets::NOTHING
}

/// The table without trailing spaces.
pub fn render(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// `-` for `None`.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Adds a row. Hosts choose some of these texts: control characters would reach the terminal.
pub fn add_row<const N: usize>(table: &mut Table, cells: [String; N]) {
    table.add_row(cells.map(|cell| clean(&cell)));
}

/// The text without control characters.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_separated_and_numbers_right_aligned() {
        let mut table = table(&["NAME", ">HOSTS", "STATE"]);
        add_row(&mut table, ["stable".into(), "5".into(), "Active".into()]);
        add_row(
            &mut table,
            ["e\u{1b}[31m".into(), "1000".into(), String::new()],
        );
        insta::assert_snapshot!(render(&table), @r#"
        NAME    HOSTS  STATE
        stable      5  Active
        e�[31m   1000
        "#);
    }
}
