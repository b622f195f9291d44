//! The components of the extended state: which there are, where XSAVE puts them, and CPUID leaf 0DH, which tells of that.
//!
//! Source: SDM vol. 1 §§ 13.1, 13.2, 13.4; SDM vol. 2 CPUID.

use super::{CpuidTable, Feature, Leaf};
use crate::state::{CpuState, Xcr0};

/// Bytes of the legacy region and the header, with which every area begins: x87 and SSE are in there.
pub(crate) const FIRST: u32 = 576;

/// A component beyond x87 and SSE.
pub(crate) struct Component {
    /// Its bit in XCR0.
    pub(crate) bit: u32,
    /// With what feature a processor has it.
    feature: Feature,
    /// Its bytes.
    pub(crate) size: u32,
    /// Where it is in an area of standard format.
    pub(crate) offset: u32,
}

/// All components beyond x87 and SSE, lowest bit first. None asks for alignment in the compacted format. Between them are
/// those of AVX-512, which there is not.
pub(crate) const COMPONENTS: [Component; 2] = [
    Component { bit: 2, feature: Feature::AVX, size: 256, offset: FIRST },
    Component { bit: 9, feature: Feature::PKU, size: 8, offset: 2688 },
];

/// Sub-leaves of leaf 0DH that describe a component each begin here.
const LEAF: u32 = 0xd;

/// The bits that XCR0 can have on a processor with these features.
pub(crate) fn supported(table: &CpuidTable) -> u64 {
    if !table.has(Feature::XSAVE) {
        return Xcr0::X87.bits();
    }
    let further = COMPONENTS.iter().filter(|component| table.has(component.feature));
    further.fold((Xcr0::X87 | Xcr0::SSE).bits(), |bits, component| bits | 1 << component.bit)
}

/// Bytes of an area of standard format with the components of `mask`.
pub(crate) fn standard_size(mask: u64) -> u32 {
    let ends = COMPONENTS.iter().filter(|component| mask >> component.bit & 1 != 0).map(|c| c.offset + c.size);
    ends.max().unwrap_or(FIRST)
}

/// Bytes of an area of compacted format with the components of `mask`.
pub(crate) fn compacted_size(mask: u64) -> u32 {
    COMPONENTS.iter().filter(|component| mask >> component.bit & 1 != 0).fold(FIRST, |end, c| end + c.size)
}

/// Writes leaf 0DH for the features that the table has.
pub(super) fn describe(table: &mut CpuidTable) {
    if !table.has(Feature::XSAVE) {
        return;
    }
    let all = supported(table);
    // EBX of the first two is what software has switched on, which the instruction fills in: after a reset, x87 alone.
    table.set(LEAF, 0, Leaf { eax: all as u32, ebx: FIRST, ecx: standard_size(all), edx: (all >> 32) as u32 });
    let compacted = if table.has(Feature::XSAVEC) { FIRST } else { 0 };
    table.set(LEAF, 1, Leaf { ebx: compacted, ..table.get(LEAF, 1) });
    for component in COMPONENTS.iter().filter(|component| all >> component.bit & 1 != 0) {
        table.set(LEAF, component.bit, Leaf { eax: component.size, ebx: component.offset, ecx: 0, edx: 0 });
    }
}

impl CpuState {
    /// Whether XCR0 can hold `value` on this processor (SDM vol. 1 § 13.3).
    pub(crate) fn accepts_xcr0(&self, value: u64) -> bool {
        let parts = Xcr0::from_bits_truncate(value);
        value & !supported(&self.cpuid) == 0
            && parts.contains(Xcr0::X87)
            && (!parts.contains(Xcr0::AVX) || parts.contains(Xcr0::SSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str]) -> CpuidTable {
        let mut table = CpuidTable::default();
        for name in names {
            table.set_feature(Feature::named(name).unwrap(), true);
        }
        describe(&mut table);
        table
    }

    #[test]
    fn leaf_13_tells_of_the_components_that_the_model_has() {
        assert_eq!(table(&["avx"]).get(LEAF, 0), Leaf::default());
        let sse = table(&["xsave", "xsaveopt"]);
        assert_eq!(sse.get(LEAF, 0), Leaf { eax: 3, ebx: 576, ecx: 576, edx: 0 });
        assert_eq!((sse.get(LEAF, 1), sse.get(LEAF, 2)), (Leaf { eax: 1, ..Leaf::default() }, Leaf::default()));
        let avx = table(&["xsave", "xsavec", "avx"]);
        assert_eq!(avx.get(LEAF, 0), Leaf { eax: 7, ebx: 576, ecx: 832, edx: 0 });
        assert_eq!(avx.get(LEAF, 1), Leaf { eax: 2, ebx: 576, ..Leaf::default() });
        assert_eq!(avx.get(LEAF, 2), Leaf { eax: 256, ebx: 576, ecx: 0, edx: 0 });
    }
}
