//! Values of Arrow arrays as JSON, to be compared by tests in other languages.
//!
//! Nothing is formatted: timestamps are their number, float32 the float64 of equal value.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Value, json};

/// One row of a batch, its columns in order.
///
/// # Errors
///
/// A column of a type that no test uses.
pub fn row(batch: &RecordBatch, at: usize) -> Result<Value, String> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    let pairs = fields.map(|(field, column)| Ok((field.name().clone(), value(column, at)?)));
    Ok(Value::Object(pairs.collect::<Result<Map<_, _>, String>>()?))
}

fn value(array: &dyn Array, at: usize) -> Result<Value, String> {
    if array.is_null(at) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Utf8 => json!(array.as_string::<i32>().value(at)),
        DataType::LargeUtf8 => json!(array.as_string::<i64>().value(at)),
        DataType::Boolean => json!(array.as_boolean().value(at)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(at)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(at)),
        DataType::Float32 => json!(f64::from(array.as_primitive::<Float32Type>().value(at))),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(at)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            json!(array.as_primitive::<TimestampMillisecondType>().value(at))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            let items = (0..items.len()).map(|item| value(&items, item));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let pairs = fields.iter().zip(columns);
            let pairs = pairs.map(|(field, column)| Ok((field.name().clone(), value(column, at)?)));
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        other => return Err(format!("no test uses {other}")),
    })
}
