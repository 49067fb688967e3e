//! `sherwood`: looks at a cluster's state, and changes it, from the command line.
//!
//! This file is the process edge: arguments in, an exit code out. What a command prints is
//! its result, on stdout; everything said about it goes to stderr. [`args`] has the exit
//! codes, which are a promise to scripts.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod connect;
mod encode;
mod error;
mod find;
mod freshness;
mod input;
mod output;
mod sample;
mod select;
mod table;
mod text;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, WriteCommand};
use crate::error::CliError;
use sherwood_client::find::Places;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                output::complain("error", &error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), CliError> {
    let places = || find::places(&args.places);
    match &args.command {
        Command::Status(options) => commands::status::run(&places()?, options),
        Command::Get(options) => commands::get::run(&places()?, options),
        Command::Export(options) => commands::export::run(&places()?, options),
        Command::Watch(options) => commands::watch::run(&places()?, options),
        Command::Verify(options) => commands::verify::run(&options.file),
        Command::Snapshot(options) => commands::snapshot::run(&places()?, &options.out_dir),
        Command::Sample(options) => commands::sample::run(options, &args.places),
        Command::Write(command) => write(&places()?, command),
    }
}

fn write(places: &Places, command: &WriteCommand) -> Result<(), CliError> {
    match command {
        WriteCommand::Apply(options) => commands::apply::run(places, options),
        WriteCommand::Put(options) => commands::put::run(places, options),
        WriteCommand::Patch(options) => commands::patch::run(places, options),
        WriteCommand::Delete(options) => commands::delete::run(places, options),
        WriteCommand::Import(options) => commands::import::run(places, options),
        WriteCommand::Assign(options) => commands::assign::run(places, options),
        WriteCommand::Claim(options) => commands::claim::run(places, options),
        WriteCommand::Start(options) => commands::start::run(places, options),
        WriteCommand::Complete(options) => commands::complete::run(places, options),
        WriteCommand::Fail(options) => commands::fail::run(places, options),
        WriteCommand::Release(options) => commands::release::run(places, options),
        WriteCommand::Cancel(options) => commands::cancel::run(places, options),
        WriteCommand::Recover(options) => commands::recover::run(places, options),
        WriteCommand::Retry(options) => commands::retry::run(places, options),
    }
}
