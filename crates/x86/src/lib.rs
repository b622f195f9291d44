//! The x86 processor in software: decoder, interpreter, memory management unit and processor models.
