//! What goes to standard output.
//!
//! **Invariant:** a reader that hangs up (`pointsman status | head -1`) ends the command with an
//! error instead of a panic, which is what `println!` would do.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// One line.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    // Phases are to be seen when they end, also through a pipe.
    out.flush()
}

/// Several lines that end with a line break already.
pub fn block(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// One JSON value, indented.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// A value, or a dash where there is none.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A node, or `none` where there was none.
pub fn or_none(node: &str) -> &str {
    if node.is_empty() { "none" } else { node }
}

/// Columns as wide as their widest cell; those that hold only numbers are aligned right.
pub struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub fn new(head: [&str; COLUMNS]) -> Self {
        Table {
            rows: vec![head.map(str::to_uppercase)],
        }
    }

    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; COLUMNS];
        let mut numeric = [true; COLUMNS];
        for (index, row) in self.rows.iter().enumerate() {
            for ((cell, width), numeric) in row.iter().zip(&mut widths).zip(&mut numeric) {
                *width = cell.chars().count().max(*width);
                let number = cell == "-" || cell.parse::<i64>().is_ok();
                *numeric &= index == 0 || number;
            }
        }
        for row in &self.rows {
            let mut text = String::new();
            for ((cell, width), numeric) in row.iter().zip(widths).zip(numeric) {
                text.push_str("  ");
                text.push_str(&if numeric {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                });
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut table = Table::new(["node", "offset"]);
        table.row(["a:1".to_owned(), "12345678".to_owned()]);
        table.row(["longer:1".to_owned(), "-".to_owned()]);

        assert_eq!(
            table.to_string(),
            "  NODE        OFFSET\n  a:1       12345678\n  longer:1         -\n"
        );
    }
}
