//! etcd: one member, its data in the same directory as everybody's.
//!
//! 64 clients, each with a connection of its own, put single keys of a key space that is there already. etcd
//! answers when its log is synced, and syncs for many puts at once, as we do.
//!
//! Needs Debian's `etcd-server`; without it there is a row that says so.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::durable::{MANY, QUESTION, Rate, row};
use crate::keys::{Draw, grouped, task};
use crate::measure::nanos;
use crate::row::Row;
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("etcd", "one member");

/// What one transaction may hold, as etcd comes.
const OPS: u64 = 128;

/// Longer than a member takes to lead itself.
const READY: Duration = Duration::from_secs(30);

/// Both sizes.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let version = version()?;
    let runtime = Runtime::new()?;
    for rows in [10_000, 1_000_000] {
        let member = Member::start(&setting.disk.join(format!("etcd-{rows}")))?;
        let rate = runtime.block_on(puts(&member.url, rows))?;
        let name = format!("put, {} keys, {MANY} clients", grouped(rows));
        rate.print(QUESTION, &name, (WHO.0, &version), WHO.1, print);
    }
    Ok(())
}

fn version() -> Result<String, Failure> {
    let said = Command::new("etcd").arg("--version").output();
    let said = said.map_err(|error| format!("{error}: apt-get install etcd-server"))?;
    let text = String::from_utf8_lossy(&said.stdout);
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.unwrap_or("-").to_owned())
}

/// A running member, killed when dropped.
struct Member {
    child: Child,
    url: String,
}

impl Member {
    fn start(data: &Path) -> Result<Self, Failure> {
        // Free when they are looked for; whoever takes one in between makes this fail, not lie.
        let sockets = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let [client, peer] = sockets.map(|socket| {
            let address = socket.local_addr();
            address.map(|address| format!("http://{address}"))
        });
        let (client, peer) = (client?, peer?);
        std::fs::create_dir_all(data)?;
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.join("data"))
            .args(["--name", "peer", "--log-level", "error"])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("peer={peer}")])
            .args(["--quota-backend-bytes", "8589934592"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(data.join("stderr"))?)
            .spawn()?;
        Ok(Self { child, url: client })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a member that leads itself.
async fn connect(url: &str) -> Result<Client, Failure> {
    let begun = Instant::now();
    loop {
        let tried = match Client::connect([url], None).await {
            Ok(mut client) => client.get("ready", None).await.map(|_| client),
            Err(error) => Err(error),
        };
        match tried {
            Ok(client) => return Ok(client),
            Err(error) if begun.elapsed() > READY => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn puts(url: &str, rows: u64) -> Result<Rate, Failure> {
    let first = connect(url).await?;
    let mut filling = JoinSet::new();
    let each = rows.div_ceil(16);
    for part in 0..16 {
        let mut client = first.clone();
        filling.spawn(async move {
            let (mut at, end) = (part * each, ((part + 1) * each).min(rows));
            while at < end {
                let some = at..(at + OPS).min(end);
                at = some.end;
                let ops: Vec<_> = some
                    .map(|number| TxnOp::put(task(number), row(number), None))
                    .collect();
                client.txn(Txn::new().and_then(ops)).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(filled) = filling.join_next().await {
        filled??;
    }

    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(connect(url).await?);
    }
    let (warm, counted) = Rate::TIMES;
    let begun = Instant::now();
    let mut putting = JoinSet::new();
    for (number, mut client) in (0..).zip(clients) {
        putting.spawn(async move {
            let mut draw = Draw::new(number);
            let mut samples = Vec::new();
            while begun.elapsed() < warm + counted {
                let start = Instant::now();
                client
                    .put(task(draw.below(rows)), row(draw.next()), None)
                    .await?;
                let end = Instant::now();
                if start - begun >= warm && end - begun <= warm + counted {
                    samples.push(nanos(end - start));
                }
            }
            Ok::<_, Failure>(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(put) = putting.join_next().await {
        samples.extend(put??);
    }
    Rate::of(samples)
}
