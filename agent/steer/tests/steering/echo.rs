//! A server that holds its connections and answers each line with `echo <line>`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::lab::Netns;

/// Serves until the test's process ends; its listener goes when it is dropped.
pub(crate) struct Echo {
    pub(crate) port: u16,
    listener: TcpListener,
    open: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) fn on(netns: &Netns, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("address");
        let listener = netns.within(|| TcpListener::bind((address, 0)).expect("listen"));
        let accepting = listener.try_clone().expect("descriptor");
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(stream) = stream else { return };
                count.fetch_add(1, Ordering::Relaxed);
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    serve(&stream);
                    count.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { port: listener.local_addr().expect("port").port(), listener, open }
    }

    /// Connections that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Ends the thread that accepts.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).ok();
    }
}

/// Answers each line.
pub(crate) fn serve(stream: &TcpStream) {
    let (reader, mut writer) = (BufReader::new(stream), stream);
    for line in reader.lines() {
        let Ok(line) = line else { return };
        if writer.write_all(format!("echo {line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// A datagram socket of somebody, to see what reaches it.
pub(crate) fn datagrams(netns: &Netns, address: &str, port: u16) -> UdpSocket {
    let address: IpAddr = address.parse().expect("address");
    let socket = netns.within(|| UdpSocket::bind((address, port)).expect("bind"));
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

/// How many datagrams have come.
pub(crate) fn received(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 64];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}
