//! The codec of the generated services: prost's, with a check of each request against the
//! limits of [`decode_limits`](super::decode_limits) before it is decoded.

use std::{marker::PhantomData, sync::LazyLock};

use prost::{Message, Name, bytes::Buf};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::{
    POOL,
    decode_limits::{DecodeLimits, DecodeRejection, Direction},
};

/// Limits of this contract's requests. `None` if they cannot be derived from it, which a
/// test excludes: nothing is decoded then.
static LIMITS: LazyLock<Option<DecodeLimits>> =
    LazyLock::new(|| DecodeLimits::of_services(POOL.as_ref().ok()?).ok());

/// Encodes `T`, and decodes `U` within the limits of its type.
#[derive(Debug)]
pub(crate) struct LimitedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LimitedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LimitedCodec<T, U>
where
    T: Message + 'static,
    U: Message + Name + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = LimitedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        LimitedDecoder {
            has_decoded: false,
            message: PhantomData,
        }
    }
}

/// The decoder of [`LimitedCodec`], which decodes the messages of one call.
#[derive(Debug)]
pub(crate) struct LimitedDecoder<U> {
    has_decoded: bool,
    message: PhantomData<U>,
}

impl<U: Message + Name + Default + 'static> Decoder for LimitedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let limits = LIMITS.as_ref().ok_or(DecodeRejection::LimitsUnknown)?;
        let is_second = std::mem::replace(&mut self.has_decoded, true);
        if is_second && limits.direction_of::<U>()? == Direction::Request {
            // Tonic would decode and discard further requests for as long as they arrive.
            return Err(DecodeRejection::SecondRequest.into());
        }
        // Tonic passes a message as one contiguous slice. If it did not, a part of the
        // message would not be checked.
        if buffer.chunk().len() != buffer.remaining() {
            return Err(DecodeRejection::LimitsUnknown.into());
        }
        limits.check::<U>(buffer.chunk())?;
        let decoded = U::decode(buffer).map_err(|error| DecodeRejection::Malformed {
            cause: error.to_string(),
        })?;
        Ok(Some(decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_this_contract_can_be_derived() {
        let pool = POOL.as_ref().expect("the descriptors are valid");
        DecodeLimits::of_services(pool).expect("every field is supported");
        assert!(LIMITS.is_some());
    }
}
