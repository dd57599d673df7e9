//! Names for what does not fit under its own name after a merge (formats.md 7.3, 7.4).

use crate::name::EntryName;

/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 255;

/// How much a base that is too long loses at a time, and how short it may become.
const CUT_BYTES: usize = 10;

/// Returns the name for a copy of a locally changed file whose remote content changed too.
pub fn content_conflict(name: &EntryName, taken: impl Fn(&EntryName) -> bool) -> EntryName {
    first_free(taken, |n| with_mark(name, &format!(" (Parsec sync conflict {})", n + 1), true))
}

/// Returns the name for a local entry whose name is taken by another entry on the storage.
pub fn name_conflict(name: &EntryName, taken: impl Fn(&EntryName) -> bool) -> EntryName {
    first_free(taken, |n| {
        let number = if n == 1 { String::new() } else { format!(" {n}") };
        with_mark(name, &format!(" (Parsec - name conflict{number})"), false)
    })
}

fn first_free(taken: impl Fn(&EntryName) -> bool, name: impl Fn(u64) -> EntryName) -> EntryName {
    (1..).map(name).find(|name| !taken(name)).expect("a folder has fewer names than there are numbers")
}

/// Puts `mark` before the extensions, shortening the base and then dropping extensions from the left until it fits.
fn with_mark(name: &EntryName, mark: &str, keep_cut: bool) -> EntryName {
    let (base, mut extensions) = split(name.reveal());
    let mut kept = base;
    loop {
        let room = NAME_BYTES_MAX.saturating_sub(mark.len() + extensions.len());
        kept = shorten(if keep_cut { kept } else { base }, room);
        if kept.len() <= room {
            return EntryName::new(&format!("{kept}{mark}{extensions}"))
                .expect("a valid name with plain text in it that fits is a valid name");
        }
        extensions = extensions.get(1..).and_then(|rest| rest.find('.').map(|dot| &rest[dot..])).unwrap_or("");
    }
}

/// Splits at the first dot that is not the first character.
fn split(name: &str) -> (&str, &str) {
    let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.').map_or(name.len(), |(at, _)| at);
    name.split_at(dot)
}

/// Cuts the end off in steps while it does not fit and is long; never inside a character.
fn shorten(base: &str, room: usize) -> &str {
    let mut kept = base;
    while kept.len() > room && kept.len() > CUT_BYTES {
        let mut end = kept.len() - CUT_BYTES;
        while !kept.is_char_boundary(end) {
            end -= 1;
        }
        if end == 0 {
            break;
        }
        kept = &kept[..end];
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EntryName {
        EntryName::new(text).unwrap()
    }

    #[test]
    fn the_mark_stands_before_the_extensions() {
        assert_eq!(content_conflict(&name("a.tar.gz"), |_| false).reveal(), "a (Parsec sync conflict 2).tar.gz");
        assert_eq!(name_conflict(&name(".bashrc"), |_| false).reveal(), ".bashrc (Parsec - name conflict)");
    }

    #[test]
    fn the_first_free_number_is_taken() {
        let taken = [name("a (Parsec - name conflict)"), name("a (Parsec - name conflict 2)")];
        assert_eq!(name_conflict(&name("a"), |n| taken.contains(n)).reveal(), "a (Parsec - name conflict 3)");
    }

    #[test]
    fn any_long_name_gets_a_valid_conflict_name() {
        for text in
            ["é".repeat(127), "a".repeat(255), format!("a.{}", "é".repeat(126)), ".".to_owned() + &"x".repeat(254)]
        {
            for free in 0..3 {
                let count = std::cell::Cell::new(0);
                let taken = |_: &EntryName| count.replace(count.get() + 1) < free;
                assert!(content_conflict(&name(&text), taken).reveal().len() <= 255);
            }
            assert!(name_conflict(&name(&text), |_| false).reveal().len() <= 255);
        }
    }
}
