//! The codec of the generated services: prost's, with a check of each request against the
//! limits of [`decode_limits`](super::decode_limits) before it is decoded.

use std::{marker::PhantomData, sync::LazyLock};

use prost::{Message, Name, bytes::Buf};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::{
    POOL,
    decode_limits::{DecodeLimits, DecodeRejection},
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
        LimitedDecoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
    }
}

/// The decoder of [`LimitedCodec`].
#[derive(Debug)]
pub(crate) struct LimitedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default + 'static> Decoder for LimitedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let limits = LIMITS.as_ref().ok_or(DecodeRejection::LimitsUnknown)?;
        // Tonic passes a message as one contiguous slice. If it did not, a part of the
        // message would not be checked.
        if buffer.chunk().len() != buffer.remaining() {
            return Err(DecodeRejection::LimitsUnknown.into());
        }
        limits.check::<U>(buffer.chunk())?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
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
