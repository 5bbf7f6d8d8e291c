//! Replacements on an original text.
//!
//! An [`EditSet`] is a list of disjoint replacements whose offsets all refer to the *original* bytes, applied in
//! one pass. It never re-creates a message: what no edit names is copied as it came. It does not know why an edit
//! was made; the tag of type `R` is for its owner (the engine puts the rule there).
//!
//! Replacement bytes live in one arena, and both lists keep their capacity over [`EditSet::clear`], so a set that
//! is used again does not allocate.

use crate::span::Span;

/// One replacement: the bytes of `span` in the original become [`EditSet::text`] of this edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<R> {
    /// What is replaced, in offsets of the original.
    pub span: Span,
    /// Why, in the owner's words.
    pub rule: R,
    text: Span,
}

/// Disjoint replacements on one original, sorted by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditSet<R> {
    edits: Vec<Edit<R>>,
    arena: Vec<u8>,
}

/// Two edits name the same byte, or the same insertion point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("edits overlap at byte {at}")]
pub struct Overlap {
    /// The first byte that both edits claim.
    pub at: u32,
}

impl<R> Default for EditSet<R> {
    fn default() -> Self {
        Self { edits: Vec::new(), arena: Vec::new() }
    }
}

impl<R: Copy> EditSet<R> {
    /// An empty set.
    pub const fn new() -> Self {
        Self { edits: Vec::new(), arena: Vec::new() }
    }

    /// Forgets all edits, keeps the memory.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.arena.clear();
    }

    /// Replaces `span` by `text`.
    ///
    /// # Errors
    /// [`Overlap`] if a byte of `span` is already replaced; the set is then as before.
    pub fn replace(&mut self, span: Span, text: &[u8], rule: R) -> Result<(), Overlap> {
        // Most edits come in the order of the text.
        if self.edits.last().is_none_or(|last| last.span.end <= span.start && last.span.start < span.start) {
            let edit = self.edit(span, text, rule);
            self.edits.push(edit);
            return Ok(());
        }
        let at = self.edits.partition_point(|edit| edit.span.start < span.start);
        let before = at.checked_sub(1).and_then(|i| self.edits.get(i));
        let after = self.edits.get(at);
        if before.is_some_and(|edit| edit.span.end > span.start)
            || after.is_some_and(|edit| edit.span.start < span.end || edit.span.start == span.start)
        {
            return Err(Overlap { at: span.start });
        }
        let edit = self.edit(span, text, rule);
        self.edits.insert(at, edit);
        Ok(())
    }

    fn edit(&mut self, span: Span, text: &[u8], rule: R) -> Edit<R> {
        let start = self.arena.len();
        self.arena.extend_from_slice(text);
        Edit { span, rule, text: Span::new(start, self.arena.len()) }
    }

    /// The edits, by position.
    pub fn iter(&self) -> impl Iterator<Item = &Edit<R>> {
        self.edits.iter()
    }

    /// The bytes that `edit` puts in place of its span.
    pub fn text(&self, edit: &Edit<R>) -> &[u8] {
        edit.text.of(&self.arena)
    }

    /// Number of edits.
    pub fn len(&self) -> usize {
        self.edits.len()
    }

    /// Whether nothing is replaced.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// By how many bytes the edits inside `within` change the length of the text.
    pub fn growth(&self, within: Span) -> i64 {
        self.edits
            .iter()
            .filter(|edit| edit.span.start >= within.start && edit.span.end <= within.end)
            .map(|edit| edit.text.len() as i64 - edit.span.len() as i64)
            .sum()
    }

    /// Writes the edited text of `original` behind what is in `out`. Edits past the end of `original` are left out.
    pub fn apply(&self, original: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        for edit in &self.edits {
            let range = edit.span.range();
            let Some(kept) = original.get(from..range.start) else { break };
            if range.end > original.len() {
                break;
            }
            out.extend_from_slice(kept);
            out.extend_from_slice(edit.text.of(&self.arena));
            from = range.end;
        }
        out.extend_from_slice(original.get(from..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(set: &EditSet<u8>, original: &str) -> String {
        let mut out = Vec::new();
        set.apply(original.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn edits_apply_by_position_whatever_their_order() {
        let mut set = EditSet::new();
        set.replace(Span::new(6, 11), b"there", 1).unwrap();
        set.replace(Span::new(0, 5), b"Hi", 2).unwrap();
        assert_eq!(applied(&set, "hello world!"), "Hi there!");
        assert_eq!(set.growth(Span::new(0, 12)), -3);
        assert_eq!(set.growth(Span::new(6, 12)), 0);
        assert_eq!(set.iter().map(|e| e.rule).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn overlap_is_refused_and_changes_nothing() {
        let mut set = EditSet::new();
        set.replace(Span::new(2, 5), b"x", 0).unwrap();
        for span in [Span::new(0, 3), Span::new(4, 9), Span::new(3, 4), Span::new(2, 2), Span::new(2, 5)] {
            assert!(set.replace(span, b"y", 0).is_err(), "{span:?}");
        }
        set.replace(Span::new(5, 5), b"+", 0).unwrap();
        set.replace(Span::new(0, 2), b"", 0).unwrap();
        assert_eq!(applied(&set, "abcdefg"), "x+fg");
    }

    #[test]
    fn an_edit_past_the_end_leaves_the_rest_as_it_is() {
        let mut set = EditSet::new();
        set.replace(Span::new(3, 9), b"x", 0).unwrap();
        assert_eq!(applied(&set, "abcd"), "abcd");
    }
}
