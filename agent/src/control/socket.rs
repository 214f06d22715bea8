//! The control socket: root's alone, one order and one answer a connection.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{
    health::Health,
    orders::Orders,
    person::Person,
    words::{Answer, LONGEST, Order, SOCKET},
};
use crate::doctor::{Doctor, Report};

/// Who is asked how workloads stand.
pub(crate) struct Examiner {
    pub(crate) doctor: Doctor,
    pub(crate) health: Arc<Health>,
}

impl Examiner {
    fn examine(&self) -> Report {
        self.doctor.examine(&self.health.ready(), self.health.lacking())
    }
}

/// For a whole conversation.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens in the run directory, in the place of whoever did before.
pub(crate) fn listen(run_directory: &Path) -> io::Result<UnixListener> {
    DirBuilder::new().recursive(true).mode(0o700).create(run_directory)?;
    let path = run_directory.join(SOCKET);
    // Made beside it and put in its place: whoever asks meanwhile reaches the one or the other.
    let beside = run_directory.join(format!("{SOCKET}.{}", std::process::id()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    fs::rename(&beside, &path)?;
    Ok(listener)
}

/// Takes orders. Never returns.
pub(crate) async fn serve(listener: UnixListener, orders: Arc<Orders>, examiner: Arc<Examiner>) {
    loop {
        match listener.accept().await {
            // One after the other: an order takes no time, and a person can wait.
            Ok((stream, _)) => match timeout(PATIENCE, talk(stream, &orders, &examiner)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "an order was not understood, or not answered"),
                Err(_elapsed) => tracing::warn!("who wanted to give an order said nothing"),
            },
            Err(error) => {
                tracing::error!(%error, "orders cannot be taken");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn talk(mut stream: UnixStream, orders: &Orders, examiner: &Examiner) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let person = Person::of(peer.uid(), peer.pid());
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    BufReader::new(reader.take(most)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(Order::Doctor) if person.uid == 0 => Answer::Examined { report: examiner.examine() },
        Ok(order) => {
            tracing::info!(?order, by = %person.display(), "order");
            orders.carry_out(&order, person)
        }
        Err(error) => Answer::Refused { why: format!("not understood: {error}") },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
