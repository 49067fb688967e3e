//! The daemon's configuration: a TOML file, under the environment, under the flags.
//!
//! Every setting has one name in three spellings: `poll_interval_ms` in the file,
//! `SHERWOOD_POLL_INTERVAL_MS` in the environment, `--poll-interval-ms` as a flag. A key the
//! file has and we do not know is an error, because a misspelt setting that is quietly left
//! out is found on the day it was needed. The environment belongs to everybody, so a name
//! there is only remarked on when it looks like one of ours misspelt.
//!
//! An empty environment variable counts as not set (service managers cannot unset one).

mod draft;
mod file;
mod spelling;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use sherwood_client::locate::ClusterId;

use draft::{Draft, Raw};
use spelling::near_misses;

use crate::flight::Limits;

/// Keeps a cluster's state published as a shared-memory snapshot.
///
/// Watches the Parquet state in the state directory and publishes it as
/// <run-dir>/<cluster-id>.arrow, which any process of this host reads without a copy.
/// Each option can be set in the environment as SHERWOOD_<OPTION>, or in the configuration file.
#[expect(
    rustdoc::invalid_html_tags,
    reason = "shown by --help as it stands, where <...> is what a user replaces"
)]
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "sherwoodd", version, max_term_width = 100)]
pub struct Args {
    /// The directory with state_<cluster-id>.parquet and state_metadata.json
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<OsString>,
    /// Where the snapshot goes, best on a tmpfs; made if missing
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<OsString>,
    /// The cluster, where the directory holds several states or none yet
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<OsString>,
    /// A TOML file with any of these options, written with underscores
    #[arg(long, value_name = "FILE")]
    pub config: Option<OsString>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<OsString>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<OsString>,
    /// How often to look at the state where the kernel does not report changes
    #[arg(long, value_name = "MS")]
    pub poll_interval_ms: Option<OsString>,
    /// Permissions of the snapshot file, octal
    #[arg(long, value_name = "MODE")]
    pub snapshot_mode: Option<OsString>,
    /// Size of the snapshot file's regions, a power of two; chosen by the state's size if not
    /// given. Below 65536 only for tests: rows and chunks must fit a region several times
    #[arg(long, value_name = "BYTES")]
    pub region_bytes: Option<OsString>,
    /// Size of the tables' chunks, at most a quarter of a region; chosen by the state's size if
    /// not given
    #[arg(long, value_name = "BYTES")]
    pub chunk_bytes: Option<OsString>,
    /// Size of the log's segments, a multiple of 4096; the next one is always ready, so a disk needs
    /// room for two
    #[arg(long, value_name = "BYTES")]
    pub log_segment_bytes: Option<OsString>,
    /// Users who may write beside the daemon's own and root: names or numbers, with commas
    #[arg(long, value_name = "USERS")]
    pub access_write_users: Option<OsString>,
    /// Groups whose members may write beside the daemon's own group
    #[arg(long, value_name = "GROUPS")]
    pub access_write_groups: Option<OsString>,
    /// Connections to the socket, all users together
    #[arg(long, value_name = "N")]
    pub limits_connections: Option<OsString>,
    /// Transactions under way in one exchange
    #[arg(long, value_name = "N")]
    pub limits_pipelined: Option<OsString>,
    /// Memory for requests that are under way, all users together
    #[arg(long, value_name = "BYTES")]
    pub limits_request_bytes: Option<OsString>,
    /// Size of one transaction as JSON
    #[arg(long, value_name = "BYTES")]
    pub limits_json_bytes: Option<OsString>,
    /// Operations of one transaction
    #[arg(long, value_name = "N")]
    pub limits_transaction_ops: Option<OsString>,
    /// Rows of one bulk transaction
    #[arg(long, value_name = "N")]
    pub limits_bulk_rows: Option<OsString>,
    /// Size of one bulk transaction
    #[arg(long, value_name = "BYTES")]
    pub limits_bulk_bytes: Option<OsString>,
    /// Watches of changes, all users together
    #[arg(long, value_name = "N")]
    pub limits_watches: Option<OsString>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The daemon's settings, all checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the Parquet state is.
    pub state_dir: PathBuf,
    /// Where the snapshot goes.
    pub run_dir: PathBuf,
    /// `None`: the only cluster of the state directory.
    pub cluster_id: Option<ClusterId>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: tracing::Level,
    /// How often the state is looked at where inotify gives nothing.
    pub poll_interval: Duration,
    /// Mode bits of the snapshot file.
    pub snapshot_mode: u32,
    /// Bytes of a region, a power of two; `None`: chosen by the state's size. Small ones (below
    /// 64 KiB) are for tests.
    pub region_bytes: Option<u64>,
    /// Bytes aimed at for a chunk; `None`: chosen by the state's size. At most a quarter of
    /// `region_bytes`, where both are given.
    pub chunk_bytes: Option<usize>,
    /// Bytes of a segment of the log, a multiple of 4096.
    pub log_segment_bytes: u64,
    /// Who may write beside the daemon's own user and group: names or numbers.
    pub access: Writers,
    /// How much clients may ask for.
    pub limits: Limits,
}

/// Users and groups who may write, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Names or numbers.
    pub users: Vec<String>,
    /// Names or numbers.
    pub groups: Vec<String>,
}

/// So many chunks fit a region at least: else most of it would stay empty, or nothing fits.
const CHUNKS_PER_REGION: u64 = 4;

/// Every key, and what its value must be.
const KEYS: [(&str, &str); 20] = [
    ("state_dir", "a path"),
    ("run_dir", "a path"),
    (
        "cluster_id",
        "a cluster id: text without `/` or control characters and without a dot in front",
    ),
    ("log_format", "\"text\" or \"json\""),
    (
        "log_level",
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    ),
    (
        "poll_interval_ms",
        "a whole number of milliseconds from 10 to 3600000",
    ),
    (
        "snapshot_mode",
        "octal digits in quotes, like \"0644\": readable and writable by the owner, writable by nobody else",
    ),
    (
        "region_bytes",
        "a whole number of bytes, a power of two from 4096 on (small ones, below 65536, are for tests)",
    ),
    ("chunk_bytes", "a whole number of bytes above 0"),
    (
        "log_segment_bytes",
        "a whole number of bytes, a multiple of 4096 from 65536 to 1073741824",
    ),
    (
        "access.write_users",
        "a list of users, by name or number, in the file as [\"ann\", 1001], else with commas",
    ),
    (
        "access.write_groups",
        "a list of groups, by name or number, in the file as [\"ops\", 2001], else with commas",
    ),
    ("limits.connections", COUNT),
    ("limits.pipelined", COUNT),
    ("limits.request_bytes", BYTES),
    ("limits.json_bytes", BYTES),
    ("limits.transaction_ops", COUNT),
    ("limits.bulk_rows", COUNT),
    ("limits.bulk_bytes", BYTES),
    ("limits.watches", COUNT),
];

const COUNT: &str = "a whole number from 1 to 1000000000";
const BYTES: &str = "a whole number of bytes from 1024 to 2000000000";

/// A key's name in the environment.
fn variable(key: &str) -> String {
    format!("SHERWOOD_{}", key.replace('.', "_").to_uppercase())
}

/// A key's name on the command line.
fn flag(key: &str) -> String {
    format!("--{}", key.replace(['_', '.'], "-"))
}

/// Why there is no configuration. The daemon has touched nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What the parser said.
        message: String,
    },
    /// The file has a key that we do not know.
    #[error("{}:{line}: unknown key `{key}`; {}", path.display(), suggestion(near))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// As written.
        key: String,
        /// Keys that look like it.
        near: Vec<&'static str>,
    },
    /// A value that its setting cannot have.
    #[error("{place}: {found} is not a value of `{key}`, which is {wanted}")]
    Value {
        /// File and position, environment variable, or flag.
        place: String,
        /// The setting.
        key: &'static str,
        /// The value, as given.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// Chunks that would not fit the regions.
    #[error(
        "`chunk_bytes` is {chunk_bytes} and `region_bytes` is {region_bytes}, but a chunk may take at most a quarter of a region: give at most {} as `chunk_bytes`, a larger `region_bytes`, or leave one of them out", region_bytes / CHUNKS_PER_REGION
    )]
    ChunkTooLarge {
        /// As given.
        chunk_bytes: usize,
        /// As given.
        region_bytes: u64,
    },
    /// One request of the largest size would not fit what a user may have under way.
    #[error(
        "`{key}` is {bytes}, but one user gets two thirds of `limits.request_bytes`, which is {request_bytes}, and such a request takes {factor} times its size: give at most {} as `{key}`, or at least {} as `limits.request_bytes`",
        request_bytes / 3 * 2 / factor, bytes.saturating_mul(*factor).saturating_mul(3).div_ceil(2)
    )]
    RequestTooLarge {
        /// The setting.
        key: &'static str,
        /// Its value.
        bytes: usize,
        /// What such a request takes, in times of its size.
        factor: usize,
        /// The budget.
        request_bytes: usize,
    },
    /// A setting without which the daemon cannot run.
    #[error(
        "`{key}` is not set; give {}, {}, or `{key}` in the configuration file",
        flag(key),
        variable(key)
    )]
    Missing {
        /// The setting.
        key: &'static str,
    },
}

fn suggestion(near: &[&str]) -> String {
    if near.is_empty() {
        let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        format!("the keys are {}", known.join(", "))
    } else {
        format!("did you mean `{}`?", near.join("` or `"))
    }
}

/// Where the settings come from, kept so that a reload can look again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The flags.
    pub args: Args,
    /// The environment's `SHERWOOD_*`.
    pub environment: BTreeMap<OsString, OsString>,
}

impl Sources {
    /// These flags and this process's environment.
    pub fn of_process(args: Args) -> Self {
        let ours = |name: &OsString| name.to_string_lossy().starts_with("SHERWOOD_");
        Self {
            args,
            environment: std::env::vars_os().filter(|(name, _)| ours(name)).collect(),
        }
    }

    /// Reads the file, if one is named, and puts the three together. The second value is what
    /// a person should be told although nothing is wrong.
    pub fn resolve(&self) -> Result<(Config, Vec<String>), ConfigError> {
        let mut draft = Draft::default();
        let from_environment = |key: &str| {
            let name = variable(key);
            self.environment
                .get(OsStr::new(&name))
                .filter(|value| !value.is_empty())
                .map(|value| (name, value))
        };
        let file = self
            .args
            .config
            .as_ref()
            .or_else(|| from_environment("config").map(|(_, value)| value));
        if let Some(path) = file {
            file::read(Path::new(path), &mut draft)?;
        }
        for (key, _) in KEYS {
            if let Some((name, value)) = from_environment(key) {
                draft.set(key, Raw::Text(value), || {
                    format!("environment variable {name}")
                })?;
            }
        }
        let args = &self.args;
        let flags = [
            &args.state_dir,
            &args.run_dir,
            &args.cluster_id,
            &args.log_format,
            &args.log_level,
            &args.poll_interval_ms,
            &args.snapshot_mode,
            &args.region_bytes,
            &args.chunk_bytes,
            &args.log_segment_bytes,
            &args.access_write_users,
            &args.access_write_groups,
            &args.limits_connections,
            &args.limits_pipelined,
            &args.limits_request_bytes,
            &args.limits_json_bytes,
            &args.limits_transaction_ops,
            &args.limits_bulk_rows,
            &args.limits_bulk_bytes,
            &args.limits_watches,
        ];
        for ((key, _), value) in KEYS.into_iter().zip(flags) {
            if let Some(value) = value {
                draft.set(key, Raw::Text(value), || flag(key))?;
            }
        }
        Ok((draft.finish()?, self.misspelt_variables()))
    }

    fn misspelt_variables(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for name in self.environment.keys() {
            let name = name.to_string_lossy();
            let Some(key) = name.strip_prefix("SHERWOOD_").map(str::to_lowercase) else {
                continue;
            };
            let known = KEYS.iter().any(|(known, _)| variable(known) == *name);
            if let (false, Some(near)) = (known, near_misses(&key).first()) {
                let near = variable(near);
                remarks.push(format!(
                    "the environment variable {name} is not one of ours; did you mean {near}?"
                ));
            }
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Flags, environment and file content, each as `key=value`.
    fn resolve(file: Option<&str>, env: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
        let tmp = tempfile::tempdir().unwrap();
        let mut argv: Vec<OsString> = vec!["sherwoodd".into()];
        if let Some(text) = file {
            let path = tmp.path().join("c.toml");
            fs::write(&path, text).unwrap();
            argv.extend(["--config".into(), path.into()]);
        }
        argv.extend(flags.iter().map(OsString::from));
        let sources = Sources {
            args: Args::try_parse_from(argv).unwrap(),
            environment: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
        };
        let resolved = sources.resolve().map_err(|error| error.to_string());
        resolved.map(|(config, _)| config)
    }

    const DIRS: &str = "state_dir = '/s'\nrun_dir = '/r'\n";

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = Some("state_dir = '/file'\nrun_dir = '/file'\npoll_interval_ms = 20\n");
        let env = [
            ("SHERWOOD_RUN_DIR", "/env"),
            ("SHERWOOD_POLL_INTERVAL_MS", "30"),
        ];
        let config = resolve(file, &env, &["--poll-interval-ms", "40"]).unwrap();
        assert_eq!(config.state_dir, Path::new("/file"));
        assert_eq!(config.run_dir, Path::new("/env"));
        assert_eq!(config.poll_interval, Duration::from_millis(40));
    }

    #[test]
    fn every_setting_can_be_given_in_all_three_ways() {
        let values: [&str; KEYS.len()] = [
            "/d", "/d", "c", "json", "debug", "50", "0600", "8192", "4096", "65536", "ann,7",
            "ops", "5", "6", "90000000", "2000", "9", "10", "3000", "11",
        ];
        for ((key, _), value) in KEYS.into_iter().zip(values) {
            let toml = if key.starts_with("access") {
                format!("{key} = ['{}']\n", value.replace(',', "', '"))
            } else if value.parse::<u64>().is_ok() && key != "snapshot_mode" {
                format!("{key} = {value}\n")
            } else {
                format!("{key} = '{value}'\n")
            };
            let others: String = DIRS
                .lines()
                .filter(|line| !line.starts_with(key))
                .map(|line| format!("{line}\n"))
                .collect();
            let in_file = resolve(Some(&format!("{others}{toml}")), &[], &[]);
            let in_env = resolve(Some(&others), &[(&variable(key), value)], &[]);
            let flag = flag(key);
            let as_flag = resolve(Some(&others), &[], &[&flag, value]);
            assert_eq!(in_file, in_env, "{key}");
            assert_eq!(in_file, as_flag, "{key}");
            let defaults = resolve(Some(DIRS), &[], &[]).unwrap();
            assert_ne!(in_file.unwrap(), defaults, "{key} had no effect");
        }
    }

    #[test]
    fn an_unknown_key_names_file_line_and_what_was_meant() {
        for (key, near) in [
            ("run_dri", "did you mean `run_dir`?"),
            ("run-dir", "did you mean `run_dir`?"),
            ("poll_interval", "did you mean `poll_interval_ms`?"),
            ("colour", "the keys are state_dir, run_dir"),
        ] {
            let error = resolve(Some(&format!("{DIRS}{key} = 1\n")), &[], &[]).unwrap_err();
            assert!(error.contains("c.toml:3: "), "{error}");
            assert!(error.contains(&format!("`{key}`")), "{error}");
            assert!(error.contains(near), "{error}");
        }
        let error = resolve(Some("[daemon]\nstate_dir = '/s'\n"), &[], &[]).unwrap_err();
        assert!(error.contains("c.toml:1: unknown key `daemon`"), "{error}");
    }

    #[test]
    fn a_value_that_does_not_fit_names_its_place() {
        for (line, place) in [
            ("poll_interval_ms = '5'", "c.toml:3:20: \"5\" (string)"),
            ("poll_interval_ms = 9", "c.toml:3:20: 9 (integer)"),
            ("poll_interval_ms = -1", "-1 (integer)"),
            ("cluster_id = '../x'", "c.toml:3:14"),
            ("cluster_id = 7", "7 (integer)"),
            ("log_level = 'loud'", "loud"),
            ("log_level = '3'", "3"),
            ("log_format = 'JSON'", "JSON"),
            ("snapshot_mode = 644", "644 (integer)"),
            ("snapshot_mode = '0664'", "0664"),
            ("snapshot_mode = '0444'", "0444"),
            ("snapshot_mode = '+600'", "+600"),
            ("region_bytes = 12288", "12288"),
            ("region_bytes = 2048", "2048"),
            ("chunk_bytes = 0", "0"),
            ("log_segment_bytes = 32768", "32768"),
            ("log_segment_bytes = 65537", "65537"),
        ] {
            let error = resolve(Some(&format!("{DIRS}{line}\n")), &[], &[]).unwrap_err();
            assert!(error.contains(place), "{line}: {error}");
            assert!(error.contains("which is"), "{line}: {error}");
        }
        let error = resolve(Some(DIRS), &[("SHERWOOD_LOG_LEVEL", "x")], &[]).unwrap_err();
        assert!(
            error.contains("environment variable SHERWOOD_LOG_LEVEL"),
            "{error}"
        );
        let error = resolve(Some(DIRS), &[], &["--chunk-bytes", "x"]).unwrap_err();
        assert!(error.contains("--chunk-bytes: \"x\""), "{error}");
    }

    #[test]
    fn a_chunk_larger_than_a_quarter_of_a_region_is_refused_wherever_the_two_come_from() {
        let flag = |bytes: u64| ["--chunk-bytes".to_owned(), bytes.to_string()];
        for region in [4096_u64, 65536, 4 << 20, 1 << 63] {
            let file = format!("{DIRS}region_bytes = {region}\n");
            let env = [("SHERWOOD_REGION_BYTES", region.to_string())];
            let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
            for (chunk, fits) in [
                (1, true),
                (region / 4, true),
                (region / 4 + 1, false),
                (region, false),
            ] {
                let flags = flag(chunk);
                let flags = [flags[0].as_str(), flags[1].as_str()];
                let in_env = resolve(Some(DIRS), &env, &flags);
                if region < 1 << 63 {
                    assert_eq!(resolve(Some(&file), &[], &flags), in_env);
                }
                match in_env {
                    Ok(_) => assert!(fits, "{chunk} in {region}"),
                    Err(error) => {
                        assert!(!fits, "{chunk} in {region}: {error}");
                        for fact in [
                            format!("`chunk_bytes` is {chunk} "),
                            format!("`region_bytes` is {region},"),
                            format!("at most {} ", region / 4),
                        ] {
                            assert!(error.contains(&fact), "{error}");
                        }
                    }
                }
                // Alone, each is checked against what the other will be.
                assert!(resolve(Some(DIRS), &[], &flags).is_ok(), "{chunk}");
            }
        }
    }

    #[test]
    fn sections_are_read_and_their_misspelt_keys_are_placed() {
        let file = format!("{DIRS}[access]\nwrite_users = ['ann', 1001]\n[limits]\nwatches = 3\n");
        let config = resolve(Some(&file), &[], &[]).unwrap();
        assert_eq!(config.access.users, ["ann", "1001"]);
        assert_eq!(config.limits.watches, 3);
        for (text, told) in [
            (
                "[limits]\nwatch = 3\n",
                "c.toml:4: unknown key `limits.watch`",
            ),
            ("[limits]\nwatch = 3\n", "did you mean `limits.watches`?"),
            ("[limits]\nwatches = 0\n", "c.toml:4:11: 0 (integer)"),
            (
                "[access]\nwrite_users = 'ann'\n",
                "c.toml:4:15: \"ann\" (string)",
            ),
            ("[access]\nwrite_users = ['']\n", "c.toml:4:15"),
            ("limits = 3\n", "c.toml:3"),
        ] {
            let error = resolve(Some(&format!("{DIRS}{text}")), &[], &[]).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_largest_request_that_the_budget_never_holds_is_refused() {
        let with = |text: &str| resolve(Some(&format!("{DIRS}[limits]\n{text}")), &[], &[]);
        let error =
            with("request_bytes = 30000\njson_bytes = 3000\nbulk_bytes = 2000\n").unwrap_err();
        assert!(
            error.contains("`limits.json_bytes` is 3000") && error.contains("at most 2500"),
            "{error}"
        );
        with("request_bytes = 36000\njson_bytes = 3000\nbulk_bytes = 2000\n").unwrap();
        let error = with("bulk_bytes = 100000000\n").unwrap_err();
        assert!(error.contains("at least 300000000"), "{error}");
        with("bulk_bytes = 100000000\nrequest_bytes = 300000000\n").unwrap();
    }

    #[test]
    fn what_is_not_toml_names_line_and_column() {
        let error = resolve(Some("state_dir = '/s'\nrun_dir = \n"), &[], &[]).unwrap_err();
        assert!(error.contains("c.toml:2:"), "{error}");
        let error = resolve(Some("state_dir = '/s'\nstate_dir = '/t'\n"), &[], &[]).unwrap_err();
        assert!(error.contains("c.toml:2:"), "{error}");
    }

    #[test]
    fn an_empty_variable_is_not_set_and_a_missing_directory_is_named() {
        let env = [("SHERWOOD_STATE_DIR", ""), ("SHERWOOD_CONFIG", "")];
        let error = resolve(None, &env, &["--run-dir", "/r"]).unwrap_err();
        assert!(error.contains("--state-dir, SHERWOOD_STATE_DIR"), "{error}");
    }

    #[test]
    fn a_variable_that_looks_misspelt_is_remarked_on_and_others_are_not() {
        let names = [
            "SHERWOOD_STAT_DIR",
            "SHERWOOD_SOMETHING_ELSE",
            "SHERWOOD_CONFIG",
        ];
        let sources = Sources {
            environment: names.map(|name| (name.into(), "x".into())).into(),
            ..Sources::default()
        };
        let remarks = sources.misspelt_variables();
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].contains("SHERWOOD_STAT_DIR"), "{remarks:?}");
    }
}
