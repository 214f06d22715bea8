//! What a workload does with sockets beside connecting them: other kinds, other hands, other places.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use verbatim_sys::packets::{PacketListener, Packets};

use crate::{
    echo,
    proxy::fields,
    workload::{destination, make, report},
};

/// How long an answer may take that is not to come.
const SILENCE: Duration = Duration::from_millis(700);
/// The same for one that is: more than a loaded machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A workload's socket from one order to the next.
#[derive(Default)]
pub(crate) struct Kept(Option<Socket>);

impl Kept {
    pub(crate) fn act(&mut self, verb: &str, order: &str) -> io::Result<String> {
        match verb {
            "datagram" => datagram(order),
            "socket" => socket(order),
            "run" => run(order),
            "move" => move_to(Path::new(fields(order)["cgroup"])),
            "nest" => nest(Path::new(fields(order)["cgroup"])),
            "relay" => relay(order),
            "unix" => unix(Path::new(fields(order)["path"])),
            "offer" => offer(order),
            "serve" => serve(order),
            "adopt" => self.adopt(Path::new(fields(order)["path"])),
            "make" => self.make(order),
            "open" => self.open(order),
            "finish" => self.finish(order),
            "say" => self.say(order),
            _ => Ok(format!("what is {verb}?")),
        }
    }

    /// Keeps a socket that is not connected yet.
    fn make(&mut self, order: &str) -> io::Result<String> {
        self.0 = Some(make(order, destination(order))?);
        Ok("made".to_owned())
    }

    /// Takes one from whoever offers it under a path.
    fn adopt(&mut self, path: &Path) -> io::Result<String> {
        let packet = Packets::connect(path)?.receive()?;
        let descriptor = packet.and_then(|mut packet| packet.descriptors.pop());
        self.0 = Some(descriptor.ok_or(io::ErrorKind::UnexpectedEof)?.into());
        Ok("adopted".to_owned())
    }

    fn kept(&self) -> io::Result<&Socket> {
        self.0.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Connects what is kept, and says what came of it.
    fn finish(&self, order: &str) -> io::Result<String> {
        let socket = self.kept()?;
        socket.connect(&destination(order).into())?;
        report(socket)
    }

    /// Connects, and keeps the connection.
    fn open(&mut self, order: &str) -> io::Result<String> {
        let to = destination(order);
        let socket = make(order, to)?;
        socket.connect(&to.into())?;
        self.0 = Some(socket);
        Ok("open".to_owned())
    }

    /// Says a word on what is kept and reads the answer; none is expected with `unheard=1`.
    fn say(&self, order: &str) -> io::Result<String> {
        let (mut socket, fields) = (self.kept()?, fields(order));
        let patience = if fields.contains_key("unheard") { SILENCE } else { PATIENCE };
        socket.set_read_timeout(Some(patience))?;
        socket.write_all(format!("{}\n", fields["word"]).as_bytes())?;
        let mut buffer = [0; 64];
        match socket.read(&mut buffer) {
            Ok(0) => Ok("end".to_owned()),
            Ok(length) => Ok(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok("silence".to_owned()),
            Err(error) => Err(error),
        }
    }
}

/// Sends one datagram, with `connected` after connect().
fn datagram(order: &str) -> io::Result<String> {
    let to = destination(order);
    let own: SocketAddr = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("address");
    let socket = UdpSocket::bind(own)?;
    if fields(order).contains_key("connected") {
        socket.connect(to)?;
        socket.send(b"datagram")?;
    } else {
        socket.send_to(b"datagram", to)?;
    }
    Ok("sent".to_owned())
}

/// Makes a socket of this family, type and protocol.
fn socket(order: &str) -> io::Result<String> {
    let fields = fields(order);
    let number = |key: &str| fields[key].parse::<i32>().expect("number");
    let (family, kind) = (Domain::from(number("family")), Type::from(number("type")));
    Socket::new(family, kind, Some(Protocol::from(number("protocol"))))?;
    Ok("made".to_owned())
}

/// Runs a program, whose last line is the answer.
fn run(order: &str) -> io::Result<String> {
    let mut words = order.split(' ');
    let output = Command::new(words.next().unwrap_or_default()).args(words).output()?;
    let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

fn move_to(cgroup: &Path) -> io::Result<String> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())?;
    Ok("moved".to_owned())
}

fn nest(cgroup: &Path) -> io::Result<String> {
    fs::create_dir(cgroup)?;
    move_to(cgroup)
}

/// Listens under a path and passes on, once, what a connection of its own to `destination` says.
fn relay(order: &str) -> io::Result<String> {
    let listener = UnixListener::bind(fields(order)["path"])?;
    let order = order.to_owned();
    thread::spawn(move || -> io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let to = destination(&order);
        let socket = make(&order, to)?;
        socket.connect(&to.into())?;
        writeln!(client, "{}", report(&socket)?)
    });
    Ok("relaying".to_owned())
}

/// Connects to a path and says what is read there.
fn unix(path: &Path) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(UnixStream::connect(path)?).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Makes a socket and gives it, once, to whoever asks under a path.
fn offer(order: &str) -> io::Result<String> {
    let listener = PacketListener::bind(Path::new(fields(order)["path"]))?;
    let socket = make(order, destination(order))?;
    thread::spawn(move || -> io::Result<()> { listener.accept()?.send(b"socket", &[socket.as_fd()]) });
    Ok("offered".to_owned())
}

/// Answers each line of its clients; with `once` of one alone, and its listener is gone by then.
fn serve(order: &str) -> io::Result<String> {
    let fields = fields(order);
    let listener = TcpListener::bind(fields["address"])?;
    let once = fields.contains_key("once");
    thread::spawn(move || -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            if once {
                drop(listener);
                echo::serve(&stream);
                return Ok(());
            }
            thread::spawn(move || echo::serve(&stream));
        }
    });
    Ok("serving".to_owned())
}
