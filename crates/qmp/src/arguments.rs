//! Reading a command's arguments: JSON to typed values, with the error texts that clients know.
