use std::collections::HashMap;

use prost_reflect::FieldDescriptor;
use prost_types::FileDescriptorProto;

/// What the proto files say of their parts, by file and place.
#[derive(Debug, Default)]
pub(super) struct Comments(HashMap<String, HashMap<Vec<i32>, String>>);

impl Comments {
    /// The comment in front of a part.
    pub(super) fn of(&mut self, file: &FileDescriptorProto, path: &[i32]) -> String {
        let comments = self
            .0
            .entry(file.name().to_owned())
            .or_insert_with(|| read(file));
        comments.get(path).cloned().unwrap_or_default()
    }

    pub(super) fn of_field(&mut self, field: &FieldDescriptor) -> String {
        let file = field.parent_file();
        self.of(file.file_descriptor_proto(), field.path())
    }

    /// Whether a field must be given. Every comment of a request's field says it
    /// first.
    pub(super) fn is_required(&mut self, field: &FieldDescriptor) -> bool {
        self.of_field(field).starts_with("Required.")
    }

    pub(super) fn is_output_only(&mut self, field: &FieldDescriptor) -> bool {
        self.of_field(field).starts_with("Output only.")
    }
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
