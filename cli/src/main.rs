//! `sherwood`: looks at a cluster's state from the command line.
//!
//! This file is the process edge: arguments in, an exit code out. What a command prints is
//! its result, on stdout; everything said about it goes to stderr. [`args`] has the exit
//! codes, which are a promise to scripts.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod encode;
mod error;
mod find;
mod freshness;
mod json;
mod output;
mod sample;
mod select;
mod table;
mod text;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::error::CliError;
use crate::find::Places;

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
    let places = || Places::new(&args.places);
    match &args.command {
        Command::Status(options) => commands::status::run(&places()?, options),
        Command::Get(options) => commands::get::run(&places()?, options),
        Command::Export(options) => commands::export::run(&places()?, options),
        Command::Watch(options) => commands::watch::run(&places()?, options),
        Command::Verify(options) => commands::verify::run(&options.file),
        Command::Snapshot(options) => commands::snapshot::run(&places()?, &options.out_dir),
        Command::Sample(options) => commands::sample::run(options, &args.places),
    }
}
