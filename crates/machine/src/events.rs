//! Where the events of a machine go.

use std::sync::Arc;

use rhea_api::Event;

/// Takes the events of a machine; called on the thread that made them happen.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;
