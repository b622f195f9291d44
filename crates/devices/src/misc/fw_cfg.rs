//! The channel through which firmware and kernels read the configuration of their machine: numbered and named items.
