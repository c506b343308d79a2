//! Requests of each method on items. The namespaces and keys of both users are equal.

use serde_json::{Value, json};

use crate::{
    messages::words,
    operations::{Operation, Scene},
};

const KEYS: usize = 4;

impl Scene<'_> {
    pub(crate) fn of_items(&mut self) -> Operation {
        match self.random.below(10) {
            0..3 => Operation::new("PutItem", self.put_item()),
            3 => Operation::new("GetItem", self.item()),
            4 => Operation::new("DeleteItem", self.item()),
            5 | 6 => Operation::new("SearchItems", self.search_items()),
            7 => self.list_namespaces(),
            _ => self.batch(),
        }
    }

    fn item(&mut self) -> Value {
        let key = match self.random.below(6) {
            0 => String::new(),
            _ => format!("key-{}", self.random.below(KEYS)),
        };
        json!({ "userId": self.user, "namespace": self.namespace(), "key": key })
    }

    fn put_item(&mut self) -> Value {
        let mut request = self.item();
        let text = format!("{} {}", words(self.random, 3), self.user);
        let value = json!({ "text": text, "number": self.random.below(3) });
        request["value"] = value.to_string().into();
        let vector = json!([{ "values": self.vector() }]);
        self.maybe(&mut request, 2, "vectors", vector);
        self.maybe(&mut request, 4, "ttlMinutes", 600.into());
        request
    }

    fn search_items(&mut self) -> Value {
        let mut request = json!({ "userId": self.user });
        let (prefix, limit, offset) = (self.namespace(), self.number(5), self.number(2));
        self.maybe(&mut request, 2, "namespacePrefix", prefix);
        self.maybe(&mut request, 3, "filter", "{\"number\":1}".into());
        self.maybe(&mut request, 3, "limit", limit.into());
        self.maybe(&mut request, 4, "offset", offset.into());
        let vector = json!({ "values": self.vector() });
        self.maybe(&mut request, 3, "queryVector", vector);
        request
    }

    fn list_namespaces(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        let (depth, limit) = (self.number(2), self.number(5));
        self.maybe(&mut request, 3, "maxDepth", depth.into());
        self.maybe(&mut request, 3, "limit", limit.into());
        Operation::new("ListNamespaces", request)
    }

    fn batch(&mut self) -> Operation {
        let operations = [
            json!({ "get": self.item() }),
            json!({ "put": self.put_item() }),
            json!({ "search": self.search_items() }),
            json!({ "delete": self.item() }),
        ];
        let first = self.random.below(operations.len() + 1);
        let request = json!({ "userId": self.user, "operations": operations[first..] });
        Operation::new("BatchItems", request)
    }

    fn namespace(&mut self) -> Value {
        let namespaces: [&[&str]; 3] = [&["facts"], &["facts", "work"], &["notes"]];
        json!(namespaces[self.random.below(3)])
    }

    fn vector(&mut self) -> Vec<f32> {
        vec![1.0, f32::from(u8::try_from(self.random.below(9)).unwrap())]
    }
}
