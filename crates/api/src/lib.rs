//! Rhea's management interface, generated from the QAPI schema: types, handler traits, events and introspection data.
