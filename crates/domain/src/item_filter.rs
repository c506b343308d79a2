//! Filters of searches for items, which are evaluated by this program, so that they mean the same in
//! every store.

use std::{cmp::Ordering, fmt};

use serde_json::{Map, Number, Value};

use super::{
    InvalidValue,
    metadata::{check, parse_json},
};

/// Conditions that the members of an item's value must fulfil.
#[derive(Clone)]
pub struct ItemFilter(Vec<(String, Condition)>);

#[derive(Clone)]
enum Condition {
    /// The value equals this text, number, boolean or null.
    Scalar(Value),
    /// The value is an object whose members fulfil conditions.
    Members(Vec<(String, Condition)>),
    /// The value is a list of as many elements, which fulfil conditions.
    Elements(Vec<Condition>),
    /// The value fulfils all comparisons.
    Comparisons(Vec<(Operator, Value)>),
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    /// Whether equality is enough, and the order of the value and the operand.
    Ordered(Ordering, bool),
}

impl Operator {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "$eq" => Self::Equal,
            "$ne" => Self::NotEqual,
            "$gt" => Self::Ordered(Ordering::Greater, false),
            "$gte" => Self::Ordered(Ordering::Greater, true),
            "$lt" => Self::Ordered(Ordering::Less, false),
            "$lte" => Self::Ordered(Ordering::Less, true),
            _ => return None,
        })
    }

    fn holds(self, value: &Value, operand: &Value) -> bool {
        match self {
            Self::Equal => is_equal(value, operand),
            Self::NotEqual => !is_equal(value, operand),
            Self::Ordered(order, or_equal) => compare(value, operand)
                .is_some_and(|found| found == order || (or_equal && found == Ordering::Equal)),
        }
    }
}

impl ItemFilter {
    /// Upper bound on the text of a filter, in bytes.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Parses a filter.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the text is too long, is not a JSON object of finite numbers, has too
    /// many levels, contains U+0000, or has an operator that is not known.
    pub fn parse(json: &str) -> Result<Self, InvalidValue> {
        if json.len() > Self::MAX_BYTES {
            let max = Self::MAX_BYTES;
            return Err(InvalidValue::new(format!("must have at most {max} bytes")));
        }
        let value = parse_json(json)?;
        check(&value, 1)?;
        match value {
            Value::Object(members) => members_of(members).map(Self),
            _ => Err(InvalidValue::new("must be an object")),
        }
    }

    /// Whether the text of an item's value fulfils all conditions.
    pub fn matches(&self, value: &str) -> bool {
        let value: Result<Value, _> = serde_json::from_str(value);
        value.is_ok_and(|value| value.as_object().is_some_and(|it| all_hold(&self.0, it)))
    }
}

impl fmt::Debug for ItemFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ItemFilter").finish_non_exhaustive()
    }
}

fn members_of(members: Map<String, Value>) -> Result<Vec<(String, Condition)>, InvalidValue> {
    members
        .into_iter()
        .map(|(name, value)| Ok((name, condition(value)?)))
        .collect()
}

fn condition(value: Value) -> Result<Condition, InvalidValue> {
    Ok(match value {
        Value::Object(members) if members.keys().any(|name| name.starts_with('$')) => {
            let comparisons = members.into_iter().map(|(name, operand)| {
                let operator = Operator::parse(&name).ok_or_else(|| {
                    InvalidValue::new("must have the operators $eq, $ne, $gt, $gte, $lt, $lte only")
                })?;
                Ok((operator, operand))
            });
            Condition::Comparisons(comparisons.collect::<Result<_, _>>()?)
        }
        Value::Object(members) => Condition::Members(members_of(members)?),
        Value::Array(elements) => {
            let elements = elements.into_iter().map(condition);
            Condition::Elements(elements.collect::<Result<_, _>>()?)
        }
        scalar => Condition::Scalar(scalar),
    })
}

fn all_hold(conditions: &[(String, Condition)], object: &Map<String, Value>) -> bool {
    conditions
        .iter()
        .all(|(name, condition)| holds(condition, object.get(name).unwrap_or(&Value::Null)))
}

fn holds(condition: &Condition, value: &Value) -> bool {
    match condition {
        Condition::Scalar(wanted) => is_equal(value, wanted),
        Condition::Members(conditions) => value
            .as_object()
            .is_some_and(|object| all_hold(conditions, object)),
        Condition::Elements(conditions) => value.as_array().is_some_and(|elements| {
            elements.len() == conditions.len()
                && conditions
                    .iter()
                    .zip(elements)
                    .all(|(condition, element)| holds(condition, element))
        }),
        Condition::Comparisons(comparisons) => comparisons
            .iter()
            .all(|(operator, operand)| operator.holds(value, operand)),
    }
}

fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            compare_numbers(one, other) == Some(Ordering::Equal)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |(name, value)| other.get(name).is_some_and(|it| is_equal(value, it));
            one.len() == other.len() && one.iter().all(has)
        }
        _ => one == other,
    }
}

/// Order of two values; `None` unless both are numbers or both are texts.
fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare_numbers(one, other),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

fn compare_numbers(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        (Some(integer), None) => Some(compare_to_double(integer, other.as_f64()?)),
        (None, Some(integer)) => Some(compare_to_double(integer, one.as_f64()?).reverse()),
        (None, None) => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// Compares without rounding the integer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "doubles beyond the integers become the outermost ones"
)]
fn compare_to_double(integer: i128, double: f64) -> Ordering {
    let order = integer.cmp(&(double.floor() as i128));
    if order == Ordering::Equal && double.fract() != 0.0 {
        return Ordering::Less;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = r#"{"text": "b", "number": 5, "double": 2.5, "large": 9007199254740993,
        "yes": true, "none": null, "list": [1, {"a": 2}], "object": {"a": 1, "b": [2]}}"#;

    #[test]
    fn filters_compare_members() {
        for (filter, expected) in [
            ("{}", true),
            (r#"{"text":"b","number":5.0}"#, true),
            (r#"{"text":"B"}"#, false),
            (r#"{"number":"5"}"#, false),
            (r#"{"yes":1}"#, false),
            (r#"{"none":null,"missing":null}"#, true),
            (r#"{"missing":1}"#, false),
            (r#"{"object":{"a":1}}"#, true),
            (r#"{"object":{}}"#, true),
            (r#"{"text":{}}"#, false),
            (r#"{"object":{"$eq":{"a":1}}}"#, false),
            (r#"{"object":{"$eq":{"a":1.0,"b":[2]}}}"#, true),
            (r#"{"object":{"a":{"$gt":0}}}"#, true),
            (r#"{"list":[1,{"a":2}]}"#, true),
            (r#"{"list":[1]}"#, false),
            (r#"{"list":[{"$lt":2},{}]}"#, true),
            (r#"{"number":{"$gt":4,"$lte":5}}"#, true),
            (r#"{"number":{"$gt":5}}"#, false),
            (r#"{"number":{"$gte":5.5}}"#, false),
            (r#"{"double":{"$gt":2,"$lt":3}}"#, true),
            (r#"{"large":{"$gt":9007199254740992.0}}"#, true),
            (r#"{"large":9007199254740992.0}"#, false),
            (r#"{"text":{"$gt":"a","$lt":"c"}}"#, true),
            (r#"{"text":{"$gt":1}}"#, false),
            (r#"{"missing":{"$ne":1}}"#, true),
            (r#"{"missing":{"$lt":1}}"#, false),
        ] {
            let parsed = ItemFilter::parse(filter).unwrap();
            assert_eq!(parsed.matches(VALUE), expected, "{filter}");
        }
    }

    #[test]
    fn invalid_filters_are_rejected() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(ItemFilter::MAX_BYTES));
        for bad in [
            "",
            "[]",
            "{",
            r#"{"a":{"$in":[1]}}"#,
            r#"{"a":{"$eq":1,"b":1}}"#,
            r#"{"a":"\u0000"}"#,
            &deep,
            &long,
        ] {
            assert!(ItemFilter::parse(bad).is_err(), "{bad}");
        }
    }
}
