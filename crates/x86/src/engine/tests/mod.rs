//! The engine at work on small programs.

mod code;
mod events;

use super::testing::{CODE, Machine, Stop};

/// Runs until HLT.
fn run(machine: &mut Machine) {
    let stop = machine.run();
    let cpu = machine.vcpu.state();
    assert_eq!(stop, Stop::Halted, "at {:#x}, cr2 {:#x}", cpu.rip, cpu.cr2);
}

/// Runs from the start until HLT, also if it has run before.
fn run_again(machine: &mut Machine) {
    machine.vcpu.start();
    machine.cpu().rip = CODE;
    run(machine);
}
