# The data plane: sockets, memory, AF_XDP; next to no files.
abi <abi/3.0>,
include <tunables/global>

profile vcfwd-dataplane /usr/lib/vcfwd/vcfwd-dataplane flags=(attach_disconnected) {
  include <abstractions/base>

  capability net_raw,
  capability net_admin,
  capability bpf,
  capability ipc_lock,
  capability sys_nice,
  capability setpcap,

  network unix seqpacket,
  network inet dgram,
  network inet6 dgram,
  network netlink raw,
  network xdp raw,
  unix,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=vcfwd-dataplane,

  /usr/lib/vcfwd/vcfwd-dataplane mr,
  /etc/ssl/openssl.cnf r,
  /usr/lib/ssl/openssl.cnf r,
  /run/vcfwd/ r,
  /run/vcfwd/dataplane.* rwk,
  # Memory that both processes hold comes as descriptors.
  /memfd:vcfwd-* rw,
  # Huge pages: a nameless file of the kernel's own.
  / r,
  /proc/@{pid}/** r,
  /proc/@{pid}/task/*/comm rw,
  /sys/devices/system/** r,
  /sys/kernel/mm/hugepages/** r,
  /sys/class/net/** r,
  /sys/devices/**/net/** r,

  include if exists <local/usr.lib.vcfwd.vcfwd-dataplane>
}
