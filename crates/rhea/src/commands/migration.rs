//! The machine to another place: `migration.json`.

use std::{net::SocketAddr, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use rhea_api::{
    char::{InetSocketAddress, UnixSocketAddress},
    migration::{
        Handler, MigMode, MigrationCapabilityStatus, MigrationInfo, MigrationParameters, MigrationStatus,
        MultiFDCompression, SocketAddress,
    },
};
use rhea_machine::migration::{Address, Capability, Departure, Parameters, Refused, Standing};
use rhea_qmp::Error;

use super::Commands;

/// The most that the machine may be let stand, in milliseconds.
const MOST_DOWNTIME: u64 = 2_000_000;

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(reason: Refused) -> Error {
    Error::generic(reason)
}

const fn milliseconds(time: Duration) -> i64 {
    time.as_millis() as i64
}

fn address(listens: Result<SocketAddr, PathBuf>) -> SocketAddress {
    match listens {
        Ok(at) => SocketAddress::Inet(InetSocketAddress { host: at.ip().to_string(), port: at.port().to_string() }),
        Err(path) => SocketAddress::Unix(UnixSocketAddress { path: path.to_string_lossy().into_owned() }),
    }
}

/// All parameters, those included that stay as they are.
pub(crate) fn all_parameters(now: Parameters) -> MigrationParameters {
    let Parameters { max_bandwidth, switchover_bandwidth, downtime_limit, zero_pages } = now;
    MigrationParameters {
        announce_initial: Some(50),
        announce_max: Some(550),
        announce_rounds: Some(5),
        announce_step: Some(100),
        throttle_trigger_threshold: Some(50),
        cpu_throttle_initial: Some(20),
        cpu_throttle_increment: Some(10),
        cpu_throttle_tailslow: Some(false),
        tls_creds: Some(String::new()),
        tls_hostname: Some(String::new()),
        tls_authz: Some(String::new()),
        max_bandwidth: Some(max_bandwidth),
        avail_switchover_bandwidth: Some(switchover_bandwidth),
        downtime_limit: Some(downtime_limit),
        multifd_channels: Some(2),
        xbzrle_cache_size: Some(64 << 20),
        max_postcopy_bandwidth: Some(0),
        max_cpu_throttle: Some(99),
        multifd_compression: Some(MultiFDCompression::None),
        multifd_zlib_level: Some(1),
        multifd_qatzip_level: Some(1),
        multifd_zstd_level: Some(1),
        vcpu_dirty_limit: Some(1),
        mode: Some(MigMode::Normal),
        zero_page_detection: Some(zero_pages),
        direct_io: Some(false),
    }
}

/// Takes what is wanted of those that can be changed, and checks that the others stay.
fn changed(now: Parameters, wanted: &MigrationParameters) -> Result<Parameters, Error> {
    if wanted.downtime_limit.is_some_and(|limit| limit > MOST_DOWNTIME) {
        return Err(Error::generic(
            "Parameter 'downtime_limit' expects an integer in the range of 0 to (2000 * 1000) ms",
        ));
    }
    let parameters = Parameters {
        max_bandwidth: wanted.max_bandwidth.unwrap_or(now.max_bandwidth),
        switchover_bandwidth: wanted.avail_switchover_bandwidth.unwrap_or(now.switchover_bandwidth),
        downtime_limit: wanted.downtime_limit.unwrap_or(now.downtime_limit),
        zero_pages: wanted.zero_page_detection.unwrap_or(now.zero_pages),
    };
    let text = |parameters: &MigrationParameters| serde_json::to_value(parameters).map_err(Error::generic);
    let (after, wanted) = (text(&all_parameters(parameters))?, text(wanted)?);
    let stays = |name: &str| Error::generic(format_args!("Parameter '{name}' cannot be changed: nothing goes by it"));
    for (name, value) in wanted.as_object().into_iter().flatten() {
        if after.get(name) != Some(value) {
            return Err(stays(name));
        }
    }
    Ok(parameters)
}

impl Commands<'_> {
    fn place(&self, uri: Option<&str>) -> Result<Address, Error> {
        let uri = uri.ok_or_else(|| Error::generic("need either 'uri' or 'channels' argument"))?;
        let named = |name: &str| -> Result<OwnedFd, String> { self.named(name).map_err(|error| error.desc) };
        Address::parse(uri, named).map_err(Error::generic)
    }

    /// A migration to `uri` that is about to begin.
    pub(crate) fn departure(&self, uri: Option<&str>, resume: Option<bool>) -> Result<Departure, Error> {
        if resume == Some(true) {
            return Err(Error::generic("Cannot resume if there is no paused migration"));
        }
        Departure::begin(self.machine(), self.place(uri)?).map_err(refused)
    }
}

impl Handler for Commands<'_> {
    fn query_migrate(&mut self) -> Result<MigrationInfo, Error> {
        let standing = self.machine().migration().standing();
        let time = |of: fn(&Standing) -> Option<Duration>| standing.as_ref().and_then(of).map(milliseconds);
        Ok(MigrationInfo {
            total_time: time(|standing| standing.total),
            expected_downtime: time(|standing| standing.expected_downtime),
            downtime: time(|standing| standing.downtime),
            setup_time: time(|standing| standing.setup),
            status: standing.as_ref().map(|standing| standing.status),
            error_desc: standing.as_ref().and_then(|standing| standing.error.clone()),
            blocked_reasons: None,
            socket_address: standing.as_ref().and_then(|standing| Some(vec![address(standing.listens.clone()?)])),
            ram: standing.and_then(|standing| standing.stats),
        })
    }

    fn migrate_set_capabilities(&mut self, capabilities: Vec<MigrationCapabilityStatus>) -> Result<(), Error> {
        let mut changes = Vec::new();
        for MigrationCapabilityStatus { capability, state } in capabilities {
            match Capability::named(capability) {
                Some(known) => changes.push((known, state)),
                None if state => {
                    return Err(Error::generic(format_args!("Capability '{capability}' is not there")));
                }
                None => {}
            }
        }
        self.machine().migration().set_capabilities(&changes).map_err(refused)
    }

    fn query_migrate_capabilities(&mut self) -> Result<Vec<MigrationCapabilityStatus>, Error> {
        let migration = self.machine().migration();
        let status =
            |known: Capability| MigrationCapabilityStatus { capability: known.name(), state: migration.has(known) };
        Ok(Capability::ALL.into_iter().map(status).collect())
    }

    fn migrate_set_parameters(&mut self, wanted: MigrationParameters) -> Result<(), Error> {
        let migration = self.machine().migration();
        migration.set_parameters(changed(migration.parameters(), &wanted)?);
        Ok(())
    }

    fn query_migrate_parameters(&mut self) -> Result<MigrationParameters, Error> {
        Ok(all_parameters(self.machine().migration().parameters()))
    }

    fn migrate(&mut self, uri: Option<String>, _: Option<bool>, resume: Option<bool>) -> Result<(), Error> {
        let departure = self.departure(uri.as_deref(), resume)?;
        // The answer goes out before anything else is told of it.
        self.after_answer(move || departure.start());
        Ok(())
    }

    fn migrate_cancel(&mut self) -> Result<(), Error> {
        self.machine().migration().cancel();
        Ok(())
    }

    fn migrate_continue(&mut self, state: MigrationStatus) -> Result<(), Error> {
        let machine = Arc::clone(self.machine());
        machine.migration().check_waiting(state).map_err(refused)?;
        // What comes of it is told after the answer.
        self.after_answer(move || machine.migration().go_on());
        Ok(())
    }

    fn migrate_incoming(&mut self, uri: Option<String>, exit_on_error: Option<bool>) -> Result<(), Error> {
        let machine = Arc::clone(self.machine());
        if !machine.config().incoming {
            return Err(Error::generic("'-incoming' was not specified on the command line"));
        }
        machine.receive(self.place(uri.as_deref())?, exit_on_error.unwrap_or(true)).map_err(refused)
    }
}
