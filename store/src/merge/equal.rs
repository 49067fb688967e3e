//! Are two values the same? Null is the same as null, and as a column that is not there.

use arrow_array::{Array, ArrayRef};
use arrow_ord::ord::make_comparator;
use arrow_schema::SortOptions;

/// Compares values of two columns by their rows.
pub(super) type Equal = Box<dyn Fn(usize, usize) -> bool>;

/// Rows of `left` against rows of `right`. Different types are never the same, but for two nulls.
pub(super) fn equal(left: Option<&ArrayRef>, right: Option<&ArrayRef>) -> Equal {
    match (left, right) {
        (None, None) => Box::new(|_, _| true),
        (Some(one), None) => {
            let one = one.clone();
            Box::new(move |row, _| is_null(&one, row))
        }
        (None, Some(one)) => {
            let one = one.clone();
            Box::new(move |_, row| is_null(&one, row))
        }
        (Some(left), Some(right)) => {
            if left.data_type() == right.data_type()
                && let Ok(compare) = make_comparator(left, right, SortOptions::default())
            {
                return Box::new(move |a, b| compare(a, b).is_eq());
            }
            let (left, right) = (left.clone(), right.clone());
            Box::new(move |a, b| {
                let nulls = (is_null(&left, a), is_null(&right, b));
                nulls == (true, true)
                    || nulls == (false, false) && left.slice(a, 1) == right.slice(b, 1)
            })
        }
    }
}

fn is_null(array: &ArrayRef, row: usize) -> bool {
    array.data_type().is_null() || array.is_null(row)
}
