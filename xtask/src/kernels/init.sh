#!/bin/busybox sh
# The guest's first process: what a machine has mounted, then each part of its work, then off.
export PATH=/bin HOME=/tmp
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*; do insmod "$module"; done
/bin/ip link set lo up
uname -r

# Nothing is skipped for want of permissions here; emulated, fewer connections must do.
export REQUIRE_BPF=1 VERBATIM_HAND_OFFS=@hand-offs@

part() {
    echo "@begin $*"
    "$@"
    echo "@end $?"
}

@work@
poweroff -f
