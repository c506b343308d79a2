pub(crate) use crate::domain::{FieldError, InField};
