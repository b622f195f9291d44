//! CPUID as the guest sees it, and the processor models that it describes: their names ([`CpuModel`]), features, leaves,
//! and how they compare. SDM vol. 2 CPUID, APM vol. 3 appendix D and E.
//!
//! The time stamp counter's frequency: Linux believes CPUID 15H and 16H of Intel's processors only, and of the
//! hypervisors' leaves only those of vendors whose signature it knows, none of which is ours to use. It measures the
//! counter against the interval timer, the HPET or the ACPI timer instead. Leaf 4000_0010H is there for those who read
//! it whatever the signature.

mod compare;
pub(crate) mod components;
mod features;
pub(crate) mod instructions;
mod leaves;
mod model;
mod models;
mod settings;
mod topology;

pub use compare::Relation;
pub use features::{ALIASES as FEATURE_ALIASES, ENGINE, Feature, FeatureSet, Register, Source, WORDS, Word};
pub use instructions::{Told, told_as};
pub use model::{CpuModel, DEFAULT_MODEL, Definition, ModelError};
pub use settings::{properties, property_of_followers};
pub use topology::{Package, Seat};

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

impl Leaf {
    fn register(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::Eax => &mut self.eax,
            Register::Ebx => &mut self.ebx,
            Register::Ecx => &mut self.ecx,
            Register::Edx => &mut self.edx,
        }
    }
}

/// Leaves kept in each of the three ranges.
const RANGE: usize = 0x21;
/// First of the hypervisor's leaves.
pub const HYPERVISOR: u32 = 0x4000_0000;
/// Leaves that look at the index in ECX; an index that such a leaf does not have is not index 0.
const INDEXED: [u32; 8] = [4, 7, 0xb, 0xd, 0xf, 0x14, 0x1f, EXTENDED | 0x1d];
/// First of the extended leaves.
pub const EXTENDED: u32 = 0x8000_0000;

/// Where a processor is in the machine, and how fast its clocks are, as its CPUID tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The local APIC's identification.
    pub apic_id: u8,
    /// The package that it is in.
    pub package: Package,
    /// Frequency of the time stamp counter.
    pub tsc_khz: u32,
    /// Frequency of the local APIC's timer before its divider.
    pub apic_khz: u32,
}

/// Leaves by function and index.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    basic: [Leaf; RANGE],
    hypervisor: [Leaf; RANGE],
    extended: [Leaf; RANGE],
    /// Leaves of an index above zero: function, index, leaf.
    indexed: Vec<(u32, u32, Leaf)>,
}

impl Default for CpuidTable {
    fn default() -> Self {
        let empty = [Leaf::default(); RANGE];
        Self { basic: empty, hypervisor: empty, extended: empty, indexed: Vec::new() }
    }
}

impl CpuidTable {
    /// What CPUID returns for `function` and `index`; zeros for what there is not.
    pub fn get(&self, function: u32, index: u32) -> Leaf {
        if index != 0 {
            if let Some((.., leaf)) = self.indexed.iter().find(|entry| (entry.0, entry.1) == (function, index)) {
                return *leaf;
            }
            if INDEXED.contains(&function) {
                return self.beyond(function, index);
            }
        }
        let range = match function & 0xf000_0000 {
            0 => &self.basic,
            HYPERVISOR => &self.hypervisor,
            EXTENDED => &self.extended,
            _ => return Leaf::default(),
        };
        range.get((function & 0x0fff_ffff) as usize).copied().unwrap_or_default()
    }

    /// Sets a leaf. Those beyond 20H of a range are out of reach.
    pub fn set(&mut self, function: u32, index: u32, leaf: Leaf) {
        if index != 0 {
            self.indexed.retain(|entry| (entry.0, entry.1) != (function, index));
            self.indexed.push((function, index, leaf));
            return;
        }
        let range = match function & 0xf000_0000 {
            0 => &mut self.basic,
            HYPERVISOR => &mut self.hypervisor,
            EXTENDED => &mut self.extended,
            _ => return,
        };
        if let Some(slot) = range.get_mut((function & 0x0fff_ffff) as usize) {
            *slot = leaf;
        }
    }

    /// The bits of a word of features; none for those that MSRs tell of.
    pub fn word(&self, source: Source) -> u32 {
        match source {
            Source::Cpuid { function, index, register } => *self.get(function, index.unwrap_or(0)).register(register),
            Source::Msr(_) => 0,
        }
    }

    /// Whether a feature is offered.
    pub fn has(&self, feature: Feature) -> bool {
        self.word(feature.source()) >> (feature.bit() & 31) & 1 != 0
    }

    /// Offers a feature, or hides it. Those that MSRs tell of are not here.
    pub fn set_feature(&mut self, feature: Feature, offered: bool) {
        let Source::Cpuid { function, index, register } = feature.source() else { return };
        let index = index.unwrap_or(0);
        let mut leaf = self.get(function, index);
        let mask = 1 << (feature.bit() & 31);
        let word = leaf.register(register);
        *word = *word & !mask | if offered { mask } else { 0 };
        self.set(function, index, leaf);
    }

    /// Takes a leaf away, with all its sub-leaves.
    fn forget(&mut self, function: u32) {
        self.set(function, 0, Leaf::default());
        self.indexed.retain(|entry| entry.0 != function);
    }

    /// Takes all leaves away beyond the last basic and the last extended one.
    fn end_at(&mut self, level: u32, extended: u32) {
        for (function, ..) in self.leaves() {
            let last = match function & 0xf000_0000 {
                0 => level,
                EXTENDED => extended,
                _ => continue,
            };
            if function > last {
                self.forget(function);
            }
        }
    }

    /// Bits of a physical address, as the guest is told.
    pub fn physical_bits(&self) -> u32 {
        match self.get(EXTENDED | 8, 0).eax & 0xff {
            // SDM vol. 2: without the leaf they are 36, and 32 for those that cannot have more.
            0 => 36,
            bits => bits.clamp(32, 52),
        }
    }

    /// All leaves that are not all zeros: function, index, leaf.
    pub fn leaves(&self) -> Vec<(u32, u32, Leaf)> {
        let range = |first: u32, leaves: &[Leaf; RANGE]| {
            (first..).zip(*leaves).map(|(function, leaf)| (function, 0, leaf)).collect::<Vec<_>>()
        };
        let mut all = range(0, &self.basic);
        all.extend(range(HYPERVISOR, &self.hypervisor));
        all.extend(range(EXTENDED, &self.extended));
        all.extend(&self.indexed);
        all.retain(|(.., leaf)| *leaf != Leaf::default());
        all.sort_unstable_by_key(|(function, index, _)| (*function, *index));
        all
    }

    /// The table that [`leaves`](Self::leaves) gave; those that no table has are left out.
    pub fn from_leaves(leaves: impl IntoIterator<Item = (u32, u32, Leaf)>) -> Self {
        let mut table = Self::default();
        for (function, index, leaf) in leaves.into_iter().take(8 * RANGE) {
            table.set(function, index, leaf);
        }
        table
    }

    /// In what a guest can tell this processor from another, in words; nothing if it cannot.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.leaves() == other.leaves() {
            return None;
        }
        let identity = |table: &Self| {
            let leaf = table.get(1, 0);
            format!("{} {}, signature {:08x}", table.vendor(), table.model_id(), leaf.eax)
        };
        let (one, two) = (identity(self), identity(other));
        if one != two {
            return Some(format!("'{one}' instead of '{two}'"));
        }
        let changed = Feature::all().filter(|feature| self.has(*feature) != other.has(*feature));
        let changed: Vec<_> =
            changed.map(|feature| format!("{}{}", if self.has(feature) { '+' } else { '-' }, feature.name())).collect();
        if !changed.is_empty() {
            return Some(format!("features {}", changed.join(" ")));
        }
        let (ours, theirs) = (self.leaves(), other.leaves());
        let odd = ours.iter().chain(&theirs).find(|leaf| !ours.contains(leaf) || !theirs.contains(leaf))?;
        Some(format!("CPUID leaf {:08x}H, index {}", odd.0, odd.1))
    }

    /// The family, as leaf 1 tells it (SDM vol. 2 CPUID, "Version information").
    pub fn family(&self) -> u32 {
        let signature = self.get(1, 0).eax;
        match signature >> 8 & 15 {
            15 => 15 + (signature >> 20 & 255),
            family => family,
        }
    }

    /// The vendor, as leaf 0 tells it.
    pub fn vendor(&self) -> String {
        let leaf = self.get(0, 0);
        text(&[leaf.ebx, leaf.edx, leaf.ecx])
    }

    /// The processor's name, as leaves 8000_0002H to 8000_0004H tell it.
    pub fn model_id(&self) -> String {
        let leaves = (2..=4).map(|index| self.get(EXTENDED | index, 0));
        text(&leaves.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]).collect::<Vec<_>>())
    }

    /// Whether the model is AMD's or of AMD's design, whose processors differ from Intel's in a few instructions.
    pub fn is_amd(&self) -> bool {
        [*b"Auth", *b"Hygo"].map(u32::from_le_bytes).contains(&self.basic[0].ebx)
    }
}

/// The characters in registers, up to the first zero.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    bytes.take_while(|byte| *byte != 0).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::{CpuidTable, EXTENDED, Feature, Leaf};

    #[test]
    fn leaves_that_are_not_there_are_zero() {
        let mut table = CpuidTable::default();
        table.set(0x21, 0, Leaf { eax: 1, ..Leaf::default() });
        table.set(0xc000_0000, 0, Leaf { eax: 1, ..Leaf::default() });
        assert!(table.leaves().is_empty());
        for function in [0x20, 0x21, 0xffff, EXTENDED | 0x1f, 0xc000_0000, u32::MAX] {
            assert_eq!(table.get(function, 0), Leaf::default(), "{function:#x}");
        }
    }

    #[test]
    fn an_index_of_its_own_wins() {
        let mut table = CpuidTable::default();
        let leaf = Leaf { eax: 7, ..Leaf::default() };
        table.set(4, 2, leaf);
        assert_eq!((table.get(4, 2), table.get(4, 1)), (leaf, Leaf::default()));
        table.set_feature(Feature::SSE, true);
        table.set_feature(Feature::FXSR, true);
        table.set_feature(Feature::SSE, false);
        assert!(!table.has(Feature::SSE) && table.has(Feature::FXSR));
    }

    #[test]
    fn leaves_make_the_table_again() {
        let mut table = CpuidTable::default();
        table.set(4, 3, Leaf { ebx: 7, ..Leaf::default() });
        table.set_feature(Feature::RDTSCP, true);
        table.set_feature(Feature::SMEP, true);
        let again = CpuidTable::from_leaves(table.leaves());
        assert_eq!(again.leaves(), table.leaves());
        assert_eq!(again.difference(&table), None);
    }

    #[test]
    fn differences_are_named() {
        let mut table = CpuidTable::default();
        let empty = CpuidTable::default();
        table.set_feature(Feature::SMEP, true);
        assert_eq!(table.difference(&empty).unwrap(), "features +smep");
        assert_eq!(empty.difference(&table).unwrap(), "features -smep");
        table.set_feature(Feature::SMEP, false);
        table.set(4, 1, Leaf { ebx: 7, ..Leaf::default() });
        assert_eq!(empty.difference(&table).unwrap(), "CPUID leaf 00000004H, index 1");
        table.set(1, 0, Leaf { eax: 0x6fb, ..Leaf::default() });
        assert!(table.difference(&empty).unwrap().contains("signature 000006fb"));
    }
}
