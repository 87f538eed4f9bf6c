# Run in namespaces of its own: a throw-away layer over the Debian in $1, $2 as /share, then systemd.
root=/mnt/root
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work $root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" $root
mkdir $root/share
mount --bind "$2" $root/share
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $root/run
mount -t tmpfs tmpfs $root/tmp
mount -t tmpfs -o mode=755 tmpfs $root/dev
for device in null zero full random urandom tty; do cp -a /dev/$device $root/dev/; done
mkdir $root/dev/pts $root/dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts $root/dev/pts
ln -s pts/ptmx $root/dev/ptmx
ln -s /proc/self/fd $root/dev/fd
ln -s /share/console $root/dev/console
cp "$2/script.service" $root/etc/systemd/system/
: > $root/etc/machine-id
ip link set lo up
cd $root
exec env -i container=vcfwd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	chroot . /lib/systemd/systemd --unit=script.service --log-target=console
