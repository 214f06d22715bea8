//! What other agents leave in slots of the spool that nobody has any more.

use std::{sync::Arc, time::Duration};

use verbatim_ship::Adder;
use verbatim_spool::{Leftovers, Outbox};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// Has it recovered and shipped, as long as it runs.
pub(super) async fn adopt(leftovers: Leftovers, adder: Adder<Outbox>) {
    let leftovers = Arc::new(leftovers);
    loop {
        let looking = Arc::clone(&leftovers);
        match tokio::task::spawn_blocking(move || looking.adopt()).await {
            Ok(Ok(found)) => {
                for (outbox, recovered) in found {
                    tracing::info!(?recovered, "shipping what another agent has left in the spool");
                    adder.add(outbox).await;
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "what another agent has left in the spool stays there"),
            Err(error) => tracing::error!(%error, "looking for what other agents have left"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
