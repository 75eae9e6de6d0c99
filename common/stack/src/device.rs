//! What smoltcp takes for a network interface: one packet in, a few out, no waiting.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// For the time of one call.
pub(crate) struct Wire<'a> {
    mtu: usize,
    input: Option<&'a [u8]>,
    output: Vec<Vec<u8>>,
    room: usize,
}

impl<'a> Wire<'a> {
    /// `input` comes in; at most `room` packets go out.
    pub(crate) fn new(mtu: usize, input: Option<&'a [u8]>, room: usize) -> Self {
        Wire {
            mtu,
            input,
            output: Vec::new(),
            room,
        }
    }

    /// What went out.
    pub(crate) fn into_output(self) -> Vec<Vec<u8>> {
        self.output
    }
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Input<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Output<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Input<'_>, Output<'_>)> {
        let packet = self.input.take()?;
        // Ingress may answer once, and has its own check of room before it is called.
        Some((Input(packet), Output(&mut self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Output<'_>> {
        (self.output.len() < self.room).then_some(Output(&mut self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

pub(crate) struct Input<'a>(&'a [u8]);

impl RxToken for Input<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

pub(crate) struct Output<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Output<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}
