use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    admit, blob,
    convert::{self, Parser},
    export,
    field::{FieldViolation, InField},
    import, page_token,
    use_case::use_case,
};
use crate::{
    domain::{
        ConversationId, ConversationRef, DeptId, InvalidValue, RequestId, SearchText, SessionId,
        Title, UserId,
    },
    memory::{
        BeginTurn, BranchConversation, CreateConversation, GetHistory, ListBranches, ListMessages,
        Memory, MessagePage, RedactMessages, SaveMessages, TransferConversation,
        TruncateConversation,
    },
    proto::{self, conversation_memory_server},
    store::{Bound, ConversationQuery, MinState, SearchQuery},
};

/// Implementation of the service `ConversationMemory`.
#[derive(Clone, Debug)]
pub(crate) struct ConversationMemory {
    pub(crate) memory: Memory,
    pub(crate) parser: Parser,
}

#[async_trait]
impl conversation_memory_server::ConversationMemory for ConversationMemory {
    async fn begin_turn(
        &self,
        request: Request<proto::BeginTurnRequest>,
    ) -> Result<Response<proto::EncodedBeginTurnResponse>, Status> {
        let request = request.into_inner();
        let turn = BeginTurn {
            conversation_id: convert::optional_conversation_id(&request.conversation_id)?,
            user_id: convert::user_id(&request.user_id)?,
            dept_id: convert::optional(&request.dept_id, "dept_id", DeptId::parse)?,
            session_id: convert::optional(&request.session_id, "session_id", SessionId::parse)?,
            limits: convert::history_limits(
                request.limit,
                request.max_tokens,
                request.start_on_user,
            )?,
        };
        let begun = use_case("begin_turn", self.memory.begin_turn(turn)).await?;
        Ok(Response::new(convert::begun(begun)))
    }

    async fn get_history(
        &self,
        request: Request<proto::GetHistoryRequest>,
    ) -> Result<Response<proto::EncodedGetHistoryResponse>, Status> {
        let request = request.into_inner();
        let read = GetHistory {
            conversation: self.conversation(&request.conversation_id, &request.user_id)?,
            limits: convert::history_limits(
                request.limit,
                request.max_tokens,
                request.start_on_user,
            )?,
            min_seq: convert::seq(request.min_seq, "min_seq")?,
            strong: convert::strong(request.consistency)?,
            session_id: convert::optional(&request.session_id, "session_id", SessionId::parse)?,
            contexts: request.include_contexts,
        };
        let read = use_case("get_history", self.memory.get_history(read)).await?;
        Ok(Response::new(convert::read_history(read)))
    }

    async fn save_messages(
        &self,
        request: Request<proto::SaveMessagesRequest>,
    ) -> Result<Response<proto::SaveMessagesResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let save = SaveMessages {
            messages: self.parser.messages(request.messages, conversation.id)?,
            conversation,
            request_id: convert::optional(&request.request_id, "request_id", RequestId::parse)?,
            expected_last_seq: request
                .expected_last_seq
                .map(|seq| convert::seq(seq, "expected_last_seq"))
                .transpose()?,
            session_id: convert::optional(&request.session_id, "session_id", SessionId::parse)?,
        };
        let saved = use_case("save_messages", self.memory.save_messages(save)).await?;
        Ok(Response::new(proto::SaveMessagesResponse {
            messages: convert::messages(saved.messages),
            last_seq: saved.last_seq,
            replayed: saved.replayed,
            compaction_due: saved.compaction_due,
        }))
    }

    async fn create_conversation(
        &self,
        request: Request<proto::CreateConversationRequest>,
    ) -> Result<Response<proto::CreateConversationResponse>, Status> {
        let request = request.into_inner();
        let create = CreateConversation {
            id: convert::optional_conversation_id(&request.conversation_id)?,
            user_id: convert::user_id(&request.user_id)?,
            dept_id: convert::optional(&request.dept_id, "dept_id", DeptId::parse)?,
            title: convert::optional(&request.title, "title", Title::parse)?,
            metadata: self.parser.metadata(request.metadata, "metadata")?,
        };
        let conversation = use_case(
            "create_conversation",
            self.memory.create_conversation(create),
        )
        .await?;
        Ok(Response::new(proto::CreateConversationResponse {
            conversation: Some(convert::render_conversation(conversation)),
        }))
    }

    async fn get_conversation(
        &self,
        request: Request<proto::GetConversationRequest>,
    ) -> Result<Response<proto::GetConversationResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let limit = convert::page_size(request.page_size, Memory::MAX_LIMIT, Memory::MAX_LIMIT)?;
        let found = use_case(
            "get_conversation",
            self.memory.get_conversation(&conversation),
        )
        .await?;
        let mut response = proto::GetConversationResponse {
            conversation: Some(convert::render_conversation(found)),
            ..proto::GetConversationResponse::default()
        };
        if !request.omit_messages {
            let page = ListMessages {
                conversation,
                from: Bound::After(0),
                // The conversation beside them is the latest.
                state: MinState::Latest,
                limit,
                contexts: request.include_contexts,
                blobs: request.include_blobs,
            };
            (response.messages, response.next_page_token) = self.message_page(&page).await?;
        }
        Ok(Response::new(response))
    }

    async fn list_conversations(
        &self,
        request: Request<proto::ListConversationsRequest>,
    ) -> Result<Response<proto::ListConversationsResponse>, Status> {
        let request = request.into_inner();
        let of = ["conversations", &request.user_id, &request.dept_id];
        let (after, state) =
            page_token::decode_with_state(&request.page_token, &of).in_field("page_token")?;
        let query = ConversationQuery {
            user_id: convert::user_id(&request.user_id)?,
            dept_id: convert::optional(&request.dept_id, "dept_id", DeptId::parse)?,
            after,
            state,
            limit: convert::page_size(request.page_size, 20, 100)?,
        };
        let page = use_case("list_conversations", self.memory.list_conversations(query)).await?;
        let state = page.state;
        let (conversations, next) = convert::conversation_page(page);
        let token = next.map(|key| page_token::encode_with_state(key, state, &of));
        Ok(Response::new(proto::ListConversationsResponse {
            conversations,
            next_page_token: token.unwrap_or_default(),
        }))
    }

    async fn update_conversation(
        &self,
        request: Request<proto::UpdateConversationRequest>,
    ) -> Result<Response<proto::UpdateConversationResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.conversation.unwrap_or_default();
        let owner_scope = self.parser.owner_scope;
        let conversation =
            owner_scope.conversation_at("conversation.id", &wanted.id, &request.user_id)?;
        let changes = self.parser.changes(wanted, request.update_mask)?;
        let updated = use_case(
            "update_conversation",
            self.memory.update_conversation(conversation, changes),
        )
        .await?;
        Ok(Response::new(proto::UpdateConversationResponse {
            conversation: Some(convert::render_conversation(updated)),
        }))
    }

    async fn delete_conversation(
        &self,
        request: Request<proto::DeleteConversationRequest>,
    ) -> Result<Response<proto::DeleteConversationResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        use_case(
            "delete_conversation",
            self.memory.delete_conversation(conversation),
        )
        .await?;
        Ok(Response::new(proto::DeleteConversationResponse {}))
    }

    async fn list_messages(
        &self,
        request: Request<proto::ListMessagesRequest>,
    ) -> Result<Response<proto::ListMessagesResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let limit = convert::page_size(request.page_size, 100, Memory::MAX_LIMIT)?;
        let of = messages_token(&conversation, request.newest_first);
        let of = of.each_ref().map(String::as_str);
        let (after, state) =
            page_token::decode_with_state(&request.page_token, &of).in_field("page_token")?;
        let page = ListMessages {
            conversation,
            from: match (after, request.newest_first) {
                (after, false) => Bound::After(after.unwrap_or(0)),
                (before, true) => Bound::Before(before.unwrap_or(i64::MAX)),
            },
            state,
            limit,
            contexts: request.include_contexts,
            blobs: request.include_blobs,
        };
        let (messages, next_page_token) = self.message_page(&page).await?;
        Ok(Response::new(proto::ListMessagesResponse {
            messages,
            next_page_token,
        }))
    }

    async fn truncate_conversation(
        &self,
        request: Request<proto::TruncateConversationRequest>,
    ) -> Result<Response<proto::TruncateConversationResponse>, Status> {
        let request = request.into_inner();
        let truncation = TruncateConversation {
            conversation: self.conversation(&request.conversation_id, &request.user_id)?,
            after_seq: convert::seq(request.after_seq, "after_seq")?,
            expected_last_seq: request
                .expected_last_seq
                .map(|seq| convert::seq(seq, "expected_last_seq"))
                .transpose()?,
            request_id: convert::optional(&request.request_id, "request_id", RequestId::parse)?,
        };
        let truncated = use_case(
            "truncate_conversation",
            self.memory.truncate_conversation(truncation),
        )
        .await?;
        Ok(Response::new(proto::TruncateConversationResponse {
            removed_messages: truncated.removed,
            last_seq: truncated.last_seq,
        }))
    }

    async fn compact_conversation(
        &self,
        request: Request<proto::CompactConversationRequest>,
    ) -> Result<Response<proto::CompactConversationResponse>, Status> {
        let compaction = self.parser.compaction(request.into_inner())?;
        let last_seq = use_case(
            "compact_conversation",
            self.memory.compact_conversation(compaction),
        )
        .await?;
        Ok(Response::new(proto::CompactConversationResponse {
            last_seq,
        }))
    }

    async fn redact_messages(
        &self,
        request: Request<proto::RedactMessagesRequest>,
    ) -> Result<Response<proto::RedactMessagesResponse>, Status> {
        let request = request.into_inner();
        let redaction = RedactMessages {
            conversation: self.conversation(&request.conversation_id, &request.user_id)?,
            seqs: convert::message_seqs(request.seqs, "seqs")?,
        };
        let redacted = use_case("redact_messages", self.memory.redact_messages(redaction)).await?;
        Ok(Response::new(proto::RedactMessagesResponse {
            messages: convert::messages(redacted),
        }))
    }

    async fn transfer_conversation(
        &self,
        request: Request<proto::TransferConversationRequest>,
    ) -> Result<Response<proto::TransferConversationResponse>, Status> {
        admit::check_operator(&request)?;
        let request = request.into_inner();
        let transfer = TransferConversation {
            conversation: self.conversation(&request.conversation_id, &request.user_id)?,
            owner: UserId::parse(&request.new_user_id).in_field("new_user_id")?,
            dept_id: convert::optional(&request.new_dept_id, "new_dept_id", DeptId::parse)?,
        };
        let (conversation, transferred) = use_case(
            "transfer_conversation",
            self.memory.transfer_conversation(transfer),
        )
        .await?;
        Ok(Response::new(proto::TransferConversationResponse {
            conversation: Some(convert::render_conversation(conversation)),
            transferred_ids: transferred.iter().map(ToString::to_string).collect(),
        }))
    }

    type GetBlobStream = blob::Pieces;

    async fn get_blob(
        &self,
        request: Request<proto::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let seq = convert::message_seq(request.seq, "seq")?;
        let part = usize::try_from(request.part)
            .map_err(|_| FieldViolation::new("part", InvalidValue::new("must not be negative")))?;
        let blob = use_case("get_blob", self.memory.get_blob(&conversation, seq, part)).await?;
        Ok(blob::respond(blob))
    }

    type ExportConversationStream = export::Pieces;

    async fn export_conversation(
        &self,
        request: Request<proto::ExportConversationRequest>,
    ) -> Result<Response<Self::ExportConversationStream>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let format = convert::export_format(request.format)?;
        let export = use_case(
            "export_conversation",
            self.memory.export_conversation(&conversation),
        )
        .await?;
        export::respond(export, format)
    }

    async fn import_conversation(
        &self,
        request: Request<Streaming<proto::ImportConversationRequest>>,
    ) -> Result<Response<proto::ImportConversationResponse>, Status> {
        let imported = import::import(&self.parser, request.into_inner()).await?;
        Ok(Response::new(imported))
    }

    async fn branch_conversation(
        &self,
        request: Request<proto::BranchConversationRequest>,
    ) -> Result<Response<proto::BranchConversationResponse>, Status> {
        let request = request.into_inner();
        let branch = BranchConversation {
            parent: self.conversation(&request.conversation_id, &request.user_id)?,
            at_seq: convert::message_seq(request.at_seq, "at_seq")?,
            title: convert::optional(&request.title, "title", Title::parse)?,
            id: convert::optional(&request.branch_id, "branch_id", ConversationId::parse)?,
        };
        let branched = use_case(
            "branch_conversation",
            self.memory.branch_conversation(branch),
        )
        .await?;
        Ok(Response::new(proto::BranchConversationResponse {
            conversation: Some(convert::render_conversation(branched)),
        }))
    }

    async fn list_branches(
        &self,
        request: Request<proto::ListBranchesRequest>,
    ) -> Result<Response<proto::ListBranchesResponse>, Status> {
        let request = request.into_inner();
        let of = ["branches", &request.conversation_id, &request.user_id];
        let query = ListBranches {
            conversation: self.conversation(&request.conversation_id, &request.user_id)?,
            after: page_token::decode(&request.page_token, &of).in_field("page_token")?,
            limit: convert::page_size(request.page_size, 20, 100)?,
        };
        let page = use_case("list_branches", self.memory.list_branches(query)).await?;
        let (conversations, next) = convert::conversation_page(page);
        Ok(Response::new(proto::ListBranchesResponse {
            conversations,
            next_page_token: next.map_or_else(String::new, |key| page_token::encode(key, &of)),
        }))
    }

    async fn search_messages(
        &self,
        request: Request<proto::SearchMessagesRequest>,
    ) -> Result<Response<proto::SearchMessagesResponse>, Status> {
        let request = request.into_inner();
        let of = search_token(&request);
        let of = of.each_ref().map(String::as_str);
        let (created_from, created_until) =
            convert::time_range(request.created_from, request.created_until)?;
        let user_id = convert::user_id(&request.user_id)?;
        let text = SearchText::parse(&request.query).in_field("query")?;
        let (after, state): (Option<page_token::SearchPosition>, _) =
            page_token::decode_with_state(&request.page_token, &of).in_field("page_token")?;
        let (after, corrected) = after.map_or((None, None), |position| {
            (Some(position.key), position.corrected_query)
        });
        let query = SearchQuery {
            user_id,
            text: corrected.clone().unwrap_or(text),
            conversation_id: convert::optional_conversation_id(&request.conversation_id)?,
            dept_id: convert::optional(&request.dept_id, "dept_id", DeptId::parse)?,
            role: convert::optional_role(request.role)?,
            created_from,
            created_until,
            metadata: convert::metadata_filter(&request)?,
            after,
            state,
            limit: convert::page_size(request.page_size, 20, 100)?,
        };
        let searched = use_case("search_messages", self.memory.search_messages(query)).await?;
        let page = searched.page;
        let corrected_query = corrected.or(searched.corrected_query);
        let last = page.hits.last().filter(|_| page.more);
        let next = last.map(|last| page_token::SearchPosition {
            key: last.key,
            corrected_query: corrected_query.clone(),
        });
        let corrected_query = corrected_query.map(|text| text.as_str().to_owned());
        Ok(Response::new(proto::SearchMessagesResponse {
            next_page_token: next
                .map(|next| page_token::encode_with_state(next, page.state, &of))
                .unwrap_or_default(),
            corrected_query: corrected_query.unwrap_or_default(),
            hits: convert::hits(page.hits),
        }))
    }
}

impl ConversationMemory {
    /// Parses the conversation that a request names.
    fn conversation(&self, id: &str, user: &str) -> Result<ConversationRef, FieldViolation> {
        self.parser.owner_scope.conversation(id, user)
    }

    async fn message_page(
        &self,
        page: &ListMessages,
    ) -> Result<(Vec<proto::Message>, String), Status> {
        let MessagePage {
            messages,
            more,
            state,
        } = use_case("list_messages", self.memory.list_messages(page)).await?;
        let token = match messages.last() {
            Some(last) if more => {
                let newest_first = matches!(page.from, Bound::Before(_));
                let of = messages_token(&page.conversation, newest_first);
                let of = of.each_ref().map(String::as_str);
                page_token::encode_with_state(last.seq, state, &of)
            }
            _ => String::new(),
        };
        Ok((convert::messages(messages), token))
    }
}

/// Fields to which a page token of messages is bound. `GetConversation` and `ListMessages`
/// share them, since the token of the former is continued by the latter.
fn messages_token(conversation: &ConversationRef, newest_first: bool) -> [String; 4] {
    [
        "messages".to_owned(),
        conversation.id.to_string(),
        conversation
            .user_id
            .as_ref()
            .map_or_else(String::new, |user| user.as_str().to_owned()),
        newest_first.to_string(),
    ]
}

/// Fields to which a page token of a search is bound.
fn search_token(request: &proto::SearchMessagesRequest) -> [String; 10] {
    [
        "search".to_owned(),
        request.user_id.clone(),
        request.query.clone(),
        request.conversation_id.to_ascii_lowercase(),
        request.dept_id.clone(),
        request.role.to_string(),
        convert::time_text(request.created_from),
        convert::time_text(request.created_until),
        request.metadata_key.clone(),
        // Differs from every value if there is none.
        (request.metadata_value.as_ref()).map_or_else(String::new, |value| format!("={value}")),
    ]
}
