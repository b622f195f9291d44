//! System instructions: control and debug registers, descriptor tables, MSRs, CPUID, ports, SYSCALL and SYSENTER.

pub mod cpuid;
