//! Which rows of a batch a filter accepts: column by column, with arrow's kernels.

use arrow_arith::boolean::{and_kleene, not, or_kleene};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, LargeStringArray, RecordBatch, Scalar,
    StringArray,
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_ord::cmp;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use arrow_string::like;

use super::ast::Comparison;
use super::bind::{BoundFilter, Check, Leaf, Members, Node, words};
use super::error::MaskError;
use super::like::{Pattern, matches};

impl BoundFilter {
    /// For each row of `batch`: true where the filter accepts it, false where it does not, null where a null keeps
    /// it from being known (which accepts nothing: only true rows are the filter's).
    ///
    /// # Errors
    ///
    /// [`MaskError::OtherSchema`] if a column that the filter asks is not where and what it was when the filter was
    /// bound.
    pub fn mask(&self, batch: &RecordBatch) -> Result<BooleanArray, MaskError> {
        node(&self.node, batch)
    }
}

fn node(node_: &Node, batch: &RecordBatch) -> Result<BooleanArray, MaskError> {
    match node_ {
        Node::Constant(value) => Ok(constant(*value, batch.num_rows(), None)),
        Node::Not(inner) => {
            let inner = node(inner, batch)?;
            not(&inner).map_err(|source| kernel("", source))
        }
        Node::And(items) => {
            // Where all is false there is nothing left to decide.
            let is_decided = |so_far: &BooleanArray| !so_far.has_true() && so_far.null_count() == 0;
            chain(items, batch, is_decided, and_kleene)
        }
        Node::Or(items) => {
            let is_decided =
                |so_far: &BooleanArray| !so_far.has_false() && so_far.null_count() == 0;
            chain(items, batch, is_decided, or_kleene)
        }
        Node::Leaf(leaf) => leaf.mask(batch),
    }
}

fn chain(
    items: &[Node],
    batch: &RecordBatch,
    is_decided: impl Fn(&BooleanArray) -> bool,
    join: fn(&BooleanArray, &BooleanArray) -> Result<BooleanArray, ArrowError>,
) -> Result<BooleanArray, MaskError> {
    let mut so_far: Option<BooleanArray> = None;
    for item in items {
        so_far = Some(match so_far {
            None => node(item, batch)?,
            Some(so_far) if is_decided(&so_far) => return Ok(so_far),
            Some(so_far) => {
                let next = node(item, batch)?;
                join(&so_far, &next).map_err(|source| kernel("", source))?
            }
        });
    }
    Ok(so_far.unwrap_or_else(|| constant(Some(true), batch.num_rows(), None)))
}

fn kernel(column: &str, source: ArrowError) -> MaskError {
    let column = column.to_owned();
    MaskError::Kernel { column, source }
}

/// The same everywhere, null where `nulls` says so.
fn constant(value: Option<bool>, rows: usize, nulls: Option<&NullBuffer>) -> BooleanArray {
    match value {
        Some(true) => BooleanArray::new(BooleanBuffer::new_set(rows), nulls.cloned()),
        Some(false) => BooleanArray::new(BooleanBuffer::new_unset(rows), nulls.cloned()),
        None => BooleanArray::new_null(rows),
    }
}

impl Leaf {
    fn mask(&self, batch: &RecordBatch) -> Result<BooleanArray, MaskError> {
        let (column, parents) = self.find(batch)?;
        let mask = if matches!(self.check, Check::IsNull) {
            // Null-typed columns have no buffer that says it.
            let nulls = NullBuffer::union(parents.as_ref(), column.logical_nulls().as_ref());
            match nulls {
                Some(nulls) => BooleanArray::new(!nulls.inner(), None),
                None => constant(Some(false), column.len(), None),
            }
        } else {
            let mask = check(&self.check, column).map_err(|source| kernel(&self.name, source))?;
            match parents {
                None => mask,
                Some(_) => {
                    let (values, nulls) = mask.into_parts();
                    BooleanArray::new(values, NullBuffer::union(parents.as_ref(), nulls.as_ref()))
                }
            }
        };
        if self.negated {
            return not(&mask).map_err(|source| kernel(&self.name, source));
        }
        Ok(mask)
    }

    /// The column or field, and where the structs around it are null.
    fn find<'b>(
        &self,
        batch: &'b RecordBatch,
    ) -> Result<(&'b ArrayRef, Option<NullBuffer>), MaskError> {
        let other_schema = || MaskError::OtherSchema {
            column: self.name.clone(),
            expected: words(&self.data_type),
        };
        let mut fields = batch.schema_ref().fields();
        let mut columns = batch.columns();
        let mut parents: Option<NullBuffer> = None;
        let mut found: Option<&ArrayRef> = None;
        for (place, name) in self.path.iter().zip(&self.names) {
            if let Some(parent) = found {
                let parent = parent.as_struct_opt().ok_or_else(other_schema)?;
                parents = NullBuffer::union(parents.as_ref(), parent.nulls());
                fields = parent.fields();
                columns = parent.columns();
            }
            let is_named = fields.get(*place).is_some_and(|field| field.name() == name);
            found = columns.get(*place).filter(|_| is_named);
            found.ok_or_else(other_schema)?;
        }
        let found = found.filter(|found| found.data_type() == &self.data_type);
        Ok((found.ok_or_else(other_schema)?, parents))
    }
}

/// The answer for each value; null where the value is.
fn check(check_: &Check, column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    Ok(match check_ {
        // Asked before, where parents count.
        Check::IsNull => constant(Some(false), column.len(), None),
        Check::Constant(value) => constant(*value, column.len(), column.nulls()),
        Check::Compare(comparison, value) => compare(*comparison, column, value)?,
        Check::Float(comparison, value) => float(*comparison, column, *value)?,
        Check::In { any, has_null } => {
            let mask = members(any, column)?;
            if *has_null { true_or_null(mask) } else { mask }
        }
        Check::Like(pattern) => pattern_mask(pattern, column)?,
        Check::Substring(text) => {
            if column.data_type() == &DataType::LargeUtf8 {
                like::contains(column, &large_text(text))?
            } else {
                like::contains(column, &small_text(text))?
            }
        }
        Check::Item(item) => items(item, column)?,
    })
}

fn compare(
    comparison: Comparison,
    column: &ArrayRef,
    value: &Scalar<ArrayRef>,
) -> Result<BooleanArray, ArrowError> {
    match comparison {
        Comparison::Equal => cmp::eq(column, value),
        Comparison::NotEqual => cmp::neq(column, value),
        Comparison::Less => cmp::lt(column, value),
        Comparison::LessOrEqual => cmp::lt_eq(column, value),
        Comparison::Greater => cmp::gt(column, value),
        Comparison::GreaterOrEqual => cmp::gt_eq(column, value),
    }
}

/// As IEEE 754 compares, which arrow's kernels do not: zeros are equal, and NaN is unequal to everything.
fn float(
    comparison: Comparison,
    column: &ArrayRef,
    value: f64,
) -> Result<BooleanArray, ArrowError> {
    fn of<T: ArrowPrimitiveType>(
        comparison: Comparison,
        column: &ArrayRef,
        value: f64,
        wide: impl Fn(T::Native) -> f64,
    ) -> BooleanArray {
        let column = column.as_primitive::<T>();
        match comparison {
            Comparison::Equal => BooleanArray::from_unary(column, |x| wide(x) == value),
            Comparison::NotEqual => BooleanArray::from_unary(column, |x| wide(x) != value),
            Comparison::Less => BooleanArray::from_unary(column, |x| wide(x) < value),
            Comparison::LessOrEqual => BooleanArray::from_unary(column, |x| wide(x) <= value),
            Comparison::Greater => BooleanArray::from_unary(column, |x| wide(x) > value),
            Comparison::GreaterOrEqual => BooleanArray::from_unary(column, |x| wide(x) >= value),
        }
    }
    Ok(match column.data_type() {
        DataType::Float16 => of::<Float16Type>(comparison, column, value, |x| x.to_f64()),
        DataType::Float32 => of::<Float32Type>(comparison, column, value, f64::from),
        DataType::Float64 => of::<Float64Type>(comparison, column, value, |x| x),
        other => return Err(unsupported(other)),
    })
}

fn unsupported(data_type: &DataType) -> ArrowError {
    ArrowError::NotYetImplemented(format!("comparing {data_type}"))
}

fn members(any: &Members, column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    match any {
        Members::Text(texts) => Ok(match column.data_type() {
            DataType::LargeUtf8 => {
                BooleanArray::from_unary(column.as_string::<i64>(), |x| texts.contains(x))
            }
            DataType::Utf8 => {
                BooleanArray::from_unary(column.as_string::<i32>(), |x| texts.contains(x))
            }
            other => return Err(unsupported(other)),
        }),
        Members::Booleans(values) => {
            let column = column
                .as_boolean_opt()
                .ok_or_else(|| unsupported(column.data_type()))?;
            Ok(BooleanArray::from_unary(column, |x| values.contains(&x)))
        }
        Members::Floats(values) => {
            // Few, nearly always: one pass for each.
            let mut found = BooleanBuffer::new_unset(column.len());
            for value in values {
                let (hits, _) = float(Comparison::Equal, column, *value)?.into_parts();
                found = &found | &hits;
            }
            Ok(BooleanArray::new(found, column.nulls().cloned()))
        }
        Members::Integers(values) => integers(values, column),
    }
}

fn integers(values: &[i128], column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    fn of<T: ArrowPrimitiveType>(values: &[i128], column: &ArrayRef) -> BooleanArray
    where
        T::Native: Into<i128>,
    {
        BooleanArray::from_unary(column.as_primitive::<T>(), |x| {
            values.binary_search(&x.into()).is_ok()
        })
    }
    Ok(match column.data_type() {
        DataType::Int8 => of::<Int8Type>(values, column),
        DataType::Int16 => of::<Int16Type>(values, column),
        DataType::Int32 => of::<Int32Type>(values, column),
        DataType::Int64 => of::<Int64Type>(values, column),
        DataType::UInt8 => of::<UInt8Type>(values, column),
        DataType::UInt16 => of::<UInt16Type>(values, column),
        DataType::UInt32 => of::<UInt32Type>(values, column),
        DataType::UInt64 => of::<UInt64Type>(values, column),
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(values, column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            of::<TimestampMillisecondType>(values, column)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of::<TimestampMicrosecondType>(values, column)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            of::<TimestampNanosecondType>(values, column)
        }
        other => return Err(unsupported(other)),
    })
}

/// False becomes null: what is in no known place of a list with a null may yet be equal to that.
fn true_or_null(mask: BooleanArray) -> BooleanArray {
    let (values, nulls) = mask.into_parts();
    let known = NullBuffer::new(values.clone());
    let nulls = NullBuffer::union(nulls.as_ref(), Some(&known));
    BooleanArray::new(values, nulls)
}

fn small_text(text: &str) -> Scalar<StringArray> {
    StringArray::new_scalar(text)
}

fn large_text(text: &str) -> Scalar<LargeStringArray> {
    LargeStringArray::new_scalar(text)
}

fn pattern_mask(pattern: &Pattern, column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    let is_large = column.data_type() == &DataType::LargeUtf8;
    match (pattern, is_large) {
        (Pattern::Is(text), false) => cmp::eq(column, &small_text(text)),
        (Pattern::Is(text), true) => cmp::eq(column, &large_text(text)),
        (Pattern::StartsWith(text), false) => like::starts_with(column, &small_text(text)),
        (Pattern::StartsWith(text), true) => like::starts_with(column, &large_text(text)),
        (Pattern::EndsWith(text), false) => like::ends_with(column, &small_text(text)),
        (Pattern::EndsWith(text), true) => like::ends_with(column, &large_text(text)),
        (Pattern::Contains(text), false) => like::contains(column, &small_text(text)),
        (Pattern::Contains(text), true) => like::contains(column, &large_text(text)),
        (Pattern::Pieces(pieces), true) => {
            let column = column.as_string::<i64>();
            Ok(BooleanArray::from_unary(column, |x| matches(pieces, x)))
        }
        (Pattern::Pieces(pieces), false) => {
            let column = column
                .as_string_opt::<i32>()
                .ok_or_else(|| unsupported(column.data_type()))?;
            Ok(BooleanArray::from_unary(column, |x| matches(pieces, x)))
        }
    }
}

/// For each list: does some item answer yes?
fn items(item: &Check, column: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    let place = |offset: i64| usize::try_from(offset).unwrap_or(0);
    match column.data_type() {
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let offsets = list.value_offsets();
            any(item, column, list.values(), |row| {
                place(offsets[row].into())..place(offsets[row + 1].into())
            })
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            let offsets = list.value_offsets();
            any(item, column, list.values(), |row| {
                place(offsets[row])..place(offsets[row + 1])
            })
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or(0);
            let list = column.as_fixed_size_list();
            any(item, column, list.values(), |row| {
                row * size..(row + 1) * size
            })
        }
        other => Err(unsupported(other)),
    }
}

fn any(
    item: &Check,
    column: &ArrayRef,
    values: &ArrayRef,
    range: impl Fn(usize) -> std::ops::Range<usize>,
) -> Result<BooleanArray, ArrowError> {
    let rows = column.len();
    if rows == 0 {
        return Ok(constant(Some(false), 0, None));
    }
    // Only the items that these lists hold: a slice shares the values of the whole.
    let first = range(0).start;
    let all = values.slice(first, range(rows - 1).end.saturating_sub(first));
    let (hits, nulls) = check(item, &all)?.into_parts();
    let hits = match nulls {
        Some(nulls) => &hits & nulls.inner(),
        None => hits,
    };
    let found = if hits.count_set_bits() == 0 {
        BooleanBuffer::new_unset(rows)
    } else {
        BooleanBuffer::collect_bool(rows, |row| {
            let range = range(row);
            (range.start..range.end).any(|at| hits.value(at - first))
        })
    };
    Ok(BooleanArray::new(found, column.nulls().cloned()))
}
