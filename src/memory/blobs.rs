use bytes::Bytes;

use super::{Error, HistoryMessages, Memory, Resource, history::Selectable};
use crate::{
    domain::{ConversationId, ConversationRef, Message, Part},
    fairness::Permits,
    recent::EncodedMessage,
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

    /// Adds the data of blobs to the messages of a history, as [`Self::attach_blobs`].
    pub(super) async fn attach_history_blobs(
        &self,
        conversation: ConversationId,
        messages: &mut HistoryMessages,
    ) {
        let has_blobs = match messages {
            HistoryMessages::Decoded(messages) => messages.iter().any(HasBlobs::has_blobs),
            HistoryMessages::Encoded(messages) => messages.iter().any(HasBlobs::has_blobs),
        };
        if !has_blobs {
            return;
        }
        let permit = match self.read_permit().await {
            Ok(permit) => permit,
            Err(error) => {
                tracing::debug!(error = %error, "data of blobs is left out");
                return;
            }
        };
        match messages {
            HistoryMessages::Decoded(messages) => {
                self.attach_blobs(conversation, messages, &permit).await;
            }
            HistoryMessages::Encoded(messages) => {
                self.attach_blobs(conversation, messages, &permit).await;
            }
        }
    }

    /// Adds the data of blobs to the messages of a response, the newest first, as far as it fits.
    /// The caller reads the rest one by one. Therefore an error leaves the data out as well: a
    /// history from the recent window does not depend on the store. The caller has acquired `_permit` by
    /// [`Self::read_permit`].
    pub(super) async fn attach_blobs<M: HasBlobs>(
        &self,
        conversation: ConversationId,
        messages: &mut [M],
        _permit: &Permits,
    ) {
        let bytes: usize = messages.iter().map(Selectable::size).sum();
        let mut left = Message::MAX_BYTES_PER_RESPONSE.saturating_sub(bytes);
        for message in messages.iter_mut().rev() {
            let blobs = message.blob_sizes();
            if !blobs.iter().any(|(_, bytes)| *bytes <= left) {
                continue;
            }
            let read = match self.0.store.blobs(conversation, message.seq()).await {
                Ok(read) => read,
                Err(error) => {
                    tracing::debug!(error = %error, "data of blobs is left out");
                    return;
                }
            };
            for (position, data) in read {
                if blobs.iter().any(|(blob, _)| *blob == position) && data.len() <= left {
                    left -= data.len();
                    message.attach_blob(position, data);
                }
            }
        }
    }
}

/// Message to which the data of blobs can be added.
pub(super) trait HasBlobs: Selectable {
    fn has_blobs(&self) -> bool;
    /// Sizes of the blobs in bytes, with the positions of their parts.
    fn blob_sizes(&self) -> Vec<(u32, usize)>;
    fn attach_blob(&mut self, position: u32, data: Bytes);
}

impl HasBlobs for Message {
    fn has_blobs(&self) -> bool {
        self.has_blobs()
    }

    fn blob_sizes(&self) -> Vec<(u32, usize)> {
        let parts = (0..).zip(&self.parts);
        parts
            .filter_map(|(position, part)| Some((position, part.as_blob()?.bytes)))
            .collect()
    }

    fn attach_blob(&mut self, position: u32, data: Bytes) {
        let part = self.parts.get_mut(position as usize);
        if let Some(blob) = part.and_then(Part::as_blob_mut) {
            blob.data = Some(data);
        }
    }
}

impl HasBlobs for EncodedMessage {
    fn has_blobs(&self) -> bool {
        self.has_blobs
    }

    fn blob_sizes(&self) -> Vec<(u32, usize)> {
        self.blob_sizes()
    }

    fn attach_blob(&mut self, position: u32, data: Bytes) {
        self.attach_blob(position, data);
    }
}
