//! Device models: a pure chip and a thin bus adapter each.
