//! Clients that are handed over: `client.json`.

use rhea_api::client::Handler;
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn add_client(
        &mut self,
        protocol: String,
        fdname: String,
        _skipauth: Option<bool>,
        _tls: Option<bool>,
    ) -> Result<(), Error> {
        let socket = self.named(&fdname)?;
        if ["vnc", "spice"].contains(&protocol.as_str()) {
            return Err(Error::generic(format_args!("This machine has no {protocol} display to hand clients over to")));
        }
        self.context.chars.hand_over(&protocol, socket).map_err(Error::generic)
    }
}
