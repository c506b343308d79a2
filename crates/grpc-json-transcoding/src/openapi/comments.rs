use std::collections::HashMap;

use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor};
use prost_types::FileDescriptorProto;

/// Comments of the proto files, by file and path of the element.
#[derive(Debug, Default)]
pub(super) struct Comments(HashMap<String, HashMap<Vec<i32>, String>>);

impl Comments {
    /// Comment above an element.
    pub(super) fn at(&mut self, file: &FileDescriptorProto, path: &[i32]) -> String {
        let comments = self
            .0
            .entry(file.name().to_owned())
            .or_insert_with(|| read(file));
        comments.get(path).cloned().unwrap_or_default()
    }

    pub(super) fn of_field(&mut self, field: &FieldDescriptor) -> String {
        let file = field.parent_file();
        self.at(file.file_descriptor_proto(), field.path())
    }

    pub(super) fn of_message(&mut self, message: &MessageDescriptor) -> String {
        let file = message.parent_file();
        self.at(file.file_descriptor_proto(), message.path())
    }

    pub(super) fn of_method(&mut self, method: &MethodDescriptor) -> String {
        let file = method.parent_file();
        self.at(file.file_descriptor_proto(), method.path())
    }

    /// Whether a request must set the field.
    pub(super) fn is_required(&mut self, field: &FieldDescriptor) -> bool {
        self.of_field(field).starts_with("Required.")
    }

    /// Whether only responses set the field.
    pub(super) fn is_output_only(&mut self, field: &FieldDescriptor) -> bool {
        self.of_field(field).starts_with("Output only.")
    }
}

/// First sentence of a comment, on one line and without its full stop.
pub(super) fn summary(comment: &str) -> String {
    let text = comment.split("\n\n").next().unwrap_or_default();
    let text = text.replace('\n', " ");
    let sentence = text
        .split_once(". ")
        .map_or(text.as_str(), |(first, _)| first);
    sentence.trim_end_matches('.').to_owned()
}

fn read(file: &FileDescriptorProto) -> HashMap<Vec<i32>, String> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    locations
        .filter_map(|location| {
            let lines = location.leading_comments.as_deref()?.lines().map(str::trim);
            let text = lines.collect::<Vec<_>>().join("\n");
            Some((location.path.clone(), text.trim().to_owned()))
        })
        .collect()
}
