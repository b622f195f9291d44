//! The command line as data: `options.json`.

use rhea_api::options::{CommandLineOptionInfo, CommandLineParameterInfo, CommandLineParameterType, Handler};
use rhea_qmp::Error;

use super::Commands;
use crate::options::{OPTIONS, ParameterKind};

impl Handler for Commands<'_> {
    fn query_command_line_options(&mut self, option: Option<String>) -> Result<Vec<CommandLineOptionInfo>, Error> {
        let mut groups: Vec<CommandLineOptionInfo> = Vec::new();
        for row in OPTIONS {
            let Some(group) = row.group().filter(|group| option.as_ref().is_none_or(|option| option == group)) else {
                continue;
            };
            let parameters = row.parameters.iter().map(|parameter| CommandLineParameterInfo {
                name: parameter.name.to_owned(),
                r#type: match parameter.kind {
                    ParameterKind::String => CommandLineParameterType::String,
                    ParameterKind::Boolean | ParameterKind::Switch => CommandLineParameterType::Boolean,
                    ParameterKind::Number => CommandLineParameterType::Number,
                    ParameterKind::Size => CommandLineParameterType::Size,
                },
                help: Some(parameter.help.to_owned()),
                default: parameter.default.map(str::to_owned),
            });
            groups.push(CommandLineOptionInfo { option: group.to_owned(), parameters: parameters.collect() });
        }
        match option {
            Some(option) if groups.is_empty() => Err(Error::generic(format!("invalid option name: {option}"))),
            _ => Ok(groups),
        }
    }
}
