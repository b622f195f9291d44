//! Memory of the host's for the guest: `memory-backend-ram`, `memory-backend-file`, `memory-backend-memfd`.

mod settings;
mod source;

use std::{io, sync::Arc};

use parking_lot::Mutex;
use rhea_core::{
    Ram,
    memory::{MapOptions, PAGE, Placement, Source},
    object::{Object, PropertyError, Settings, TypeInfo, Typed, Value, read_value},
};

pub use settings::{FileSettings, MemfdSettings, MemorySettings, OnOffAuto, Policy, RamSettings};

use self::source::Opened;
use super::CreateError;

/// What one type of backend has besides.
#[derive(Debug)]
enum Kind {
    Ram,
    File(FileSettings),
    Memfd(MemfdSettings),
}

/// The memory.
#[derive(Debug)]
pub struct MemoryBackend {
    settings: Mutex<MemorySettings>,
    kind: Kind,
    /// Bytes of the host's pages.
    page: u64,
    ram: Arc<Ram>,
}

impl MemoryBackend {
    /// Takes memory from the host that has no file.
    ///
    /// # Errors
    /// Wrong properties, or memory that the host does not have.
    pub fn ram_only(id: &str, properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let (settings, RamSettings {}) = settings::given(MemorySettings::defaults(), properties)?;
        let size = settings.check()?;
        let options = MapOptions { share: settings.share, reserve: settings.reserve, ..MapOptions::default() };
        Self::map(id, size, settings, Kind::Ram, PAGE, &options)
    }

    /// Takes memory that is in a file.
    ///
    /// # Errors
    /// Wrong properties, a file that cannot be opened or is too small.
    pub fn file(id: &str, properties: &[(String, Value)]) -> Result<Self, CreateError> {
        let (settings, file): (_, FileSettings) = settings::given(MemorySettings::defaults(), properties)?;
        let size = settings.check()?;
        let rom = match (file.rom, file.readonly) {
            (OnOffAuto::On, false) => {
                let reason = "property 'rom' = 'on' is not supported with 'readonly' = 'off'";
                return Err(PropertyError::Refused(reason.to_owned()).into());
            }
            (OnOffAuto::Off, true) if settings.share => {
                let reason = "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'";
                return Err(PropertyError::Refused(reason.to_owned()).into());
            }
            (rom, readonly) => rom == OnOffAuto::On || rom == OnOffAuto::Auto && readonly,
        };
        let mut opened = source::file(id, &file, size)?;
        let options = MapOptions {
            source: Source::File(opened.again(id)?, file.offset.0),
            share: settings.share,
            reserve: settings.reserve,
            writable: !rom,
            align: file.align.0.max(opened.page),
        };
        let backend = Self::map(id, size, settings, Kind::File(file), opened.page, &options)?;
        opened.keep();
        Ok(backend)
    }

    /// Takes memory that is in a file without a name.
    ///
    /// # Errors
    /// Wrong properties, or memory that the host does not have.
    pub fn memfd(id: &str, properties: &[(String, Value)]) -> Result<Self, CreateError> {
        // Who wants a descriptor wants to share.
        let defaults = MemorySettings { share: true, ..MemorySettings::defaults() };
        let (settings, memfd): (_, MemfdSettings) = settings::given(defaults, properties)?;
        let size = settings.check()?;
        let opened = source::memfd(id, &memfd, size)?;
        let options = MapOptions {
            source: Source::File(opened.again(id)?, 0),
            share: settings.share,
            reserve: settings.reserve,
            writable: true,
            align: opened.page,
        };
        Self::map(id, size, settings, Kind::Memfd(memfd), opened.page, &options)
    }

    fn map(
        id: &str,
        size: u64,
        settings: MemorySettings,
        kind: Kind,
        page: u64,
        options: &MapOptions,
    ) -> Result<Self, CreateError> {
        let host = |what: &str| {
            let what = format!("{what} '{id}'");
            move |reason: io::Error| CreateError::Host { what, reason }
        };
        let ram = Ram::map(id, size, options).map_err(host("cannot set up guest memory"))?;
        // Hosts that do not merge pages, or cannot leave some out of a dump, say so when they are asked to by name.
        if settings.merge {
            let _ = ram.set_merge(true);
        }
        if !settings.dump {
            ram.set_dump(false).map_err(host("cannot keep out of core dumps guest memory"))?;
        }
        if settings.policy != Policy::Default {
            let nodes: Vec<u16> = settings.host_nodes.0.iter().copied().collect();
            let bound = ram.bind(Placement::from(settings.policy), &nodes);
            bound.map_err(|reason| CreateError::Host {
                what: "cannot bind memory to host NUMA nodes".to_owned(),
                reason,
            })?;
        }
        if settings.prealloc {
            ram.populate(settings.prealloc_threads, page).map_err(host("cannot preallocate guest memory"))?;
        }
        Ok(Self { settings: Mutex::new(settings), kind, page, ram })
    }

    /// The memory itself.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// What it is like now.
    pub fn settings(&self) -> MemorySettings {
        self.settings.lock().clone()
    }
}

impl Opened {
    /// A descriptor of the same file, for the mapping.
    fn again(&self, id: &str) -> Result<std::fs::File, CreateError> {
        self.file
            .try_clone()
            .map_err(|reason| CreateError::Host { what: format!("cannot set up guest memory '{id}'"), reason })
    }
}

impl Drop for MemoryBackend {
    fn drop(&mut self) {
        let shared = Arc::strong_count(&self.ram) > 1;
        let given_back = match &self.kind {
            // Devices may hold on to it until they look at the map again; nobody needs its contents. The last one to hold it
            // gives it back anyway.
            Kind::Ram => shared,
            // Whoever still holds the memory would see what is in the file go.
            Kind::File(settings) => settings.discard_data && !shared,
            Kind::Memfd(_) => false,
        };
        if given_back {
            self.ram.discard_all();
        }
    }
}

impl Object for MemoryBackend {
    fn info(&self) -> &'static TypeInfo {
        match self.kind {
            Kind::Ram => RamSettings::INFO,
            Kind::File(_) => FileSettings::INFO,
            Kind::Memfd(_) => MemfdSettings::INFO,
        }
    }

    fn get(&self, name: &str) -> Option<Value> {
        let own = match &self.kind {
            Kind::Ram => None,
            Kind::File(settings) => settings.get(name),
            Kind::Memfd(settings) => settings.get(name),
        };
        own.or_else(|| self.settings.lock().get(name))
    }

    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        let wanted: bool = read_value(name, value)?;
        let refused = |reason: io::Error| {
            PropertyError::Refused(format!("property '{name}': {}", rhea_core::files::reason(&reason)))
        };
        let mut settings = self.settings.lock();
        match name {
            "merge" => self.ram.set_merge(wanted).map_err(refused)?,
            "dump" => self.ram.set_dump(wanted).map_err(refused)?,
            "prealloc" if wanted && !settings.prealloc => {
                if !settings.reserve {
                    return Err(PropertyError::Refused("'prealloc=on' and 'reserve=off' are incompatible".to_owned()));
                }
                self.ram.populate(settings.prealloc_threads, self.page).map_err(refused)?;
            }
            "prealloc" if settings.prealloc && !wanted => {
                return Err(PropertyError::Refused("memory that was preallocated stays so".to_owned()));
            }
            "prealloc" => {}
            _ => return Err(self.info().not_writable(name)),
        }
        settings.assign(name, value)
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::object::PropertyKind as _;

    use super::*;

    type Made = Result<MemoryBackend, String>;
    type Make = fn(&str, &[(String, Value)]) -> Result<MemoryBackend, CreateError>;

    fn made(make: Make, properties: &[(&str, Value)]) -> Made {
        let properties: Vec<_> = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        make("m0", &properties).map_err(|error| error.to_string())
    }

    fn of_size(size: impl Into<Value>) -> Made {
        made(MemoryBackend::ram_only, &[("size", size.into())])
    }

    #[test]
    fn memory_is_as_large_as_asked_for_or_is_not_there() {
        assert_eq!(of_size(8192).unwrap().ram().len(), 8192);
        for bad in [Value::from(0), 4097.into(), Value::from(-1), Value::from(u64::MAX), "1M".into()] {
            assert!(of_size(bad.clone()).is_err(), "{bad}");
        }
        assert!(of_size(1_u64 << 62).unwrap_err().starts_with("cannot set up guest memory 'm0': "));
        assert_eq!(made(MemoryBackend::ram_only, &[]).unwrap_err(), "Parameter 'size' is missing");
    }

    #[test]
    fn properties_that_do_not_go_together_are_refused() {
        for (bad, reason) in [
            (("policy", Value::from("bind")), "host-nodes must be set for policy bind"),
            (("host-nodes", vec![0].into()), "host-nodes must be empty for policy default"),
            (("host-nodes", vec![200].into()), "Invalid host-nodes value: 200"),
            (("host-nodes", vec![-1].into()), "Parameter 'host-nodes' expects uint16"),
            (("prealloc-threads", 0.into()), "property 'prealloc-threads'"),
            (("policy", "nope".into()), "Parameter 'policy' does not accept value 'nope'"),
            (("mem-path", "/x".into()), "Property 'memory-backend-ram.mem-path' not found"),
        ] {
            let error = made(MemoryBackend::ram_only, &[("size", 4096.into()), bad]).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
        let both = [("size", 4096.into()), ("prealloc", true.into()), ("reserve", false.into())];
        assert!(made(MemoryBackend::ram_only, &both).is_err());
    }

    #[test]
    fn memory_can_be_bound_to_the_node_that_every_host_has() {
        for policy in ["preferred", "bind", "interleave"] {
            let wanted = [("size", 8192.into()), ("policy", policy.into()), ("host-nodes", vec![0].into())];
            let backend = made(MemoryBackend::ram_only, &wanted).unwrap();
            assert_eq!(backend.get("policy"), Some(policy.into()));
            assert_eq!(backend.get("host-nodes"), Some(vec![0].into()));
        }
        let far = [("size", 8192.into()), ("policy", "bind".into()), ("host-nodes", vec![127].into())];
        let error = made(MemoryBackend::ram_only, &far).unwrap_err();
        assert!(error.starts_with("cannot bind memory to host NUMA nodes: "), "{error}");
    }

    #[test]
    fn a_file_holds_what_is_written_if_it_is_shared_and_only_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ram");
        let file = |extra: &[(&'static str, Value)]| {
            let mut wanted: Vec<(&str, Value)> =
                vec![("size", 8192.into()), ("mem-path", path.to_str().unwrap().into())];
            wanted.extend_from_slice(extra);
            made(MemoryBackend::file, &wanted)
        };
        let shared = file(&[("share", true.into())]).unwrap();
        assert!(shared.ram().write(4096, b"here"));
        let private = file(&[]).unwrap();
        assert!(private.ram().write(4096, b"gone"));
        assert_eq!(&std::fs::read(&path).unwrap()[4096..4100], b"here");
        let behind = file(&[("offset", 4096.into()), ("size", 4096.into()), ("readonly", true.into())]).unwrap();
        let mut bytes = [0; 4];
        assert!(behind.ram().read(0, &mut bytes));
        assert_eq!(&bytes, b"here");
        assert!(!behind.ram().write(0, &bytes) && !behind.ram().writable());
        drop((private, behind, shared));

        let discarded = file(&[("share", true.into()), ("discard-data", true.into())]).unwrap();
        drop(discarded);
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_file_that_does_not_fit_is_an_error_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let name = |name: &str| Value::from(directory.path().join(name).to_str().unwrap());
        let file = |path: Value, extra: &[(&'static str, Value)]| {
            let mut wanted: Vec<(&str, Value)> = vec![("size", 8192.into()), ("mem-path", path)];
            wanted.extend_from_slice(extra);
            made(MemoryBackend::file, &wanted).unwrap_err()
        };
        std::fs::write(directory.path().join("short"), [1; 100]).unwrap();
        assert_eq!(
            file(name("short"), &[]),
            "m0 backing store size 0x64 is too small for 'size' option 0x2000 plus 'offset' option 0x0"
        );
        assert!(
            file("/nowhere/x".into(), &[]).starts_with("can't open backing store /nowhere/x for guest RAM: No such")
        );
        assert!(file(name("new"), &[("offset", 3.into())]).contains("multiple of the page size"));
        assert!(file(name("new"), &[("align", 3.into())]).contains("power of two"));
        assert!(file(name("new"), &[("offset", u64::MAX.into())]).contains("too large"));
        assert!(file(name("new"), &[("rom", "on".into())]).contains("'rom' = 'on'"));
        assert!(file(name("new"), &[("readonly", true.into())]).contains("No such file"));
        assert!(!directory.path().join("new").exists());
        assert_eq!(made(MemoryBackend::file, &[("size", 4096.into())]).unwrap_err(), "Parameter 'mem-path' is missing");
        let inside = [("size", 4096.into()), ("mem-path", name(""))];
        let unnamed = made(MemoryBackend::file, &inside).unwrap();
        assert!(unnamed.ram().write(0, &[1]));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_memfd_is_shared_and_sealed_unless_told_otherwise() {
        let backend = made(MemoryBackend::memfd, &[("size", 8192.into())]).unwrap();
        assert_eq!(backend.get("share"), Some(true.into()));
        assert_eq!(backend.get("seal"), Some(true.into()));
        assert!(backend.ram().write(0, &[1]));
        assert!(backend.ram().discard_page(0));
        let mut byte = [7];
        assert!(backend.ram().read(0, &mut byte) && byte == [0]);
        let private =
            made(MemoryBackend::memfd, &[("size", 8192.into()), ("share", false.into()), ("seal", false.into())]);
        assert!(private.unwrap().ram().discard_page(0));
        for bad in [
            vec![("hugetlb", Value::from(true))],
            vec![("hugetlb", true.into()), ("hugetlbsize", 12345.into())],
            vec![("hugetlb", true.into()), ("hugetlbsize", (1_u64 << 63).into())],
        ] {
            let mut wanted = vec![("size", 8192.into())];
            wanted.extend(bad.clone());
            assert!(made(MemoryBackend::memfd, &wanted).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_live_can_be_changed_and_the_rest_cannot() {
        let backend = of_size(1 << 20).unwrap();
        backend.set("dump", &Value::from(false)).unwrap();
        assert_eq!(backend.get("dump"), Some(false.into()));
        assert!(backend.ram().write(4096, &[9]));
        backend.set("prealloc", &Value::from(true)).unwrap();
        let mut byte = [0];
        assert!(backend.ram().read(4096, &mut byte) && byte == [9]);
        assert!(backend.set("prealloc", &Value::from(false)).is_err());
        assert!(backend.set("dump", &Value::from(1)).is_err());
        assert!(backend.set("size", &Value::from(true)).is_err());
        assert_eq!(Policy::from_text("bind"), Some(Policy::Bind));
    }
}
