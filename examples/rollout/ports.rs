//! Where the containers of a pod listen.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub app: SocketAddr,
    pub traffic: SocketAddr,
    pub admin: SocketAddr,
}

impl Ports {
    /// Takes ports that are free now, on an address of 127.0.0.0/8 that nobody else uses: so nobody takes them
    /// before the pod does. Where a system has 127.0.0.1 only, it is that one.
    ///
    /// # Errors
    ///
    /// When the kernel has no port to give.
    pub fn reserve() -> std::io::Result<Self> {
        thread_local!(static PODS: Cell<u8> = const { Cell::new(1) });
        let [low, high, ..] = std::process::id().to_le_bytes();
        let own = Ipv4Addr::new(127, 64 | (high >> 2), low, PODS.replace(PODS.get().wrapping_add(1)));
        let bind = || TcpListener::bind((own, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        // All three at once, so that they differ.
        let held = [bind()?, bind()?, bind()?];
        Ok(Self { app: held[0].local_addr()?, traffic: held[1].local_addr()?, admin: held[2].local_addr()? })
    }
}
