//! SSE to SSE3.
