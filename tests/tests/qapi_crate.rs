//! The `qapi` crate, a client that reads replies into its own types and refuses what lacks a member.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod served;

use std::io::BufReader;
use std::os::unix::net::UnixStream;

use qapi::{Qmp, Stream, qmp};
use served::{PATIENCE, Served};

type Client = Qmp<Stream<BufReader<UnixStream>, UnixStream>>;

fn connect(served: &Served) -> Client {
    let stream = UnixStream::connect(&served.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    let mut client = Qmp::new(Stream::new(reader, stream));
    let greeting = client.handshake().unwrap();
    assert!(greeting.version.qemu.major >= 8, "{greeting:?}");
    client
}

#[test]
fn replies_have_every_member_that_a_strict_client_reads() {
    let served = Served::start(&["-smp", "2", "-name", "strict", "-uuid", "6b8e7a0c-9f3c-4a43-9d5b-6a2c9ff0a001"]);
    let mut client = connect(&served);

    let version = client.execute(&qmp::query_version {}).unwrap();
    assert!(version.qemu.major >= 8, "{version:?}");
    let status = client.execute(&qmp::query_status {}).unwrap();
    assert!(status.running && status.status == qmp::RunState::running, "{status:?}");
    let processors = client.execute(&qmp::query_cpus_fast {}).unwrap();
    assert_eq!(processors.len(), 2);
    let machines = client.execute(&qmp::query_machines { compat_props: None }).unwrap();
    let pc = machines.iter().find(|machine| machine.alias.as_deref() == Some("pc")).unwrap();
    assert!(pc.cpu_max >= 8 && pc.is_default == Some(true), "{pc:?}");
    assert!(machines.iter().any(|machine| machine.name == "none"));
    let name = client.execute(&qmp::query_name {}).unwrap();
    assert_eq!(name.name.as_deref(), Some("strict"));
    let uuid = client.execute(&qmp::query_uuid {}).unwrap();
    assert_eq!(uuid.UUID, "6b8e7a0c-9f3c-4a43-9d5b-6a2c9ff0a001");
    let kvm = client.execute(&qmp::query_kvm {}).unwrap();
    assert!(!kvm.enabled);
    let target = client.execute(&qmp::query_target {}).unwrap();
    assert_eq!(target.arch, qmp::SysEmuTarget::x86_64);
    let commands = client.execute(&qmp::query_commands {}).unwrap();
    assert!(commands.iter().any(|command| command.name == "stop"));
    let schema = client.execute(&qmp::query_qmp_schema {}).unwrap();
    assert!(schema.len() > commands.len());
}

#[test]
fn events_come_in_the_types_of_a_strict_client() {
    let mut served = Served::start(&[]);
    let mut client = connect(&served);

    client.execute(&qmp::stop {}).unwrap();
    let stopped = client.execute(&qmp::query_status {}).unwrap();
    assert!(!stopped.running && stopped.status == qmp::RunState::paused, "{stopped:?}");
    client.execute(&qmp::cont {}).unwrap();
    client.execute(&qmp::system_reset {}).unwrap();
    let events: Vec<qmp::Event> = client.events().collect();
    assert!(
        matches!(events.as_slice(), [qmp::Event::STOP { .. }, qmp::Event::RESUME { .. }, qmp::Event::RESET { .. }]),
        "{events:?}"
    );
    let memsave = qmp::memsave { val: 0, size: 1, filename: "/dev/null".to_owned(), cpu_index: Some(99) };
    let error = client.execute(&memsave).unwrap_err();
    assert!(error.to_string().contains("expects a CPU number"), "{error}");

    client.execute(&qmp::quit {}).unwrap();
    let events: Vec<qmp::Event> = client.events().collect();
    assert!(matches!(events.as_slice(), [qmp::Event::SHUTDOWN { .. }]), "{events:?}");
    assert!(served.machine.wait(PATIENCE).unwrap().success());
}
