//! Giving up system calls, so that whoever takes over the program by a fault in it has little of the host (seccomp, filter
//! mode: Documentation/userspace-api/seccomp_filter.rst of Linux).
//!
//! What the program never does ends it. What a client may ask for, such as to start another program, is refused: the
//! client hears of it, and the machine goes on.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

use crate::options::Sandbox;

/// Changes of the host itself: its mounts, its kernel, its clock, its other processes and their keys.
const HOST: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_vhangup,
];

/// Becoming another user, or getting rights back.
const IDENTITY: &[i64] = &[
    libc::SYS_capset,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
];

/// Starting another program.
const SPAWN: &[i64] = &[libc::SYS_execve, libc::SYS_execveat];

/// When and where threads run, and how much they may have.
const SCHEDULING: &[i64] = &[
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_setpriority,
];

/// Calls that hosts of one kind alone have.
#[cfg(target_arch = "x86_64")]
mod of_this_host {
    /// What goes to devices without their drivers.
    pub const HOST: &[i64] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
    /// What is there for old programs only.
    pub const OBSOLETE: &[i64] = &[
        libc::SYS__sysctl,
        libc::SYS_afs_syscall,
        libc::SYS_getpmsg,
        libc::SYS_lookup_dcookie,
        libc::SYS_nfsservctl,
        libc::SYS_putpmsg,
        libc::SYS_security,
        libc::SYS_sysfs,
        libc::SYS_tuxcall,
        libc::SYS_uselib,
        libc::SYS_ustat,
        libc::SYS_vserver,
    ];
    /// Further ways to start another process.
    pub const SPAWN: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
}

#[cfg(not(target_arch = "x86_64"))]
mod of_this_host {
    pub const HOST: &[i64] = &[];
    pub const OBSOLETE: &[i64] = &[libc::SYS_nfsservctl];
    pub const SPAWN: &[i64] = &[];
}

/// Gives up what was asked for, in all threads and those to come. No program that is started later gains rights.
///
/// # Errors
/// The host has no such filters.
pub fn enter(asked: Sandbox) -> anyhow::Result<()> {
    let Sandbox { obsolete, identity, spawn, scheduling } = asked;
    let wanted = |calls: &'static [i64], wanted: bool| if wanted { calls } else { &[] };
    let never = [HOST, of_this_host::HOST, wanted(of_this_host::OBSOLETE, obsolete)].concat();
    let asked_for = [
        wanted(IDENTITY, identity),
        wanted(SPAWN, spawn),
        wanted(of_this_host::SPAWN, spawn),
        wanted(SCHEDULING, scheduling),
    ]
    .concat();
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = always(&asked_for);
    if spawn {
        refused.insert(libc::SYS_clone, vec![new_process()?]);
        // What it is to make is told in memory, where no filter sees it; without it libraries take the older call.
        install(always(&[libc::SYS_clone3]), SeccompAction::Errno(libc::ENOSYS as u32))?;
    }
    if !refused.is_empty() {
        install(refused, SeccompAction::Errno(libc::EPERM as u32))?;
    }
    install(always(&never), SeccompAction::KillProcess)
}

fn always(calls: &[i64]) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// A new process, rather than another thread.
fn new_process() -> anyhow::Result<SeccompRule> {
    let is_thread = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64);
    let flags = SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_thread, 0)?;
    Ok(SeccompRule::new(vec![flags])?)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, action: SeccompAction) -> anyhow::Result<()> {
    let host = std::env::consts::ARCH.try_into().context("no filters for this host's processor")?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, host)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}
