//! Sockets: options that std does not know, peers of Unix sockets.
