//! Connections of HTTP, between a client and a server that the tests play.

mod chains;
mod decisions;
mod ends;
mod records;
mod services;

use crate::support::{
    Options, World,
    origin::{Client, Origin},
};

/// What a scenario works with.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) origin: Origin,
}

impl Scene {
    pub(crate) async fn http1(&self) -> Client {
        Client::http1(&self.world, 0).await
    }

    pub(crate) async fn http2(&self) -> Client {
        Client::http2(&self.world, 0).await
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.world.spool().story()
    }
}

/// Plays a scenario.
pub(crate) fn play_with(options: Options, scenario: impl AsyncFnOnce(&Scene)) {
    let world = World::start(options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scene = {
        let _inside = runtime.enter();
        Scene { origin: Origin::serve(&world.server), world }
    };
    runtime.block_on(scenario(&scene));
}

pub(crate) fn play(scenario: impl AsyncFnOnce(&Scene)) {
    play_with(Options::default(), scenario);
}
