//! Which documents of a text belong together: a table whose rows are groups of consecutive documents.

use std::path::Path;
use std::vec::IntoIter;

use crate::DataError;
use crate::config::GroupList;
use crate::read::read_small;

/// Most bytes of a table.
const MAX_TABLE_BYTES: u64 = 1 << 28;

/// Hands out the group of each document in turn.
pub(crate) struct Groups {
    place: String,
    rows: IntoIter<(String, u64)>,
    current: Option<(String, u64)>,
    n_handed_out: u64,
}

impl Groups {
    pub(crate) fn open(list: &GroupList, path: &Path) -> Result<Self, DataError> {
        let place = path.display().to_string();
        let rows = parse(&place, &read_small(path, MAX_TABLE_BYTES)?, list)?.into_iter();
        Ok(Self { place, rows, current: None, n_handed_out: 0 })
    }

    /// The group of the next document.
    pub(crate) fn next(&mut self) -> Result<String, DataError> {
        while self.current.as_ref().is_none_or(|(_, n)| *n == 0) {
            self.current = self.rows.next();
            if self.current.is_none() {
                let expected = "a group for each document of the source";
                let found = format!("groups for {} of them", self.n_handed_out);
                return Err(DataError::input(&self.place, expected, found));
            }
        }
        let (group, n) = self.current.as_mut().expect("the loop found one");
        *n -= 1;
        self.n_handed_out += 1;
        Ok(group.clone())
    }

    /// Checks that no group is left when the source has ended.
    pub(crate) fn finish(self) -> Result<(), DataError> {
        let left: u64 = self.current.iter().chain(self.rows.as_slice()).map(|(_, n)| n).sum();
        if left == 0 {
            return Ok(());
        }
        let n = self.n_handed_out;
        let expected = format!("groups for the {n} documents of the source");
        Err(DataError::input(self.place, expected, format!("groups for {}", n + left)))
    }
}

fn parse(place: &str, text: &str, list: &GroupList) -> Result<Vec<(String, u64)>, DataError> {
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap_or("").split('\t').collect();
    let column = |name: &str| {
        heading.iter().position(|column| *column == name).ok_or_else(|| {
            let expected = format!("a heading with the column {name:?}");
            DataError::input(format!("{place}: line 1"), expected, heading.join(", "))
        })
    };
    let (name, documents) = (column(&list.name)?, column(&list.documents)?);
    let only: Vec<(usize, &String)> = list
        .only
        .iter()
        .map(|(name, value)| Ok::<_, DataError>((column(name)?, value)))
        .collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for (i, line) in lines.enumerate() {
        let at = || format!("{place}: line {}", i + 2);
        let cells: Vec<&str> = line.split('\t').collect();
        if cells.len() != heading.len() {
            let expected = format!("{} columns", heading.len());
            return Err(DataError::input(at(), expected, cells.len()));
        }
        if only.iter().all(|(column, value)| cells[*column] == **value) {
            let Ok(n) = cells[documents].parse::<u32>() else {
                let expected = format!("a number in the column {:?}", list.documents);
                return Err(DataError::input(at(), expected, format!("{:?}", cells[documents])));
            };
            rows.push((cells[name].to_owned(), u64::from(n)));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(table: &str, only: &[(&str, &str)]) -> Result<Groups, DataError> {
        let list = GroupList {
            list: "books.tsv".into(),
            name: "book".into(),
            documents: "n".into(),
            only: only.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        };
        let rows = parse("books.tsv", table, &list)?.into_iter();
        Ok(Groups { place: "books.tsv".into(), rows, current: None, n_handed_out: 0 })
    }

    const TABLE: &str = "tier\tbook\tn\nA\tOne\t2\nB\tTwo\t1\nA\tNone\t0\nA\tThree\t1\n";

    #[test]
    fn documents_get_their_groups_in_order() {
        let mut found = groups(TABLE, &[("tier", "A")]).unwrap();
        let three = [found.next(), found.next(), found.next()].map(Result::unwrap);
        assert_eq!(three, ["One", "One", "Three"]);
        let message = found.next().unwrap_err().to_string();
        let expected = "books.tsv: expected a group for each document of the source, found groups for 3 of them";
        assert_eq!(message, expected);
        let mut short = groups(TABLE, &[]).unwrap();
        short.next().unwrap();
        let message = short.finish().unwrap_err().to_string();
        let expected =
            "books.tsv: expected groups for the 1 documents of the source, found groups for 4";
        assert_eq!(message, expected);
    }

    #[test]
    fn bad_tables_are_named() {
        for (table, expected) in [
            ("", "line 1: expected a heading with the column \"book\", found "),
            ("book\tm\n", "line 1: expected a heading with the column \"n\", found book, m"),
            ("book\tn\nOne\n", "line 2: expected 2 columns, found 1"),
            ("book\tn\nOne\t-1\n", "line 2: expected a number in the column \"n\", found \"-1\""),
        ] {
            let message = groups(table, &[]).err().unwrap().to_string();
            assert_eq!(message, format!("books.tsv: {expected}"));
        }
    }
}
