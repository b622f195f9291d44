//! CPUID as the guest sees it. SDM vol. 2 CPUID, APM vol. 3 appendix D.

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Leaves by function and index.
#[derive(Clone, Debug, Default)]
pub struct CpuidTable {
    leaves: std::collections::BTreeMap<(u32, u32), Leaf>,
}

impl CpuidTable {
    /// What CPUID returns for `function` and `index`.
    pub fn get(&self, function: u32, index: u32) -> Leaf {
        self.leaves.get(&(function, index)).or_else(|| self.leaves.get(&(function, 0))).copied().unwrap_or_default()
    }

    /// Sets a leaf.
    pub fn set(&mut self, function: u32, index: u32, leaf: Leaf) {
        self.leaves.insert((function, index), leaf);
    }
}
