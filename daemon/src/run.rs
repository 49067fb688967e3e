//! From the command line to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{error, warn};

use crate::config::{Args, Sources};
use crate::ends::Real;
use crate::log;
use crate::service::{Event, Order, Service};

/// Asked to stop, and stopped.
const STOPPED: u8 = 0;
/// Could not start, or could not go on.
const FAILED: u8 = 1;
/// The flags, the environment or the configuration file are wrong: starting again is no help.
const USAGE: u8 = 2;

/// Runs the daemon until it is told to stop. `args` begins with the program's name.
///
/// Returns 0 after SIGTERM or SIGINT, 1 after an error, 2 for a wrong command line, environment
/// or configuration file. The snapshot file stays in each case.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(code(args))
}

fn code(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, for stdout. A closed one is no reason to panic.
            let _nobody_reads = error.print();
            return if error.use_stderr() { USAGE } else { STOPPED };
        }
    };
    let sources = Sources::of_process(args);
    let (config, remarks) = match sources.resolve() {
        Ok(resolved) => resolved,
        Err(error) => {
            // The log's format is part of what could not be read.
            use std::io::Write;
            let _nobody_reads = writeln!(std::io::stderr(), "sherwoodd: {}", log::chain(&error));
            return USAGE;
        }
    };
    let level = log::init(config.log_format, config.log_level);
    for remark in remarks {
        warn!("{remark}");
    }
    let (sender, events) = mpsc::channel();
    if let Err(error) = forward_signals(sender.clone()) {
        error!(error = log::chain(&error), "cannot receive signals");
        return FAILED;
    }
    let service = Service::begin(Real, sources, config, level, sender);
    match service.and_then(|mut service| service.run(&events)) {
        Ok(()) => STOPPED,
        Err(error) => {
            error!(error = log::chain(&error), "sherwoodd stops");
            FAILED
        }
    }
}

/// Turns signals into events, on a thread of its own.
fn forward_signals(events: mpsc::Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let order = if signal == SIGHUP {
                    Order::Reload
                } else {
                    Order::Stop
                };
                if events.send(Event::Order(order)).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}
