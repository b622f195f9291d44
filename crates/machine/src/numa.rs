//! NUMA: the nodes of the guest with their processors and memory, as the options `-numa` lay them out, checked.

use std::ops::RangeInclusive;

use crate::topology::Topology;

/// Nodes that a guest can have.
pub const MAX_NODES: u16 = 128;

/// Distance within a node (ACPI 5.0 § 5.2.17).
const LOCAL: u8 = 10;
/// Distance between nodes of which nothing is said.
const REMOTE: u8 = 20;
/// Memory is divided between nodes in pieces of this size.
const SHARE: u64 = 8 << 20;

/// One option `-numa`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumaOption {
    /// A node.
    Node {
        /// Its number; the first one unused if not given.
        id: Option<u16>,
        /// Numbers of its processors.
        processors: Vec<RangeInclusive<u16>>,
        /// Its memory in bytes.
        size: Option<u64>,
        /// The backend that is its memory.
        backend: Option<String>,
    },
    /// The distance between two nodes, in one direction.
    Distance {
        /// From where memory is reached.
        from: u16,
        /// Where it lies.
        to: u16,
        /// How far that is.
        value: u8,
    },
    /// The node of the processors at a place.
    Processors {
        /// The node.
        node: u16,
        /// The socket; all if not given.
        socket: Option<u32>,
        /// The core in it; all if not given.
        core: Option<u32>,
        /// The thread in it; all if not given.
        thread: Option<u32>,
    },
}

/// A layout that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is about")]
pub enum NumaError {
    #[error("Max number of NUMA nodes reached: {0}")]
    TooMany(u16),
    #[error("Duplicate NUMA nodeid: {0}")]
    Duplicate(u16),
    #[error("Node ID missing: {0}")]
    Gap(u16),
    #[error("CPU index ({0}) should be smaller than maxcpus ({1})")]
    NoProcessor(u16, u32),
    #[error("CPU is already assigned to node-id: {0}")]
    Assigned(u16),
    #[error("processors {0} are in no node, though others are")]
    Unassigned(String),
    #[error("no match found: there is no processor at this place")]
    NoPlace,
    #[error(
        "Invalid node-id={0}, NUMA node must be defined with -numa node,nodeid=ID before it's used with -numa cpu,node-id=ID"
    )]
    NoNode(u16),
    #[error("numa configuration should use either mem= or memdev=,mixing both is not allowed")]
    Mixed,
    #[error("memory backend {0} can't be used multiple times.")]
    BackendTwice(String),
    #[error("memdev={0}: there is no such memory backend")]
    NoBackend(String),
    #[error("'-machine memory-backend' and '-numa memdev' properties are mutually exclusive")]
    TwoBackends,
    #[error("mem={0}: a node's memory is a whole number of 4096-byte pages")]
    Pages(u64),
    #[error("total memory for NUMA nodes (0x{0:x}) should equal RAM size (0x{1:x})")]
    Total(u64, u64),
    #[error("Source/Destination NUMA node is missing. Please use '-numa node' option to declare it first.")]
    DistanceOfNone,
    #[error("NUMA distance ({0}) is invalid, it shouldn't be less than 10.")]
    TooNear(u8),
    #[error("Local distance of node {0} should be 10.")]
    LocalDistance(u16),
    #[error(
        "The distance between node {0} and {1} is missing, at least one distance value between each nodes should be provided."
    )]
    NoDistance(usize, usize),
    #[error(
        "At least one asymmetrical pair of distances is given, please provide distances for both directions of all node pairs."
    )]
    Asymmetric,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaNode {
    /// Bytes of the machine's own memory in it.
    pub memory: u64,
    /// The backend that these are, if nodes have backends of their own.
    pub backend: Option<String>,
}

/// The layout; without nodes, the guest is not told of any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numa {
    nodes: Vec<NumaNode>,
    /// The node of each possible processor.
    processors: Vec<u16>,
    /// How far it is from the one to the other.
    distances: Vec<Vec<u8>>,
}

/// What the layout is for.
pub struct Wanted<'a> {
    /// The options, in order.
    pub options: &'a [NumaOption],
    /// The processors.
    pub topology: &'a Topology,
    /// Bytes of memory.
    pub ram: u64,
    /// Whether memory can be added later, which has to belong to some node.
    pub grows: bool,
    /// Whether one backend is all the memory.
    pub one_backend: bool,
}

impl Numa {
    /// The layout that options describe; `backend` knows the sizes of memory backends.
    ///
    /// # Errors
    /// They do not fit together, or the machine.
    pub fn new(wanted: &Wanted<'_>, backend: impl Fn(&str) -> Option<u64>) -> Result<Self, NumaError> {
        if wanted.options.is_empty() && !wanted.grows {
            return Ok(Self::default());
        }
        let mut draft = Draft::new(wanted.topology);
        for option in wanted.options {
            draft.take(option, wanted.topology)?;
        }
        if draft.nodes.is_empty() {
            draft.nodes = vec![Some((None, None))];
        }
        let (processors, nodes) = (draft.processors()?, draft.nodes()?);
        let nodes = memory(nodes, wanted, backend)?;
        let distances = distances(nodes.len(), &draft.distances)?;
        Ok(Self { nodes, processors, distances })
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> &[NumaNode] {
        &self.nodes
    }

    /// The node of a possible processor, if there are nodes.
    pub fn processor(&self, index: usize) -> Option<u16> {
        self.processors.get(index).copied()
    }

    /// How far it is from each node to each.
    pub fn distances(&self) -> &[Vec<u8>] {
        &self.distances
    }
}

/// How many processors there can be, of those that have numbers here.
fn possible(topology: &Topology) -> u32 {
    topology.max_cpus().min(1 << 16)
}

type Memory = (Option<u64>, Option<String>);

/// What was said so far.
struct Draft {
    nodes: Vec<Option<Memory>>,
    processors: Vec<Option<u16>>,
    sockets: Vec<u32>,
    distances: Vec<(u16, u16, u8)>,
}

impl Draft {
    fn new(topology: &Topology) -> Self {
        let count = possible(topology);
        let sockets = (0..count).map(|index| topology.place(index).socket).collect();
        Self { nodes: Vec::new(), processors: vec![None; count as usize], sockets, distances: Vec::new() }
    }

    fn has(&self, node: u16) -> bool {
        matches!(self.nodes.get(usize::from(node)), Some(Some(_)))
    }

    fn assign(&mut self, index: usize, node: u16) -> Result<(), NumaError> {
        let count = self.processors.len() as u32;
        let slot = self.processors.get_mut(index).ok_or(NumaError::NoProcessor(index as u16, count))?;
        match slot {
            Some(other) if *other != node => Err(NumaError::Assigned(*other)),
            _ => {
                *slot = Some(node);
                Ok(())
            }
        }
    }

    fn take(&mut self, option: &NumaOption, topology: &Topology) -> Result<(), NumaError> {
        match option {
            NumaOption::Node { id, processors, size, backend } => {
                let free = (0..).find(|&id| !self.has(id)).unwrap_or(MAX_NODES);
                let id = id.unwrap_or(free);
                if id >= MAX_NODES {
                    return Err(NumaError::TooMany(id));
                }
                if self.has(id) {
                    return Err(NumaError::Duplicate(id));
                }
                let at = usize::from(id);
                if self.nodes.len() <= at {
                    self.nodes.resize(at + 1, None);
                }
                self.nodes[at] = Some((*size, backend.clone()));
                processors.iter().flat_map(Clone::clone).try_for_each(|index| self.assign(usize::from(index), id))
            }
            &NumaOption::Distance { from, to, value } => {
                if !self.has(from) || !self.has(to) {
                    return Err(NumaError::DistanceOfNone);
                }
                if value < LOCAL {
                    return Err(NumaError::TooNear(value));
                }
                if from == to && value != LOCAL {
                    return Err(NumaError::LocalDistance(from));
                }
                self.distances.push((from, to, value));
                Ok(())
            }
            &NumaOption::Processors { node, socket, core, thread } => {
                if !self.has(node) {
                    return Err(NumaError::NoNode(node));
                }
                let fits = |wanted: Option<u32>, is: u32| wanted.is_none_or(|wanted| wanted == is);
                let all = (0..possible(topology)).filter(|&index| {
                    let place = topology.place(index);
                    fits(socket, place.socket) && fits(core, place.core) && fits(thread, place.thread)
                });
                let all: Vec<u32> = all.collect();
                if all.is_empty() {
                    return Err(NumaError::NoPlace);
                }
                all.into_iter().try_for_each(|index| self.assign(index as usize, node))
            }
        }
    }

    /// The node of each processor. If nothing was said of any, sockets are dealt out in turn.
    fn processors(&self) -> Result<Vec<u16>, NumaError> {
        let count = self.nodes.len().max(1) as u32;
        if self.processors.iter().all(Option::is_none) {
            return Ok(self.sockets.iter().map(|socket| (socket % count) as u16).collect());
        }
        let missing = self.processors.iter().enumerate().filter(|(_, node)| node.is_none());
        let missing: Vec<String> = missing.map(|(index, _)| index.to_string()).collect();
        if !missing.is_empty() {
            return Err(NumaError::Unassigned(missing.join(", ")));
        }
        Ok(self.processors.iter().copied().flatten().collect())
    }

    fn nodes(&self) -> Result<Vec<Memory>, NumaError> {
        let numbered = self.nodes.iter().zip(0..);
        numbered.map(|(node, id)| node.clone().ok_or(NumaError::Gap(id))).collect()
    }
}

/// Each node's memory.
fn memory(
    nodes: Vec<Memory>,
    wanted: &Wanted<'_>,
    backend: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<NumaNode>, NumaError> {
    let (any_size, any_backend) =
        (nodes.iter().any(|(size, _)| size.is_some()), nodes.iter().any(|(_, backend)| backend.is_some()));
    if any_size && any_backend {
        return Err(NumaError::Mixed);
    }
    if any_backend && wanted.one_backend {
        return Err(NumaError::TwoBackends);
    }
    let count = nodes.len() as u64;
    let share = wanted.ram / count / SHARE * SHARE;
    let mut all: Vec<NumaNode> = Vec::new();
    for (size, id) in nodes {
        let memory = match (&id, size) {
            (Some(id), _) => {
                if all.iter().any(|node| node.backend.as_ref() == Some(id)) {
                    return Err(NumaError::BackendTwice(id.clone()));
                }
                backend(id).ok_or_else(|| NumaError::NoBackend(id.clone()))?
            }
            (None, Some(size)) if !size.is_multiple_of(4096) => return Err(NumaError::Pages(size)),
            (None, Some(size)) => size,
            (None, None) if any_size || any_backend => 0,
            // The last one has what is left.
            (None, None) if all.len() as u64 == count - 1 => wanted.ram - share * (count - 1),
            (None, None) => share,
        };
        all.push(NumaNode { memory, backend: id });
    }
    let total = all.iter().fold(0_u64, |total, node| total.saturating_add(node.memory));
    if total != wanted.ram {
        return Err(NumaError::Total(total, wanted.ram));
    }
    Ok(all)
}

/// The distances between all nodes. What is said of one direction goes for the other, unless some pair differs.
fn distances(count: usize, said: &[(u16, u16, u8)]) -> Result<Vec<Vec<u8>>, NumaError> {
    let mut table: Vec<Vec<Option<u8>>> = vec![vec![None; count]; count];
    for &(from, to, value) in said {
        // Both nodes were declared before.
        table[usize::from(from)][usize::from(to)] = Some(value);
    }
    let pairs = || (0..count).flat_map(|a| (0..count).filter(move |b| *b != a).map(move |b| (a, b)));
    if !said.is_empty() {
        let both = |(a, b): (usize, usize)| (table[a][b], table[b][a]);
        if let Some((a, b)) = pairs().find(|&pair| both(pair) == (None, None)) {
            return Err(NumaError::NoDistance(a, b));
        }
        let asymmetric = pairs().any(|pair| matches!(both(pair), (Some(there), Some(back)) if there != back));
        if asymmetric && pairs().any(|pair| both(pair).0.is_none()) {
            return Err(NumaError::Asymmetric);
        }
    }
    let value = |a: usize, b: usize| {
        if a == b { LOCAL } else { table[a][b].or(table[b][a]).unwrap_or(REMOTE) }
    };
    Ok((0..count).map(|a| (0..count).map(|b| value(a, b)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 64 << 20;

    fn node(size: Option<u64>, backend: Option<&str>) -> NumaOption {
        NumaOption::Node { id: None, processors: Vec::new(), size, backend: backend.map(str::to_owned) }
    }

    fn with(id: u16, processors: &[RangeInclusive<u16>]) -> NumaOption {
        NumaOption::Node { id: Some(id), processors: processors.to_vec(), size: None, backend: None }
    }

    fn distance(from: u16, to: u16, value: u8) -> NumaOption {
        NumaOption::Distance { from, to, value }
    }

    fn numa(options: &[NumaOption]) -> Result<Numa, NumaError> {
        let topology = Topology { cpus: 2, sockets: 2, cores: 2, threads: 1 };
        let wanted = Wanted { options, topology: &topology, ram: RAM, grows: false, one_backend: false };
        Numa::new(&wanted, |id| match id {
            "half" | "other" => Some(RAM / 2),
            "all" => Some(RAM),
            _ => None,
        })
    }

    fn sizes(options: &[NumaOption]) -> Result<Vec<u64>, NumaError> {
        Ok(numa(options)?.nodes().iter().map(|node| node.memory).collect())
    }

    #[test]
    fn memory_is_divided_evenly_or_as_said_and_adds_up() {
        assert_eq!(numa(&[]).unwrap(), Numa::default());
        assert_eq!(sizes(&[node(None, None)]), Ok(vec![RAM]));
        assert_eq!(
            sizes(&[node(None, None), node(None, None), node(None, None)]),
            Ok(vec![16 << 20, 16 << 20, 32 << 20])
        );
        assert_eq!(sizes(&[node(Some(RAM), None), node(None, None)]), Ok(vec![RAM, 0]));
        assert_eq!(sizes(&[node(None, Some("half")), node(None, Some("other"))]), Ok(vec![RAM / 2, RAM / 2]));
        assert_eq!(sizes(&[node(Some(4096), None)]), Err(NumaError::Total(4096, RAM)));
        assert_eq!(sizes(&[node(Some(!4095), None), node(Some(8192), None)]), Err(NumaError::Total(u64::MAX, RAM)));
        assert_eq!(sizes(&[node(Some(4097), None)]), Err(NumaError::Pages(4097)));
        assert_eq!(sizes(&[node(Some(RAM / 2), None), node(None, Some("half"))]), Err(NumaError::Mixed));
        assert_eq!(
            sizes(&[node(None, Some("half")), node(None, Some("half"))]),
            Err(NumaError::BackendTwice("half".into()))
        );
        assert_eq!(sizes(&[node(None, Some("none"))]), Err(NumaError::NoBackend("none".into())));
        let topology = Topology::default();
        let backend = [node(None, Some("all"))];
        let wanted = Wanted { options: &backend, topology: &topology, ram: RAM, grows: true, one_backend: true };
        assert_eq!(Numa::new(&wanted, |_| Some(RAM)), Err(NumaError::TwoBackends));
        let grows = Numa::new(&Wanted { options: &[], ..wanted }, |_| None).unwrap();
        assert_eq!((grows.nodes().len(), grows.processor(0), grows.processor(1)), (1, Some(0), None));
    }

    #[test]
    fn each_processor_is_in_one_node() {
        let places = |options: &[NumaOption]| {
            numa(options).map(|numa| (0..4).map(|index| numa.processor(index).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(places(&[with(0, &[]), with(1, &[])]), Ok(vec![0, 0, 1, 1]));
        assert_eq!(places(&[with(1, &[0..=1, 3..=3]), with(0, &[2..=2])]), Ok(vec![1, 1, 0, 1]));
        assert_eq!(places(&[with(0, &[0..=1]), with(1, &[1..=3])]), Err(NumaError::Assigned(0)));
        assert_eq!(places(&[with(0, &[0..=4])]), Err(NumaError::NoProcessor(4, 4)));
        assert_eq!(places(&[with(0, &[0..=u16::MAX])]), Err(NumaError::NoProcessor(4, 4)));
        assert_eq!(places(&[with(0, &[0..=0]), with(1, &[2..=2])]), Err(NumaError::Unassigned("1, 3".into())));
        let at = |node, socket, core| NumaOption::Processors { node, socket, core, thread: None };
        let nodes = [with(0, &[]), with(1, &[])];
        let both = |more: &[NumaOption]| places(&[&nodes, more].concat());
        assert_eq!(both(&[at(1, Some(0), None), at(0, Some(1), None)]), Ok(vec![1, 1, 0, 0]));
        assert_eq!(both(&[at(1, None, Some(0)), at(0, None, Some(1))]), Ok(vec![1, 0, 1, 0]));
        assert_eq!(both(&[at(1, Some(2), None)]), Err(NumaError::NoPlace));
        assert_eq!(both(&[at(2, Some(0), None)]), Err(NumaError::NoNode(2)));
        assert_eq!(both(&[at(0, Some(0), None), at(1, Some(0), Some(1))]), Err(NumaError::Assigned(0)));
    }

    #[test]
    fn nodes_have_numbers_without_gaps() {
        assert_eq!(numa(&[with(1, &[])]), Err(NumaError::Gap(0)));
        assert_eq!(numa(&[with(0, &[]), with(0, &[])]), Err(NumaError::Duplicate(0)));
        assert_eq!(numa(&[with(200, &[])]), Err(NumaError::TooMany(200)));
        assert_eq!(numa(&[with(1, &[]), node(None, None)]).unwrap().nodes().len(), 2);
        let many = vec![node(Some(0), None); usize::from(MAX_NODES) + 1];
        assert_eq!(numa(&many), Err(NumaError::TooMany(MAX_NODES)));
    }

    #[test]
    fn distances_are_mirrored_unless_a_pair_differs() {
        let three = [with(0, &[]), with(1, &[]), with(2, &[])];
        let table = |more: &[NumaOption]| numa(&[&three, more].concat()).map(|numa| numa.distances().to_vec());
        assert_eq!(table(&[]), Ok(vec![vec![10, 20, 20], vec![20, 10, 20], vec![20, 20, 10]]));
        let all = [distance(0, 1, 11), distance(2, 0, 12), distance(1, 2, 255)];
        assert_eq!(table(&all), Ok(vec![vec![10, 11, 12], vec![11, 10, 255], vec![12, 255, 10]]));
        assert_eq!(table(&all[..2]), Err(NumaError::NoDistance(1, 2)));
        let uneven = [&all[..], &[distance(1, 0, 13)]].concat();
        assert_eq!(table(&uneven), Err(NumaError::Asymmetric));
        assert_eq!(table(&[distance(0, 1, 9)]), Err(NumaError::TooNear(9)));
        assert_eq!(table(&[distance(1, 1, 11)]), Err(NumaError::LocalDistance(1)));
        assert_eq!(table(&[distance(0, 3, 11)]), Err(NumaError::DistanceOfNone));
    }
}
