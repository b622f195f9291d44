//! What memory is wanted: the properties of memory backends.

use rhea_core::{
    memory::{MAX_HOST_NODES, PAGE, Placement},
    object::{Numbers, Object, PropertyError, Settings, Size, Typed, Value},
    property_words,
};

property_words! {
    /// On which nodes of the host memory lies.
    pub enum Policy: "HostMemPolicy" {
        /// As the host sees fit.
        Default = "default",
        /// On those named, as long as they have some.
        Preferred = "preferred",
        /// On those named and nowhere else.
        Bind = "bind",
        /// In turn on each of those named.
        Interleave = "interleave",
    }
}

impl From<Policy> for Placement {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Default => Self::Default,
            Policy::Preferred => Self::Preferred,
            Policy::Bind => Self::Bind,
            Policy::Interleave => Self::Interleave,
        }
    }
}

property_words! {
    /// Yes, no, or as other properties have it.
    pub enum OnOffAuto: "OnOffAuto" {
        /// As other properties have it.
        Auto = "auto",
        /// Yes.
        On = "on",
        /// No.
        Off = "off",
    }
}

/// What all memory backends have.
#[derive(Clone, Debug, Object)]
#[object(type = "memory-backend", parent = "object", abstract, settings)]
pub struct MemorySettings {
    /// Bytes, a whole number of pages.
    #[property]
    pub size: Option<Size>,
    /// Whether the host may merge pages of equal contents.
    #[property(default = true, live)]
    pub merge: bool,
    /// Whether a core dump of this program holds it.
    #[property(default = true, live)]
    pub dump: bool,
    /// Whether all of it is taken from the host at once.
    #[property(default = false, live)]
    pub prealloc: bool,
    /// Threads that take it.
    #[property(default = 1)]
    pub prealloc_threads: u32,
    /// Whether it is mapped shared, so that others can map it too.
    #[property(default = false)]
    pub share: bool,
    /// Whether the host sets room for it aside.
    #[property(default = true)]
    pub reserve: bool,
    /// Nodes of the host that the policy speaks of.
    #[property]
    pub host_nodes: Numbers,
    /// On which nodes of the host it lies.
    #[property(default = Policy::Default)]
    pub policy: Policy,
    /// Whether a saved machine knows it by its path instead of its id.
    #[property(default = false)]
    pub x_use_canonical_path_for_ramblock_id: bool,
}

/// Memory without a file.
#[derive(Clone, Debug, Object)]
#[object(type = "memory-backend-ram", parent = "memory-backend", interfaces = ["user-creatable"], settings)]
pub struct RamSettings {}

/// Memory in a file.
#[derive(Clone, Debug, Object)]
#[object(type = "memory-backend-file", parent = "memory-backend", interfaces = ["user-creatable"], settings)]
pub struct FileSettings {
    /// The file, or a directory for one without a name.
    #[property]
    pub mem_path: Option<String>,
    /// Whether the contents are thrown away at the end, so that they need not be written to a disk.
    #[property(default = false)]
    pub discard_data: bool,
    /// Whether the file is opened for reading only.
    #[property(default = false)]
    pub readonly: bool,
    /// Whether the guest cannot write it; `auto` if the file is opened for reading only.
    #[property(default = OnOffAuto::Auto)]
    pub rom: OnOffAuto,
    /// Alignment of the address on the host; 0 for that of a page.
    #[property(default = Size(0))]
    pub align: Size,
    /// Where in the file it begins, a whole number of pages.
    #[property(default = Size(0))]
    pub offset: Size,
}

/// Memory in a file without a name, which others are given by its descriptor.
#[derive(Clone, Debug, Object)]
#[object(type = "memory-backend-memfd", parent = "memory-backend", interfaces = ["user-creatable"], settings)]
pub struct MemfdSettings {
    /// Whether nobody can grow or shrink it.
    #[property(default = true)]
    pub seal: bool,
    /// Whether it is of huge pages.
    #[property(default = false)]
    pub hugetlb: bool,
    /// Bytes of a huge page; 0 for the host's default.
    #[property(default = Size(0))]
    pub hugetlbsize: Size,
}

/// Properties of all backends, and those of one type.
pub(super) fn given<S: Settings>(
    defaults: MemorySettings,
    properties: &[(String, Value)],
) -> Result<(MemorySettings, S), PropertyError> {
    let (common, own): (Vec<_>, Vec<_>) =
        properties.iter().cloned().partition(|(name, _)| MemorySettings::INFO.property(name).is_some());
    let mut settings = defaults;
    for (name, value) in &common {
        settings.assign(name, value)?;
    }
    Ok((settings, S::given(&own)?))
}

impl MemorySettings {
    /// Checks what properties say of each other, and gives the size.
    pub(super) fn check(&self) -> Result<u64, PropertyError> {
        let refused = |reason: String| Err(PropertyError::Refused(reason));
        let Size(size) = self.size.ok_or(PropertyError::Missing("size"))?;
        if size == 0 {
            return refused("property 'size' of a memory backend doesn't take value '0'".to_owned());
        }
        if !size.is_multiple_of(PAGE) {
            let expected = "a whole number of 4096-byte pages".to_owned();
            return Err(PropertyError::Range { name: "size".to_owned(), expected });
        }
        if self.prealloc_threads == 0 {
            return refused("property 'prealloc-threads' of a memory backend doesn't take value '0'".to_owned());
        }
        if self.prealloc && !self.reserve {
            return refused("'prealloc=on' and 'reserve=off' are incompatible".to_owned());
        }
        if let Some(node) = self.host_nodes.0.iter().find(|&&node| node >= MAX_HOST_NODES) {
            return refused(format!("Invalid host-nodes value: {node}"));
        }
        match (self.policy, self.host_nodes.0.is_empty()) {
            (Policy::Default, false) => refused(
                "host-nodes must be empty for policy default, or you should explicitly specify a policy other than \
                 default"
                    .to_owned(),
            ),
            (Policy::Default, true) | (_, false) => Ok(size),
            (policy, true) => {
                use rhea_core::object::PropertyKind as _;
                refused(format!("host-nodes must be set for policy {}", policy.to_value().as_str().unwrap_or_default()))
            }
        }
    }
}
