//! Explicit congestion notification through the tunnel (RFC 6040): a router on the way marks the
//! outer header, the end that opens the datagram passes the mark on to the packet inside.
//!
//! Only these two bits cross. The other six of the byte (DSCP) are never copied out, for they say
//! what kind of traffic flows, nor in, for the network between is nobody's to trust.

use crate::fate::DropReason;
use crate::reply::fold;

/// The two bits of RFC 3168, at the end of the IPv4 TOS and the IPv6 traffic class byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The ends do not understand marks: a congested router drops.
    #[default]
    NotEct = 0b00,
    /// They do; since RFC 9331 the sender also says that it reacts in small steps (L4S).
    Ect1 = 0b01,
    /// They do.
    Ect0 = 0b10,
    /// A router on the way was congested.
    Ce = 0b11,
}

impl Ecn {
    /// From a TOS or traffic class byte.
    #[must_use]
    pub const fn from_traffic_class(byte: u8) -> Ecn {
        match byte & 0b11 {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The two bits, in the place where the byte has them.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// What an IP packet carries; `NotEct` if it is none.
    #[must_use]
    pub fn of(packet: &[u8]) -> Ecn {
        match *packet {
            [first, second, ..] if first >> 4 == 4 => Ecn::from_traffic_class(second),
            [first, second, ..] if first >> 4 == 6 => {
                Ecn::from_traffic_class(first << 4 | second >> 4)
            }
            _ => Ecn::NotEct,
        }
    }
}

/// What the outer header may say, by what is known of the other end (RFC 6040, section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It may lose marks, as wireguard-go and boringtun do: routers are not to mark but to drop,
    /// or the senders never hear of it.
    #[default]
    Compatibility,
    /// It passes marks on.
    Normal,
}

/// The outer header of a packet that enters the tunnel: RFC 6040, section 4.1.
#[must_use]
pub const fn encapsulate(inner: Ecn, mode: Mode) -> Ecn {
    match mode {
        Mode::Compatibility => Ecn::NotEct,
        Mode::Normal => inner,
    }
}

/// The inner header of a packet that leaves the tunnel: RFC 6040, figure 4.
///
/// # Errors
/// [`DropReason::EcnCe`]: the path was congested, and the ends cannot be told in another way.
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, DropReason> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(DropReason::EcnCe),
        (Ecn::NotEct, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Ok(Ecn::NotEct),
        (Ecn::Ect0, Ecn::Ect1) => Ok(Ecn::Ect1),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Ok(Ecn::Ce),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) | (Ecn::Ce, _) => Ok(inner),
    }
}

/// [`decapsulate`], done to the packet that came out of the tunnel.
///
/// # Errors
/// [`DropReason::EcnCe`]; the packet is as it was.
#[inline]
pub fn pass_on(packet: &mut [u8], outer: Ecn) -> Result<(), DropReason> {
    // Nearly all packets: it says nothing that the packet does not say.
    if outer == Ecn::NotEct {
        return Ok(());
    }
    let inner = Ecn::of(packet);
    let combined = decapsulate(inner, outer)?;
    if combined != inner {
        set(packet, combined);
    }
    Ok(())
}

/// Sets the bits of an IP packet in place; an IPv4 header checksum that was right stays right.
pub fn set(packet: &mut [u8], ecn: Ecn) {
    match packet {
        [first, second, ..] if *first >> 4 == 6 => {
            *second = *second & !0b0011_0000 | ecn.bits() << 4;
        }
        [first, second, _, _, _, _, _, _, _, _, high, low, ..] if *first >> 4 == 4 => {
            let before = u16::from_be_bytes([*first, *second]);
            *second = *second & !0b11 | ecn.bits();
            let after = u16::from_be_bytes([*first, *second]);
            // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
            let sum = u16::from_be_bytes([*high, *low]);
            let mended = fold(u32::from(!sum) + u32::from(!before) + u32::from(after));
            [*high, *low] = (!mended).to_be_bytes();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    use proptest::prelude::*;

    const ALL: [Ecn; 4] = [NotEct, Ect1, Ect0, Ce];

    /// RFC 1071, the long way: zero over a header that is right.
    fn checksum(header: &[u8]) -> u16 {
        let mut sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn v4(mut header: [u8; 20]) -> [u8; 20] {
        header[0] = 0x45;
        header[10..12].fill(0);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn bits_are_those_of_rfc_3168() {
        assert_eq!(ALL.map(Ecn::bits), [0b00, 0b01, 0b10, 0b11]);
        for byte in 0..=255 {
            assert_eq!(Ecn::from_traffic_class(byte).bits(), byte & 3);
        }
        assert_eq!(Ecn::default(), NotEct);
    }

    /// RFC 6040, section 4.1, figure 3.
    #[test]
    fn what_enters_is_copied_out_to_those_that_pass_it_on() {
        for inner in ALL {
            assert_eq!(encapsulate(inner, Mode::Normal), inner);
            assert_eq!(encapsulate(inner, Mode::Compatibility), NotEct);
        }
        assert_eq!(Mode::default(), Mode::Compatibility);
    }

    /// RFC 6040, section 4.2, figure 4, row by row.
    #[test]
    fn what_leaves_is_figure_4() {
        let drop = Err(DropReason::EcnCe);
        //   arriving outer:  Not-ECT     ECT(0)      ECT(1)      CE
        let figure = [
            (NotEct, [Ok(NotEct), Ok(NotEct), Ok(NotEct), drop]),
            (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
            (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
            (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(
                    decapsulate(inner, outer),
                    expected,
                    "{inner:?} in {outer:?}"
                );
                // The same, done to packets.
                let mut four = v4([7; 20]);
                set(&mut four, inner);
                let mut six = [0x6f; 40];
                set(&mut six, inner);
                for packet in [&mut four[..], &mut six[..]] {
                    assert_eq!(pass_on(packet, outer), expected.map(|_| ()));
                    assert_eq!(Ecn::of(packet), expected.unwrap_or(inner));
                }
                assert_eq!(checksum(&four), 0);
            }
        }
    }

    proptest! {
        #[test]
        fn setting_changes_two_bits_and_keeps_the_checksum(header: [u8; 20], pick in 0u8..4) {
            let ecn = Ecn::from_traffic_class(pick);
            let before = v4(header);
            let mut after = before;
            set(&mut after, ecn);
            prop_assert_eq!(Ecn::of(&after), ecn);
            prop_assert_eq!(checksum(&after), 0);
            prop_assert_eq!(after[1] & !3, before[1] & !3);
            prop_assert_eq!((after[0], &after[2..10], &after[12..]), (before[0], &before[2..10], &before[12..]));

            let mut before = [0x5a; 40];
            before[..20].copy_from_slice(&header);
            before[0] = 0x60 | before[0] & 0xf;
            let mut after = before;
            set(&mut after, ecn);
            prop_assert_eq!(Ecn::of(&after), ecn);
            prop_assert_eq!(after[1] & 0b1100_1111, before[1] & 0b1100_1111);
            prop_assert_eq!((after[0], &after[2..]), (before[0], &before[2..]));
        }

        /// A checksum that was wrong is not repaired: the receiver must see that.
        #[test]
        fn a_wrong_checksum_stays_wrong(header: [u8; 20], off in 1u16.., pick in 0u8..4) {
            let mut packet = v4(header);
            let sum = u16::from_be_bytes([packet[10], packet[11]]);
            packet[10..12].copy_from_slice(&sum.wrapping_add(off).to_be_bytes());
            let wrong = checksum(&packet) != 0;
            set(&mut packet, Ecn::from_traffic_class(pick));
            prop_assert_eq!(checksum(&packet) != 0, wrong);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..24), pick in 0u8..4) {
            let ecn = Ecn::from_traffic_class(pick);
            let _ = pass_on(&mut bytes, ecn);
            set(&mut bytes, ecn);
        }
    }
}
