//! gRPC calls of any method of the contract, described by its descriptor instead of generated code.

use std::collections::BTreeMap;

use conversation_memory::proto::DESCRIPTORS;
use futures_util::stream;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ServiceDescriptor,
    prost::Message as _,
};
use serde_json::Value;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::Channel,
};

/// Client of all services of the contract, with requests as JSON.
pub struct JsonGrpc {
    channel: Channel,
    methods: BTreeMap<String, MethodDescriptor>,
}

/// Response of a successful call.
pub struct JsonGrpcResponse {
    pub headers: MetadataMap,
    /// One message, or those of a stream.
    pub messages: Vec<DynamicMessage>,
}

impl JsonGrpc {
    pub fn new(channel: Channel) -> Self {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let services: Vec<_> = pool.services().collect();
        let methods = services.iter().flat_map(ServiceDescriptor::methods);
        Self {
            channel,
            methods: methods
                .map(|method| (method.name().to_owned(), method))
                .collect(),
        }
    }

    /// Names of the methods of all services.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    pub fn is_server_streaming(&self, rpc: &str) -> bool {
        self.methods[rpc].is_server_streaming()
    }

    /// Calls a method with one request, or with those of a stream.
    ///
    /// # Errors
    /// Fails with the status of a call that fails.
    pub async fn call(&self, rpc: &str, requests: &[Value]) -> Result<JsonGrpcResponse, Status> {
        let method = &self.methods[rpc];
        let requests: Vec<_> = requests
            .iter()
            .map(|request| DynamicMessage::deserialize(method.input(), request).unwrap())
            .collect();
        let path = format!("/{}/{}", method.parent_service().full_name(), rpc);
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        grpc.ready().await.unwrap();
        // A unary request or response is a stream of one message.
        let response = grpc.streaming(
            Request::new(stream::iter(requests)),
            path.parse().unwrap(),
            DynamicCodec(method.output()),
        );
        let (headers, mut body, _) = response.await?.into_parts();
        let mut messages = Vec::new();
        while let Some(message) = body.message().await? {
            messages.push(message);
        }
        Ok(JsonGrpcResponse { headers, messages })
    }
}

/// Codec of messages of any type.
struct DynamicCodec(MessageDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(to).unwrap();
        Ok(())
    }
}

impl Decoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        Ok(Some(DynamicMessage::decode(self.0.clone(), from).unwrap()))
    }
}
