#!/bin/busybox sh
# `verbatim-agent run` with a client that knows nothing of it, over IPv4 and IPv6, and what the trail says
# afterwards. `run.sh refused`: the kernel lacks something, which must be told by name.
if [ "$1" = refused ]; then
    name=a_kernel_that_lacks_a_feature_is_told_by_name
else
    name=run_captures_a_client_over_ipv4_and_ipv6
fi

finish() {
    if [ "$1" = ok ]; then passed=1 failed=0; else passed=0 failed=1; cat /tmp/said; echo "$2"; fi
    echo "test $name ... $1"
    echo "test result: $1. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s"
    exit "$failed"
}

if [ "$1" = refused ]; then
    verbatim-agent run --data /tmp/trail -- true >/tmp/said 2>&1 && finish FAILED "run went on"
    grep -q "Linux [0-9.]* or later is needed\|lacks" /tmp/said || finish FAILED "it is not said what is lacking"
    REQUIRE_BPF=0 /steering --list >>/tmp/said 2>&1
    grep -q "lacks .*bpf_get_netns_cookie in sock_ops programs (Linux 5.15)" /tmp/said || finish FAILED "by another name"
    cat /tmp/said
    finish ok
fi

# A server in a namespace of its own behind a cable.
/bin/ip netns add server
/bin/ip link add far netns server type veth peer name near
/bin/ip address add 10.99.0.1/24 dev near
/bin/ip address add fd99::1/64 dev near nodad
/bin/ip link set near up
/bin/ip -n server address add 10.99.0.2/24 dev far
/bin/ip -n server address add fd99::2/64 dev far nodad
/bin/ip -n server link set far up
/bin/ip -n server link set lo up
echo hello >/www/four.html
echo hello >/www/six.html
/bin/ip netns exec server httpd -p 80 -h /www
verbatim-agent run --data /tmp/trail -- sh -c \
    'wget -q -O - http://10.99.0.2/four.html && wget -q -O - http://[fd99::2]/six.html' >/tmp/said 2>&1 ||
    finish FAILED "run failed"
[ "$(grep -c '^hello$' /tmp/said)" = 2 ] || finish FAILED "the client did not get what it asked for"
verbatim --data /tmp/trail records --output json >/tmp/records 2>&1 || { cat /tmp/records; finish FAILED "no records"; }
for page in four six; do
    grep -q "$page.html" /tmp/records || { cat /tmp/records; finish FAILED "$page.html is not on record"; }
done
finish ok
