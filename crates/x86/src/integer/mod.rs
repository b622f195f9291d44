//! Integer instructions: moves, arithmetic, shifts, bits, strings, stack and near control flow.
