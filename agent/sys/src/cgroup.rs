//! cgroup v2: where it is mounted, ids, members, killing.
