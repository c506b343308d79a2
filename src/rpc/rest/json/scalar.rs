/// A value that is neither a list nor an object.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'a> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
}

/// Why a value is refused, without the value.
#[derive(Debug)]
pub(super) struct Reason(pub(super) String);

impl Reason {
    pub(super) fn new(reason: &str) -> Self {
        Self(reason.to_owned())
    }

    pub(super) fn range(bits: &str) -> Self {
        Self(format!("must be a number of {bits} bits"))
    }
}

impl Scalar<'_> {
    /// A whole number, which may be written as a text or with a point.
    pub(super) fn whole(self) -> Result<i128, Reason> {
        let reason = || Reason::new("must be a whole number");
        match self {
            Self::Signed(value) => Ok(value.into()),
            Self::Unsigned(value) => Ok(value.into()),
            Self::Float(value) => whole(value).ok_or_else(reason),
            Self::Text(text) => match text.parse::<i128>() {
                Ok(value) => Ok(value),
                Err(_) => decimal(text).and_then(whole).ok_or_else(reason),
            },
            Self::Bool(_) => Err(reason()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "so JSON's numbers are read")]
    pub(super) fn float(self) -> Result<f64, Reason> {
        match self {
            Self::Signed(value) => Ok(value as f64),
            Self::Unsigned(value) => Ok(value as f64),
            Self::Float(value) => Ok(value),
            Self::Text("NaN") => Ok(f64::NAN),
            Self::Text("Infinity") => Ok(f64::INFINITY),
            Self::Text("-Infinity") => Ok(f64::NEG_INFINITY),
            Self::Text(text) => decimal(text).ok_or_else(|| Reason::new("must be a number")),
            Self::Bool(_) => Err(Reason::new("must be a number")),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whole and below 2^64")]
fn whole(value: f64) -> Option<i128> {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    (value.fract() == 0.0 && value.abs() < LIMIT).then_some(value as i128)
}

/// A number as JSON writes it. What else Rust reads, such as "inf", is none.
fn decimal(text: &str) -> Option<f64> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let value: f64 = text.bytes().all(is_plain).then(|| text.parse().ok())??;
    value.is_finite().then_some(value)
}

/// A path of a field mask, which JSON has in camel case.
pub(super) fn snake_case(path: &str) -> String {
    let mut snake = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
