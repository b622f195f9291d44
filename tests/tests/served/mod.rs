//! A machine whose monitor clients connect to, as they do in the field.

use std::path::PathBuf;
use std::time::Duration;

use rhea_tests::monitor::Monitor;
use rhea_tests::process::Machine;
use rhea_tests::transcript::Guest;

/// How long anything may take: the machine that runs the tests may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running machine with the guest that the program carries within itself.
pub struct Served {
    /// The program.
    pub machine: Machine,
    /// A monitor of our own, on which nothing is said.
    _monitor: Monitor,
    /// Where clients connect.
    pub socket: PathBuf,
}

impl Served {
    /// Starts a machine with `arguments` and waits until its monitors listen.
    pub fn start(arguments: &[&str]) -> Self {
        let mut all = vec!["-qmp".to_owned(), "unix:@DIR@/clients,server=on,wait=off".to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let (machine, connections) = Machine::start(&all, Guest::None).unwrap();
        let mut monitor = Monitor::new(connections.monitor);
        // Monitors begin to speak when all of them are open.
        let greeting = monitor.receive(PATIENCE).unwrap();
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        let socket = machine.directory().join("clients");
        Self { machine, _monitor: monitor, socket }
    }
}
