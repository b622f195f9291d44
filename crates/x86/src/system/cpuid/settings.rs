//! What can be said of a processor besides its features: the properties that models have, with defaults and limits.

use std::sync::LazyLock;

use rhea_core::object::{PropertyInfo, PropertyKind, Value};

use super::features::{ALIASES, Feature};

/// A property that is neither a feature nor part of how a processor identifies itself.
pub(super) struct Setting {
    pub info: PropertyInfo,
    /// What it is unless set.
    pub default: fn() -> Value,
    /// Whether something comes of it here.
    pub acts: bool,
}

/// What is offered to guests made for Hyper-V.
const HYPER_V: &str = "an interface of Hyper-V";

macro_rules! settings {
    ($($name:literal: $kind:ty = $default:expr, $acts:literal, $description:expr;)*) => {
        &[$(Setting {
            info: PropertyInfo { default: Some(|| Value::from($default)), ..PropertyInfo::of::<$kind>($name, $description) },
            default: || Value::from($default),
            acts: $acts,
        },)*]
    };
}

/// All of them. Those that do not act belong to KVM and its guests' interfaces, or to hardware that is not there.
pub(super) static SETTINGS: &[Setting] = settings! {
    "level": u32 = u32::MAX, true, "last basic leaf of CPUID; all ones for what the features need";
    "min-level": u32 = 0, true, "last basic leaf of CPUID at the least";
    "level-func7": u32 = u32::MAX, true, "last sub-leaf of leaf 7; all ones for what the features need";
    "xlevel": u32 = u32::MAX, true, "last extended leaf of CPUID; all ones for what the features need";
    "min-xlevel": u32 = 0, true, "last extended leaf of CPUID at the least";
    "full-cpuid-auto-level": bool = true, true, "whether features raise the last leaf";
    "phys-bits": u32 = 0, true, "bits of a physical address; 0 for those of the model";
    "l3-cache": bool = true, true, "whether CPUID tells of a third-level cache";
    "cpuid-0xb": bool = true, true, "whether CPUID has leaf 0BH, the topology";
    "tcg-cpuid": bool = true, true, "whether CPUID has the hypervisor's leaves";
    "ucode-rev": u64 = 0, false, "revision of the microcode, which is always the same";
    "check": bool = true, true, "whether to warn of features that are not there";
    "enforce": bool = false, true, "whether features that are not there are an error";
    "xlevel2": u32 = u32::MAX, false, "last of Centaur's leaves";
    "min-xlevel2": u32 = 0, false, "last of Centaur's leaves at the least";
    "host-phys-bits": bool = false, false, "bits of a physical address as the host has them";
    "host-phys-bits-limit": u8 = 0, false, "most bits taken from the host";
    "guest-phys-bits": u32 = u32::MAX, false, "bits of a physical address that the guest can map";
    "tsc-frequency": u64 = 0, false, "frequency of the time stamp counter, which is 1 GHz";
    "legacy-cache": bool = true, false, "caches as old versions told of them";
    "host-cache-info": bool = false, false, "caches as the host has them";
    "fill-mtrr-mask": bool = true, false, "bits of variable memory ranges that migration fills";
    "vmware-cpuid-freq": bool = true, false, "frequencies in leaf 4000_0010H for guests of KVM";
    "pmu": bool = false, false, "performance counters";
    "lmce": bool = false, false, "machine check exceptions for one processor alone";
    "lbr-fmt": u64 = 0, false, "format of last branch records";
    "avx10-version": u8 = 0, false, "version of AVX10";
    "kvm": bool = true, false, "whether KVM shows itself";
    "kvm-pv-enforce-cpuid": bool = false, false, "whether KVM refuses interfaces that CPUID does not tell of";
    "xen-vapic": bool = false, false, "Xen's interface to the local APIC";
    "hv-apicv": bool = false, false, HYPER_V;
    "hv-avic": bool = false, false, HYPER_V;
    "hv-crash": bool = false, false, HYPER_V;
    "hv-emsr-bitmap": bool = false, false, HYPER_V;
    "hv-enforce-cpuid": bool = false, false, HYPER_V;
    "hv-evmcs": bool = false, false, HYPER_V;
    "hv-frequencies": bool = false, false, HYPER_V;
    "hv-ipi": bool = false, false, HYPER_V;
    "hv-no-nonarch-coresharing": String = "off", false, HYPER_V;
    "hv-passthrough": bool = false, false, HYPER_V;
    "hv-reenlightenment": bool = false, false, HYPER_V;
    "hv-relaxed": bool = false, false, HYPER_V;
    "hv-reset": bool = false, false, HYPER_V;
    "hv-runtime": bool = false, false, HYPER_V;
    "hv-spinlocks": u32 = u32::MAX, false, HYPER_V;
    "hv-stimer": bool = false, false, HYPER_V;
    "hv-stimer-direct": bool = false, false, HYPER_V;
    "hv-syndbg": bool = false, false, HYPER_V;
    "hv-synic": bool = false, false, HYPER_V;
    "hv-time": bool = false, false, HYPER_V;
    "hv-tlbflush": bool = false, false, HYPER_V;
    "hv-tlbflush-direct": bool = false, false, HYPER_V;
    "hv-tlbflush-ext": bool = false, false, HYPER_V;
    "hv-vapic": bool = false, false, HYPER_V;
    "hv-vendor-id": String = "", false, HYPER_V;
    "hv-version-id-build": u32 = 14393, false, HYPER_V;
    "hv-version-id-major": u16 = 10, false, HYPER_V;
    "hv-version-id-minor": u16 = 0, false, HYPER_V;
    "hv-version-id-sbranch": u8 = 0, false, HYPER_V;
    "hv-version-id-snumber": u32 = 0, false, HYPER_V;
    "hv-version-id-spack": u32 = 0, false, HYPER_V;
    "hv-vpindex": bool = false, false, HYPER_V;
    "hv-xmm-input": bool = false, false, HYPER_V;
};

/// What models have of which only those two tell that follow what there is.
pub(super) static MIGRATABLE: Setting = Setting {
    info: PropertyInfo {
        default: Some(|| Value::Bool(true)),
        ..PropertyInfo::of::<bool>(
            "migratable",
            "whether features are left out that keep a guest from moving to another host",
        )
    },
    default: || Value::Bool(true),
    acts: true,
};

/// The setting `name`.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().chain([&MIGRATABLE]).find(|setting| setting.info.name == name)
}

const fn identity<T: PropertyKind>(name: &'static str, kind: &'static str, description: &'static str) -> PropertyInfo {
    PropertyInfo { kind, ..PropertyInfo::of::<T>(name, description) }
}

/// How a processor identifies itself.
const IDENTITY: [PropertyInfo; 5] = [
    identity::<String>("vendor", "string", "vendor, as CPUID tells it: twelve characters"),
    identity::<u64>("family", "int", "family"),
    identity::<u64>("model", "int", "model in the family"),
    identity::<u64>("stepping", "int", "stepping of the model"),
    identity::<String>("model-id", "string", "name of the processor"),
];

/// Properties that every model has: how it identifies itself, settings, features by all their names.
pub fn properties() -> &'static [PropertyInfo] {
    static ALL: LazyLock<Vec<PropertyInfo>> = LazyLock::new(|| {
        let names = Feature::all().map(Feature::name).chain(ALIASES.iter().map(|(alias, _)| *alias));
        let features =
            names.map(|name| PropertyInfo::of::<bool>(name, "whether CPUID or an MSR tells of this feature"));
        IDENTITY.into_iter().chain(SETTINGS.iter().map(|setting| setting.info)).chain(features).collect()
    });
    &ALL
}

/// The property that models have that follow what there is, such as `max`.
pub fn property_of_followers() -> &'static PropertyInfo {
    &MIGRATABLE.info
}
