use bytes::Bytes;

use super::{Error, Memory, Resource};
use crate::{
    domain::{Blob, ConversationId, ConversationRef, Message, Part},
    fairness::ShareKey,
    store::Bound,
};

/// Data of a blob.
#[derive(Clone, Debug)]
pub struct BlobData {
    /// Media type.
    pub mime_type: String,
    /// Data.
    pub data: Bytes,
}

impl Memory {
    /// Reads the data of a blob.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation or message, or if the part
    /// is not a blob; with [`Error::Unavailable`] if the store cannot be reached.
    pub async fn get_blob(
        &self,
        conversation: &ConversationRef,
        seq: i64,
        part: usize,
    ) -> Result<BlobData, Error> {
        let _permit = self.read_permit().await?;
        let failed = |error| Error::from_store(error, conversation.id);
        let not_found = || Error::NotFound(Resource::Blob(conversation.id, seq, part));
        let from = Bound::After(seq - 1);
        let found = self.0.store.messages(conversation, from, 1, false).await;
        let found = found.map_err(failed)?;
        let message = found.iter().find(|message| message.seq == seq);
        let Some(blob) = message.and_then(|message| message.parts.get(part)?.as_blob()) else {
            return Err(not_found());
        };
        let blobs = self.0.store.blobs(conversation.id, seq).await;
        let mut blobs = blobs.map_err(failed)?.into_iter();
        let found = blobs.find(|(position, _)| *position as usize == part);
        let (_, data) = found.ok_or_else(not_found)?;
        Ok(BlobData {
            mime_type: blob.mime_type.clone(),
            data,
        })
    }

    /// Adds the data of blobs to the messages of a response, the newest first, as far as it fits.
    /// The caller reads the rest one by one. Therefore an error leaves the data out as well: a
    /// history from the recent window does not depend on the store.
    pub(super) async fn attach_blobs(
        &self,
        conversation: ConversationId,
        messages: &mut [Message],
    ) {
        if !messages.iter().any(Message::has_blobs) {
            return;
        }
        let permits = &self.0.read_permits;
        let Some(_permit) = permits.try_acquire(ShareKey::current(), 1) else {
            tracing::debug!("data of blobs is left out: too many reads from the store at once");
            return;
        };
        let bytes: usize = messages.iter().map(Message::size).sum();
        let mut left = Message::MAX_BYTES_PER_RESPONSE.saturating_sub(bytes);
        for message in messages.iter_mut().rev() {
            let mut sizes = message.parts.iter().filter_map(Part::as_blob);
            if !sizes.any(|blob| blob.bytes <= left) {
                continue;
            }
            let read = match self.0.store.blobs(conversation, message.seq).await {
                Ok(read) => read,
                Err(error) => {
                    tracing::debug!(error = %error, "data of blobs is left out");
                    return;
                }
            };
            for (position, data) in read {
                let part = message.parts.get_mut(position as usize);
                if let Some(Blob { data: unread, .. }) = part.and_then(Part::as_blob_mut)
                    && data.len() <= left
                {
                    left -= data.len();
                    *unread = Some(data);
                }
            }
        }
    }
}
