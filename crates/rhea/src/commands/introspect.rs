//! The interface itself: `introspect.json`.

use std::sync::LazyLock;

use rhea_api::introspect::Handler;
use rhea_qmp::{Error, arguments::Members};
use serde_json::{Map, Value};

use super::Commands;

impl Handler for Commands<'_> {
    fn query_qmp_schema(&mut self, arguments: Map<String, Value>) -> Result<Value, Error> {
        Members::of_arguments(arguments).finish()?;
        static SCHEMA: LazyLock<Value> =
            LazyLock::new(|| serde_json::from_str(rhea_api::INTROSPECTION).unwrap_or_default());
        Ok(SCHEMA.clone())
    }
}
