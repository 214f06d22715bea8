//! Sizes and offsets that both sides rely on. A change here means a new schema version.

use core::mem::{align_of, offset_of, size_of};

use crate::*;

/// Asserts each field's offset, and that field after field leaves no gap up to the struct's size:
/// implicit padding would be read uninitialised by the kernel and would break map keys.
macro_rules! layout {
    ($name:ty, size $size:literal, align $align:literal, { $($field:ident: $kind:ty = $offset:literal),+ $(,)? }) => {
        let mut end = 0;
        $(
            assert_eq!(offset_of!($name, $field), $offset, concat!(stringify!($name), ".", stringify!($field)));
            assert_eq!(end, $offset, concat!("padding before ", stringify!($name), ".", stringify!($field)));
            let _: fn($name) -> $kind = |value| value.$field;
            end = $offset + size_of::<$kind>();
        )+
        assert_eq!(end, $size, concat!("padding at the end of ", stringify!($name)));
        assert_eq!(size_of::<$name>(), $size);
        assert_eq!(align_of::<$name>(), $align);
    };
}

#[test]
fn address_is_four_words() {
    assert_eq!((size_of::<Address>(), align_of::<Address>()), (16, 4));
}

#[test]
fn config_has_its_layout() {
    layout!(Config, size 56, align 8, {
        heartbeat_timeout_nanos: u64 = 0,
        host_netns: u64 = 8,
        host_v4: Address = 16,
        host_v6: Address = 32,
        host_port: u16 = 48,
        default_verdict: Verdict = 50,
        reserved: [u8; 4] = 52,
    });
}

#[test]
fn bypass_has_its_layout() {
    layout!(Bypass, size 296, align 8, {
        until_nanos: u64 = 0,
        since_nanos: u64 = 8,
        counted_before: u64 = 16,
        uid: u32 = 24,
        login: u32 = 28,
        reason_bytes: u32 = 32,
        recorded: u32 = 36,
        reason: [u8; Bypass::REASON_BYTES] = 40,
    });
}

#[test]
fn verdict_has_its_layout() {
    layout!(Verdict, size 2, align 1, { action: u8 = 0, fail_mode: u8 = 1 });
}

#[test]
fn destination_has_its_layout() {
    layout!(Destination, size 20, align 4, {
        port: [u8; 2] = 0,
        protocol: u8 = 2,
        reserved: u8 = 3,
        address: Address = 4,
    });
    assert_eq!(Destination::BITS as usize, size_of::<Destination>() * 8);
    assert_eq!(Destination::FIXED_BITS as usize, offset_of!(Destination, address) * 8);
}

#[test]
fn target_has_its_layout() {
    layout!(Target, size 72, align 4, {
        listen_v4: Address = 0,
        listen_v6: Address = 16,
        shown_v4: Address = 32,
        shown_v6: Address = 48,
        port: u16 = 64,
        has_v6_route: u8 = 66,
        reserved: [u8; 5] = 67,
    });
}

#[test]
fn flow_has_its_layout() {
    layout!(Flow, size 256, align 8, {
        destination: Address = 0,
        shown_source: Address = 16,
        cgroup_id: u64 = 32,
        cgroups_by_level: [u64; LEVELS] = 40,
        client_netns: u64 = 168,
        listener_netns: u64 = 176,
        socket_cookie: u64 = 184,
        ktime_nanos: u64 = 192,
        comm: [u8; 16] = 200,
        pid: u32 = 216,
        tid: u32 = 220,
        uid: u32 = 224,
        gid: u32 = 228,
        port: u16 = 232,
        family: u8 = 234,
        protocol: u8 = 235,
        route: u8 = 236,
        reserved: [u8; 3] = 237,
        series: u64 = 240,
        number: u64 = 248,
    });
}

#[test]
fn flow_key_has_its_layout() {
    layout!(FlowKey, size 32, align 8, {
        client: Address = 0,
        listener_netns: u64 = 16,
        client_port: u16 = 24,
        listener_port: u16 = 26,
        reserved: [u8; 4] = 28,
    });
}

#[test]
fn connect_key_and_count_have_their_layout() {
    layout!(ConnectKey, size 32, align 8, {
        cgroup_id: u64 = 0,
        address: Address = 8,
        port: u16 = 24,
        protocol: u8 = 26,
        outcome: u8 = 27,
        reserved: [u8; 4] = 28,
    });
    layout!(ConnectCount, size 24, align 8, { series: u64 = 0, connects: u64 = 8, connected: u64 = 16 });
}

#[test]
fn event_has_its_layout() {
    layout!(Event, size 56, align 8, {
        ktime_nanos: u64 = 0,
        netns: u64 = 8,
        cgroup_id: u64 = 16,
        address: Address = 24,
        pid: u32 = 40,
        suppressed: u32 = 44,
        port: u16 = 48,
        kind: u8 = 50,
        protocol: u8 = 51,
        reserved: [u8; 4] = 52,
    });
}

#[test]
fn mark_has_its_layout() {
    layout!(Mark, size 16, align 8, {
        creator_cgroup: u64 = 0,
        epoch: u32 = 8,
        creator_verdict: Verdict = 12,
        state: u8 = 14,
        reserved: u8 = 15,
    });
}

#[test]
fn stray_has_its_layout() {
    layout!(Stray, size 48, align 8, {
        cgroup_id: u64 = 0,
        local: Address = 8,
        remote: Address = 24,
        local_port: u16 = 40,
        remote_port: u16 = 42,
        family: u8 = 44,
        dropped: u8 = 45,
        reserved: [u8; 2] = 46,
    });
}

#[test]
fn rate_window_has_its_layout() {
    layout!(RateWindow, size 16, align 8, { since_nanos: u64 = 0, sent: u32 = 8, suppressed: u32 = 12 });
}

#[test]
fn numbers_in_maps_keep_their_meaning() {
    assert_eq!([Action::Pass as u8, Action::Steer as u8, Action::Deny as u8], [0, 1, 2]);
    assert_eq!([FailMode::Open as u8, FailMode::Closed as u8], [0, 1]);
    assert_eq!([Route::InPod as u8, Route::Host as u8, Route::Unrouted as u8], [1, 2, 3]);
    let states = [MarkState::Unseen, MarkState::Exempt, MarkState::Reported, MarkState::Dropped];
    assert_eq!(states.map(|state| state as u8), [0, 1, 2, 3]);
    for number in 1..=15 {
        assert_eq!(EventKind::from_number(number).map(|kind| kind as u8), Some(number));
    }
    assert_eq!(EventKind::from_number(0), None);
    assert_eq!(EventKind::from_number(16), None);
}
