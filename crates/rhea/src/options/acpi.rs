//! What `-acpitable` comes to.

use rhea_machine::{GivenTable, TableFiles};

use super::keyval::{KeyValues, OptionError};

/// Reads the parameters of a table.
///
/// # Errors
/// Not one of `file` and `data`, or a number that its field does not hold.
pub(super) fn table(parameters: &KeyValues) -> Result<GivenTable, OptionError> {
    let names = |names: &str| names.split(':').map(str::to_owned).collect();
    let files = match (parameters.get("file"), parameters.get("data")) {
        (Some(file), None) => TableFiles::Whole(names(file)),
        (None, Some(data)) => TableFiles::Body(names(data)),
        _ => return Err(parameters.error("'-acpitable' requires one of 'data' or 'file'")),
    };
    let text = |key: &str| parameters.get(key).map(str::to_owned);
    let number = |key: &str, most: u32| match parameters.number(key).map(u32::try_from) {
        None => Ok(None),
        Some(Ok(number)) if number <= most => Ok(Some(number)),
        Some(_) => Err(parameters.error(format!("parameter '{key}' expects a number up to {most}"))),
    };
    Ok(GivenTable {
        files,
        signature: text("sig"),
        revision: number("rev", 0xff)?.map(|revision| revision as u8),
        oem_id: text("oem_id"),
        oem_table_id: text("oem_table_id"),
        oem_revision: number("oem_rev", u32::MAX)?,
        compiler_id: text("asl_compiler_id"),
        compiler_revision: number("asl_compiler_rev", u32::MAX)?,
    })
}
